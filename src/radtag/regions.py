"""From a map in original pixels to a mask, its boxes and its peak.

Conventions
-----------
- A pixel is in the mask if map > threshold, strictly, so that a threshold of 0 leaves a map of zeros empty.
- Components are 8-connected. Boxes are xyxy, half-open, floats, original pixels: the box of a single pixel (row, col)
  is (col, row, col + 1, row + 1). They are listed by the highest map value inside, then by area, larger first.
- The peak is the centre of the first largest pixel in reading order: x = col + .5, y = row + .5.
- Otsu: N. Otsu, "A threshold selection method from gray-level histograms", 1979, on the map scaled to its own range and
  truncated to 256 levels, as cheXlocalize does it. It takes part of every map, a healthy image's as well.

Numpy and scipy only: usable on anybody's maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from radtag.geometry import (
    XYXY,
    FloatArray,
    Frame,
    Grid,
    cells_of_pixels,
    counted_from_0,
    interpolate,
    interpolate_at,
    middles_of_blocks,
)

Map = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

MIN_AREA_SHARE = 0.00025
"""Of the image; smaller components are dropped. One cell of a 64 x 64 map, 262 pixels of a 1024 x 1024 image."""


class Part(NamedTuple):
    """A part of an image: its rows and columns, and the whole image's size."""

    rows: slice
    cols: slice
    size_rc: tuple[int, int]


@dataclass(frozen=True)
class Regions:
    """What a threshold leaves of a map.

    Args:
        part: of the image, outside which the mask is empty.
        inside: the mask (row, col) of that part.
        boxes_xyxy: of each component, the one with the highest map value first.
        areas_px: pixels of each component.
        values: the highest map value of each component.
    """

    part: Part
    inside: Mask
    boxes_xyxy: tuple[XYXY, ...] = ()
    areas_px: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    @classmethod
    def none(cls, size_rc: tuple[int, int]) -> Regions:
        """Of an image of this size, an empty mask."""
        return cls(Part(slice(0, 0), slice(0, 0), size_rc), np.zeros((0, 0), dtype=bool))

    @cached_property
    def mask(self) -> Mask:
        """(row, col), original pixels. Most masks of many findings are small, and not all are looked at."""
        whole = np.zeros(self.part.size_rc, dtype=bool)
        whole[self.part.rows, self.part.cols] = self.inside
        return whole

    def reduced(self, factor: int) -> tuple[Mask, tuple[int, int]]:
        """The mask's part of the reduced image, as ``reduce_mask`` has it, and its first pixel there."""
        rows, cols = (middles_of_blocks(size, factor) for size in self.part.size_rc)
        (top, bottom), (left, right) = (
            np.searchsorted(middles, (along.start, along.stop))
            for middles, along in ((rows, self.part.rows), (cols, self.part.cols))
        )
        mask = self.inside.take(rows[top:bottom] - self.part.rows.start, axis=0)
        return mask.take(cols[left:right] - self.part.cols.start, axis=1), (int(top), int(left))

    @property
    def area_px(self) -> int:
        """Pixels of the whole mask."""
        return sum(self.areas_px)


