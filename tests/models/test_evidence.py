"""Where cells look, measured on networks whose centres are known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from radtag.geometry import Grid
from radtag.models.evidence import measure_evidence, measure_grid
from radtag.models.output import Output


class Stack(nn.Module):
    """Stride-2 convolutions of ones, each after padding of (left, right, top, bottom)."""

    def __init__(self, depth: int, pad: tuple[int, int, int, int], kernel: int = 3) -> None:
        super().__init__()
        self.depth, self.pad, self.kernel = depth, pad, kernel

    def forward(self, images: Tensor) -> Output:
        maps = images
        for _ in range(self.depth):
            maps = F.conv2d(F.pad(maps, self.pad), torch.ones(1, 1, self.kernel, self.kernel), stride=2)
        return Output(maps.amax(dim=(2, 3)), maps)


def noise(rows: int, cols: int) -> Tensor:
    return torch.rand(8, 1, rows, cols, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_padding_on_both_sides_pulls_up_and_left(depth):
    """Kernel 3, padding 1: cell i of the next level reads 2i-1, 2i, 2i+1, so it is centred on pixel 2^k i: + 0.5."""
    rows, cols = 24 * 2**depth, 16 * 2**depth
    grid = measure_grid(Stack(depth, (1, 1, 1, 1)), noise(rows, cols))
    assert grid.size_rc == (24, 16)
    np.testing.assert_allclose(grid.scale_rc, 2**depth, rtol=1e-3)
    np.testing.assert_allclose(grid.offset_rc, 0.5, atol=0.05 * 2**depth)


@pytest.mark.parametrize("depth", [2, 3])
def test_padding_after_the_image_pushes_down_and_right(depth):
    """TensorFlow's "same": cell i reads 2i, 2i+1, 2i+2, so its centre moves 1 level pixel each level: 2^k - 0.5."""
    rows, cols = 24 * 2**depth, 16 * 2**depth
    grid = measure_grid(Stack(depth, (0, 1, 0, 1)), noise(rows, cols))
    np.testing.assert_allclose(grid.scale_rc, 2**depth, rtol=1e-3)
    np.testing.assert_allclose(grid.offset_rc, 2**depth - 0.5, atol=0.05 * 2**depth)


def test_rows_and_columns_are_measured_apart():
    # Rows padded before (cell i reads 2i-2..2i: centre moves up a pixel a level), columns after.
    grid = measure_grid(Stack(2, (0, 1, 2, 0)), noise(96, 160))
    assert grid.size_rc == (24, 40)
    np.testing.assert_allclose(grid.offset_rc, (0.5 - 3, 0.5 + 3), atol=0.2)  # 1 + 2 pixels, up and to the right


def test_tiles_are_found_where_cells_are_tiles():
    grid = measure_grid(Stack(2, (0, 0, 0, 0), kernel=2), noise(64, 96))
    tiles = Grid.tiles((16, 24), (64, 96))
    assert grid.size_rc == tiles.size_rc
    np.testing.assert_allclose(grid.scale_rc, tiles.scale_rc, rtol=1e-3)
    np.testing.assert_allclose(grid.offset_rc, tiles.offset_rc, atol=0.05)


def test_a_map_of_one_cell_keeps_the_tile():
    class One(nn.Module):
        def forward(self, images: Tensor) -> Output:
            maps = images.mean(dim=(2, 3), keepdim=True)
            return Output(maps[:, :, 0, 0], maps)

    assert measure_grid(One(), noise(32, 48)) == Grid.tiles((1, 1), (32, 48))


def test_the_measure_is_repeatable_and_leaves_the_model_as_it_was():
    class Dropping(Stack):
        def __init__(self) -> None:
            super().__init__(2, (1, 1, 1, 1))
            self.norm = nn.BatchNorm2d(1)

        def forward(self, images: Tensor) -> Output:
            return super().forward(self.norm(images))

    model, images = Dropping().train(), noise(64, 96)
    before, statistics = images.clone(), model.norm.running_mean.clone()
    first = measure_grid(model, images)
    assert measure_grid(model, images) == first
    assert model.training
    assert torch.equal(model.norm.running_mean, statistics)  # measured in eval mode
    assert model.norm.weight.grad is None
    assert torch.equal(images, before)
    assert not images.requires_grad


