"""FROC and average precision by hand."""

from __future__ import annotations

import numpy as np
import pytest

from radtag.metrics import froc


def test_a_second_detection_of_a_found_lesion_is_false_for_boxes_and_free_for_points() -> None:
    boxes = [[0, 0, 4, 4], [0, 0, 4, 3], [10, 0, 12, 2]]
    true = [[0, 0, 4, 4]]
    assert froc.match_boxes(boxes, [0.5, 0.9, 0.7], true, 0.5).tolist() == [0, 1, 0]
    assert froc.match_points([1, 1, 0], [0.5, 0.9, 0.7]).tolist() == [-1, 1, 0]


def test_each_detection_takes_the_free_lesion_it_overlaps_most() -> None:
    overlap = [[0.6, 0.9], [0.5, 0.8]]
    assert froc.match(overlap, [0.9, 0.8], 0.5).tolist() == [1, 1]
    assert froc.match(overlap, [0.9, 0.8], 0.6).tolist() == [1, 0]
    assert froc.match(np.zeros((2, 0)), [0.9, 0.8], 0.1).tolist() == [0, 0]
    assert froc.match(np.zeros((0, 2)), [], 0.1).tolist() == []


def test_froc_by_hand() -> None:
    """Two images, three lesions: a hit at .9, a false one at .8, a hit and a false one at .7."""
    drawn = froc.curve([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.7], lesions=3, images=2)
    assert drawn.false_per_image.tolist() == [0, 0.5, 1]
    assert drawn.sensitivity.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert drawn.at([0.25, 0.5, 0.75, 1, 8]).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert drawn.at([0.75], read="linear").tolist() == pytest.approx([1 / 2])
    assert drawn.score() == pytest.approx((3 * 1 + 4 * 2) / 3 / 7)


def test_before_the_first_operating_point_nothing_is_found() -> None:
    drawn = froc.curve([0, 1], [0.9, 0.9], lesions=1, images=2)
    assert drawn.at([0.25, 0.5]).tolist() == [0, 1]
    assert drawn.at([0.25], read="linear").tolist() == [0.5]


def test_no_lesion_is_undefined_and_no_detection_is_zero() -> None:
    assert np.isnan(froc.curve([0], [0.4], lesions=0, images=3).score())
    assert froc.curve([], [], lesions=2, images=3).score() == 0
    assert np.isnan(froc.average_precision([0], [0.4], lesions=0))
    assert froc.average_precision([], [], lesions=2) == 0


def test_average_precision_by_hand() -> None:
    """Recall .5 at precision 1, recall 1 at precision 2/3: 51 points of 1, 50 of 2/3."""
    value = froc.average_precision([1, 0, 1], [0.9, 0.8, 0.7], lesions=2)
    assert value == pytest.approx((51 + 50 * 2 / 3) / 101)
