"""Where the cells of a map look.

A strided convolution with padding does not look at the centre of its tile: PyTorch's symmetric padding pulls every cell
of a stride-32 network up and left by 15.5 pixels, TensorFlow's "same" padding (timm's ``tf_`` networks) pushes it down
and right by as much. Upsampling a map as if cells were tiles draws it that far off the evidence.

So it is measured. The squared gradient of a cell with respect to the input says which pixels it listens to (the
effective receptive field of Luo, Li, Urtasun and Zemel, NeurIPS 2016); its centroid, within a window that follows it,
is where the cell looks; a line ``centre = scale * i + offset`` through many cells is a :class:`~radtag.geometry.Grid`.

:func:`measure_grid` asks cells at random and gives the network's geometry. :func:`measure_evidence` asks, for each
finding, the strongest cells of images that have it, and gives a grid per finding: a trained network whose cells listen
to most of the image may well put its strongest cell *beside* the lesion, for each finding on another side (with a
max-pooled CAM of EfficientNet-Lite0, nodules lay 20 pixels down and right of the middle of their cell's tile,
consolidations 23 pixels to the left), while the gradient of that cell lies on the lesion. Neither uses an outline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from radtag.geometry import Grid

WINDOW_CELLS = 1.5
"""Half-width of the window in which a cell's centroid is taken, in cells."""

SPACING_TOLERANCE = 0.1
"""A fitted spacing further from the tiles' than this share is no spacing: the tiles' is kept, and the offset fitted."""

_FEW = 8  # positive images, below which a finding borrows others


@runtime_checkable
class Images(Protocol):
    """Images of one size, picked by their numbers (m,) as (m, row, col) uint8: an array, or a view of a memory map."""

    def __getitem__(self, at: NDArray[np.int64], /) -> NDArray[np.uint8]: ...


def measure_grid(
    model: nn.Module,
    images: Float[Tensor, "batch channel row col"],
    *,
    passes: int = 12,
    window_cells: float = WINDOW_CELLS,
    seed: int = 0,
) -> Grid:
    """The grid of a network's maps, for inputs of the size of ``images``.

    Args:
        model: gives an :class:`~radtag.models.Output`; used in eval mode and left as it was.
        images: normalised inputs to measure on, real ones for a trained network; each pass asks each image for another
            cell.
        passes: forward and backward passes; ``passes * batch`` cells are looked at.
        window_cells: half-width of the window the centroid is taken in, in cells.
        seed: which cells are asked for.

    Returns:
        The fitted grid; the tiles' own where nothing can be fitted (a map of one cell).
    """
    was_training = model.training
    model.eval()
    size = (images.shape[2], images.shape[3])
    generator = torch.Generator().manual_seed(seed)
    found: list[list[_Look]] = [[], []]  # per axis
    grid: Grid | None = None
    try:
        for _ in range(passes):
            inputs = images.detach().clone().requires_grad_(True)
            maps = model(inputs).maps
            rows, cols = maps.shape[2], maps.shape[3]
            grid = Grid.tiles((rows, cols), size)
            cell_row = torch.randint(rows, (len(images),), generator=generator)
            cell_col = torch.randint(cols, (len(images),), generator=generator)
            chosen = maps[torch.arange(len(images)), :, cell_row.to(maps.device), cell_col.to(maps.device)]
            (gradient,) = torch.autograd.grad(chosen.sum(), inputs)
            weight = gradient.float().square().sum(dim=1).cpu().numpy().astype(np.float64)  # (batch, row, col)
            for one, at_row, at_col in zip(weight, cell_row.tolist(), cell_col.tolist(), strict=True):
                for axis, look in enumerate(_look(one, (at_row, at_col), grid, window_cells)):
                    found[axis].append(look)
    finally:
        model.train(was_training)
    if grid is None:
        raise ValueError("at least one pass is needed to measure a grid")
    lines = [_lines([found[axis]], grid.scale_rc[axis], grid.offset_rc[axis]) for axis in (0, 1)]
    (row_scale, (row_offset,)), (col_scale, (col_offset,)) = lines
    return Grid(grid.size_rc, (row_scale, col_scale), (row_offset, col_offset))


