"""The run folder: all that tagging needs, and nothing that is executed when it is loaded.

======================= ==========================================================================
run.toml                resolved settings, findings, normalisation, grids, calibration
weights.safetensors     the kept weights
card.json, card.md      what data, what numbers, what limits
log.jsonl, log.csv      an epoch a line, or a look of two sides
curves.png              losses and AUROC
strips/                 pictures of each look of two sides
lungs/                  the run that outlines lungs for it, if it is shown nothing else
seen.npz                which image files were trained on and chosen by (:mod:`radtag.data.seen`)
resume.pt               tensors to go on from, while training; gone when it is done
======================= ==========================================================================

Every file is written under a temporary name and renamed.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from radtag.calibration import Calibration
from radtag.data.files import held
from radtag.data.prepare import Mask, prepare
from radtag.errors import BadRun
from radtag.geometry import Frame, Grid
from radtag.images import Image
from radtag.models import all_options, build
from radtag.models.game import Seen
from radtag.train.settings import Settings, settings_class

FORMAT = 1

_BEFORE: dict[str, dict[str, object]] = {
    game: {"witness": False, "witness_spread": 0.0} for game in ("taggan", "guided")
}
"""Method -> what it did before an option for it existed; a run stays what it is."""


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keeps a run folder for one training; two at once would write over each other's place to go on from.

    Raises:
        BadRun: another process is at it.
    """
    file = out.with_name(f".{out.name}.lock")
    with held(file, BadRun(f"another process is training into {out}. Wait for it, or give another --out.")):
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Run:
    """A trained localiser on disk.

    Args:
        path: the folder.
        settings: as resolved for training.
        findings: names, in the order of the model's outputs.
        mean: of the pixels on the 0-1 scale, for normalisation.
        sd: their standard deviation.
        grids: where the cells of each finding's map were measured to look, in pixels of the network's input.
        calibration: of scores and maps, from validation images.
        card: what data, what numbers, what limits.
        options: the method's own settings with the defaults of when it was trained; None = those of now.
    """

    path: Path
    settings: Settings
    findings: tuple[str, ...]
    mean: float
    sd: float
    grids: tuple[Grid, ...]
    calibration: Calibration
    card: Mapping[str, Any]
    options: Mapping[str, object] | None = None

    @property
    def resolved_options(self) -> dict[str, object]:
        """The method's own settings, all of them: defaults may change, and a run stays what it is."""
        return dict(self.options or all_options(self.settings.method, self.settings.options))

    @property
    def size_px(self) -> int:
        """Side of the network's input."""
        return self.settings.size_px

    @property
    def channels(self) -> int:
        """Input channels of the network."""
        return self.settings.backbone.channels

    @property
    def fit(self) -> str:
        """How an image is fitted into the network's square."""
        return self.settings.fit

    @property
    def tile_grid(self) -> Grid:
        """The published way to lay a map: every cell at the centre of its tile."""
        return Grid.tiles(self.grids[0].size_rc, (self.size_px, self.size_px))

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """Read a run folder.

        Raises:
            BadRun: a folder that is no run, is unfinished, or is damaged.
        """
        path = Path(path)
        file = path / "run.toml"
        if not file.is_file():
            if (path / "resume.pt").is_file():
                raise BadRun(f"{path}: training has not ended. Run the same train command again to go on.")
            raise BadRun(f"{path} is not a run: it has no run.toml. Give the folder that train wrote with --out.")
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise BadRun(
                    f"{file}: format {values['format']}, this version reads {FORMAT}. Use the radtag that made it."
                )
            method, options = values["settings"]["method"], values.get("options")
            return cls(
                path=path,
                settings=settings_class(method).model_validate(values["settings"]),
                findings=tuple(values["findings"]),
                mean=values["mean"],
                sd=values["sd"],
                grids=_grids(values["grid"], len(values["findings"])),
                calibration=Calibration.from_dict(values["calibration"]),
                card=json.loads((path / "card.json").read_text(encoding="utf-8")),
                # Older runs name no option, and have today's defaults.
                options={**_BEFORE.get(method, {}), **options} if options else None,
            )
        except (OSError, KeyError, TypeError, ValueError, ValidationError) as error:
            raise BadRun(
                f"{path}: the run is damaged ({type(error).__name__}: {error}). Train again, or restore it."
            ) from error

    def save(self, weights: Mapping[str, Tensor]) -> None:
        """Write the folder; ``run.toml`` comes last, so that a folder with one is whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / "weights.safetensors.tmp"
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, temporary)
        os.replace(temporary, self.path / "weights.safetensors")
        write_text(self.path / "card.json", json.dumps(self.card, indent=2) + "\n")
        write_text(self.path / "card.md", card_page(self.card))
        values = {
            "format": FORMAT,
            "findings": list(self.findings),
            "mean": self.mean,
            "sd": self.sd,
            "settings": self.settings.model_dump(exclude_none=True),
            "options": self.resolved_options,
            "grid": {
                "size_rc": list(self.grids[0].size_rc),
                "scale_rc": [list(grid.scale_rc) for grid in self.grids],
                "offset_rc": [list(grid.offset_rc) for grid in self.grids],
            },
            "calibration": self.calibration.to_dict(),
        }
        write_text(self.path / "run.toml", tomli_w.dumps(values))

    def build_model(self) -> nn.Module:
        """The network with its weights, in eval mode, in channels-last memory (seven times faster on a CPU).

        Raises:
            BadRun: weights that are missing, damaged, or another network's.
        """
        model = build(
            self.settings.method, len(self.findings), self.settings.backbone, self.resolved_options, self.size_px
        )
        file = self.path / "weights.safetensors"
        try:
            model.load_state_dict(load_file(file))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise BadRun(f"{file}: {str(error).splitlines()[0]}. Restore the file, or train again.") from error
        return model.to(memory_format=torch.channels_last).eval()

    def prepare(self, image: Image, field: Mask | None = None) -> tuple[NDArray[np.uint8], Frame]:
        """An image as the network takes it: (size_px, size_px) uint8, and the frame back to its own pixels.

        Args:
            image: any image.
            field: (row, col) all that the network is to be shown of it; None = the whole image.
        """
        return prepare(image, self.size_px, self.settings.fit, field)

    def normalise(self, batch: Tensor) -> Tensor:
        """(batch, row, col) uint8 -> (batch, channel, row, col) float32, channels last."""
        return normalise(batch.float().div_(255), self.mean, self.sd, self.channels)


def _grids(values: Mapping[str, Any], findings: int) -> tuple[Grid, ...]:
    """A grid per finding, from a run's file; one spacing and offset stand for all findings."""
    rows, cols = values["size_rc"]
    spacings, offsets = (
        np.broadcast_to(np.array(values[key], dtype=np.float64), (findings, 2)).tolist()
        for key in ("scale_rc", "offset_rc")
    )
    return tuple(
        Grid((rows, cols), (spacing[0], spacing[1]), (offset[0], offset[1]))
        for spacing, offset in zip(spacings, offsets, strict=True)
    )


def normalise(images: Tensor, mean: float, sd: float, channels: int) -> Tensor:
    """(batch, row, col) in 0-1 -> (batch, channel, row, col), normalised, channels last."""
    return Seen(mean, sd, channels)(images)


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = file.with_name(file.name + ".tmp")
    # Of a file's name that is not UTF-8 the odd bytes are spelled out.
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, file)


def card_page(card: Mapping[str, Any], title: str = "Run card", level: int = 1) -> str:
    """A card as Markdown: a heading, a list, sub-headings for nested parts."""
    lines = [f"{'#' * level} {title}", ""]
    nested = {key: value for key, value in card.items() if isinstance(value, Mapping)}
    for key, value in card.items():
        if key not in nested:
            shown = value
            if isinstance(value, list | tuple):  # sentences or words
                shown = (" " if any(str(one).endswith(".") for one in value) else ", ").join(map(str, value))
            lines.append(f"- {key.replace('_', ' ')}: {shown}")
    lines.append("")
    for key, value in nested.items():
        lines.append(card_page(value, key.replace("_", " ").capitalize(), level + 1))
    return "\n".join(lines)