def find(
    map_: Map,
    threshold: float,
    *,
    min_area_px: float | None = None,
    area: Mask | None = None,
    part: Part | None = None,
) -> Regions:
    """Mask and boxes of a map.

    Args:
        map_: (row, col), original pixels.
        threshold: in the mask if the map is above; NaN (the Otsu threshold of a constant map) leaves the mask empty.
        min_area_px: components with fewer pixels are dropped; None = ``MIN_AREA_SHARE`` of the image.
        area: (row, col) where anything may lie at all, such as the lungs; the map outside is not looked at.
        part: of the image that ``map_`` is, where nothing outside it exceeds the threshold; None = all of it.

    Raises:
        ValueError: a map that is not two-dimensional, or an area of another size.
    """
    if map_.ndim != 2:
        raise ValueError(f"a map is rows x columns, got an array of shape {map_.shape}")
    if area is not None and area.shape != map_.shape:
        raise ValueError(f"an area of {area.shape} pixels does not fit a map of {map_.shape}")
    rows, cols = map_.shape
    above = np.zeros((rows, cols + 1), dtype=bool)  # a column of nothing ends every run with its row
    np.greater(map_, threshold, out=above[:, :cols])
    if area is not None:
        above[:, :cols] &= area
    down, across = (0, 0) if part is None else (part.rows.start, part.cols.start)
    size_rc = (rows, cols) if part is None else part.size_rc
    least = min_area_px if min_area_px is not None else MIN_AREA_SHARE * size_rc[0] * size_rc[1]
    runs = _Runs.of(above)
    if not len(runs.starts):
        return Regions.none(size_rc)
    count, component = runs.components()
    areas = np.bincount(component, runs.stops - runs.starts).astype(np.int64)
    kept = areas >= least
    dropped = ~kept[component]
    if dropped.any():
        above.reshape(-1)[runs.only(dropped).pixels()] = False
    values = np.full(count, -np.inf)
    np.maximum.at(values, component, runs.highest(map_))
    x1, y1, x2, y2 = runs.extents(component, count)
    order = sorted(np.flatnonzero(kept), key=lambda i: (-values[i], -areas[i]))
    top, bottom, left, right = y1.min(), y2.max(), x1.min(), x2.max()
    boxes = np.stack([across + x1, down + y1, across + x2, down + y2], axis=1).astype(np.float64)
    return Regions(
        Part(slice(down + int(top), down + int(bottom)), slice(across + int(left), across + int(right)), size_rc),
        above[top:bottom, left:right],
        tuple((float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in boxes[order]),
        tuple(int(areas[i]) for i in order),
        tuple(float(values[i]) for i in order),
    )


class _Runs(NamedTuple):
    """The pixels of a mask as runs within its rows, in reading order.

    A mask of smooth blobs has a thousandth as many runs as pixels. Putting these together takes a third of the time
    that labelling every pixel does, and areas, boxes and highest values follow from them.

    Args:
        starts: (run,) first pixel, counted through rows of ``width`` pixels.
        stops: (run,) one past the last pixel.
        width: of the mask's rows, the last pixel of which is in no run.
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    width: int

    @classmethod
    def of(cls, mask: Mask) -> _Runs:
        """Of a mask (row, col) whose last column is empty."""
        edges = np.flatnonzero(np.diff(mask.reshape(-1), prepend=False))
        return cls(edges[::2], edges[1::2], mask.shape[1])

    def only(self, wanted: Mask) -> _Runs:
        """Some of them."""
        return _Runs(self.starts[wanted], self.stops[wanted], self.width)

    def pixels(self) -> NDArray[np.int64]:
        """The numbers of their pixels."""
        lengths = self.stops - self.starts
        return np.repeat(self.starts, lengths) + counted_from_0(lengths)

    def components(self) -> tuple[int, NDArray[np.int32]]:
        """How many 8-connected components they are, and which one each is of, numbered by their first pixels."""
        # A run touches those of the next row that begin no later than a pixel past its end, and end no sooner than it
        # begins; with the empty column no run of any other row does.
        first = np.searchsorted(self.stops, self.starts + self.width, side="left")
        past = np.searchsorted(self.starts, self.stops + self.width, side="right")
        touching = past - first
        below = np.repeat(first, touching) + counted_from_0(touching)
        ends = np.concatenate([[0], touching.cumsum()])
        links = sparse.csr_array((np.ones(len(below)), below, ends), shape=(len(first), len(first)))
        count, component = sparse.csgraph.connected_components(links, directed=False)
        return int(count), component

    def highest(self, map_: Map) -> Map:
        """(run,) the highest value of a map (row, col), which has no empty column."""
        before = self.starts // self.width  # empty columns
        edges = np.stack([self.starts - before, self.stops - before], axis=1).reshape(-1)
        highest: Map = np.maximum.reduceat(map_.reshape(-1)[: edges[-1]], edges[:-1])[::2]
        return highest

    def extents(self, component: NDArray[np.int32], count: int) -> NDArray[np.int64]:
        """(4, component) x1, y1, x2, y2 of boxes around the runs of each component."""
        row, col = np.divmod(self.starts, self.width)
        least = np.full((2, count), np.iinfo(np.int64).max)
        most = np.zeros((2, count), dtype=np.int64)
        for at, (first, past) in enumerate(((col, col + self.stops - self.starts), (row, row + 1))):
            np.minimum.at(least[at], component, first)
            np.maximum.at(most[at], component, past)
        return np.concatenate([least, most])


def peak(map_: Map) -> tuple[float, float]:
    """(x, y) of the centre of the first largest pixel of a map (row, col)."""
    row, col = np.unravel_index(int(np.argmax(map_)), map_.shape)
    return float(col) + 0.5, float(row) + 0.5


def peaks(layers: Sequence[tuple[NDArray[np.float32], Grid, Frame]]) -> NDArray[np.float64]:
    """The peak of the mean of maps that are still on their grids, without bringing them to original pixels.

    The mean is bilinear between the places where any of its cells lie, and a bilinear surface has its largest pixel in
    a corner, so only the pixels on either side of those places are looked at: of a 1024 x 1024 image, 128 x 128.

    Args:
        layers: maps (finding, row, col), where their cells look, and how the original became the network's input. All
            of one original image.

    Returns:
        (finding, 3): x, y and the value there.
    """
    if len(layers) == 1:
        maps, grid, frame = layers[0]
        found = _peaks_near_high_cells(
            maps.astype(np.float32, copy=False), _axis(grid, frame, 0), _axis(grid, frame, 1)
        )
        if found is not None:
            return found
    corners, places = [], []  # per axis: the pixels to look at; and per layer, where they are in cell indices
    for axis in (0, 1):
        cells = [cells_of_pixels(grid, frame, axis) for _, grid, frame in layers]
        at = _corners(cells, [grid.size_rc[axis] for _, grid, _ in layers])
        corners.append(at)
        places.append([cell[at] for cell in cells])
    total: NDArray[np.float32] | None = None
    for (maps, _, _), down, across in zip(layers, *places, strict=True):
        here = interpolate(maps, down, across)
        total = here if total is None else total + here
    assert total is not None
    mean = (total if len(layers) == 1 else total / np.float32(len(layers))).reshape(len(total), -1)
    at = mean.argmax(axis=1)
    row, col = np.unravel_index(at, (len(corners[0]), len(corners[1])))
    return np.stack([corners[1][col] + 0.5, corners[0][row] + 0.5, mean[np.arange(len(mean)), at]], axis=1)


def _corners(cells: Sequence[FloatArray], counts: Sequence[int]) -> NDArray[np.int64]:
    """The pixels of an axis on either side of any layer's cells.

    Args:
        cells: per layer, each pixel in cell indices.
        counts: per layer, its cells.
    """
    starts = np.zeros(len(cells[0]), dtype=bool)
    starts[0] = True
    for cell, count in zip(cells, counts, strict=True):
        between = np.floor(np.clip(cell, -1, count - 1))
        starts[1:] |= between[1:] != between[:-1]
    first = np.flatnonzero(starts)
    return np.union1d(first, np.append(first[1:] - 1, len(starts) - 1))


class _Axis(NamedTuple):
    """The pixels of an axis that a peak can be at; of images of one size and one network the same.

    Args:
        pixels: (n,) their numbers.
        places: (n,) in cell indices.
        near: (cell, k) which of them are less than a cell away from each cell; some of them twice.
    """

    pixels: NDArray[np.int64]
    places: FloatArray
    near: NDArray[np.int64]


@lru_cache(maxsize=256)
def _axis(grid: Grid, frame: Frame, axis: int) -> _Axis:
    count = grid.size_rc[axis]
    cells = cells_of_pixels(grid, frame, axis)
    pixels = _corners([cells], [count])
    inside = np.clip(cells[pixels], 0, count - 1)
    first = np.searchsorted(inside, np.arange(count) - 1, side="right")
    past = np.searchsorted(inside, np.arange(count) + 1, side="left")
    most = np.arange(max(1, int((past - first).max())))
    return _Axis(pixels, cells[pixels], np.clip(first[:, None] + most, 0, np.maximum(past - 1, 0)[:, None]))


def _peaks_near_high_cells(maps: NDArray[np.float32], rows: _Axis, cols: _Axis) -> NDArray[np.float64] | None:
    """As :func:`peaks` for one layer, looking only near cells as high as some pixel: no pixel is above all its cells.

    Args:
        maps: (finding, row, col) cells.
        rows: the pixels to look at.
        cols: likewise.

    Returns:
        None where that would be no less work than looking everywhere.
    """
    count, *cells_rc = maps.shape

    def look(finding: Any, row: Any, col: Any) -> tuple[Any, Any, NDArray[np.float32]]:
        """Places (n, k, 1) and (n, 1, k) near n cells, and the values there (n, k, k)."""
        down, across = rows.near[row][:, :, None], cols.near[col][:, None, :]
        return down, across, interpolate_at(maps, finding[:, None, None], rows.places[down], cols.places[across])

    flat = maps.reshape(count, -1)
    every = np.arange(count)
    bound = look(every, *np.unravel_index(flat.argmax(axis=1), cells_rc))[2].max(axis=(1, 2))
    finding, cell = np.nonzero(flat >= bound[:, None])
    if len(finding) > flat.size // 64:
        return None
    down, across, values = look(finding, *np.unravel_index(cell, cells_rc))
    number = down * len(cols.pixels) + across  # in reading order
    finding = np.broadcast_to(finding[:, None, None], values.shape).ravel()
    order = np.lexsort((number.ravel(), -values.ravel(), finding))
    best = order[np.searchsorted(finding[order], every)]
    row, col = np.divmod(number.ravel()[best], len(cols.pixels))
    return np.stack([cols.pixels[col] + 0.5, rows.pixels[row] + 0.5, values.ravel()[best]], axis=1)


def part_above(layers: Sequence[tuple[NDArray[np.float32], Grid, Frame]], threshold: float) -> Part:
    """The part of the original image outside which the mean of maps (row, col) on their grids cannot be above.

    A pixel's value lies between those of the cells around it, and a mean is above only where one of what it is made of
    is. A part may be larger than need be; it is empty where no cell is above.
    """
    size_rc = layers[0][2].original_size_rc
    slices = []
    for axis in (0, 1):
        first, last = size_rc[axis], 0
        for cells, grid, frame in layers:
            # The margin is for the rounding of what is interpolated.
            low, high = _extent(np.any(cells > threshold - 1e-6, axis=1 - axis))
            if low == high:
                continue
            where = np.clip(cells_of_pixels(grid, frame, axis), 0, grid.size_rc[axis] - 1)
            near = np.flatnonzero((where > low - 1) & (where < high))
            if len(near):
                first, last = min(first, int(near[0])), max(last, int(near[-1]) + 1)
        slices.append(slice(min(first, last), last))
    return Part(slices[0], slices[1], size_rc)


def otsu_level(levels: NDArray[np.uint8]) -> int:
    """The gray level 0-255 that best parts those above it from the rest, by their variance; of equal ones the first."""
    counts = np.bincount(levels.ravel(), minlength=256).astype(np.float64)
    below = counts.cumsum()
    above = below[-1] - below
    mass = (counts * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = mass / below - (mass[-1] - mass) / above
        variance = np.where((below > 0) & (above > 0), below * above * apart**2, 0.0)
    return int(variance.argmax())


def otsu_threshold(map_: Map) -> float:
    """The value that map > value cuts as Otsu does on 256 levels between the map's minimum and maximum.

    Returns:
        The largest map value that is left out; NaN for a constant map, which has no two classes.
    """
    low, high = map_.min(), map_.max()
    if not high > low:
        return float("nan")
    levels = (255 * ((map_ - low) / (high - low))).astype(np.uint8)
    return float(map_[levels <= otsu_level(levels)].max())


def area_mm2(area_px: float, spacing_mm: tuple[float, float] | None) -> float:
    """Square millimetres of so many pixels; NaN where the spacing is unknown."""
    return float("nan") if spacing_mm is None else float(area_px * spacing_mm[0] * spacing_mm[1])


def _extent(occupied: Any) -> tuple[int, int]:
    """First and one past the last True; (0, 0) where there is none."""
    at = np.flatnonzero(occupied)
    return (int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0)
