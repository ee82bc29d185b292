"""A plain network that learns from proposed masks: U-Net and its kin, from segmentation_models_pytorch, or PYLON.

Ronneberger, Fischer, Brox: "U-Net: Convolutional networks for biomedical image segmentation", MICCAI 2015; the other
architectures are described by the package. The encoder is any timm network with features at strides 4 to 32, and its
first weights are loaded as those of every other method (:mod:`radtag.models.backbone`).

The map has every pixel of the network's input; PYLON's, a cell for every fourth, is resized to them. The image's logit
is pooled from the map and learns from the label beside the mask (:mod:`radtag.train.segment`).
"""

from __future__ import annotations

from typing import Literal

import segmentation_models_pytorch as smp
import timm
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from radtag.errors import BadSetting
from radtag.models.backbone import BackboneOptions, Encoder
from radtag.models.output import Output, Pooling, pool
from radtag.models.pylon import Pylon, PylonOptions


class StudentOptions(BaseModel):
    """A student's own settings.

    Attributes:
        architecture: of the decoder: "unet", "unetplusplus", "fpn", "linknet", "manet", "pan", "deeplabv3plus" or
            "upernet"; or "pylon", the classifier's own network.
        pool: how the image's logit is taken from the map.
        sharpness: of pool "lse"; 1 is the logarithm of the mean odds of the pixels, nearly.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal[
        "unet", "unetplusplus", "fpn", "linknet", "manet", "pan", "deeplabv3plus", "upernet", "pylon"
    ] = "unet"
    pool: Pooling = "lse"
    sharpness: float = Field(default=5.0, gt=0)


class Student(nn.Module):
    """Encoder, decoder and one logit a pixel and finding.

    Args:
        findings: how many.
        backbone: the encoder.
        options: a student's own settings.
        size_px: side of the square input, for encoders that are made for one.

    Raises:
        BadSetting: an encoder that timm has not, or that does not fit the decoder.
    """

    def __init__(
        self, findings: int, backbone: BackboneOptions, options: StudentOptions, size_px: int | None = None
    ) -> None:
        super().__init__()
        if not timm.is_model(backbone.name):
            raise BadSetting(f"timm has no model {backbone.name!r}. Choose another --backbone, such as resnet50.")
        self.options = options
        self.size_px = size_px
        self.segmenter: nn.Module
        if options.architecture == "pylon":
            self.segmenter = Pylon(findings, backbone, PylonOptions(), size_px)
            return
        try:
            self.segmenter = smp.create_model(
                options.architecture,
                encoder_name=f"tu-{backbone.name}",
                encoder_weights=None,
                in_channels=backbone.channels,
                classes=findings,
            )
        except (RuntimeError, AttributeError, NotImplementedError, AssertionError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:120]
            raise BadSetting(
                f"{backbone.name} does not fit {options.architecture} ({reason})."
                " Choose a convolutional backbone, such as resnet50."
            ) from error

    @property
    def backbone(self) -> Encoder:
        """The encoder's timm network, for its first weights."""
        if isinstance(self.segmenter, Pylon):
            return Encoder(self.segmenter.backbone.net, self.size_px)
        encoder: nn.Module = self.segmenter.encoder.model  # type: ignore[union-attr, assignment]
        return Encoder(encoder, self.size_px)

    def forward(self, images: Float[Tensor, "batch channel row col"]) -> Output:
        """Normalised images -> logits (batch, finding) and maps (batch, finding, row, col), of the images' size."""
        maps = self.segmenter(images)
        if isinstance(maps, Output):
            maps = F.interpolate(maps.maps, size=images.shape[-2:], mode="bilinear", align_corners=False)
        maps = maps.float()
        return Output(pool(maps, self.options.pool, self.options.sharpness), maps)


def build(findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None) -> Student:
    """A student with a random decoder; see :class:`StudentOptions` for ``options``."""
    return Student(findings, backbone, StudentOptions.model_validate(options), size_px)
