"""Hit rate and mIoU as the CheXlocalize benchmark takes them, on anybody's maps.

Conventions
-----------
- Each map is first stretched to 0-1 by its own minimum and maximum (:func:`stretched`), so quiet maps get a foreground
  too. A constant map has no range: its stretched values are NaN, and its mask is empty.
- A mask is ``stretched map > threshold``, strictly; the threshold is Otsu's of each map, or one a finding that was
  chosen on validation images (:func:`best_threshold`).
- Otsu masks are drawn by the benchmark as filled polygons of the contours with more than one point. Filling the holes
  and dropping single pixels gives the same pixels, without OpenCV and Pillow.
- The hit rate is :func:`radtag.metrics.points.pointing_hit_mask`: the first maximum lies on the mask.
- mIoU is the mean of :func:`mask_iou` over the pairs that have a value. The published one is over the pairs with a
  prediction *and* a truth (``"true_positives"``): a missed lesion costs nothing, so it is no measure of finding.

Its intervals are not taken over: the benchmark draws images where patients are independent, and prints the mean of the
replicates as the value; :mod:`radtag.metrics.bootstrap` draws patients.

Reference: Saporta et al., Benchmarking saliency methods for chest X-ray interpretation, Nature Machine Intelligence 4,
2022; github.com/rajpurkarlab/cheXlocalize, heatmap_to_segmentation.py, eval.py and tune_heatmap_threshold.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from radtag.metrics.masks import overlap
from radtag.regions import otsu_level

Values = NDArray[np.float64]
Maps = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Over = Literal["true_positives", "all"]

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Candidates of the benchmark: ``numpy.arange(.2, .8, .1)``."""

_EIGHT = np.ones((3, 3), dtype=int)


def stretched(maps: Maps) -> Maps:
    """Each map (..., row, col) from its own minimum to its own maximum as 0-1; NaN throughout a constant map."""
    low, high = maps.min(axis=(-2, -1), keepdims=True), maps.max(axis=(-2, -1), keepdims=True)
    apart = high - low
    return np.divide(maps - low, apart, out=np.full_like(maps, np.nan), where=apart > 0)


def segmentation(score_map: Maps, rule: float | Literal["otsu"]) -> Mask:
    """The benchmark's mask of one map (row, col): stretched, then cut at a threshold 0-1 or by Otsu."""
    values = stretched(score_map)
    if rule != "otsu":
        return above(values, rule)
    if np.isnan(values).any():
        return np.zeros(score_map.shape, dtype=bool)
    levels = (values.dtype.type(255) * values).astype(np.uint8)
    filled = ndimage.binary_fill_holes(levels > otsu_level(levels))
    labels, _ = ndimage.label(filled, structure=_EIGHT)
    several = np.bincount(labels.ravel()) > 1
    several[0] = False
    return np.asarray(several[labels])


def above(values: Maps, threshold: float) -> Mask:
    """``values > threshold`` in double precision, as the benchmark compares: a float32 of .4 is above .4."""
    return np.asarray(values > np.float64(threshold))


def mask_iou(predicted: NDArray[Any], truth: NDArray[Any], *, over: Over = "true_positives") -> Values:
    """IoU of masks (..., row, col), NaN where a pair does not count; its mean is the benchmark's mIoU.

    Definition: ``|P and G| / |P or G|``. ``over="true_positives"`` counts the pairs whose prediction and truth both
    have pixels; ``"all"`` every pair but those where both are empty, so a false alarm and a miss are 0.
    """
    if over not in ("true_positives", "all"):
        raise ValueError(f"over is 'true_positives' or 'all', got {over!r}")
    found = overlap(predicted, truth)
    if over == "all":
        return found.iou
    return np.where((found.predicted_px > 0) & (found.true_px > 0), found.iou, np.nan)


def best_threshold(
    pairs: Iterable[tuple[Maps, NDArray[Any]]],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    over: Over = "true_positives",
) -> float:
    """The threshold of stretched maps with the greatest mIoU: chosen on validation images, used on others.

    Args:
        pairs: map and mask (row, col) of one finding's validation images.
        thresholds: candidates 0-1; of equally good ones the first.
        over: as in :func:`mask_iou`.

    Returns:
        NaN where no candidate has a value.
    """
    ious = [
        [float(mask_iou(above(values, threshold), truth, over=over)) for threshold in thresholds]
        for values, truth in ((stretched(score_map), truth) for score_map, truth in pairs)
    ]
    return best_of(np.array(ious, dtype=np.float64).reshape(-1, len(thresholds)), thresholds)


def best_of(ious: Values, thresholds: Sequence[float]) -> float:
    """The threshold whose column of (pair, threshold) IoU has the greatest mean of what is not NaN; NaN if none has."""
    counts = (~np.isnan(ious)).sum(axis=0)
    sums = np.where(np.isnan(ious), 0.0, ious).sum(axis=0)
    means = np.divide(sums, counts, out=np.full(len(thresholds), -np.inf), where=counts > 0)
    return float(thresholds[int(means.argmax())]) if np.isfinite(means).any() else float("nan")
