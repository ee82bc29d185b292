"""The one home of coordinates: frames, boxes and map grids.

Conventions
-----------
- Pixel (row, col) covers [row, row + 1) x [col, col + 1); its centre is (row + .5, col + .5).
- Sizes and positions named ``_rc`` are (row, col); boxes are ``xyxy``: (x1, y1, x2, y2), half-open, float,
  in original pixels unless the name says otherwise (torchvision's convention).
- A resize keeps a :class:`Frame`; the frame is inverted to come back to original pixels.
- The cells of a map look at places given by a :class:`Grid`, which is *measured* for a network
  (:mod:`radtag.models.evidence`) and not assumed to be the tiles of the image.

Numpy only: usable on anybody's maps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating[Any]]
XYXY = tuple[float, float, float, float]


@dataclass(frozen=True)
class Frame:
    """How an original image became an image of another size: ``new = scale * original + offset``, per axis.

    Continuous coordinates, (row, col). A stretch has zero offset; padding has a positive one, a crop a negative one.

    Args:
        original_size_rc: rows and columns of the original image, in pixels.
        size_rc: rows and columns of the new image, in pixels.
        scale_rc: new pixels per original pixel.
        offset_rc: where the original's top-left corner lies in the new image, in new pixels.

    Raises:
        ValueError: a size below one pixel or a scale that is not positive.
    """

    original_size_rc: tuple[int, int]
    size_rc: tuple[int, int]
    scale_rc: tuple[float, float]
    offset_rc: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if min(self.original_size_rc) < 1 or min(self.size_rc) < 1:
            raise ValueError(f"an image has at least one pixel a side, got {self.original_size_rc} -> {self.size_rc}")
        if min(self.scale_rc) <= 0:
            raise ValueError(f"a scale is positive, got {self.scale_rc}")

    @classmethod
    def identity(cls, size_rc: tuple[int, int]) -> Frame:
        """The frame of an image that was left as it is."""
        return cls(size_rc, size_rc, (1.0, 1.0))

    @classmethod
    def stretch(cls, original_size_rc: tuple[int, int], size_rc: tuple[int, int]) -> Frame:
        """The whole image fills the new size; its aspect may change."""
        scale = (size_rc[0] / original_size_rc[0], size_rc[1] / original_size_rc[1])
        return cls(original_size_rc, size_rc, scale)

    @classmethod
    def letterbox(cls, original_size_rc: tuple[int, int], size_rc: tuple[int, int]) -> Frame:
        """The image keeps its aspect (to a whole pixel), is centred, and is padded to the new size."""
        zoom = min(size_rc[0] / original_size_rc[0], size_rc[1] / original_size_rc[1])
        rows, cols = (max(1, round(zoom * side)) for side in original_size_rc)
        scale = (rows / original_size_rc[0], cols / original_size_rc[1])
        return cls(original_size_rc, size_rc, scale, (float((size_rc[0] - rows) // 2), float((size_rc[1] - cols) // 2)))

    def of_whole(self, size_rc: tuple[int, int], first_rc: tuple[int, int]) -> Frame:
        """Of a whole image of ``size_rc`` the frame, if this is the one of its part that begins at ``first_rc``."""
        (down, across), (row, col) = self.scale_rc, first_rc
        return Frame(
            size_rc, self.size_rc, self.scale_rc, (self.offset_rc[0] - down * row, self.offset_rc[1] - across * col)
        )

    @property
    def shows_all(self) -> bool:
        """Whether all of the original lies in the new image."""
        ends = [o + s * n for o, s, n in zip(self.offset_rc, self.scale_rc, self.original_size_rc, strict=True)]
        return min(self.offset_rc) > -1e-6 and all(e < n + 1e-6 for e, n in zip(ends, self.size_rc, strict=True))

    @property
    def placed_rc(self) -> tuple[int, int, int, int]:
        """Where the whole original lies in the new image: first row, first column, rows, columns."""
        rows = round(self.scale_rc[0] * self.original_size_rc[0])
        cols = round(self.scale_rc[1] * self.original_size_rc[1])
        return round(self.offset_rc[0]), round(self.offset_rc[1]), rows, cols

    def boxes_to_frame(self, boxes_xyxy: ArrayLike) -> FloatArray:
        """Original boxes (..., 4) in the new image's pixels."""
        boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
        scale, offset = self._xyxy()
        return boxes * scale + offset

    def boxes_to_original(self, boxes_xyxy: ArrayLike) -> FloatArray:
        """Boxes of the new image (..., 4) in original pixels."""
        boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
        scale, offset = self._xyxy()
        return (boxes - offset) / scale

    def of_reduced(self, factor: int) -> Frame:
        """The frame from the original, reduced by a whole number (:func:`reduced_size`), to the same new image."""
        scale = (self.scale_rc[0] * factor, self.scale_rc[1] * factor)
        return Frame(reduced_size(self.original_size_rc, factor), self.size_rc, scale, self.offset_rc)

    def _xyxy(self) -> tuple[FloatArray, FloatArray]:
        scale = np.array([self.scale_rc[1], self.scale_rc[0]] * 2)
        offset = np.array([self.offset_rc[1], self.offset_rc[0]] * 2)
        return scale, offset


