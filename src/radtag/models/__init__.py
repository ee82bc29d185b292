"""One method, one file. A model takes images and gives logits and maps, and knows nothing else.

============= =================================== ==================================================
method        file                                paper
============= =================================== ==================================================
pylon         :mod:`radtag.models.pylon`          Preechakul et al., iScience 25(3), 2022
cam           :mod:`radtag.models.cam`            Zhou et al., CVPR 2016
li2018        :mod:`radtag.models.li2018`         Li et al., CVPR 2018
unet          :mod:`radtag.models.unet`           Ronneberger et al., MICCAI 2015
fpn           :mod:`radtag.models.fpn`            Kirillov et al., CVPR 2019
deeplabv3plus :mod:`radtag.models.deeplabv3plus`  Chen et al., ECCV 2018
pan           :mod:`radtag.models.pan`            Li et al., BMVC 2018
taggan        :mod:`radtag.models.taggan`         Nawaz et al., 2025
vagan         :mod:`radtag.models.vagan`          Baumgartner et al., CVPR 2018
guided        :mod:`radtag.models.guided`         ours: PYLON's evidence guides TagGAN
student       :mod:`radtag.models.student`        U-Net and its kin, on masks that a run proposed
============= =================================== ==================================================

The segmentation networks from unet to pan are PYLON's rivals in its paper: trained on image labels, by the maximum of
their maps; what they share is :mod:`radtag.models.segmenter`.

A new method is a file with a ``build(findings, backbone, options, size_px)`` function and a line in :data:`METHODS`.
One of two sides has a function ``game(findings, backbone, options, seen)`` too, and a line in :data:`GAMES`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError
from torch import nn

from radtag.errors import BadSetting
from radtag.models.backbone import BackboneOptions
from radtag.models.output import Output
from radtag.words import own_words

if TYPE_CHECKING:
    from radtag.models.game import Game, Seen

CLASSIFIERS = {
    "pylon": "radtag.models.pylon",
    "cam": "radtag.models.cam",
    "li2018": "radtag.models.li2018",
    "unet": "radtag.models.unet",
    "fpn": "radtag.models.fpn",
    "deeplabv3plus": "radtag.models.deeplabv3plus",
    "pan": "radtag.models.pan",
}
GAMES = {"taggan": "radtag.models.taggan", "vagan": "radtag.models.vagan", "guided": "radtag.models.guided"}
STUDENTS = {"student": "radtag.models.student"}
METHODS = CLASSIFIERS | GAMES | STUDENTS


def refuse_unknown(method: str) -> None:
    """Refuses a method that does not exist; cheap, so that it can be asked before anything is read.

    Raises:
        BadSetting: an unknown method.
    """
    if method not in METHODS:
        raise BadSetting(f"unknown method {method!r}; use one of {', '.join(METHODS)}.")


def build(
    method: str, findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None
) -> nn.Module:
    """A model whose ``forward(images)`` takes (batch, channel, row, col) float32 and gives an :class:`Output`.

    Args:
        method: a key of :data:`METHODS`.
        findings: how many findings it tells apart.
        backbone: the encoder.
        options: the method's own settings, as its file documents them.
        size_px: side of the square input; needed for backbones that are made for one size (transformers).

    Raises:
        BadSetting: an unknown method or option, or a backbone that does not fit.
    """
    refuse_unknown(method)
    with _refused_options(method):
        return import_module(METHODS[method]).build(findings, backbone, options, size_px)


def new_game(method: str, findings: int, backbone: BackboneOptions, options: dict[str, object], seen: Seen) -> Game:
    """Both sides of an adversarial method, for training.

    Args:
        method: a key of :data:`GAMES`.
        findings: how many findings it tells apart.
        backbone: the encoder.
        options: the method's own settings, as its file documents them.
        seen: how the networks see an image.

    Raises:
        BadSetting: an unknown method or option, or a backbone that does not fit.
    """
    if method not in GAMES:
        raise BadSetting(f"{method!r} has no two sides; use one of {', '.join(GAMES)}.")
    with _refused_options(method):
        return import_module(GAMES[method]).game(findings, backbone, options, seen)


def all_options(method: str, options: dict[str, object]) -> dict[str, object]:
    """A method's own settings with its defaults, as plain values.

    Args:
        method: a key of :data:`METHODS`.
        options: those that differ from the defaults.

    Raises:
        BadSetting: an unknown method or option.
    """
    refuse_unknown(method)
    module = import_module(METHODS[method])
    kinds = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, BaseModel)]
    (kind,) = (one for one in kinds if one.__module__ == module.__name__)
    with _refused_options(method):
        return kind.model_validate(options).model_dump(mode="json", exclude_none=True)


@contextmanager
def _refused_options(method: str) -> Iterator[None]:
    """Says which of a method's own settings is refused."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""  # what follows is which of its types was tried last
        if first["type"] == "extra_forbidden":
            known = list(getattr(import_module(METHODS[method]), error.title).model_fields)
            near = get_close_matches(name, known, n=1)
            advice = f"Did you mean options.{near[0]}?" if near else f"Its settings: {', '.join(known)}."
            raise BadSetting(f"{method} has no setting options.{name}. {advice}") from error
        told = own_words(first["msg"])
        setting = f"setting options.{name}" if name else "settings options"  # of several that do not fit each other
        raise BadSetting(
            f"{setting} = {first['input']!r} of {method}: {told}. docs/methods/{method}.md lists its settings."
        ) from error


__all__ = [
    "CLASSIFIERS",
    "GAMES",
    "METHODS",
    "STUDENTS",
    "BackboneOptions",
    "Output",
    "all_options",
    "build",
    "new_game",
    "refuse_unknown",
]
