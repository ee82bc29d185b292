"""From a network's logits to probabilities, thresholds and masks, set on validation images without any outline.

Conventions
-----------
- Everything is per finding, in the run's order. Labels are 1, 0 or NaN = unknown; unknown images are left out.
- Score: ``sigmoid(score_slope * image_logit + score_bias)``, Platt scaling of the image's logit.
- Map: ``sigmoid(map_slope * cell_logit + map_bias)``, Platt scaling fitted on the image's strongest cell. A value of
  the map is the probability that an image whose strongest cell is this one has the finding: one absolute scale,
  comparable between images and low everywhere on a healthy one.
- An image is positive if score >= ``score_threshold``; a pixel is in the mask if map > ``mask_threshold``.

How the numbers are set
-----------------------
Slope and bias: maximum likelihood with the targets of Platt (1999), (n+ + 1) / (n+ + 2) for positive and 1 / (n- + 2)
for negative images, so that the slope stays finite where the classes separate; Newton with step halving (Lin, Lin &
Weng 2007).
``score_threshold``: the highest threshold that maximises Youden's J = sensitivity + specificity - 1, placed halfway (in
logits) between the scores it separates. J and not F1, because J does not move with the prevalence, and a run is
used where findings are rarer or more frequent than in its validation images.
``mask_threshold``: the larger of two.
(1) What healthy images say: the smallest value that at most ``healthy_share`` of the cells of the images negative for
the finding exceed; but no higher than the value that best tells positive images by their strongest cell (Youden's J
again). Without this bound a weak classifier keeps its masks clear of healthy images by leaving most positive ones
empty: on 952 training images of ChestX-ray14 (128 px, mean test AUROC .7) 81 % of the annotated test pairs without the
bound, and 46 % with it, where the strongest cell itself misses them; 5 % of the healthy images' area is covered then,
not 0.5 %. ``notes`` say for which findings it was so.
(2) What ill images say: ``peak_share`` of the strongest cell of a typical (median) positive image, half of it as in
full width at half maximum; but no higher than nine in ten positive images' strongest cell. Where a classifier is sure,
(1) lies far down the slopes of a lesion and its mask would be several times too large; a weak one is left to (1).

Numpy only: usable on anybody's logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

HEALTHY_SHARE = 0.005
"""Share of a healthy image that may be painted: of a 1024 x 1024 radiograph, one patch of 72 x 72 pixels."""

PEAK_SHARE = 0.5
"""A mask reaches down to this share of a typical peak."""

_LEFT_OUT = 0.1  # of the positive validation images may get an empty mask because of the peak's share


Scale = Literal["logit", "amount"]


@dataclass(frozen=True)
class Calibration:
    """Slopes, biases and thresholds of a run, a number per finding each.

    Args:
        score_slope: of the image logit; positive.
        score_bias: of the image logit.
        map_slope: of a cell's logit; positive.
        map_bias: of a cell's logit.
        score_threshold: the lowest score that is called positive.
        mask_threshold: what a map's value must exceed to be in the mask.
        notes: every finding for which a fallback took the place of a fit, and why.
        scale: what a network's maps are: "logit", calibrated as above; or "amount", what a method takes away from the
            image in units of its range, which is an absolute scale already and stays as it is.

    Raises:
        ValueError: fields of different lengths, a slope that is not positive, a value that is not finite.
    """

    score_slope: tuple[float, ...]
    score_bias: tuple[float, ...]
    map_slope: tuple[float, ...]
    map_bias: tuple[float, ...]
    score_threshold: tuple[float, ...]
    mask_threshold: tuple[float, ...]
    notes: tuple[str, ...] = ()
    scale: Scale = "logit"

    def __post_init__(self) -> None:
        for one in _NUMBERS:
            values = getattr(self, one)
            if len(values) != len(self.score_slope):
                raise ValueError(f"{one} has {len(values)} values for {len(self.score_slope)} findings")
            if not np.all(np.isfinite(values)):
                raise ValueError(f"{one} holds a value that is not finite: {values}")
        if min((*self.score_slope, *self.map_slope), default=1.0) <= 0:
            raise ValueError(f"slopes are positive, got {self.score_slope} and {self.map_slope}")

    @classmethod
    def identity(cls, count: int) -> Calibration:
        """No calibration: plain sigmoids and thresholds of 0.5, for ``count`` findings."""
        one, zero, half = (1.0,) * count, (0.0,) * count, (0.5,) * count
        return cls(one, zero, one, zero, half, half)

    @classmethod
    def fit(
        cls,
        image_logits: ArrayLike,
        map_logits: NDArray[np.floating[Any]],
        labels: ArrayLike,
        *,
        healthy_share: float = HEALTHY_SHARE,
        peak_share: float = PEAK_SHARE,
        findings: Sequence[str] | None = None,
        scale: Scale = "logit",
        peaks: ArrayLike | None = None,
        kept: NDArray[np.int64] | None = None,
    ) -> Calibration:
        """Fits on validation images.

        Of the whole maps only what healthy images say is needed. Where those of all images do not fit into memory, some
        are given, and of all images the strongest cell: what depends on how frequent a finding is then still does.

        Fallbacks, each recorded in ``notes``: a finding with one class only among its known labels keeps plain sigmoids
        and a score threshold of 0.5; a finding that has no negative image has a mask threshold of 0.5; a finding whose
        logits do not rise with the label keeps the slope 1 and has its bias fitted.

        Args:
            image_logits: (image, finding).
            map_logits: (image, finding, row, col); any float type, read one finding at a time; see ``scale``. With
                ``kept``, of these images alone.
            labels: (image, finding) 1, 0 or NaN = unknown.
            healthy_share: share of the cells of negative images that may exceed the mask threshold, 0 to 1.
            peak_share: share of the median positive image's peak that the mask threshold is not below, 0 to 1.
            findings: names, for the notes.
            scale: what the maps are.
            peaks: (image, finding) the strongest cell of each map; None = as the maps are.
            kept: (n,) which images the maps are of, ascending; None = all. Given with ``peaks``.

        Raises:
            ValueError: shapes that do not belong together, or a share outside 0-1.
        """
        scores = np.asarray(image_logits, dtype=np.float64)
        truth = np.asarray(labels, dtype=np.float64)
        rows_of_maps = np.arange(len(scores)) if kept is None else np.asarray(kept)
        if (
            scores.ndim != 2
            or scores.shape != truth.shape
            or map_logits.shape[:2] != (len(rows_of_maps), scores.shape[1])
        ):
            raise ValueError(
                f"image logits {scores.shape}, map logits {map_logits.shape} and labels {truth.shape}"
                " do not belong together"
            )
        if peaks is None and kept is not None:
            raise ValueError("maps of some images are given, and no peaks of all of them")
        strongest = map_logits.max(axis=(2, 3)) if peaks is None else np.asarray(peaks)
        if not 0.0 <= healthy_share <= 1.0:
            raise ValueError(f"healthy_share is a share of the image between 0 and 1, got {healthy_share}")
        if not 0.0 <= peak_share <= 1.0:
            raise ValueError(f"peak_share is a share of a map's peak between 0 and 1, got {peak_share}")
        names = list(findings) if findings is not None else [f"finding {i}" for i in range(scores.shape[1])]
        rows: list[tuple[float, ...]] = []
        notes: list[str] = []

        def laid(fit: tuple[float, float], values: Any) -> Any:
            """Map logits, or amounts, on the map's scale."""
            if scale == "amount":
                return values
            return _sigmoid(fit[0] * values + fit[1])

        for i, name in enumerate(names):
            known = ~np.isnan(truth[:, i])
            positive = truth[known, i] == 1
            found, missing = int(positive.sum()), int((~positive).sum())
            logits = scores[known, i]
            if found == 0 or missing == 0:
                plain = "scores and maps are plain sigmoids" if scale == "logit" else "scores are plain sigmoids"
                notes.append(
                    f"{name}: {found} positive and {missing} negative validation images; one class only,"
                    f" so {plain} and the score threshold is 0.5"
                )
                score_fit, map_fit, score_threshold = (1.0, 0.0), (1.0, 0.0), 0.5
            else:
                cells_at_most = strongest[known, i].astype(np.float64)
                score_fit, score_rises = platt(logits, positive)
                map_fit, map_rises = platt(cells_at_most, positive) if scale == "logit" else ((1.0, 0.0), True)
                if not (score_rises and map_rises):
                    what = "score" if not score_rises else "map"
                    notes.append(
                        f"{name}: the {what} does not rise with the label on validation images; slope left at 1"
                    )
                score_threshold = float(_sigmoid(score_fit[0] * youden_threshold(logits, positive) + score_fit[1]))
            calm_maps = np.flatnonzero((known & (truth[:, i] != 1))[rows_of_maps])
            if len(calm_maps) == 0:
                notes.append(f"{name}: no negative validation image; the mask threshold is 0.5")
                mask_threshold = 0.5
            else:
                cells = map_logits[calm_maps, i].ravel().astype(np.float32)
                level = calm = smallest_level(cells, healthy_share)
                typical = 0.0
                if found > 0 and map_rises:
                    level = min(level, np.float32(youden_threshold(cells_at_most, positive)))
                    ill = laid(map_fit, cells_at_most[positive])
                    typical = min(peak_share * float(np.median(ill)), float(np.quantile(ill, _LEFT_OUT)))
                by_level = float(laid(map_fit, level))
                mask_threshold = max(by_level, typical)
                if level < calm:
                    covered = (laid(map_fit, cells) > mask_threshold).mean()
                    if covered > healthy_share:
                        notes.append(
                            f"{name}: its masks cover {covered:.2%} of healthy validation images, not"
                            f" {healthy_share:.2%}, or they would leave out most positive ones"
                        )
            rows.append((*score_fit, *map_fit, score_threshold, mask_threshold))
        columns = zip(*rows, strict=True) if rows else ((),) * 6
        numbers = {one: tuple(float(value) for value in column) for one, column in zip(_NUMBERS, columns, strict=True)}
        return cls(**numbers, notes=tuple(notes), scale=scale)

    def scores(self, image_logits: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Image logits (..., finding) -> probabilities of the same shape, float32."""
        slope, bias = np.array(self.score_slope, np.float32), np.array(self.score_bias, np.float32)
        return _sigmoid(slope * np.asarray(image_logits, dtype=np.float32) + bias)

    def maps(self, map_logits: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Map logits, or amounts, (..., finding, row, col) -> calibrated maps of the same shape, float32."""
        if self.scale == "amount":
            return np.asarray(map_logits, dtype=np.float32)
        slope, bias = np.array(self.map_slope, np.float32), np.array(self.map_bias, np.float32)
        return _sigmoid(slope[:, None, None] * np.asarray(map_logits, dtype=np.float32) + bias[:, None, None])

    def only(self, at: Sequence[int]) -> Calibration:
        """The findings at these indices, in this order."""
        numbers = {one: tuple(getattr(self, one)[i] for i in at) for one in _NUMBERS}
        return Calibration(**numbers, notes=self.notes, scale=self.scale)

    def to_dict(self) -> dict[str, list[float] | list[str] | str]:
        """Plain lists of floats, and the notes as strings, for TOML and JSON."""
        return {**{one: list(getattr(self, one)) for one in (*_NUMBERS, "notes")}, "scale": self.scale}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The inverse of :meth:`to_dict`."""
        numbers = {one: tuple(float(value) for value in values[one]) for one in _NUMBERS}
        return cls(**numbers, notes=tuple(values.get("notes", ())), scale=values.get("scale", "logit"))


_NUMBERS = ("score_slope", "score_bias", "map_slope", "map_bias", "score_threshold", "mask_threshold")


def platt(logits: FloatArray, positive: NDArray[np.bool_]) -> tuple[tuple[float, float], bool]:
    """Platt scaling: the slope and bias that make ``sigmoid(slope * logit + bias)`` a probability.

    Args:
        logits: (n,).
        positive: (n,), with at least one of each class.

    Returns:
        ((slope, bias), rises): where the best slope is not positive, rises is False, the slope is 1 and only the
        bias fitted.
    """
    found = int(positive.sum())
    target = np.where(positive, (found + 1) / (found + 2), 1 / (len(positive) - found + 2))
    centre, spread = float(logits.mean()), float(logits.std())
    if spread > 0:
        design = np.stack([(logits - centre) / spread, np.ones_like(logits)], axis=1)
        slope, bias = _newton(design, target, np.zeros_like(logits))
        if slope > 0:
            return (float(slope / spread), float(bias - slope * centre / spread)), True
    (bias,) = _newton(np.ones((len(logits), 1)), target, logits - centre)
    return (1.0, float(bias - centre)), False


def youden_threshold(logits: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> float:
    """The threshold with the largest sensitivity + specificity - 1 for ``logit >= threshold``.

    Of equal maxima the highest; placed halfway between the lowest logit it calls positive and the next lower one.

    Args:
        logits: (n,).
        positive: (n,), with at least one of each class.
    """
    values, at = np.unique(np.asarray(logits, dtype=np.float64), return_inverse=True)
    found = np.bincount(at, weights=positive, minlength=len(values))[::-1].cumsum()[::-1]
    false = np.bincount(at, weights=~positive, minlength=len(values))[::-1].cumsum()[::-1]
    # Whole numbers, so that equal maxima are equal.
    gain = np.rint(found * (~positive).sum() - false * positive.sum())
    best = int(np.flatnonzero(gain == gain.max())[-1])
    if best == 0:
        return float(values[0])
    return float((values[best - 1] + values[best]) / 2)


def smallest_level(values: NDArray[np.float32], share: float) -> np.float32:
    """The smallest of ``values`` that at most ``share`` of them exceed; (n,), n >= 1."""
    may_exceed = min(int(share * len(values)), len(values) - 1)
    at = len(values) - 1 - may_exceed
    return np.float32(np.partition(values, at)[at])


def _newton(design: FloatArray, target: FloatArray, offset: FloatArray) -> FloatArray:
    """Weights (k,) of a logistic regression of soft targets (n,) on a design (n, k) with fixed offsets (n,)."""
    weights = np.zeros(design.shape[1])

    def loss(w: FloatArray) -> float:
        z = design @ w + offset
        return float(np.sum(np.logaddexp(0, z) - target * z))

    now = loss(weights)
    for _ in range(100):
        p = _sigmoid(design @ weights + offset)
        gradient = design.T @ (p - target)
        if np.abs(gradient).max() < 1e-9 * len(target):
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-12 * np.eye(design.shape[1])
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-10 and loss(weights - size * step) > now:
            size /= 2
        weights = weights - size * step
        now = loss(weights)
    return weights


def _sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) without overflow, in the type of x."""
    return 0.5 * (1 + np.tanh(0.5 * x))