@dataclass(frozen=True)
class Grid:
    """Where the cells of a map look: cell i of an axis is centred at ``scale * i + offset`` input pixels.

    Args:
        size_rc: rows and columns of the map, in cells.
        scale_rc: input pixels from one cell to the next.
        offset_rc: continuous position of cell 0, in input pixels (the centre of the first tile is ``scale / 2``).
    """

    size_rc: tuple[int, int]
    scale_rc: tuple[float, float]
    offset_rc: tuple[float, float]

    @classmethod
    def tiles(cls, size_rc: tuple[int, int], input_size_rc: tuple[int, int]) -> Grid:
        """Every cell at the centre of its tile of the input: what every library's upsampling assumes."""
        scale = (input_size_rc[0] / size_rc[0], input_size_rc[1] / size_rc[1])
        return cls(size_rc, scale, (scale[0] / 2, scale[1] / 2))

    def mirrored(self, input_cols: int) -> Grid:
        """Where the cells of a mirrored input's map look in the input itself, once the map is mirrored back.

        Cells do not lie symmetrically in the input, so a mirrored map's lie elsewhere than the map's own.
        """
        offset = input_cols - self.scale_rc[1] * (self.size_rc[1] - 1) - self.offset_rc[1]
        return replace(self, offset_rc=(self.offset_rc[0], offset))


def interpolation_matrix(positions: ArrayLike, cells: int) -> NDArray[np.float32]:
    """Linear interpolation along one axis as a matrix.

    Args:
        positions: (n,) where to read, in cell indices; outside the outermost cells the edge value is kept.
        cells: number of cells.

    Returns:
        (n, cells) float32; every row sums to 1.
    """
    where = np.clip(np.asarray(positions, dtype=np.float64), 0, cells - 1)
    low = np.minimum(where.astype(np.int64), max(cells - 2, 0))
    share = where - low
    matrix = np.zeros((len(where), cells), dtype=np.float32)
    rows = np.arange(len(where))
    matrix[rows, low] = 1 - share
    if cells > 1:
        matrix[rows, low + 1] = share
    return matrix


@lru_cache(maxsize=256)
def cells_of_pixels(grid: Grid, frame: Frame, axis: int) -> FloatArray:
    """Where the centres of the original image's pixels lie along an axis (0 = rows), in cell indices of a grid.

    Of images of one size and one network they are the same, and worked out once: not to be written to.
    """
    centres = np.arange(frame.original_size_rc[axis]) + 0.5
    in_input = centres * frame.scale_rc[axis] + frame.offset_rc[axis]
    positions: FloatArray = (in_input - grid.offset_rc[axis]) / grid.scale_rc[axis]
    positions.flags.writeable = False
    return positions