class Beside(nn.Module):
    """Two findings that see the same spots from cells of 8 pixels: one up and left of its cell, one down and right."""

    def __init__(self, reach_rc: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.reach_rc = reach_rc  # where a cell's 8 x 8 pixels lie against its tile

    def forward(self, images: Tensor) -> Output:
        shifted = [torch.roll(images, (-rows, -cols), dims=(2, 3)) for rows, cols in self.reach_rc]
        maps = F.avg_pool2d(torch.cat(shifted, dim=1) ** 2, 8)
        return Output(maps.amax(dim=(2, 3)), maps)


def spots(count: int, side: int = 128) -> NDArray[np.uint8]:
    """Images with one bright spot in the inner part, on a dark ground."""
    random = np.random.default_rng(0)
    images = np.full((count, side, side), 10, dtype=np.uint8)
    for image in images:
        row, col = random.integers(32, side - 40, 2)
        image[row : row + 8, col : col + 8] = 250
    return images


def evidence(model: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.float64]) -> tuple[Grid, ...]:
    def normalise(pixels: Tensor) -> Tensor:
        return (pixels.float() / 255)[:, None]

    return measure_evidence(model, images, normalise, model(normalise(torch.from_numpy(images))).maps.numpy(), labels)


def test_every_finding_is_laid_where_its_own_strongest_cells_look():
    images = spots(24)
    above, below = evidence(Beside(((-7, -5), (6, 9))), images, np.ones((24, 2)))
    for grid, reach in ((above, (-7, -5)), (below, (6, 9))):
        assert grid.size_rc == (16, 16)
        np.testing.assert_allclose(grid.scale_rc, 8, rtol=0.1)
        at = [grid.scale_rc[a] * 7 + grid.offset_rc[a] for a in (0, 1)]  # a cell in the middle
        np.testing.assert_allclose(at, [7 * 8 + 4 + one for one in reach], atol=2.5)


def test_images_without_the_finding_are_asked_only_where_few_have_it():
    # In images without the finding the strongest cell is at the far corner, and would bend the offset.
    images = spots(40)
    images[20:] = 10
    images[20:, 120:, 120:] = 60
    labels = np.repeat([[1.0], [0.0]], 20, axis=0)
    reach = ((-7, -5),)
    (all_of_them,) = evidence(Beside(reach), images, labels)
    (positives,) = evidence(Beside(reach), images[:20], labels[:20])
    assert all_of_them == positives
    (borrowed,) = evidence(Beside(reach), images[17:], labels[17:])  # three positives: five are borrowed
    assert borrowed != positives


def test_cells_that_listen_to_nothing_take_the_others_offset_or_else_the_tiles():
    class Deaf(Beside):
        hears = (1.0, 1.0, 0.0)

        def forward(self, images: Tensor) -> Output:
            maps = super().forward(images).maps * torch.tensor(self.hears)[:, None, None]
            return Output(maps.amax(dim=(2, 3)), maps)

    model = Deaf(((-7, -5), (6, 9), (0, 0)))
    one, other, deaf = evidence(model, spots(24), np.ones((24, 3)))
    np.testing.assert_allclose(deaf.offset_rc, np.median([one.offset_rc, other.offset_rc], axis=0))
    model.hears = (0.0, 0.0, 0.0)
    assert evidence(model, spots(24), np.ones((24, 3))) == (Grid.tiles((16, 16), (128, 128)),) * 3


def test_no_pass_is_refused():
    with pytest.raises(ValueError, match="at least one pass"):
        measure_grid(Stack(2, (1, 1, 1, 1)), noise(64, 64), passes=0)
