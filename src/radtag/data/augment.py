"""Augmentation of a whole batch at once, on the batch's device.

Rotation, random resized crop and flip are one affine map and one resampling, so that an image is interpolated once.
Boxes and masks can follow it. The random numbers are drawn on the CPU from a generator the caller seeds, so that a step
is the same on any device and however many processes share it.

Defaults are PYLON's (data/transform.py of its code).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor


class AugmentOptions(BaseModel):
    """What happens to a training image.

    Attributes:
        rotate_deg: largest rotation either way.
        rotate_p: share of the images rotated.
        area: smallest and largest share of the image's area a crop keeps.
        ratio: smallest and largest aspect of a crop (columns over rows).
        flip_p: share mirrored left to right.
        brightness: largest amount added, as a share of the range.
        contrast: largest relative change of the range.
        tone_p: share of the images whose brightness and contrast change.
        interpolation: of the one resampling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rotate_deg: float = Field(default=90.0, ge=0)
    rotate_p: float = Field(default=0.5, ge=0, le=1)
    area: tuple[float, float] = (0.7, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_p: float = Field(default=0.5, ge=0, le=1)
    brightness: float = Field(default=0.5, ge=0)
    contrast: float = Field(default=0.5, ge=0)
    tone_p: float = Field(default=0.5, ge=0, le=1)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    @field_validator("area", "ratio")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] < math.inf:
            raise ValueError("the smallest comes first, and both are above 0")
        return value


@dataclass(frozen=True)
class Warp:
    """One batch's draw.

    Args:
        to_source: (batch, 2, 3) from an output position (x, y, 1), each axis -1 to 1 edge to edge, to where it is read.
        gain: (batch,) contrast factor.
        shift: (batch,) brightness added.
        interpolation: of the resampling.
    """

    to_source: Tensor
    gain: Tensor
    shift: Tensor
    interpolation: Literal["bilinear", "bicubic"]

    def images(self, images: Float[Tensor, "batch row col"], size_px: int | None = None) -> Tensor:
        """Images in 0-1, warped, toned and kept within 0-1; black comes in from outside.

        ``size_px`` is the side of the (square) result; left out, that of the images.
        """
        warped = self._sample(images, self.interpolation, size_px)
        gain, shift = self.gain.to(images.device), self.shift.to(images.device)
        return (warped * gain[:, None, None] + shift[:, None, None]).clamp_(0, 1)

    def masks(self, masks: Float[Tensor, "batch row col"]) -> Float[Tensor, "batch row col"]:
        """Masks, warped without interpolation."""
        return self._sample(masks, "nearest", None)

    def boxes(self, boxes_xyxy: Float[Tensor, "batch box 4"], size_px: tuple[int, int]) -> Float[Tensor, "batch box 4"]:
        """The boxes around the warped corners, cut to the image (rows, cols); a box gone from view has no area."""
        rows, cols = size_px
        extent = torch.tensor([cols, rows], dtype=torch.float64)
        x1, y1, x2, y2 = boxes_xyxy.double().unbind(-1)
        corners = torch.stack([torch.stack(p, -1) for p in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))], dim=-2)
        at = corners / extent * 2 - 1  # (batch, box, corner, xy), -1 to 1
        linear, offset = self.to_source.double()[:, :, :2], self.to_source.double()[:, :, 2]
        out = torch.einsum("bij,bnkj->bnki", torch.linalg.inv(linear), at - offset[:, None, None])
        out = ((out + 1) / 2 * extent).clamp(min=torch.zeros(2, dtype=torch.float64), max=extent)
        return torch.cat([out.amin(dim=-2), out.amax(dim=-2)], dim=-1).to(boxes_xyxy.dtype)

    def _sample(self, images: Tensor, mode: str, size_px: int | None) -> Tensor:
        rows, cols = images.shape[1:] if size_px is None else (size_px, size_px)
        theta = self.to_source.to(images.device, images.dtype)
        grid = F.affine_grid(theta, [len(images), 1, rows, cols], align_corners=False)
        return F.grid_sample(images[:, None], grid, mode=mode, padding_mode="zeros", align_corners=False)[:, 0]


def draw(count: int, options: AugmentOptions, generator: torch.Generator) -> Warp:
    """Random warps for ``count`` images."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(count).uniform_(low, high, generator=generator)

    def chosen(p: float) -> Tensor:
        return torch.rand(count, generator=generator) < p

    angle = torch.where(chosen(options.rotate_p), uniform(-options.rotate_deg, options.rotate_deg), 0.0) * (
        math.pi / 180
    )
    area, ratio = uniform(*options.area), uniform(math.log(options.ratio[0]), math.log(options.ratio[1])).exp()
    # Shares of the image's width and height; a crop that would not fit is cut to fit.
    wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    left, top = uniform(-1, 1) * (1 - wide), uniform(-1, 1) * (1 - high)
    mirror = torch.where(chosen(options.flip_p), -1.0, 1.0)
    toned = chosen(options.tone_p)
    gain = torch.where(toned, 1 + uniform(-options.contrast, options.contrast), 1.0)
    shift = torch.where(toned, uniform(-options.brightness, options.brightness), 0.0)
    # Output -> (mirror) -> crop window -> rotation about the centre -> source.
    cos, sin = angle.cos(), angle.sin()
    a, b = wide * mirror, high
    to_source = torch.stack(
        [
            torch.stack([cos * a, -sin * b, cos * left - sin * top], -1),
            torch.stack([sin * a, cos * b, sin * left + cos * top], -1),
        ],
        dim=1,
    )
    return Warp(to_source, gain, shift, options.interpolation)


def take(warp: Warp, part: slice | Tensor) -> Warp:
    """The draw of some images of the batch: a process's share of it, as a slice or by index."""
    return Warp(warp.to_source[part], warp.gain[part], warp.shift[part], warp.interpolation)
