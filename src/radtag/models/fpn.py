"""FPN: every feature of the encoder passes down a pyramid, and the four levels are added at a quarter of the side.

Kirillov, Girshick, He, Dollár: "Panoptic feature pyramid networks", CVPR 2019; the decoder is
segmentation_models_pytorch's. Here it learns from image labels, as a rival of PYLON in its paper: the map's maximum is
the image's logit.

GroupNorm, which it was published with and the package has, normalises by the mean over the whole image: a cell then
knows of every other one. The PYLON paper finds that this ruins class maps, and trains it with BatchNorm, the default
here, too.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from torch import nn

from radtag.models.backbone import BackboneOptions
from radtag.models.output import Pooling
from radtag.models.segmenter import Segmenter, initialise, pyramid


class FpnOptions(BaseModel):
    """FPN's own settings; the defaults are the PYLON paper's.

    Attributes:
        norm: of the levels' convolutions; "groupnorm" is as published, with 32 groups.
        pyramid_channels: channels of the pyramid.
        decoder_channels: channels of each level after it, a multiple of 32 (the groups of "groupnorm").
        dropout: share of the channels left out before the head; the package's is 0.2.
        pool: how a map becomes an image's logit; the PYLON paper's is "max".
        sharpness: r of the "lse" pooling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    norm: Literal["batchnorm", "groupnorm"] = "batchnorm"
    pyramid_channels: int = Field(default=256, ge=1)
    decoder_channels: int = Field(default=128, ge=32, multiple_of=32)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    pool: Pooling = "max"
    sharpness: float = Field(default=10.0, gt=0)


def build(
    findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None
) -> Segmenter:
    """FPN with a random decoder; see :class:`FpnOptions` for ``options``."""
    own = FpnOptions.model_validate(options)
    encoder, channels = pyramid(backbone, size_px)
    decoder = FPNDecoder(
        channels,
        pyramid_channels=own.pyramid_channels,
        segmentation_channels=own.decoder_channels,
        dropout=own.dropout,
    )
    if own.norm == "batchnorm":
        _with_batchnorm(decoder)
    head = nn.Conv2d(own.decoder_channels, findings, kernel_size=1)
    initialise(decoder, head)
    return Segmenter(encoder, decoder, head, own)


def _with_batchnorm(decoder: nn.Module) -> None:
    """Puts a BatchNorm in the place of each GroupNorm."""
    for parent in list(decoder.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, nn.BatchNorm2d(child.num_channels))