class Places(NamedTuple):
    """Positions along an axis, between cells.

    Attributes:
        low: (n,) the cell at or before each.
        share: (n,) how far from that cell towards the next, 0-1.
    """

    low: NDArray[np.int64]
    share: NDArray[np.float32]

    @classmethod
    def of(cls, positions: ArrayLike, cells: int) -> Places:
        """From positions in cell indices; outside the outermost cells the edge value is kept."""
        where = np.clip(np.asarray(positions, dtype=np.float64), 0, cells - 1)
        low = where.astype(np.int64)
        return cls(low, (where - low).astype(np.float32))

    def part(self, wanted: slice) -> Places:
        """Some of them."""
        return Places(self.low[wanted], self.share[wanted])


@lru_cache(maxsize=256)
def _places_of_pixels(grid: Grid, frame: Frame, axis: int) -> Places:
    places = Places.of(cells_of_pixels(grid, frame, axis), grid.size_rc[axis])
    for values in places:
        values.flags.writeable = False
    return places


class Interpolated:
    """Maps read bilinearly at every pair of a row and a column position, some rows at a time.

    A value depends on its own position and four cells alone, to the last bit: a part of a map equals that part of the
    whole. Plain arithmetic is as fast as a product with interpolation matrices, and occupies one core only, where the
    products of a linear algebra library would take cores from the network.

    Args:
        maps: (..., row, col) cells.
        rows: (n,) ascending.
        cols: (m,) likewise.
    """

    def __init__(self, maps: NDArray[np.floating[Any]], rows: Places, cols: Places) -> None:
        low, self._share = rows
        if len(low):  # of a part, only the cells it takes
            first = int(low[0])
            maps, low = maps[..., first : int(low[-1]) + 2, :], low - first
        self._low = low
        maps = maps.astype(np.float32, copy=False)
        beside = np.zeros_like(maps)  # how much further the next cell is; nothing, from the last one
        np.subtract(maps[..., 1:], maps[..., :-1], out=beside[..., :-1])
        across = beside.take(cols.low, axis=-1)  # several times as fast as indexing after an ellipsis
        across *= cols.share
        across += maps.take(cols.low, axis=-1)  # (..., row, m)
        self._down = np.zeros_like(across)
        np.subtract(across[..., 1:, :], across[..., :-1, :], out=self._down[..., :-1, :])
        self._across = across
        self.size_rc = (len(low), across.shape[-1])

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """(..., row, m) float32, of the row positions from ``start`` to before ``stop``."""
        low, share = self._low[start:stop], self._share[start:stop]
        starts = np.flatnonzero(np.diff(low, prepend=-1))
        if len(low) <= 4 * len(starts):
            return self.at(np.arange(start, start + len(low)))
        # The rows between two cells at once: what is worked on stays in the processor's cache.
        values = np.empty((*self._across.shape[:-2], len(low), self.size_rc[1]), dtype=np.float32)
        for first, past in zip(starts, (*starts[1:], len(low)), strict=True):
            band, cell = values[..., first:past, :], low[first]
            np.multiply(self._down[..., cell, None, :], share[first:past, None], out=band)
            band += self._across[..., cell, None, :]
        return values

    def at(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(..., row, m) float32, of these of the row positions, by their numbers."""
        low = self._low[rows]
        values: NDArray[np.float32] = self._down.take(low, axis=-2)
        values *= self._share[rows][:, None]
        values += self._across.take(low, axis=-2)
        return values

    def lines(self, longest: int) -> Lines:
        """The same as pieces of straight lines down the rows.

        Args:
            longest: rows of a piece at most.
        """
        bent = np.flatnonzero(np.diff(self._low, prepend=-1))
        # Before the first cell the edge value is kept, so the first piece may have a bend in it.
        bent = np.union1d(bent, np.searchsorted(self._share[self._low == 0], 0, side="right"))
        bent = bent[bent < len(self._low)]
        pieces = -(-np.diff(bent, append=len(self._low)) // longest)
        starts = np.repeat(bent, pieces) + longest * counted_from_0(pieces)
        cell = self._low[starts]
        further = (np.diff(starts, append=len(self._low)) - 1).astype(np.float32)
        first, last = self._share[starts], self._share[starts + further.astype(np.int64)]
        slope = self._down.take(cell, axis=-2)
        middle = slope * ((first + last) / 2)[:, None]
        middle += self._across.take(cell, axis=-2)
        slope *= ((last - first) / np.maximum(further, 1))[:, None]
        return Lines(starts, further, middle, slope)


def counted_from_0(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2 ... to before each of these numbers, one after the other."""
    ends = counts.cumsum()
    numbers: NDArray[np.int64] = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    return numbers


class Lines(NamedTuple):
    """Maps that change by equal steps from row to row of a piece.

    Attributes:
        starts: (piece,) first row of each.
        further: (piece,) its rows after the first.
        middle: (..., piece, col) the value halfway between its first and last row.
        slope: (..., piece, col) from row to row.
    """

    starts: NDArray[np.int64]
    further: NDArray[np.float32]
    middle: NDArray[np.float32]
    slope: NDArray[np.float32]


def interpolate(maps: NDArray[np.float32], rows: ArrayLike, cols: ArrayLike) -> NDArray[np.float32]:
    """Maps (..., row, col) read bilinearly at n row and m column positions, (..., n, m): :class:`Interpolated`.

    Args:
        maps: cells.
        rows: (n,) in cell indices, ascending; outside the outermost cells the edge value is kept.
        cols: (m,) likewise.
    """
    whole = Interpolated(maps, Places.of(rows, maps.shape[-2]), Places.of(cols, maps.shape[-1]))
    return whole.rows(0, whole.size_rc[0])


def interpolate_at(
    maps: NDArray[np.float32], index: NDArray[np.int64], rows: ArrayLike, cols: ArrayLike
) -> NDArray[np.float32]:
    """As :func:`interpolate`, to the last bit, at single places.

    Args:
        maps: (map, row, col) cells.
        index: which map; of a shape that fits those of ``rows`` and ``cols``.
        rows: positions in cell indices.
        cols: likewise.
    """
    (top, down), (left, right) = Places.of(rows, maps.shape[1]), Places.of(cols, maps.shape[2])
    below = np.minimum(top + 1, maps.shape[1] - 1)
    beside = np.minimum(left + 1, maps.shape[2] - 1)
    upper = (maps[index, top, beside] - maps[index, top, left]) * right + maps[index, top, left]
    lower = (maps[index, below, beside] - maps[index, below, left]) * right + maps[index, below, left]
    values: NDArray[np.float32] = (lower - upper) * down + upper
    return values


def to_original(
    maps: NDArray[np.float32], grid: Grid, frame: Frame, *, rows: slice = slice(None), cols: slice = slice(None)
) -> NDArray[np.float32]:
    """Maps on a model's grid, brought bilinearly to the pixels of the original image.

    Args:
        maps: (..., row, col) on ``grid``.
        grid: where the cells look in the network's input.
        frame: how the original image became the network's input.
        rows: of the original image, if not all are wanted.
        cols: likewise.

    Returns:
        (..., row, col) float32 at ``frame.original_size_rc``, or the part of it.
    """
    laid = laid_on_original(maps, grid, frame, rows=rows, cols=cols)
    return laid.rows(0, laid.size_rc[0])


def laid_on_original(
    maps: NDArray[np.float32], grid: Grid, frame: Frame, *, rows: slice = slice(None), cols: slice = slice(None)
) -> Interpolated:
    """As :func:`to_original`, to be read some rows at a time."""
    if tuple(maps.shape[-2:]) != tuple(grid.size_rc):
        raise ValueError(f"maps of {maps.shape[-2:]} cells do not fit a grid of {grid.size_rc}")
    down, across = (_places_of_pixels(grid, frame, axis) for axis in (0, 1))
    return Interpolated(maps, down.part(rows), across.part(cols))


def cell_weights(grid: Grid, frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much each row and column of cells counts in a map's mean over the original image's pixels; each sums to 1.

    The mean over original pixels of ``maps`` (..., row, col) is ``rows @ maps @ cols``, since interpolation is linear.
    """
    rows, cols = (
        interpolation_matrix(cells_of_pixels(grid, frame, axis), grid.size_rc[axis]).mean(axis=0, dtype=np.float64)
        for axis in (0, 1)
    )
    return rows, cols


def reduced_size(size_rc: tuple[int, int], factor: int) -> tuple[int, int]:
    """Rows and columns of an image reduced by a whole number; a last block need not be whole, as in Pillow's."""
    return -(-size_rc[0] // factor), -(-size_rc[1] // factor)


def reduce_mask(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    """A mask (row, col) reduced by a whole number: the pixel in the middle of each block."""
    rows, cols = (middles_of_blocks(size, factor) for size in mask.shape)
    return mask.take(rows, axis=0).take(cols, axis=1)


def middles_of_blocks(size: int, factor: int) -> NDArray[np.int64]:
    """Along an axis of so many pixels, the one in the middle of each block; of a last one that is cut, its last."""
    return np.minimum(np.arange(-(-size // factor)) * factor + factor // 2, size - 1)


def mask_to_frame(mask: NDArray[np.bool_], frame: Frame) -> NDArray[np.bool_]:
    """A mask of the original image in the new one, nearest pixel; padding is empty."""
    inside = []
    for axis in (0, 1):
        at = (np.arange(frame.size_rc[axis]) + 0.5 - frame.offset_rc[axis]) / frame.scale_rc[axis]
        inside.append(np.floor(at).astype(np.int64))
    rows, cols = inside
    known = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((cols >= 0) & (cols < mask.shape[1]))[None]
    return known & mask[np.ix_(rows.clip(0, mask.shape[0] - 1), cols.clip(0, mask.shape[1] - 1))]


def stretch_mask(mask: NDArray[np.bool_], size_rc: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask (row, col) stretched over an image of another size, nearest pixel; of that size, it comes back as is."""
    if mask.shape == tuple(size_rc):
        return mask
    # Whole numbers: the pixel under a centre is exact, where floats would now and then fall on its neighbour.
    rows, cols = (
        (2 * np.arange(size) + 1) * cells // (2 * size) for size, cells in zip(size_rc, mask.shape, strict=True)
    )
    return mask.take(rows, axis=0).take(cols, axis=1)


def box_area(boxes_xyxy: ArrayLike) -> FloatArray:
    """Areas of boxes (n, 4) -> (n,), in square pixels; an inverted box has area 0."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    return np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None)


def box_iou(a_xyxy: ArrayLike, b_xyxy: ArrayLike) -> FloatArray:
    """Intersection over union of continuous, half-open boxes: (n, 4) and (m, 4) -> (n, m). Two empty boxes give 0."""
    a = np.asarray(a_xyxy, dtype=np.float64).reshape(-1, 4)
    b = np.asarray(b_xyxy, dtype=np.float64).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    union = box_area(a)[:, None] + box_area(b)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def boxes_to_mask(boxes_xyxy: ArrayLike, size_rc: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of boxes as a mask: a pixel belongs to a box if its centre does."""
    mask = np.zeros(size_rc, dtype=bool)
    rows = np.arange(size_rc[0]) + 0.5
    cols = np.arange(size_rc[1]) + 0.5
    for x1, y1, x2, y2 in np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4):
        mask |= ((rows >= y1) & (rows < y2))[:, None] & ((cols >= x1) & (cols < x2))[None]
    return mask
