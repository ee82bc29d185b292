"""Where cells look, measured on networks whose centres are known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radtag.geometry import Grid
from radtag.models.evidence import measure_grid
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


def test_no_pass_is_refused():
    with pytest.raises(ValueError, match="at least one pass"):
        measure_grid(Stack(2, (1, 1, 1, 1)), noise(64, 64), passes=0)