def measure_evidence(
    model: nn.Module,
    images: Images | NDArray[np.uint8],
    normalise: Callable[[Tensor], Tensor],
    maps: NDArray[np.floating[Any]],
    labels: NDArray[np.floating[Any]],
    *,
    looks: int = 16,
    at_once: int = 8,
    window_cells: float = WINDOW_CELLS,
) -> tuple[Grid, ...]:
    """A grid per finding: where the strongest cells of images that have the finding look.

    The spacing of the cells is common to all findings, the offset is each finding's own. A finding with fewer than
    eight positive images borrows the most suspicious of the others; one whose cells listen to nothing takes the median
    offset of the other findings.

    Args:
        model: gives an :class:`~radtag.models.Output`; used in eval mode and left as it was.
        images: (image, row, col) uint8 images the network was not trained on (the validation part).
        normalise: a batch of them -> the network's input (batch, channel, row, col).
        maps: (image, finding, row, col) what the model says of them, in logits.
        labels: (image, finding) 1, 0 or NaN = unknown.
        looks: images asked per finding.
        at_once: images a backward pass.
        window_cells: half-width of the window the centroid is taken in, in cells.
    """
    _, *size_rc = images[np.array([0])].shape
    size = (int(size_rc[0]), int(size_rc[1]))
    rows, cols = int(maps.shape[2]), int(maps.shape[3])
    tiles = Grid.tiles((rows, cols), size)
    peaks = maps.reshape(*maps.shape[:2], -1)
    asked = [
        (int(image), finding, *divmod(int(peaks[image, finding].argmax()), cols))
        for finding in range(maps.shape[1])
        for image in _most_certain(peaks[:, finding].max(axis=1), labels[:, finding] == 1, looks)
    ]
    seen: list[list[list[_Look]]] = [[[] for _ in range(maps.shape[1])] for _ in (0, 1)]  # axis, finding
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(asked), at_once):
            part = asked[start : start + at_once]
            pixels = images[np.array([image for image, *_ in part])]
            inputs = normalise(torch.from_numpy(pixels).to(device)).detach().requires_grad_(True)
            cells = torch.tensor([cell for _, *cell in part], device=device)
            chosen = model(inputs).maps[torch.arange(len(part), device=device), cells[:, 0], cells[:, 1], cells[:, 2]]
            (gradient,) = torch.autograd.grad(chosen.sum(), inputs)
            weight = gradient.float().square().sum(dim=1).cpu().numpy().astype(np.float64)
            for one, (_, finding, row, col) in zip(weight, part, strict=True):
                for axis, look in enumerate(_look(one, (row, col), tiles, window_cells)):
                    seen[axis][finding].append(look)
    finally:
        model.train(was_training)
    lines = [_lines(seen[axis], tiles.scale_rc[axis], tiles.offset_rc[axis]) for axis in (0, 1)]
    (row_scale, row_offsets), (col_scale, col_offsets) = lines
    return tuple(
        Grid((rows, cols), (row_scale, col_scale), offset) for offset in zip(row_offsets, col_offsets, strict=True)
    )


class _Look(NamedTuple):
    """Where a cell looks along one axis."""

    cell: int
    centre: float
    whole: bool  # its window lay wholly inside the image


def _most_certain(peaks: NDArray[np.floating[Any]], positive: NDArray[np.bool_], looks: int) -> NDArray[np.int_]:
    """The images to ask: positive ones, strongest first; others, strongest first, where there are fewer than eight."""
    order = np.lexsort((-peaks, ~positive))
    return order[: min(looks, max(int(positive.sum()), _FEW))]


def _lines(seen: list[list[_Look]], scale: float, offset: float) -> tuple[float, list[float]]:
    """One spacing for all findings, and each finding's offset, along an axis."""
    kept = [whole if len(whole := [one for one in looks if one.whole]) >= 4 else looks for looks in seen]
    cells = [np.array([one.cell for one in looks], dtype=np.float64) for looks in kept]
    centres = [np.array([one.centre for one in looks]) for looks in kept]
    # Least squares with an intercept per finding.
    across = np.concatenate([cell - cell.mean() if len(cell) else cell for cell in cells])
    along = np.concatenate([centre - centre.mean() if len(centre) else centre for centre in centres])
    if len(np.unique(np.concatenate(cells))) >= 3 and (across**2).sum() > 0:
        slope = float((across * along).sum() / (across**2).sum())
        if abs(slope / scale - 1) <= SPACING_TOLERANCE:
            scale = slope
    offsets = [
        float(np.median(one - scale * cell)) if len(cell) else np.nan for cell, one in zip(cells, centres, strict=True)
    ]
    known = [one for one in offsets if not np.isnan(one)]
    fallback = float(np.median(known)) if known else offset
    return scale, [fallback if np.isnan(one) else one for one in offsets]


def _look(
    weight: NDArray[np.float64], cell: tuple[int, int], grid: Grid, window_cells: float
) -> tuple[_Look, _Look] | tuple[()]:
    """Centroid along both axes, in a window that moves with it; nothing where all is 0."""
    size = weight.shape
    centre = [grid.scale_rc[a] * cell[a] + grid.offset_rc[a] for a in (0, 1)]
    half = [max(window_cells * grid.scale_rc[a], 8.0) for a in (0, 1)]
    for _ in range(8):
        low = [int(round(centre[a] - half[a])) for a in (0, 1)]
        high = [int(round(centre[a] + half[a])) for a in (0, 1)]
        inside = weight[max(low[0], 0) : max(high[0], 0), max(low[1], 0) : max(high[1], 0)]
        total = inside.sum()
        if not total > 0:
            return ()
        moved = []
        for a in (0, 1):
            positions = np.arange(max(low[a], 0), max(low[a], 0) + inside.shape[a]) + 0.5
            moved.append(float((inside.sum(axis=1 - a) * positions).sum() / total))
        settled = max(abs(moved[0] - centre[0]), abs(moved[1] - centre[1])) < 0.05
        centre = moved
        if settled:
            break
    # Each axis by itself: a cell at the left edge still tells its row.
    whole = [round(centre[a] - half[a]) >= 0 and round(centre[a] + half[a]) <= size[a] for a in (0, 1)]
    return _Look(cell[0], centre[0], whole[0]), _Look(cell[1], centre[1], whole[1])
