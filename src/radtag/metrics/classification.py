"""How well scores separate positives from negatives, of images or of pixels, and whether they are probabilities.

Conventions
-----------
- Labels are 1, 0 or NaN = unknown; unknown ones are left out, whatever their score.
- A score threshold includes its end (``score >= t``); equal scores enter together, and a tie of a positive with a
  negative counts one half in the AUROC.
- Undefined is NaN: the AUROC of one class alone (torchmetrics answers 0), the average precision without positives
  (scikit-learn answers 0). The average precision of positives alone is 1, as the formula says.
- *Per finding*: one value a column. *Macro*: their mean where defined. *Micro*: all known (image, finding) pairs as one
  problem, ``auroc(labels.ravel(), scores.ravel())``.

- *Calibration error*: bins of equal width, the last one with both its ends. It is 0 for a perfect probability only with
  endless cases; with few, chance alone makes it larger. The Brier score has no such bias.

References: Hanley and McNeil, Radiology 143, 1982 (AUROC as a probability); Davis and Goadrich, ICML 2006 (why
precision and recall are not interpolated); Brier, Monthly Weather Review 78, 1950; Naeini et al., AAAI 2015, and Guo et
al., ICML 2017 (expected calibration error). The definitions are those of scikit-learn's ``roc_auc_score`` and
``average_precision_score``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

CALIBRATION_BINS = 15


def auroc(labels: ArrayLike, scores: ArrayLike) -> Values:
    """Area under the ROC curve: ``P(score of a positive > that of a negative) + P(they are equal) / 2``.

    Args:
        labels: (case, ...) 1, 0 or NaN = unknown.
        scores: (case, ...), higher = more likely positive.

    Returns:
        One value a column, shape (...) (a zero-dimensional array for one column); NaN where one class is absent.

    Raises:
        ValueError: shapes that differ, a label that is not 1, 0 or NaN, or a NaN score of a known label.
    """
    positive, negative, last = _sorted_descending(labels, scores)
    true = positive.cumsum(axis=0)
    # Trapezoids between the ends of the groups of equal scores: each group adds its negatives times the mean height.
    height = _at_group_ends(true, last) + _at_group_starts(true - positive, last)
    area = (negative * height).sum(axis=0) / 2
    total = positive.sum(axis=0) * negative.sum(axis=0)
    return np.divide(area, total, out=np.full(area.shape, np.nan), where=total > 0)


def average_precision(labels: ArrayLike, scores: ArrayLike) -> Values:
    """Average precision: ``sum over distinct scores, high to low, of (recall step) * precision there``.

    No interpolation; the step at a score takes the precision of everything at or above it.

    Args:
        labels: (case, ...) 1, 0 or NaN = unknown.
        scores: (case, ...), higher = more likely positive.

    Returns:
        One value a column, shape (...); NaN where no label is positive.

    Raises:
        ValueError: as for :func:`auroc`.
    """
    positive, negative, last = _sorted_descending(labels, scores)
    true = _at_group_ends(positive.cumsum(axis=0), last)
    called = true + _at_group_ends(negative.cumsum(axis=0), last)
    precision = np.divide(true, called, out=np.zeros(true.shape), where=called > 0)
    total = positive.sum(axis=0)
    gained = (positive * precision).sum(axis=0)
    return np.divide(gained, total, out=np.full(gained.shape, np.nan), where=total > 0)


def brier(labels: ArrayLike, scores: ArrayLike) -> float:
    """Brier score of all known cases: ``mean((score - label) ** 2)``; NaN where no label is known.

    Raises:
        ValueError: as for :func:`auroc`.
    """
    y, s = _known(labels, scores)
    return float(((s - y) ** 2).mean()) if len(y) else float("nan")


def calibration_error(labels: ArrayLike, scores: ArrayLike, *, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error of all known cases: ``sum over bins of |sum of (score - label)| / cases``.

    That is the mean, weighed by cases, of the gap between mean score and share of positives in each bin of equal width.
    NaN where no label is known.

    Raises:
        ValueError: as for :func:`auroc`, or a score outside 0-1.
    """
    y, s = _known(labels, scores)
    if not len(y):
        return float("nan")
    at = calibration_bin(s, bins=bins)
    return float(np.abs(np.bincount(at, weights=s - y, minlength=bins)).sum() / len(y))


