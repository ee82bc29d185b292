"""PYLON: class maps at a quarter of the input's side, from image labels alone.

Preechakul, Sriswasdi, Kijsirikul, Chuangsuwanich: "Improved image classification explainability with high-accuracy
heatmaps", iScience 25(3):103933, 2022 (arXiv 2010.11475).

Unusual in it: a decoder of almost nothing but 1x1 convolutions, an attention pyramid on the coarsest feature without
a global average branch (which, the paper finds, ruins class maps), and a global *max* over the map as the image's
logit.

What differs from the authors' code: the attention pyramid is resized to the finer level's size and pooled in ceil mode,
instead of scaled by a fixed 2, so that any side that is a multiple of 32 works; at 256 px the numbers are the same.
The pooling can be changed; the paper's is max. A second head can be had (``side_head``), as in deeply supervised nets
(Lee et al., AISTATS 2015): a CAM with average pooling on the coarsest feature. A map's strongest cells know where, and
the mean over a whole image knows better whether; the image's logit is then the mean of both.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from radtag.models.backbone import Backbone, BackboneOptions
from radtag.models.output import Output, Pooling, pool


class PylonOptions(BaseModel):
    """PYLON's own settings; the defaults are the journal version's.

    Attributes:
        up: layers of each skip: "2layer" is the journal's, "1layer" the arXiv version's.
        decoder_channels: channels of every decoder feature.
        pool: how a map becomes an image's logit; the paper's is "max".
        sharpness: r of the "lse" pooling.
        side_head: train a CAM with average pooling on the backbone's coarsest feature beside the map, for the score;
            the map is the decoder's alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    up: Literal["1layer", "2layer"] = "2layer"
    decoder_channels: int = Field(default=128, ge=1)
    pool: Pooling = "max"
    sharpness: float = Field(default=10.0, gt=0)
    side_head: bool = False


class Pylon(nn.Module):
    """Backbone, pyramid attention, three UP modules, a 1x1 head.

    Args:
        findings: number of findings.
        backbone: the encoder.
        options: PYLON's own settings.
        size_px: side of the square input, for backbones that are made for one.
    """

    def __init__(
        self, findings: int, backbone: BackboneOptions, options: PylonOptions, size_px: int | None = None
    ) -> None:
        super().__init__()
        self.options = options
        width = options.decoder_channels
        self.backbone = Backbone(backbone, size_px)
        *finer, coarsest = self.backbone.channels  # strides 4, 8, 16 and 32
        self.attention = PyramidAttention(coarsest, width)
        self.up16 = Up(finer[2], width, options.up)
        self.up8 = Up(finer[1], width, options.up)
        self.up4 = Up(finer[0], width, options.up)
        self.head = nn.Conv2d(width, findings, kernel_size=1)
        self.side_head = nn.Conv2d(coarsest, findings, kernel_size=1) if options.side_head else None
        for part in (self.attention, self.up16, self.up8, self.up4):
            part.apply(_initialise)
        for head in (self.head, self.side_head):
            if head is not None:
                nn.init.xavier_uniform_(head.weight)
                nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, images: Float[Tensor, "batch channel row col"]) -> Output:
        """Normalised images -> logits (batch, finding) and maps (batch, finding, row / 4, col / 4)."""
        at4, at8, at16, at32 = self.backbone(images)
        x = self.attention(at32)
        x = self.up16(at16, x)
        x = self.up8(at8, x)
        x = self.up4(at4, x)
        maps = self.head(x).float()  # the loss is taken in float32 whatever the precision above
        logits = self.image_logits(maps)
        if self.side_head is None:
            return Output(logits, maps)
        beside = pool(self.side_head(at32).float(), "avg")
        return Output((logits + beside) / 2, maps, heads=(logits, beside))

    def image_logits(self, maps: Float[Tensor, "batch finding row col"]) -> Float[Tensor, "batch finding"]:
        """Logits of images from their maps of logits."""
        return pool(maps, self.options.pool, self.options.sharpness)


class PyramidAttention(nn.Module):
    """``mid`` times an attention gathered over three coarser levels; no sigmoid, no global average."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.mid = conv_bn_relu(channels, width, kernel=1)
        self.down1 = conv_bn_relu(channels, 1, kernel=7)
        self.down2 = conv_bn_relu(1, 1, kernel=5)
        self.down3 = conv_bn_relu(1, 1, kernel=3)
        self.level1 = conv_bn_relu(1, 1, kernel=7)
        self.level2 = conv_bn_relu(1, 1, kernel=5)
        self.level3 = conv_bn_relu(1, 1, kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.down1(halve(x))  # 1/64 of the input's side
        x2 = self.down2(halve(x1))  # 1/128
        x3 = self.down3(halve(x2))  # 1/256
        attention = resize_like(self.level3(x3), x2)
        attention = resize_like(self.level2(x2) + attention, x1)
        attention = resize_like(self.level1(x1) + attention, x)
        return attention * self.mid(x)


class Up(nn.Module):
    """The coarser map, resized, plus the skip's 1x1 convolutions; nothing after the sum."""

    def __init__(self, channels: int, width: int, kind: Literal["1layer", "2layer"]) -> None:
        super().__init__()
        layers = [] if kind == "1layer" else [conv_bn_relu(channels, channels, kernel=1)]
        self.skip = nn.Sequential(*layers, conv_bn_relu(channels, width, kernel=1))

    def forward(self, skip: Tensor, coarser: Tensor) -> Tensor:
        return resize_like(coarser, skip) + self.skip(skip)


def conv_bn_relu(channels: int, width: int, kernel: int) -> nn.Sequential:
    """Convolution with bias, BatchNorm, ReLU; the size is kept."""
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def halve(x: Tensor) -> Tensor:
    """2x2 max pooling; in ceil mode, so that a single row or column is kept."""
    return F.max_pool2d(x, 2, ceil_mode=True)


def resize_like(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, corners aligned, as the authors have it."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def build(findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None) -> Pylon:
    """PYLON with random decoder weights; see :class:`PylonOptions` for ``options``."""
    return Pylon(findings, backbone, PylonOptions.model_validate(options), size_px)
