"""MaxBoxAcc by hand."""

from __future__ import annotations

import numpy as np
import pytest

from radtag.metrics import wsol


def test_contours_of_a_ring_and_of_a_line() -> None:
    mask = np.zeros((8, 12), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False  # a hole: its contour runs on the pixels around it
    mask[0, 7:11] = True  # longer than wide: its contour has no area
    assert sorted(wsol.contour_boxes(mask).tolist()) == [[1, 1, 6, 6], [2, 2, 5, 5], [7, 0, 11, 1]]
    assert wsol.contour_boxes(mask, "largest").tolist() == [[1, 1, 6, 6]]
    assert wsol.contour_boxes(np.zeros((3, 4), bool)).tolist() == [[0, 0, 0, 0]]
    assert wsol.contour_boxes(np.ones((3, 4), bool)).tolist() == [[0, 0, 3, 2]]


def test_corners_count_as_pixels() -> None:
    assert wsol.inclusive_iou([[0, 0, 1, 1]], [[1, 1, 2, 2]]).tolist() == [[1 / 7]]
    assert wsol.inclusive_iou([[0, 0, 1, 1]], [[2, 0, 3, 1]]).tolist() == [[0]]


def test_the_best_threshold_is_one_for_the_set() -> None:
    low, high = np.zeros((2, 8, 10))
    low[1:4, 1:4], low[1:6, 1:9] = 1, 0.4
    low[1:4, 1:4] = 1
    high[2:5, 3:7], high[0:8, 0:2] = 1, 0.4
    boxes = [[[1, 1, 4, 4]], [[3, 2, 7, 5]], []]
    found = wsol.box_accuracy([low, high, low], boxes)
    assert found.accuracy(0.7) == 1
    assert found.best_threshold(0.7) == pytest.approx(0.4)  # 102 of 255 and more is left out from there on
    assert np.isnan(found.iou[2]).all()
    assert found.v2() == 1
    assert np.isnan(wsol.box_accuracy([low], [[]]).v2())
    with pytest.raises(ValueError, match="within 0-1"):
        wsol.best_ious(2 * low, [[1, 1, 4, 4]])
