"""CheXlocalize's masks and mIoU by hand."""

from __future__ import annotations

import numpy as np
import pytest

from radtag.metrics import chexlocalize

nan = float("nan")


def test_stretched_from_own_minimum_to_own_maximum() -> None:
    maps = np.array([[[1, 3], [2, 5]], [[4, 4], [4, 4]]], dtype=np.float32)
    np.testing.assert_array_equal(chexlocalize.stretched(maps)[0], np.array([[0, 0.5], [0.25, 1]], np.float32))
    assert np.isnan(chexlocalize.stretched(maps)[1]).all()


def test_a_constant_map_has_an_empty_mask() -> None:
    for rule in ("otsu", 0.3):
        assert not chexlocalize.segmentation(np.full((3, 4), 0.7, np.float32), rule).any()


def test_otsu_masks_have_no_holes_and_no_single_pixels() -> None:
    score_map = np.zeros((7, 9), np.float32)
    score_map[1:6, 1:6] = 1
    score_map[3, 3] = 0
    score_map[3, 8] = 1
    mask = chexlocalize.segmentation(score_map, "otsu")
    assert mask[3, 3]
    assert not mask[3, 8]
    assert np.count_nonzero(mask) == 25
    assert np.count_nonzero(chexlocalize.segmentation(score_map, 0.5)) == 25  # 24 and the single one


def test_what_a_miss_and_a_false_alarm_cost() -> None:
    empty, full, half = np.zeros((2, 3)), np.ones((2, 3)), np.array([[1, 1, 1], [0, 0, 0]])
    predicted, truth = np.stack([empty, empty, full, full]), np.stack([empty, full, empty, half])
    np.testing.assert_array_equal(chexlocalize.mask_iou(predicted, truth), [nan, nan, nan, 0.5])
    np.testing.assert_array_equal(chexlocalize.mask_iou(predicted, truth, over="all"), [nan, 0, 0, 0.5])
    with pytest.raises(ValueError, match="got 'some'"):
        chexlocalize.mask_iou(predicted, truth, over="some")


def test_the_best_threshold_is_the_first_of_equal_ones() -> None:
    score_map = np.array([[0.0, 0.45, 1.0, 1.0]])
    truth = np.array([[0, 0, 1, 1]])
    assert chexlocalize.best_threshold([(score_map, truth)]) == 0.5
    assert chexlocalize.best_threshold([(score_map, np.array([[0, 1, 1, 1]]))]) == 0.2
    assert np.isnan(chexlocalize.best_threshold([(score_map, np.zeros((1, 4)))]))
