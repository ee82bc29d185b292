"""Li et al. 2018: a grid of patches, of which one that shows the finding makes the image show it.

Li, Wang, Han, Xue, Wei, Li, Fei-Fei: "Thoracic disease identification and localization with limited supervision",
CVPR 2018. The coarsest feature is resized to a grid of 20 x 20 patches, a small head gives each a probability p, and
the image's is ``1 - product(1 - p)`` over its patches (multiple-instance learning). The product of 400 numbers below 1
is next to nothing whatever they are; so each ``1 - p`` is first brought from 0-1 to 0.98-1, as in the paper.

What differs from the paper: it also learns from the boxes of some images, with a loss of its own; here all images have
labels alone, and the loss is every classifier's. Grid, head and floor are those of the PYLON paper's code, whose rival
this is. Any pooling can be chosen instead.

With that floor, a single sure patch gives the image a probability of 0.02, and all 400 give it 0.9997: it is the area
that speaks, more than the peak.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from radtag.models.backbone import Backbone, BackboneOptions
from radtag.models.output import Output, Pooling, pool
from radtag.models.pylon import conv_bn_relu


class Li2018Options(BaseModel):
    """Its own settings; the defaults are the PYLON paper's.

    Attributes:
        grid: patches along each side.
        head_channels: channels of the 3x3 convolution before the head.
        pool: how a map becomes an image's logit; "mil" is 1 - product(1 - p), the paper's.
        floor: of "mil": what 1 - p of a sure patch counts as.
        sharpness: r of the "lse" pooling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    grid: int = Field(default=20, ge=1)
    head_channels: int = Field(default=512, ge=1)
    pool: Pooling | Literal["mil"] = "mil"
    floor: float = Field(default=0.98, ge=1e-3, lt=1)
    sharpness: float = Field(default=10.0, gt=0)


class Li2018(nn.Module):
    """Backbone, a grid of patches, a 3x3 convolution, a 1x1 head.

    Args:
        findings: number of findings.
        backbone: the encoder.
        options: its own settings.
        size_px: side of the square input, for backbones that are made for one.
    """

    def __init__(
        self, findings: int, backbone: BackboneOptions, options: Li2018Options, size_px: int | None = None
    ) -> None:
        super().__init__()
        self.options = options
        self.backbone = Backbone(backbone, size_px, wanted="coarsest")
        self.patches = conv_bn_relu(self.backbone.channels[-1], options.head_channels, kernel=3)
        self.head = nn.Conv2d(options.head_channels, findings, kernel_size=1)

    def forward(self, images: Float[Tensor, "batch channel row col"]) -> Output:
        """Normalised images -> logits (batch, finding) and maps (batch, finding, grid, grid)."""
        side = self.options.grid
        x = F.interpolate(self.backbone(images)[-1], size=(side, side), mode="bilinear", align_corners=True)
        maps = self.head(self.patches(x)).float()
        return Output(self.image_logits(maps), maps)

    def image_logits(self, maps: Float[Tensor, "batch finding row col"]) -> Float[Tensor, "batch finding"]:
        """Logits of images from their maps of logits."""
        if self.options.pool == "mil":
            return any_patch(maps, self.options.floor)
        return pool(maps, self.options.pool, self.options.sharpness)


def any_patch(maps: Float[Tensor, "batch finding row col"], floor: float = 0.98) -> Float[Tensor, "batch finding"]:
    """The logit of ``1 - product(1 - (1 - floor) p)`` over the patches, p = sigmoid of their logits.

    In logarithms throughout, so that neither sure nor silent patches end in infinity or without a gradient: with
    ``a = (1 - floor) p`` and ``t = -sum(log(1 - a))``, the logit is ``log(exp(t) - 1)``.
    """
    tiny = 1e-30  # below it, log(1 - a) = -a and exp(t) - 1 = t to the last bit; and a division is safe above
    log_a = F.logsigmoid(maps.flatten(2)) + math.log1p(-floor)
    a = log_a.exp().clamp(min=tiny)
    log_t = torch.logsumexp(log_a + (-torch.log1p(-a) / a).log(), dim=2)
    t = log_t.exp().clamp(min=tiny)
    return t + log_t + (-torch.expm1(-t) / t).log()


def build(findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None) -> Li2018:
    """Li et al.'s network with a random head; see :class:`Li2018Options` for ``options``."""
    return Li2018(findings, backbone, Li2018Options.model_validate(options), size_px)