def calibration_bin(scores: ArrayLike, *, bins: int = CALIBRATION_BINS) -> NDArray[np.int64]:
    """The bin of each score (case,): ``[i / bins, (i + 1) / bins)``, the last one with both its ends.

    Raises:
        ValueError: a score outside 0-1, or NaN.
    """
    s = np.asarray(scores, dtype=np.float64)
    if len(s) and not (s.min() >= 0 and s.max() <= 1):  # also catches NaN
        raise ValueError(f"a probability lies within 0-1, got {s.min()} to {s.max()}")
    return np.minimum((s * bins).astype(np.int64), bins - 1)


def binned_auroc(counts: NDArray[np.generic]) -> Values:
    """AUROC of binned scores, exact for the binned scores: counts (..., 2, bin), ascending -> (...).

    ``counts[..., 0, :]`` are the negatives and ``counts[..., 1, :]`` the positives of each bin.
    """
    negative, positive = _classes(counts)
    above = positive.sum(axis=-1, keepdims=True) - positive.cumsum(axis=-1)
    area = (negative * (above + positive / 2)).sum(axis=-1)
    total = positive.sum(axis=-1) * negative.sum(axis=-1)
    return np.divide(area, total, out=np.full(area.shape, np.nan), where=total > 0)


def binned_average_precision(counts: NDArray[np.generic]) -> Values:
    """Average precision of binned scores, exact for the binned scores: counts (..., 2, bin), ascending -> (...).

    This is the PxAP of Choe et al., CVPR 2020, when the bins are the thresholds of a sweep.
    """
    negative, positive = _classes(counts)
    true = positive[..., ::-1].cumsum(axis=-1)
    called = true + negative[..., ::-1].cumsum(axis=-1)
    precision = np.divide(true, called, out=np.zeros(true.shape), where=called > 0)
    gained = (positive[..., ::-1] * precision).sum(axis=-1)
    total = positive.sum(axis=-1)
    return np.divide(gained, total, out=np.full(gained.shape, np.nan), where=total > 0)


def checked_labels(labels: ArrayLike, scores: ArrayLike) -> tuple[Values, Values]:
    """Labels and scores as float64 arrays of one shape.

    Raises:
        ValueError: shapes that differ, a label that is not 1, 0 or NaN, or a NaN score of a known label.
    """
    y = np.asarray(labels, dtype=np.float64)
    s = np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape or y.ndim < 1:
        raise ValueError(f"labels of shape {y.shape} do not belong to scores of shape {s.shape}")
    known = ~np.isnan(y)
    wrong = known & (y != 0) & (y != 1)
    if wrong.any():
        raise ValueError(f"a label is 1, 0 or NaN = unknown, got {y[wrong][0]}")
    if np.isnan(s[known]).any():
        raise ValueError(f"{np.isnan(s[known]).sum()} scores of known labels are NaN; every case needs a score")
    return y, s


def _known(labels: ArrayLike, scores: ArrayLike) -> tuple[Values, Values]:
    """Labels and scores of the known cases, flat."""
    y, s = checked_labels(labels, scores)
    known = ~np.isnan(y)
    return y[known], s[known]


def _sorted_descending(labels: ArrayLike, scores: ArrayLike) -> tuple[Values, Values, NDArray[np.bool_]]:
    """Positives and negatives (case, ...) as 0/1 in descending order of score, and where a group of equals ends."""
    y, s = checked_labels(labels, scores)
    # Unknown cases are neither positive nor negative and weigh nothing, wherever they lie (a NaN score comes last).
    order = np.argsort(-s, axis=0, kind="stable")
    y, s = np.take_along_axis(y, order, 0), np.take_along_axis(s, order, 0)
    last = np.ones(y.shape, dtype=bool)
    last[:-1] = s[:-1] != s[1:]
    return (y == 1).astype(np.float64), (y == 0).astype(np.float64), last


def _at_group_ends(rising: Values, last: NDArray[np.bool_]) -> Values:
    """Each case's group's last value of a sum that never falls along axis 0."""
    at_end = np.where(last, rising, np.inf)
    ends: Values = np.minimum.accumulate(at_end[::-1], axis=0)[::-1]
    return ends


def _at_group_starts(rising: Values, last: NDArray[np.bool_]) -> Values:
    """Each case's group's first value of a sum that never falls along axis 0."""
    first = np.ones(last.shape, dtype=bool)
    first[1:] = last[:-1]
    starts: Values = np.maximum.accumulate(np.where(first, rising, -np.inf), axis=0)
    return starts


def _classes(counts: NDArray[np.generic]) -> tuple[Values, Values]:
    if counts.ndim < 2 or counts.shape[-2] != 2:
        raise ValueError(f"counts are (..., 2, bin), negatives first, got {counts.shape}")
    wide = counts.astype(np.float64)
    return wide[..., 0, :], wide[..., 1, :]
