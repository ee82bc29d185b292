"""DeepLabV3+: dilated convolutions of several rates on a feature of stride 16, joined with the one of stride 4.

Chen, Zhu, Papandreou, Schroff, Adam: "Encoder-decoder with atrous separable convolution for semantic image
segmentation", ECCV 2018; the decoder is segmentation_models_pytorch's. Here it learns from image labels, as a rival of
PYLON in its paper: the map, at a quarter of the side, has the image's logit as its maximum.

One of the five branches of its pyramid is the average of all cells, given to every cell. The PYLON paper finds that
this ruins class maps, and trains it without that branch too.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPP, DeepLabV3PlusDecoder
from torch import nn

from radtag.models.backbone import BackboneOptions
from radtag.models.output import Pooling
from radtag.models.segmenter import Segmenter, pyramid

Rate = Annotated[int, Field(ge=1)]


class DeepLabV3PlusOptions(BaseModel):
    """DeepLabV3+'s own settings; the defaults are the PYLON paper's.

    Attributes:
        average_branch: "with" is as published; "without" leaves out the average of all cells.
        decoder_channels: channels of each branch and of the decoder.
        rates: dilations of the three dilated branches, in cells of the coarsest feature.
        output_stride: of the coarsest feature; the encoder is dilated to have it.
        dropout: share left out after the pyramid.
        pool: how a map becomes an image's logit; the PYLON paper's is "max".
        sharpness: r of the "lse" pooling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    average_branch: Literal["with", "without"] = "with"
    decoder_channels: int = Field(default=256, ge=1)
    rates: tuple[Rate, Rate, Rate] = (12, 24, 36)
    output_stride: Literal[8, 16] = 16
    dropout: float = Field(default=0.5, ge=0, lt=1)
    pool: Pooling = "max"
    sharpness: float = Field(default=10.0, gt=0)


def build(
    findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None
) -> Segmenter:
    """DeepLabV3+ with a random decoder; see :class:`DeepLabV3PlusOptions` for ``options``."""
    own = DeepLabV3PlusOptions.model_validate(options)
    encoder, channels = pyramid(backbone, size_px, coarsest=own.output_stride)
    decoder = DeepLabV3PlusDecoder(
        channels,
        encoder_depth=5,
        out_channels=own.decoder_channels,
        atrous_rates=own.rates,
        output_stride=own.output_stride,
        aspp_separable=True,
        aspp_dropout=own.dropout,
    )
    if own.average_branch == "without":
        _without_average(decoder.aspp[0], own.decoder_channels)
    # First weights are torch's own, as in the package and the PYLON paper's code.
    return Segmenter(encoder, decoder, nn.Conv2d(own.decoder_channels, findings, kernel_size=1), own)


def _without_average(pyramid: ASPP, width: int) -> None:
    """Takes the last of the five branches away, and its share of the convolution that joins them."""
    del pyramid.convs[-1]
    pyramid.project[0] = nn.Conv2d(len(pyramid.convs) * width, width, kernel_size=1, bias=False)
