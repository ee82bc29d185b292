"""U-Net: the coarsest feature enlarged five times, each time beside the encoder's feature of that size.

Ronneberger, Fischer, Brox: "U-Net: Convolutional networks for biomedical image segmentation", MICCAI 2015; the decoder
is segmentation_models_pytorch's. Here it learns from image labels, as a rival of PYLON in its paper: the map has every
pixel of the network's input, and its maximum is the image's logit.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import nn

from radtag.models.backbone import BackboneOptions
from radtag.models.output import Pooling
from radtag.models.segmenter import Segmenter, initialise, pyramid

Width = Annotated[int, Field(ge=1)]


class UnetOptions(BaseModel):
    """U-Net's own settings; the defaults are the PYLON paper's.

    Attributes:
        decoder_channels: channels at strides 16, 8, 4, 2 and 1.
        pool: how a map becomes an image's logit; the PYLON paper's is "max".
        sharpness: r of the "lse" pooling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoder_channels: tuple[Width, Width, Width, Width, Width] = (256, 128, 64, 64, 64)
    pool: Pooling = "max"
    sharpness: float = Field(default=10.0, gt=0)


def build(
    findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None
) -> Segmenter:
    """U-Net with a random decoder; see :class:`UnetOptions` for ``options``."""
    own = UnetOptions.model_validate(options)
    encoder, channels = pyramid(backbone, size_px)
    decoder = UnetDecoder(channels, own.decoder_channels)
    head = nn.Conv2d(own.decoder_channels[-1], findings, kernel_size=3, padding=1)
    initialise(decoder, head)
    return Segmenter(encoder, decoder, head, own)
