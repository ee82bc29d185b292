"""What lies between the parts of a map: its convex hull, at every height at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int32
from numpy.typing import NDArray
from torch import Tensor

DIRECTIONS = 32
"""Ways in which a map is looked at, even. A hull is a polygon around the true one, whose sides have these directions
and are off by up to 5.6 degrees: .5 % too wide for a disc, more for what is long and lies aslant."""


def quasiconcave_envelope(maps: Float[Tensor, "*batch row col"]) -> Float[Tensor, "*batch row col"]:
    """The map with its hollows filled: what is above any height becomes convex, and no pixel lower than it was.

    A pixel becomes the largest height at which it lies in the convex hull of what is at least as high. It does if,
    whichever way one looks, something as high is at least as far out; so its value is the least, over all directions,
    of the largest value that is not nearer than it.

    The hull of a stretched image is the stretched hull, so that a network's square frame may be asked.
    """
    rows, cols = maps.shape[-2:]
    heights = maps.flatten(-2)
    envelope = torch.full_like(heights, torch.inf)
    for order, place in _views(rows, cols):
        # From the tables anew: a tensor made in inference mode, and kept, would refuse gradients later.
        farther = heights[..., torch.from_numpy(order).to(maps.device)].cummax(dim=-1).values
        envelope = torch.minimum(envelope, farther[..., torch.from_numpy(place).to(maps.device)])
    return envelope.view_as(maps)


def _views(rows: int, cols: int) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """For each direction: the pixels, the farthest first, and each pixel's place among them.

    Of pixels that are as far out as each other, all have the last one's place.
    """
    for order, first, last in _half_of_views(rows, cols):
        yield order, last
        yield order[::-1].copy(), len(order) - 1 - first


@lru_cache(maxsize=1)
def _half_of_views(rows: int, cols: int) -> Int32[np.ndarray, "direction 3 pixel"]:
    """Of one direction of each opposite two: the order of pixels, and the places of the first and the last that are as
    far out as each pixel. 200 bytes a pixel."""
    y, x = np.mgrid[:rows, :cols].reshape(2, -1)
    views = np.empty((DIRECTIONS // 2, 3, rows * cols), dtype=np.int32)
    for view, angle in zip(views, np.arange(len(views)) * 2 * np.pi / DIRECTIONS, strict=True):
        nearness = np.round(-x * np.cos(angle) - y * np.sin(angle), 6)  # alike is what differs by rounding alone
        view[0] = nearness.argsort()
        in_order = nearness[view[0]]
        view[1] = np.searchsorted(in_order, nearness, side="left")
        view[2] = np.searchsorted(in_order, nearness, side="right") - 1
    return views
