"""Boxes: by hand on maps that are not square, and drawn boxes against geometry's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radtag.geometry import boxes_to_mask
from radtag.metrics import boxes, detections


def one(score_map, boxes_xyxy, **options) -> boxes.UnionOverlap:
    predicted = boxes.above_share_of_maximum(np.asarray(score_map, dtype=np.float32))[None]
    return boxes.union_overlap(predicted, boxes_xyxy, np.zeros(len(boxes_xyxy), int), **options)


def test_iobb_and_iou_by_hand() -> None:
    score_map = np.zeros((4, 6), np.float32)
    score_map[1, 1:5] = 0.3  # four predicted pixels
    score_map[3, 0] = 0.15  # exactly half of the maximum: not predicted
    boxes_xyxy = [[0, 0, 2, 2], [1, 1, 4, 3]]  # 4 and 6 pixels, one in common: 9
    overlap = one(score_map, boxes_xyxy)
    assert (overlap.shared_px[0], overlap.predicted_px[0], overlap.boxes_px[0]) == (3, 4, 9)
    assert overlap.iobb[0] == 3 / 4
    assert overlap.iou[0] == 3 / 10
    assert boxes.iobb(score_map, boxes_xyxy) == 3 / 4
    assert boxes.iou_with_union(score_map, boxes_xyxy) == 3 / 10


def test_thresholds_are_strict_and_by_says_which() -> None:
    overlap = boxes.UnionOverlap(np.array([1]), np.array([2]), np.array([3]), np.array([True]))  # IoBB .5, IoU .25
    assert overlap.found(0.5)[0] == 0
    assert overlap.found(0.49)[0] == 1
    assert overlap.found(0.3, by="iou")[0] == 0
    assert overlap.found(0.3, by="either")[0] == 1
    assert overlap.found(0.25, by="iou")[0] == 0


def test_an_empty_prediction_is_not_found_and_no_box_is_undefined() -> None:
    predicted = np.zeros((2, 3, 5), bool)
    overlap = boxes.union_overlap(predicted, [[0, 0, 2, 2]], [0])
    np.testing.assert_array_equal(overlap.iobb, [np.nan, np.nan])
    np.testing.assert_array_equal(overlap.iou, [0, np.nan])
    for by in ("iobb", "iou", "either"):
        np.testing.assert_array_equal(overlap.found(0.1, by=by), [0, np.nan])


def test_pylon_cuts_x_y_width_and_height_one_by_one() -> None:
    everything = np.ones((7, 9), np.float32)
    box = [[1.6, 2.7, 4.4, 4.5]]  # x 1, y 2, width 2.8 -> 2, height 1.8 -> 1
    assert one(everything, box).boxes_px[0] == 2
    # Pixel centres in [1.6, 4.4) x [2.7, 4.5): columns 2, 3 and rows 3 (row 4's centre is the open end).
    assert one(everything, box, convention="radtag").boxes_px[0] == 2
    assert one(everything, [[1.4, 2.4, 4.6, 4.6]], convention="radtag").boxes_px[0] == 4 * 3
    assert one(everything, [[1.4, 2.4, 4.6, 4.6]]).boxes_px[0] == 3 * 2
    assert (0.1 + 4) - 0.1 < 4  # the last digit is lost, and must not cost a column
    assert one(everything, [[0.1, 0, 0.1 + 4, 1]]).boxes_px[0] == 4
    assert one(everything, [[7, 5, 20, 20]]).boxes_px[0] == 2 * 2  # beyond the border nothing is counted


def test_a_map_is_scaled_to_its_own_maximum() -> None:
    maps = np.array([[[0.2, 0.11, 0.1]], [[0.0, 0.0, 0.0]], [[0.4, 0.4, 0.4]]], dtype=np.float32)
    assert boxes.above_share_of_maximum(maps).tolist() == [[[True, True, False]], [[False] * 3], [[True] * 3]]
    with pytest.raises(ValueError, match=r"maximum is -1\.0.*sigmoid"):
        boxes.above_share_of_maximum(np.full((2, 3), -1, np.float32))
    with pytest.raises(ValueError, match="maximum is nan"):
        boxes.above_share_of_maximum(np.full((2, 3), np.nan, np.float32))


@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.1, 0.3, 0.5, 0.9]))
@settings(max_examples=30, deadline=None)
def test_the_share_is_that_of_a_division(seed, share) -> None:
    """Values a rounding away from the threshold, where `map > share * maximum` would differ from PYLON's division."""
    draw = np.random.default_rng(seed)
    top = draw.random((500, 1, 1), dtype=np.float32)
    near = (top * np.float32(share)) * (1 + draw.integers(-3, 4, (500, 4, 7)).astype(np.float32) * np.float32(6e-8))
    maps = np.concatenate([near.astype(np.float32), np.broadcast_to(top, (500, 4, 1))], axis=2)
    np.testing.assert_array_equal(boxes.above_share_of_maximum(maps, share), maps / top > np.float32(share))


