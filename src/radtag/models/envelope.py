"""What lies between the parts of a map: its convex hull, at every height at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

DIRECTIONS = 32
"""Ways in which a map is looked at. A round hull comes out as a polygon of so many sides around it, .5 % too wide."""


def convex_envelope(maps: Float[Tensor, "*batch row col"]) -> Float[Tensor, "*batch row col"]:
    """The smallest map without a hollow: what is above any height is convex, and no pixel is lower than it was.

    A pixel becomes the largest height at which it lies in the convex hull of what is at least as high (the
    quasi-concave envelope). It does if, whichever way one looks, something as high is at least as far out; so its value
    is the least, over all directions, of the largest value that is not nearer than it.

    The hull of a stretched image is the stretched hull, so that a network's square frame may be asked.
    """
    rows, cols = maps.shape[-2:]
    heights = maps.flatten(-2)
    envelope = torch.full_like(heights, torch.inf)
    for order, reach in zip(*_views(rows, cols, maps.device), strict=True):
        farther = heights[..., order].cummax(dim=-1).values
        envelope = torch.minimum(envelope, farther[..., reach])
    return envelope.view_as(maps)


@lru_cache(maxsize=2)
def _views(rows: int, cols: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each direction: the pixels from the farthest on, and each pixel's place among them, both (direction, pixel).

    Of pixels that are as far out as each other, all have the last one's place.
    """
    y, x = np.mgrid[:rows, :cols].reshape(2, -1)
    orders, places = [], []
    for angle in np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS:
        nearness = np.round(-x * np.cos(angle) - y * np.sin(angle), 6)  # alike is what differs by rounding alone
        order = nearness.argsort()
        orders.append(order)
        places.append(np.searchsorted(nearness[order], nearness, side="right") - 1)
    return torch.from_numpy(np.stack(orders)).to(device), torch.from_numpy(np.stack(places)).to(device)
