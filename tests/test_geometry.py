"""Coordinates: frames, grids and boxes, by hand on sizes that are not square."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from radtag.geometry import (
    Frame,
    Grid,
    box_area,
    box_iou,
    boxes_to_mask,
    cell_weights,
    interpolate,
    interpolation_matrix,
    mask_to_frame,
    reduce_mask,
    reduced_size,
    stretch_mask,
    to_original,
)

sides = st.integers(min_value=1, max_value=400)


def test_a_stretch_scales_rows_and_columns_apart():
    frame = Frame.stretch((100, 200), (50, 400))  # rows halved, columns doubled
    assert frame.scale_rc == (0.5, 2.0)
    assert frame.offset_rc == (0.0, 0.0)
    assert frame.placed_rc == (0, 0, 50, 400)
    assert frame.boxes_to_frame([[10, 20, 30, 60]]).tolist() == [[20.0, 10.0, 60.0, 30.0]]
    assert frame.boxes_to_original([[20, 10, 60, 30]]).tolist() == [[10.0, 20.0, 30.0, 60.0]]


def test_a_letterbox_keeps_the_aspect_and_centres():
    wide = Frame.letterbox((100, 200), (64, 64))  # zoom .32: 32 rows of 64, so 16 rows of padding above
    assert wide.placed_rc == (16, 0, 32, 64)
    assert wide.boxes_to_frame([[0, 0, 200, 100]]).tolist() == [[0.0, 16.0, 64.0, 48.0]]
    assert wide.boxes_to_original([[32, 16, 64, 32]]).tolist() == [[100.0, 0.0, 200.0, 50.0]]
    tall = Frame.letterbox((300, 100), (60, 90))  # zoom .2: 60 x 20 of 60 x 90, 35 columns to the left
    assert tall.placed_rc == (0, 35, 60, 20)
    assert tall.boxes_to_original([[35, 0, 55, 60]]).tolist() == [[0.0, 0.0, 100.0, 300.0]]


def test_a_letterbox_of_odd_sizes_is_exact_to_the_pixels_it_fills():
    frame = Frame.letterbox((7, 3), (10, 10))  # zoom 10/7: 10 x 4 (4.29 rounded), 3 columns to the left
    assert frame.placed_rc == (0, 3, 10, 4)
    assert frame.scale_rc == (10 / 7, 4 / 3)
    np.testing.assert_allclose(frame.boxes_to_frame([[0, 0, 3, 7]]), [[3, 0, 7, 10]])


def test_the_frame_of_a_part_is_one_of_the_whole():
    part = Frame.stretch((20, 50), (40, 50))  # rows doubled
    whole = part.of_whole((100, 200), (30, 60))
    assert (whole.original_size_rc, whole.size_rc) == ((100, 200), (40, 50))
    assert whole.boxes_to_frame([[60, 30, 110, 50]]).tolist() == [[0.0, 0.0, 50.0, 40.0]]
    assert whole.boxes_to_original([[10, 20, 20, 40]]).tolist() == [[70.0, 40.0, 80.0, 50.0]]


@given(original=st.tuples(sides, sides), size=st.tuples(sides, sides), fit=st.sampled_from(["stretch", "letterbox"]))
def test_there_and_back_is_the_same_box(original, size, fit):
    frame = getattr(Frame, fit)(original, size)
    boxes = np.array([[0.0, 0.0, original[1], original[0]], [0.25, 0.5, 0.75 * original[1], 0.6 * original[0]]])
    there = frame.boxes_to_frame(boxes)
    np.testing.assert_allclose(frame.boxes_to_original(there), boxes, atol=1e-9)
    row, col, rows, cols = frame.placed_rc
    np.testing.assert_allclose(there[0], [col, row, col + cols, row + rows], atol=1e-9)
    assert row >= 0
    assert col >= 0
    assert row + rows <= size[0]
    assert col + cols <= size[1]


def test_boxes_handed_over_are_not_written_into():
    boxes = np.array([[10.0, 20.0, 30.0, 60.0]])
    frame = Frame.stretch((100, 200), (50, 400))
    frame.boxes_to_frame(boxes)
    frame.boxes_to_original(boxes)
    assert boxes.tolist() == [[10.0, 20.0, 30.0, 60.0]]


def test_no_boxes_stay_no_boxes():
    frame = Frame.stretch((100, 200), (50, 400))
    assert frame.boxes_to_frame([]).shape == (0, 4)
    assert frame.boxes_to_original(np.zeros((0, 4))).shape == (0, 4)


def test_an_image_left_as_it_is_keeps_its_boxes():
    assert Frame.identity((4, 7)).boxes_to_frame([[1, 2, 3, 4]]).tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_an_impossible_frame_is_refused():
    with pytest.raises(ValueError, match=r"at least one pixel a side, got \(0, 5\) -> \(4, 4\)"):
        Frame((0, 5), (4, 4), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"a scale is positive, got \(1\.0, 0\.0\)"):
        Frame((5, 5), (4, 4), (1.0, 0.0))


def test_interpolation_by_hand():
    matrix = interpolation_matrix([-3.0, 0.0, 0.25, 1.5, 2.0, 9.0], 3)
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 1], [0, 0, 1]]


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.integers(1, 9))
def test_interpolation_rows_sum_to_one_and_are_not_negative(positions, cells):
    matrix = interpolation_matrix(positions, cells)
    assert matrix.shape == (len(positions), cells)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    assert matrix.min() >= 0


@pytest.mark.parametrize(("cells", "size", "original"), [((4, 6), (64, 96), (50, 130)), ((8, 3), (64, 96), (200, 90))])
def test_tiles_and_a_stretch_are_every_librarys_upsampling(cells, size, original):
    """torch's bilinear interpolation with align_corners=False is the oracle."""
    maps = np.random.default_rng(0).random((2, 3, *cells), dtype=np.float32)
    brought = to_original(maps, Grid.tiles(cells, size), Frame.stretch(original, size))
    oracle = F.interpolate(torch.from_numpy(maps), size=original, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(brought, oracle.numpy(), atol=1e-6)
    assert brought.dtype == np.float32


def hot(cells: tuple[int, int], row: int, col: int) -> np.ndarray:
    maps = np.zeros((1, *cells), dtype=np.float32)
    maps[0, row, col] = 1
    return maps


def peak(one: np.ndarray) -> tuple[int, int]:
    row, col = np.unravel_index(one.argmax(), one.shape)
    return int(row), int(col)


def test_a_hot_cell_lies_at_the_centre_of_its_tile():
    # 3 x 5 cells on 48 x 80 input pixels: tiles of 16. Cell (1, 3) is centred at (24, 56) there. The original has
    # 96 x 240 pixels (x 2, x 3): (48, 168). The nearest pixel centres are 47.5 and 48.5; 167.5 and 168.5.
    brought = to_original(hot((3, 5), 1, 3), Grid.tiles((3, 5), (48, 80)), Frame.stretch((96, 240), (48, 80)))[0]
    assert peak(brought) == (47, 167)
    assert brought[47, 167] == brought[48, 168]
    assert brought[47, 167] == pytest.approx((1 - 0.5 / 32) * (1 - 0.5 / 48))  # half a pixel from the centre, each way
    assert brought[47 - 32, 167] == 0  # a cell and more away
    assert np.array_equal(np.flatnonzero(brought[47]), np.arange(120, 216))  # from cell 2's centre to cell 4's


def test_a_shifted_grid_moves_the_hot_cell():
    # The cells look 4 rows further up and 8 columns further right than the centres of their tiles.
    grid = Grid((3, 5), (16.0, 16.0), (8.0 - 4.5, 8.0 + 8.5))  # cell (1, 3): (19.5, 64.5) in the input
    brought = to_original(hot((3, 5), 1, 3), grid, Frame.identity((48, 80)))[0]
    assert peak(brought) == (19, 64)
    assert brought[19, 64] == 1
    assert brought[19, 64 + 4] == 0.75
    assert brought[19 - 8, 64] == 0.5


def test_the_padding_of_a_letterbox_is_left_out():
    # 20 x 40 original in 40 x 40: rows 10 to 30. Tiles of 10: cell row 0 looks at padding, row 1 at original row 5.
    frame = Frame.letterbox((20, 40), (40, 40))
    brought = to_original(hot((4, 4), 1, 2), Grid.tiles((4, 4), (40, 40)), frame)[0]
    assert brought.shape == (20, 40)
    assert peak(brought) == (4, 24)
    padded = to_original(hot((4, 4), 0, 2), Grid.tiles((4, 4), (40, 40)), frame)[0]
    assert padded.max() == pytest.approx(0.45 * 0.95)  # row 0 is .45 of the way from cell 1 to cell 0


def test_beyond_the_outermost_cells_their_value_stays():
    brought = to_original(hot((2, 2), 0, 0), Grid.tiles((2, 2), (8, 8)), Frame.identity((8, 8)))[0]
    assert brought[0, 0] == brought[1, 1] == 1


def test_a_map_that_does_not_fit_its_grid_is_refused():
    with pytest.raises(ValueError, match=r"maps of \(5, 3\) cells do not fit a grid of \(3, 5\)"):
        to_original(np.zeros((1, 5, 3), np.float32), Grid.tiles((3, 5), (48, 80)), Frame.identity((48, 80)))


def test_boxes_become_a_mask_by_their_pixels_centres():
    # (x 1-3, y 0.5-1.5): columns 1 and 2; row 0's centre .5 is inside, row 1's centre 1.5 is not (half-open).
    # (x 4.6-9, y 2-9): column 4's centre 4.5 is outside, so column 5 alone of six; rows 2 and 3 of four.
    mask = boxes_to_mask([[1, 0.5, 3, 1.5], [4.6, 2, 9, 9]], (4, 6))
    assert mask.astype(int).tolist() == [[0, 1, 1, 0, 0, 0], [0] * 6, [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1]]
    assert not boxes_to_mask([], (4, 6)).any()
    assert boxes_to_mask([], (4, 6)).shape == (4, 6)


def test_areas_by_hand():
    assert box_area([[0, 0, 3, 2], [5, 5, 4, 9], [1.5, 1, 2, 3]]).tolist() == [6, 0, 1]


def test_iou_by_hand():
    # 4x2 and 2x4 that share 2x2: 4 / (8 + 8 - 4). Touching half-open boxes share nothing. Two empty boxes give 0.
    a = [[0, 0, 4, 2], [2, 2, 2, 5]]
    b = [[2, 0, 4, 4], [4, 0, 6, 2], [0, 0, 4, 2], [2, 2, 2, 5]]
    np.testing.assert_allclose(box_iou(a, b), [[1 / 3, 0, 1, 0], [0, 0, 0, 0]])
    assert box_iou(a, []).shape == (2, 0)


@given(st.tuples(sides, sides, sides, sides))
def test_whole_boxes_and_their_masks_have_one_area(numbers):
    x1, y1, wide, high = numbers
    box = [x1 % 40, y1 % 30, x1 % 40 + wide % 20, y1 % 30 + high % 20]
    assert boxes_to_mask([box], (50, 60)).sum() == box_area([box])[0]


def test_a_mask_is_stretched_by_the_exact_pixel_under_each_centre():
    # 30 columns over 11: centre 5.5 lies at 15 exactly, where the rounded ratio 30 / 11 gives column 14.
    mask = np.zeros((2, 30), dtype=bool)
    mask[1, 15] = True
    assert np.argwhere(stretch_mask(mask, (3, 11))).tolist() == [[1, 5], [2, 5]]
    assert stretch_mask(mask, (2, 30)) is mask


def test_interpolation_is_that_of_the_matrices_and_a_part_is_that_of_the_whole_to_the_last_bit():
    random = np.random.default_rng(0)
    maps = random.random((2, 5, 7), np.float32)
    rows, cols = np.linspace(-1, 5.5, 61), np.linspace(-0.4, 6.2, 23)
    whole = interpolate(maps, rows, cols)
    exact = interpolation_matrix(rows, 5) @ maps @ interpolation_matrix(cols, 7).T
    np.testing.assert_allclose(whole, exact, atol=3e-7)
    for part in (slice(0, 61), slice(9, 10), slice(30, 47), slice(58, 61), slice(4, 4), slice(0, 61, 15)):
        np.testing.assert_array_equal(interpolate(maps, rows[part], cols[3:20]), whole[:, part, 3:20])
    np.testing.assert_array_equal(interpolate(np.full((1, 1), 0.3, np.float32), rows, cols), np.float32(0.3))


def test_a_mirrored_map_lies_where_the_mirrored_cells_look():
    # Cells at 1, 5, 9 of 12 columns; of the mirrored input they see 11, 7, 3, which mirrored back is 3, 7, 11.
    grid = Grid((2, 3), (6.0, 4.0), (3.0, 1.0))
    assert grid.mirrored(12) == Grid((2, 3), (6.0, 4.0), (3.0, 3.0))
    assert grid.mirrored(12).mirrored(12) == grid


def test_the_mean_over_original_pixels_without_making_the_map():
    grid, frame = Grid((3, 4), (2.0, 3.0), (0.5, 1.0)), Frame.letterbox((20, 37), (8, 12))
    maps = np.random.default_rng(0).random((2, 3, 4), dtype=np.float32)
    rows, cols = cell_weights(grid, frame)
    np.testing.assert_allclose(rows @ maps @ cols, to_original(maps, grid, frame).mean(axis=(1, 2)), rtol=1e-5)


def test_an_original_reduced_by_a_whole_number():
    assert reduced_size((7, 12), 3) == (3, 4)
    frame = Frame.letterbox((7, 12), (24, 24))
    smaller = frame.of_reduced(3)
    assert smaller.original_size_rc == (3, 4)
    # The middle of the second block of three pixels, (4.5, 4.5), is (1.5, 1.5) of the reduced image.
    at, of = np.array([[4.5, 4.5, 6.0, 6.0]]), np.array([[1.5, 1.5, 2.0, 2.0]])
    np.testing.assert_allclose(smaller.boxes_to_frame(of), frame.boxes_to_frame(at))
    mask = np.zeros((7, 12), dtype=bool)
    mask[4, 10] = True  # the middle of block (1, 3)
    mask[6, 1] = True  # in the last row of blocks, which has one row of pixels
    mask[3, 3] = True  # the corner of block (1, 1)
    expected = np.zeros((3, 4), dtype=bool)
    expected[1, 3] = expected[2, 0] = True
    np.testing.assert_array_equal(reduce_mask(mask, 3), expected)


def test_a_mask_in_a_letterbox_and_its_padding():
    mask = np.zeros((2, 4), dtype=bool)
    mask[0, 3] = True
    expected = np.zeros((8, 8), dtype=bool)
    expected[2:4, 6:8] = True  # two rows of padding above
    np.testing.assert_array_equal(mask_to_frame(mask, Frame.letterbox((2, 4), (8, 8))), expected)