corner = st.floats(-3, 14, allow_nan=False)


@given(st.lists(st.tuples(corner, corner, st.floats(0, 8), st.floats(0, 8)), max_size=4), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_radtag_convention_is_geometrys(xywh, seed) -> None:
    predicted = np.random.default_rng(seed).random((1, 7, 11)) < 0.4
    boxes_xyxy = np.array([(x, y, x + w, y + h) for x, y, w, h in xywh], dtype=np.float64).reshape(-1, 4)
    overlap = boxes.union_overlap(predicted, boxes_xyxy, np.zeros(len(xywh), int), convention="radtag")
    truth = boxes_to_mask(boxes_xyxy, (7, 11))
    assert overlap.boxes_px[0] == np.count_nonzero(truth)
    assert overlap.shared_px[0] == np.count_nonzero(truth & predicted[0])


def test_batches_equal_one_by_one() -> None:
    draw = np.random.default_rng(3)
    maps = draw.random((20, 12, 17), dtype=np.float32)
    owner = draw.integers(0, 20, 30)
    low = draw.uniform(0, 8, (30, 2))
    all_boxes = np.hstack([low, low + draw.uniform(0, 8, (30, 2))])
    together = boxes.union_overlap(boxes.above_share_of_maximum(maps), all_boxes, owner)
    for i, score_map in enumerate(maps):
        np.testing.assert_array_equal(together.iobb[i], boxes.iobb(score_map, all_boxes[owner == i]))
        np.testing.assert_array_equal(together.iou[i], boxes.iou_with_union(score_map, all_boxes[owner == i]))


def test_each_true_box_takes_its_best_predicted_box() -> None:
    truth = [[0, 0, 4, 2], [10, 0, 14, 2], [0, 10, 1, 11]]
    predicted = [[0, 0, 2, 2], [1, 0, 4, 2], [10, 0, 14, 4]]
    iou = boxes.best_iou(truth, predicted)
    assert iou.tolist() == [0.75, 0.5, 0.0]
    np.testing.assert_array_equal(boxes.found_at_iou(iou, (0.1, 0.5, 0.7)), [[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    assert boxes.best_iou(truth, np.empty((0, 4))).tolist() == [0, 0, 0]
    assert boxes.best_iou(np.empty((0, 4)), predicted).shape == (0,)
    assert np.isnan(boxes.found_at_iou([np.nan])).all()


def test_detections_of_a_map() -> None:
    score_map = np.zeros((5, 8), np.float32)
    score_map[0, 0], score_map[1, 1] = 0.6, 0.7  # joined at a corner
    score_map[2:5, 6] = 0.9
    score_map[4, 3] = 0.5  # the threshold itself
    found = detections.detections(score_map, 0.5)
    assert len(found) == 2
    assert found.boxes_xyxy.tolist() == [[6, 2, 7, 5], [0, 0, 2, 2]]
    assert found.scores == pytest.approx([0.9, 0.7])
    assert found.peaks_rc.tolist() == [[2, 6], [1, 1]]
    assert found.areas_px.tolist() == [3, 2]
    assert len(detections.detections(np.zeros((2, 3), np.float32), 0.5)) == 0
