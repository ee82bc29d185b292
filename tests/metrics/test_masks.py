"""Masks: by hand, and against scikit-learn on random masks."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from radtag.metrics import masks

nan = float("nan")


def test_overlap_by_hand() -> None:
    predicted = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    truth = np.array([[0, 1, 1, 1, 1], [0, 0, 0, 0, 1]])
    found = masks.overlap(predicted, truth)
    assert found.dice == 4 / 8
    assert found.iou == 2 / 6
    assert found.precision == 2 / 3
    assert found.poi == 2 / 5


def test_undefined_is_nan() -> None:
    empty, full = np.zeros((2, 3), bool), np.ones((2, 3), bool)
    stacked = masks.overlap(np.stack([empty, empty, full]), np.stack([empty, full, empty]))
    np.testing.assert_array_equal(stacked.dice, [nan, 0, 0])
    np.testing.assert_array_equal(stacked.iou, [nan, 0, 0])
    np.testing.assert_array_equal(stacked.precision, [nan, nan, 0])
    np.testing.assert_array_equal(stacked.poi, [nan, 0, nan])


@given(seed=st.integers(0, 10_000), share=st.floats(0, 1), true_share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_overlap_is_scikit_learns(seed, share, true_share) -> None:
    draw = np.random.default_rng(seed)
    predicted, truth = draw.random((2, 5, 7)) < share, draw.random((2, 5, 7)) < true_share
    found = masks.overlap(predicted, truth)
    for i in range(2):
        p, g = predicted[i].ravel(), truth[i].ravel()
        assert found.dice[i] == pytest.approx(f1_score(g, p, zero_division=nan), nan_ok=True)
        assert found.precision[i] == pytest.approx(precision_score(g, p, zero_division=nan), nan_ok=True)
        assert found.poi[i] == pytest.approx(recall_score(g, p, zero_division=nan), nan_ok=True)
        if p.any() or g.any():
            assert found.iou[i] == pytest.approx(jaccard_score(g, p))


def test_matched_area_takes_the_highest_pixels() -> None:
    score_map = np.array([[0.9, 0.8, 0.7], [0.1, 0.2, 0.3]], dtype=np.float32)
    mask = np.array([[1, 0, 1], [0, 0, 1]])
    assert masks.poi_at_matched_area(score_map, mask) == pytest.approx(2 / 3)
    assert masks.poi_at_matched_area(score_map, np.ones((2, 3))) == 1
    assert np.isnan(masks.poi_at_matched_area(score_map, np.zeros((2, 3))))


@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
@settings(max_examples=40, deadline=None)
def test_matched_area_is_the_mean_over_all_orders_of_ties(levels, truth) -> None:
    score_map, mask = np.array(levels, dtype=np.float32).reshape(2, 3), np.array(truth).reshape(2, 3)
    area = masks.matched_area(score_map, mask)
    k = sum(truth)
    if k == 0:
        assert np.isnan(area.expected)
        assert np.isnan(area.low)
        return
    values = []
    for order in permutations(range(6)):
        if all(levels[a] >= levels[b] for a, b in pairwise(order)):
            values.append(sum(truth[i] for i in order[:k]) / k)
    assert area.expected == pytest.approx(np.mean(values))
    assert area.low == pytest.approx(min(values))
    assert area.high == pytest.approx(max(values))


def test_a_constant_map_scores_the_share_of_true_pixels() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1, :3] = True
    assert masks.poi_at_matched_area(np.full((4, 5), 0.1, np.float32), mask) == pytest.approx(3 / 20)


def test_batches_equal_one_by_one() -> None:
    draw = np.random.default_rng(0)
    maps, truth = draw.random((2, 3, 6, 9), dtype=np.float32).round(1), draw.random((2, 3, 6, 9)) < 0.3
    for measure in (masks.poi_at_matched_area, masks.ncc, masks.mass_in_mask):
        together = measure(maps, truth)
        assert together.shape == (2, 3)
        assert together[1, 2] == pytest.approx(float(measure(maps[1, 2], truth[1, 2])))


def test_ncc_is_pearsons_correlation() -> None:
    draw = np.random.default_rng(1)
    score_map, mask = draw.random((6, 9)), draw.random((6, 9)) < 0.3
    assert masks.ncc(score_map, mask) == pytest.approx(np.corrcoef(score_map.ravel(), mask.ravel())[0, 1])
    assert np.isnan(masks.ncc(np.full((6, 9), 0.1), mask))
    assert np.isnan(masks.ncc(score_map, np.zeros((6, 9))))


def test_mass_in_mask_by_hand() -> None:
    score_map = np.array([[0.1, 0.2, 0.0], [0.3, 0.4, 0.0]])
    assert masks.mass_in_mask(score_map, np.array([[0, 1, 1], [0, 1, 0]])) == pytest.approx(0.6)
    assert np.isnan(masks.mass_in_mask(np.zeros((2, 3)), np.ones((2, 3))))
    assert np.isnan(masks.mass_in_mask(score_map, np.zeros((2, 3))))
    with pytest.raises(ValueError, match="negative"):
        masks.mass_in_mask(-score_map, np.ones((2, 3)))


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) does not lie on \(3, 2\)"):
        masks.overlap(np.zeros((2, 3)), np.zeros((3, 2)))
