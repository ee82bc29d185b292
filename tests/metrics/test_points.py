"""Pointing: by hand on maps that are not square."""

from __future__ import annotations

import numpy as np
import pytest

from radtag.metrics import points


def map_with(size_rc, **values) -> np.ndarray:
    made = np.zeros(size_rc, dtype=np.float32)
    for place, value in values.items():
        row, col = (int(n) for n in place[1:].split("_"))
        made[row, col] = value
    return made


def test_first_maximum_is_row_col_and_the_first_in_raster_order() -> None:
    maps = np.stack([map_with((3, 5), _2_4=1.0), map_with((3, 5), _1_3=0.5, _2_0=0.5), np.zeros((3, 5), np.float32)])
    assert points.first_maximum(maps).tolist() == [[2, 4], [1, 3], [0, 0]]


def test_pylon_includes_both_ends_and_compares_the_index() -> None:
    hot = map_with((4, 9), _2_6=1.0)
    assert points.pointing_hit(hot, [[3, 1, 6, 3]]) == 1  # col 6 = x2, just outside the half-open box
    assert points.pointing_hit(hot, [[3, 1, 6, 3]], convention="radtag") == 0
    assert points.pointing_hit(hot, [[6.3, 1, 8, 3]]) == 0  # index 6 < 6.3, though the centre 6.5 lies inside
    assert points.pointing_hit(hot, [[6.3, 1, 8, 3]], convention="radtag") == 1
    assert points.pointing_hit(hot, [[5, 0, 8, 2.5]], convention="radtag") == 0  # the centre 2.5 is at the open end
    assert points.pointing_hit(hot, [[5, 2.5, 8, 4]], convention="radtag") == 1
    assert points.pointing_hit(hot, [[1, 5, 3, 7]]) == 0  # x and y the wrong way round would hit
    assert points.pointing_hit(hot, [[0, 0, 1, 1], [5, 2, 7, 2]]) == 1  # one of several boxes is enough


def test_rows_and_columns_are_not_swapped() -> None:
    assert points.points_in_boxes([[1, 7]], [[7, 1, 8, 2]], [0]).tolist() == [1]
    assert points.points_in_boxes([[7, 1]], [[7, 1, 8, 2]], [0]).tolist() == [0]


def test_pairs_without_a_box_are_undefined_not_missed() -> None:
    maps = np.stack([map_with((3, 4), _1_1=1.0)] * 3)
    hits = points.pointing_hits(maps, [[0, 0, 2, 2], [3, 2, 4, 3], [0, 0, 1, 1]], [0, 2, 0])
    np.testing.assert_array_equal(hits, [1, np.nan, 0])
    assert np.isnan(points.pointing_hit(maps[0], np.empty((0, 4))))


def test_a_margin_reaches_round_corners() -> None:
    box = [[10, 10, 20, 20]]
    points_rc = [[7, 15], [5, 15], [7, 6], [8, 7]]  # 3 above; 5 above; 3 and 4 off a corner = 5; 2 and 3 = 3.6
    hits = [points.points_in_boxes([p], box, [0], margin_px=4)[0] for p in points_rc]
    assert hits == [1, 0, 0, 1]
    assert points.points_in_boxes([[7, 6]], box, [0], margin_px=5).tolist() == [1]


def test_ties_on_a_mask() -> None:
    plateau = map_with((2, 5), _0_1=0.9, _0_4=0.9, _1_4=0.9)
    mask = np.array([[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]])
    assert points.pointing_hit_mask(plateau, mask) == 0
    assert points.pointing_hit_mask(plateau, mask, ties="any") == 1
    assert points.pointing_hit_mask(plateau, mask, ties="expected") == pytest.approx(2 / 3)
    assert np.isnan(points.pointing_hit_mask(plateau, np.zeros((2, 5), int), ties="any"))


def test_refusals_name_the_value() -> None:
    good = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="NaN"):
        points.pointing_hit(np.full((3, 4), np.nan, np.float32), [[0, 0, 1, 1]])
    with pytest.raises(ValueError, match=r"\[3\.0, 0\.0, 1\.0, 1\.0\] is not x1, y1, x2, y2"):
        points.pointing_hit(good, [[3, 0, 1, 1]])
    with pytest.raises(ValueError, match="2 boxes have 1 owners"):
        points.points_in_boxes([[0, 0]], [[0, 0, 1, 1]] * 2, [0])
    with pytest.raises(ValueError, match="owners run from 1 to 1, but there are 1 pairs"):
        points.points_in_boxes([[0, 0]], [[0, 0, 1, 1]], [1])
    with pytest.raises(ValueError, match="'pylon' or 'radtag', got 'coco'"):
        points.pointing_hit(good, [[0, 0, 1, 1]], convention="coco")
    with pytest.raises(ValueError, match="does not lie on a mask"):
        points.pointing_hit_mask(good, np.ones((4, 3)))


def test_the_pointing_game_on_a_mask_allows_a_margin() -> None:
    score_map, mask = np.zeros((30, 40), np.float32), np.zeros((30, 40), bool)
    score_map[3, 4] = 1
    mask[12, 16] = True  # 9 rows and 12 columns away: 15 pixels
    assert points.pointing_hit_mask(score_map, mask) == 0
    assert points.pointing_hit_mask(score_map, mask, margin_px=points.POINTING_GAME_MARGIN_PX) == 1
    assert points.pointing_hit_mask(score_map, mask, margin_px=14.9) == 0
    assert points.pointing_hit_mask(score_map, mask, margin_px=15, ties="any") == 1
    assert np.isnan(points.pointing_hit_mask(score_map, np.zeros((30, 40)), margin_px=15))


def test_the_smallest_box_around_a_point_is_its_own() -> None:
    boxes = [[0, 0, 10, 20], [2, 2, 6, 6], [30, 0, 40, 5]]
    #       row, col: in the small box, on its edge, in the large one alone, in none, in the third
    at = [[3, 3], [6, 6], [15, 5], [7, 20], [5, 30]]
    assert points.box_of_points(at, boxes).tolist() == [2, 2, 1, 0, 3]
    assert points.box_of_points(at, boxes[::-1]).tolist() == [2, 2, 3, 0, 1]
    assert points.box_of_points(at, boxes, convention="radtag").tolist() == [2, 1, 1, 0, 0]
    assert points.box_of_points(at, np.zeros((0, 4))).tolist() == [0] * 5
    assert points.box_of_points(np.zeros((0, 2)), boxes).tolist() == []
