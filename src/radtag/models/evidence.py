"""Where the cells of a map look.

A strided convolution with padding does not look at the centre of its tile: PyTorch's symmetric padding pulls every cell
of a stride-32 network up and left by 15.5 pixels, TensorFlow's "same" padding (timm's ``tf_`` networks) pushes it down
and right by as much. Upsampling a map as if cells were tiles draws it that far off the evidence.

So it is measured. The squared gradient of a cell with respect to the input says which pixels it listens to; its
centroid, within a window that follows it, is where the cell looks; a line ``centre = scale * i + offset`` through the
cells whose window lies wholly inside the image is the network's :class:`~radtag.geometry.Grid`. The squared gradient is
the effective receptive field of Luo, Li, Urtasun and Zemel (NeurIPS 2016).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from radtag.geometry import Grid


def measure_grid(
    model: nn.Module,
    images: Float[Tensor, "batch channel row col"],
    *,
    passes: int = 12,
    window_cells: float = 1.5,
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
    found: list[list[tuple[int, float]]] = [[], []]  # per axis: cell, centre
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
                for axis, cell in ((0, at_row), (1, at_col)):
                    centre = _centroid(one, axis, (at_row, at_col), grid, window_cells)
                    if centre is not None:
                        found[axis].append((cell, centre))
    finally:
        model.train(was_training)
    if grid is None:
        raise ValueError("at least one pass is needed to measure a grid")
    fits = [_line(found[axis], grid.scale_rc[axis], grid.offset_rc[axis]) for axis in (0, 1)]
    return Grid(grid.size_rc, (fits[0][0], fits[1][0]), (fits[0][1], fits[1][1]))


def _centroid(
    weight: NDArray[np.float64], axis: int, cell: tuple[int, int], grid: Grid, window_cells: float
) -> float | None:
    """Centroid along an axis in a window that moves with it; None where the window leaves the image."""
    size = weight.shape
    centre = [grid.scale_rc[a] * cell[a] + grid.offset_rc[a] for a in (0, 1)]
    half = [max(window_cells * grid.scale_rc[a], 8.0) for a in (0, 1)]
    for _ in range(8):
        low = [int(round(centre[a] - half[a])) for a in (0, 1)]
        high = [int(round(centre[a] + half[a])) for a in (0, 1)]
        inside = weight[max(low[0], 0) : max(high[0], 0), max(low[1], 0) : max(high[1], 0)]
        total = inside.sum()
        if not total > 0:
            return None
        moved = []
        for a in (0, 1):
            positions = np.arange(max(low[a], 0), max(low[a], 0) + inside.shape[a]) + 0.5
            moved.append(float((inside.sum(axis=1 - a) * positions).sum() / total))
        settled = max(abs(moved[0] - centre[0]), abs(moved[1] - centre[1])) < 0.05
        centre = moved
        if settled:
            break
    # Only this axis must be free of the border: a cell at the left edge still tells its row.
    if round(centre[axis] - half[axis]) < 0 or round(centre[axis] + half[axis]) > size[axis]:
        return None
    return centre[axis]


def _line(points: list[tuple[int, float]], scale: float, offset: float) -> tuple[float, float]:
    """Median centre of each cell, then least squares through them.

    Where there are fewer than three cells, or the line departs from the tiles' spacing by more than a tenth (a network
    whose cells all see the whole image has no spacing to measure), the spacing is the tiles' and only the offset moves.
    """
    if not points:
        return scale, offset
    cells = np.array([cell for cell, _ in points])
    centres = np.array([centre for _, centre in points])
    distinct = np.unique(cells)
    medians = np.array([np.median(centres[cells == cell]) for cell in distinct])
    if len(distinct) < 3:
        return scale, float(np.mean(medians - scale * distinct))
    counts = np.array([np.sum(cells == cell) for cell in distinct])
    slope, intercept = np.polyfit(distinct, medians, 1, w=np.sqrt(counts))
    if abs(slope / scale - 1) > 0.1:
        return scale, float(np.median(medians - scale * distinct))
    return float(slope), float(intercept)
