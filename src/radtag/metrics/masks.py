"""Masks and maps against true masks: Dice, IoU, precision, PoI, PoI at matched area, normalised cross-correlation.

Conventions
-----------
- P is the predicted mask, G the true one ("ground truth"), |.| counts pixels; both have one shape (..., row, col), and
  every leading index is one pair.
- Undefined is NaN, never an invented 0 or 1. What is undefined follows from the formulas alone:

  ==========================  =====  =====  ==========  =====
  case                        Dice   IoU    precision   PoI
  ==========================  =====  =====  ==========  =====
  both empty                  NaN    NaN    NaN         NaN
  P empty, G not              0      0      NaN         0
  G empty, P not              0      0      0           NaN
  ==========================  =====  =====  ==========  =====

  Programs disagree here. For two empty masks scikit-learn and torchmetrics' F1 and Jaccard answer 0, MONAI with
  ``ignore_empty=False`` and medpy's ``jc`` answer 1, torchmetrics' ``dice_score``, CheXlocalize and MONAI by default
  answer NaN as we do. For an empty truth alone MONAI leaves the pair out by default; we keep the 0 of Dice and IoU, as
  false alarms are errors. To score the lesions only, give only the pairs that have one.
- A mask is made of a map by a *strict* threshold (``map > t``), as torchmetrics, PYLON, CheXlocalize and OpenCV do.

References: Nawaz et al., TagGAN, arXiv 2502.17836, 2025 (PoI); Baumgartner et al., VA-GAN, CVPR 2018 (NCC).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Maps = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class MaskOverlap:
    """Pixel counts of predicted and true masks, and the measures they give.

    Args:
        shared_px: |P and G|, one number a pair, of any shape.
        predicted_px: |P|.
        true_px: |G|.
    """

    shared_px: NDArray[np.int64]
    predicted_px: NDArray[np.int64]
    true_px: NDArray[np.int64]

    @property
    def dice(self) -> Values:
        """Dice coefficient, the F1 of pixels: ``2 |P and G| / (|P| + |G|)``; NaN if both are empty."""
        return _ratio(2 * self.shared_px, self.predicted_px + self.true_px)

    @property
    def iou(self) -> Values:
        """Intersection over union, the Jaccard index: ``|P and G| / |P or G|``; NaN if both are empty."""
        return _ratio(self.shared_px, self.predicted_px + self.true_px - self.shared_px)

    @property
    def precision(self) -> Values:
        """The share of the predicted pixels that are true: ``|P and G| / |P|``; NaN if nothing is predicted."""
        return _ratio(self.shared_px, self.predicted_px)

    @property
    def poi(self) -> Values:
        """Percentage of Intersection as a fraction, the recall of pixels: ``|P and G| / |G|``; NaN if G is empty.

        A mask of ones scores 1: read it beside the precision and :func:`poi_at_matched_area`.
        """
        return _ratio(self.shared_px, self.true_px)


def overlap(predicted: NDArray[Any], truth: NDArray[Any]) -> MaskOverlap:
    """Counts masks (..., row, col), non-zero = set; the result holds one number a pair, shape (...)."""
    _same_shape(predicted, truth)
    p, g = predicted.astype(bool, copy=False), truth.astype(bool, copy=False)
    return MaskOverlap(_pixels(p & g), _pixels(p), _pixels(g))


def _pixels(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """True pixels of masks (..., row, col), shape (...); numpy counts a single one thirty times as fast as by axes."""
    counts = np.count_nonzero(masks) if masks.ndim == 2 else np.count_nonzero(masks, axis=(-2, -1))
    return np.asarray(counts, dtype=np.int64)


@dataclass(frozen=True)
class MatchedArea:
    """PoI at matched area, and what it can be over all ways of breaking ties.

    Args:
        expected: ties shared in proportion, the mean over all orders; the reported value.
        low: every tie broken against the map.
        high: every tie broken in its favour.
    """

    expected: Values
    low: Values
    high: Values


def matched_area(maps: Maps, truth: NDArray[Any]) -> MatchedArea:
    """PoI of the map's |G| highest pixels, where PoI = precision = Dice and painting more gains nothing.

    Definition: let k = |G| and t the k-th highest value. All a pixels above t are taken, and k - a of the b pixels
    equal to t. With A and B the true pixels among those, the expected value is ``(A + (k - a) * B / b) / k``; the
    bounds take as few or as many of B as k - a allows. Equal to the relevance rank accuracy of Arras et al. 2022 where
    nothing ties; a constant map scores |G| / pixels.

    Args:
        maps: (..., row, col).
        truth: (..., row, col), non-zero = the finding.

    Returns:
        One value a pair, shape (...); NaN where the mask is empty.

    Raises:
        ValueError: a map holding NaN.
    """
    _same_shape(maps, truth)
    shape = maps.shape[:-2]
    values = maps.reshape(-1, maps.shape[-2] * maps.shape[-1])
    masks = truth.astype(bool, copy=False).reshape(values.shape)
    if np.isnan(values).any():
        raise ValueError("a map holds NaN; a map of nothing is all 0, not NaN")
    result = np.full((3, len(values)), np.nan)
    for i, (value, mask) in enumerate(zip(values, masks, strict=True)):
        k = int(np.count_nonzero(mask))
        if k == 0:
            continue
        level = np.partition(value, len(value) - k)[len(value) - k]
        above, at = value > level, value == level
        sure, free = int(np.count_nonzero(above & mask)), k - int(np.count_nonzero(above))
        ties, tied_true = int(np.count_nonzero(at)), int(np.count_nonzero(at & mask))
        result[:, i] = (
            (sure + free * tied_true / ties) / k,
            (sure + max(0, free - (ties - tied_true))) / k,
            (sure + min(free, tied_true)) / k,
        )
    expected, low, high = result.reshape(3, *shape)
    return MatchedArea(expected, low, high)


def poi_at_matched_area(maps: Maps, truth: NDArray[Any]) -> Values:
    """PoI at matched area with ties shared in proportion: :func:`matched_area`'s expected value, shape (...)."""
    return np.asarray(matched_area(maps, truth).expected)


