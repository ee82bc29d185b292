"""PAN: pyramid attention on the coarsest feature, and three steps up in which the coarser level weights the finer one.

Li, Xiong, An, Wang: "Pyramid attention network for semantic segmentation", BMVC 2018. Here it learns from image labels,
as a rival of PYLON in its paper: the map, at a quarter of the side, has the image's logit as its maximum.

PYLON's decoder is this one's descendant, and the attention here is PYLON's code. What PYLON dropped is the average of
all cells, which PAN uses twice: it is added to every cell after the attention, and in each step up it weights the finer
feature's channels. ``average_branch="without"`` drops both, as the PYLON paper's code does.

What differs from segmentation_models_pytorch, where the steps up are from: the attention takes any side that is a
multiple of 32, as PYLON's does, in place of 256 pixels and more; from multiples of 256 the numbers are the same.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from segmentation_models_pytorch.decoders.pan.decoder import PANDecoder
from torch import Tensor, nn

from radtag.models.backbone import BackboneOptions
from radtag.models.output import Pooling
from radtag.models.pylon import PyramidAttention, conv_bn_relu
from radtag.models.segmenter import Segmenter, initialise, pyramid


class PanOptions(BaseModel):
    """PAN's own settings; the defaults are the PYLON paper's.

    Attributes:
        average_branch: "with" is as published; "without" leaves out every average over all cells.
        decoder_channels: channels of every decoder feature.
        pool: how a map becomes an image's logit; the PYLON paper's is "max".
        sharpness: r of the "lse" pooling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    average_branch: Literal["with", "without"] = "with"
    decoder_channels: int = Field(default=128, ge=1)
    pool: Pooling = "max"
    sharpness: float = Field(default=10.0, gt=0)


class AveragedAttention(nn.Module):
    """PYLON's pyramid attention, and the average of all cells added to each: PAN's feature pyramid attention."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.attention = PyramidAttention(channels, width)
        self.average = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn_relu(channels, width, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x) + self.average(x)


class Unweighted(nn.Module):
    """Stands where the coarser level's average weights the finer one's channels: the same for all, 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_ones(())


def build(
    findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None
) -> Segmenter:
    """PAN with a random decoder; see :class:`PanOptions` for ``options``."""
    own = PanOptions.model_validate(options)
    encoder, channels = pyramid(backbone, size_px)
    decoder = PANDecoder(channels, encoder_depth=5, decoder_channels=own.decoder_channels)
    attention = AveragedAttention if own.average_branch == "with" else PyramidAttention
    decoder.fpa = attention(channels[-1], own.decoder_channels)
    if own.average_branch == "without":
        for up in (decoder.gau3, decoder.gau2, decoder.gau1):
            up.conv1 = Unweighted()
    head = nn.Conv2d(own.decoder_channels, findings, kernel_size=3, padding=1)
    initialise(decoder, head)
    return Segmenter(encoder, decoder, head, own)
