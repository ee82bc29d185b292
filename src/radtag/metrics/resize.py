"""Maps brought bilinearly to the size they are scored at, rounded as the published evaluators round.

Conventions: every cell is taken as the tile of the image it stands for (torch's ``align_corners=False``), and
beyond the outermost cell centres the edge value is kept. For a map whose cells look elsewhere use
:func:`radtag.geometry.to_original`; this file is for scores that must equal those of other programs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK_PX = 1 << 16  # output pixels worked on at a time: the temporaries stay in the cache


def bilinear(maps: NDArray[np.floating[Any]], size_rc: tuple[int, int]) -> NDArray[np.float32]:
    """Bilinear resizing, ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` in numpy.

    Definition: output pixel i of an axis reads at ``s = max((i + .5) * cells / pixels - .5, 0)``, that is
    ``(1 - f) * x[floor(s)] + f * x[floor(s) + 1]`` with ``f = s - floor(s)``; columns first, then rows.

    All steps are single precision with one rounding for the last product and sum (a fused multiply-add), which is how
    torch's CPU kernel computes outputs of more than 128 rows and columns together, so a plateau's rounding noise, and
    with it the *first* maximum, comes out on the same pixel. Elsewhere the two agree within float32 rounding.

    Args:
        maps: (..., row, col).
        size_rc: rows and columns wanted.

    Returns:
        (..., *size_rc) float32; the maps themselves where they have that size already.
    """
    if maps.ndim < 2 or min(maps.shape[-2:]) < 1 or min(size_rc) < 1:
        raise ValueError(f"cannot resize maps of shape {maps.shape} to {tuple(size_rc)}: both need rows and columns")
    cells = maps.astype(np.float32, copy=False)
    if tuple(maps.shape[-2:]) == tuple(size_rc):
        return cells
    flat = cells.reshape(-1, *maps.shape[-2:])
    rows, cols = (int(size) for size in size_rc)
    col_taps, row_taps = _taps(maps.shape[-1], cols), _taps(maps.shape[-2], rows)
    resized = np.empty((len(flat), rows, cols), dtype=np.float32)
    step = max(1, min(len(flat), _CHUNK_PX // (rows * cols)))
    wide, tall = _Buffers((step, maps.shape[-2], cols)), _Buffers((step, rows, cols))
    for start in range(0, len(flat), step):
        some = flat[start : start + step]
        across = wide.interpolate(some, *col_taps, axis=2).astype(np.float32)
        resized[start : start + step] = tall.interpolate(across, *row_taps, axis=1)
    return resized.reshape(*maps.shape[:-2], rows, cols)


class _Buffers:
    """Memory for one pass of the interpolation, kept between chunks: fetching it anew costs as much as the sums."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.gathered = np.empty(shape, dtype=np.float32)
        self.product = np.empty(shape)
        self.total = np.empty(shape)

    def interpolate(
        self,
        cells: NDArray[np.float32],
        low: NDArray[np.int64],
        high: NDArray[np.int64],
        rest: NDArray[np.float32],
        share: NDArray[np.float32],
        *,
        axis: int,
    ) -> NDArray[np.float64]:
        """``rest * cells[low] + share * cells[high]``, the second product rounded to float32, the sum not yet.

        A product of two float32 is exact in float64, so rounding the returned sum is the fused multiply-add.
        """
        gathered, product, total = self.gathered[: len(cells)], self.product[: len(cells)], self.total[: len(cells)]
        over = (slice(None), None) if axis == 1 else slice(None)
        # mode="clip" lets numpy write into the buffer directly; every index is within the cells.
        np.take(cells, low, axis=axis, out=gathered, mode="clip")
        total[...] = gathered
        total *= rest[over].astype(np.float64)
        np.take(cells, high, axis=axis, out=gathered, mode="clip")
        np.multiply(gathered, share[over], out=gathered)
        product[...] = gathered
        total += product
        return total


def _taps(
    cells: int, pixels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Per output pixel of an axis: the lower cell, the upper cell, and the weight of each, in float32 throughout."""
    scale = np.float32(cells) / np.float32(pixels)
    where = scale * (np.arange(pixels, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    where = np.maximum(where, np.float32(0))
    low = np.minimum(where.astype(np.int64), cells - 1)
    share = np.clip(where - low.astype(np.float32), 0, 1).astype(np.float32)
    return low, np.minimum(low + 1, cells - 1), np.float32(1) - share, share