def ncc(maps: Maps, truth: NDArray[Any]) -> Values:
    """Normalised cross-correlation of map and mask, VA-GAN's measure, shape (...).

    Definition: Pearson's correlation over the pixels, ``mean((m - mean m)(g - mean g)) / (sd m * sd g)``, with
    population standard deviations. NaN for a constant map and for an empty or full mask.
    """
    _same_shape(maps, truth)
    axes = (-2, -1)
    m = maps.astype(np.float64)
    g = truth.astype(bool, copy=False).astype(np.float64)
    varies = (np.ptp(m, axis=axes) > 0) & (np.ptp(g, axis=axes) > 0)  # a constant's deviations are not exactly 0
    m = m - m.mean(axis=axes, keepdims=True)
    g = g - g.mean(axis=axes, keepdims=True)
    scale = np.sqrt((m * m).mean(axis=axes) * (g * g).mean(axis=axes))
    product = np.asarray((m * g).mean(axis=axes))
    return np.divide(product, scale, out=np.full(product.shape, np.nan), where=varies)


def mass_in_mask(maps: Maps, truth: NDArray[Any]) -> Values:
    """The share of a map's mass that lies on the mask, shape (...): ``sum(m * g) / sum(m)``.

    Also called energy-based pointing (Wang et al., Score-CAM, 2020) and relevance mass accuracy (Arras et al.,
    CLEVR-XAI, 2022). NaN for an empty mask and for a map of zeros.

    Raises:
        ValueError: a map with values below 0 or NaN.
    """
    _same_shape(maps, truth)
    if not (maps.min(initial=0) >= 0):
        raise ValueError("a map's mass needs values of at least 0, got a negative one or NaN; give maps of 0-1")
    axes = (-2, -1)
    masks = truth.astype(bool, copy=False)
    inside = np.asarray(np.sum(maps, axis=axes, dtype=np.float64, where=masks))
    total = np.sum(maps, axis=axes, dtype=np.float64)
    return np.divide(inside, total, out=np.full(inside.shape, np.nan), where=(total > 0) & masks.any(axis=axes))


def _same_shape(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.ndim < 2 or a.shape != b.shape:
        raise ValueError(f"{a.shape} does not lie on {b.shape}: both are (..., row, col); resize one of them first")


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Values:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
