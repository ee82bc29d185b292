"""AUROC and average precision against scikit-learn and torchmetrics on random data with ties and unknown labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from radtag.metrics import classification


@given(
    seed=st.integers(0, 100_000),
    cases=st.integers(1, 60),
    levels=st.integers(1, 12),
    unknown=st.sampled_from([0.0, 0.3, 1.0]),
    prevalence=st.floats(0, 1),
)
@settings(max_examples=80, deadline=None)
def test_every_column_is_scikit_learns(seed, cases, levels, unknown, prevalence) -> None:
    draw = np.random.default_rng(seed)
    labels = (draw.random((cases, 3)) < prevalence).astype(float)
    labels[draw.random((cases, 3)) < unknown] = np.nan
    scores = draw.integers(-levels, levels, (cases, 3)) / 7
    auroc, ap = classification.auroc(labels, scores), classification.average_precision(labels, scores)
    assert auroc.shape == ap.shape == (3,)
    for i in range(3):
        known = ~np.isnan(labels[:, i])
        y, s = labels[known, i], scores[known, i]
        if len(set(y)) == 2:
            assert auroc[i] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
        else:
            assert np.isnan(auroc[i])
        if (y == 1).any():
            assert ap[i] == pytest.approx(average_precision_score(y, s), abs=1e-12)
        else:
            assert np.isnan(ap[i])


def test_torchmetrics_agrees() -> None:
    import torch
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    draw = np.random.default_rng(5)
    labels, scores = (draw.random(500) < 0.2).astype(float), draw.random(500, dtype=np.float32).round(2)
    y, s = torch.from_numpy(labels).long(), torch.from_numpy(scores)
    assert classification.auroc(labels, scores) == pytest.approx(float(binary_auroc(s, y)), abs=1e-6)
    assert classification.average_precision(labels, scores) == pytest.approx(
        float(binary_average_precision(s, y)), abs=1e-6
    )


def test_by_hand() -> None:
    # Pairs (positive, negative): (.9, .5) and (.9, .1) right, (.5, .5) a tie, (.5, .1) right.
    assert classification.auroc([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1]) == pytest.approx(3.5 / 4)
    # At .9: recall step 1/2, precision 1. At .5, both at once: recall step 1/2, precision 2/3.
    assert classification.average_precision([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1]) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_the_score_of_an_unknown_label_does_not_matter() -> None:
    labels = [1, np.nan, 0, 1]
    for score in (0.0, 0.6, 9.0, np.nan, -np.inf):
        assert classification.auroc(labels, [0.9, score, 0.5, 0.2]) == 0.5


def test_infinite_scores_are_scores() -> None:
    assert classification.auroc([1, 0, 0], [np.inf, 0.2, -np.inf]) == 1
    assert classification.average_precision([0, 1, np.nan], [np.inf, 0.2, -np.inf]) == 0.5


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_binned_is_exact_for_binned_scores(seed) -> None:
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, 4, (2, 2, 9)) * (draw.random((2, 2, 9)) < 0.5)
    for finding, (negative, positive) in enumerate(counts):
        labels = np.concatenate([np.zeros(negative.sum()), np.ones(positive.sum())])
        scores = np.concatenate([np.repeat(np.arange(9), negative), np.repeat(np.arange(9), positive)])
        np.testing.assert_allclose(classification.binned_auroc(counts)[finding], classification.auroc(labels, scores))
        np.testing.assert_allclose(
            classification.binned_average_precision(counts)[finding], classification.average_precision(labels, scores)
        )


def test_refusals_name_the_value() -> None:
    with pytest.raises(ValueError, match="1, 0 or NaN = unknown, got -1"):
        classification.auroc([1, -1], [0.1, 0.2])
    with pytest.raises(ValueError, match="1 scores of known labels are NaN"):
        classification.average_precision([1, 0], [np.nan, 0.2])
    with pytest.raises(ValueError, match="do not belong"):
        classification.auroc([1, 0], [0.1])
    with pytest.raises(ValueError, match="negatives first"):
        classification.binned_auroc(np.zeros((3, 5)))


def test_brier_and_calibration_error_by_hand() -> None:
    labels, scores = [1, 0, 1, float("nan"), 0], [0.9, 0.8, 0.1, 0.5, 0.0]
    assert classification.brier(labels, scores) == pytest.approx((0.01 + 0.64 + 0.81 + 0) / 4)
    # Of two bins: .9 and .8 with one positive of two, .1 and 0 with one of two.
    assert classification.calibration_error(labels, scores, bins=2) == pytest.approx((0.7 + 0.9) / 4)
    assert classification.calibration_bin([0, 0.5, 0.99, 1], bins=2).tolist() == [0, 1, 1, 1]
    assert np.isnan(classification.brier([float("nan")], [0.3]))
    assert np.isnan(classification.calibration_error([float("nan")], [0.3]))
    with pytest.raises(ValueError, match="within 0-1"):
        classification.calibration_error([1], [1.5])
