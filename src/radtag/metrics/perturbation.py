"""Insertion and deletion: does a model's score follow the map, when pixels are taken away or put back in its order?

Conventions
-----------
- The model is a callable: images (batch, row, col) or (batch, row, col, channel) -> scores (batch,) of one finding.
- Pixels go by descending value of the map, equal ones in raster order, in ``steps`` parts of (almost) equal size. A
  curve has ``steps + 1`` scores, from nothing changed to everything; its area is the mean by trapezoids over 0-1.
- Deletion replaces the highest pixels of the image by a baseline; the lower its area the better. Insertion puts them
  back on a baseline; the higher the better. RISE takes black for deletion and a blurred image for insertion, since a
  cut-out shape on black is itself evidence. The baseline changes the numbers: say which.
- Both say what moves the model, not where the disease is: a map that follows a wrong clue scores well.

Reference: Petsiuk, Das and Saenko, RISE: Randomized input sampling for explanation of black-box models, BMVC 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Images = NDArray[np.floating[Any]]
Model = Callable[[Images], ArrayLike]


@dataclass(frozen=True)
class PerturbationCurve:
    """Scores while pixels change.

    Args:
        share: (step + 1,) share of the pixels changed, 0 to 1.
        scores: (step + 1,) the model's scores.
    """

    share: NDArray[np.float64]
    scores: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area under the curve, by trapezoids."""
        return float(np.trapezoid(self.scores, self.share))


def deletion(
    model: Model, image: Images, score_map: NDArray[Any], *, baseline: ArrayLike = 0.0, steps: int = 64, batch: int = 32
) -> PerturbationCurve:
    """The score while the map's highest pixels are replaced by the baseline; the lower its area the better.

    Args:
        model: images (batch, row, col, ...) -> scores (batch,).
        image: (row, col) or (row, col, channel), as the model takes it.
        score_map: (row, col), of the image's size.
        baseline: what stands for nothing: a value, or an image.
        steps: parts the pixels go in.
        batch: images handed to the model at once.
    """
    other = np.broadcast_to(np.asarray(baseline, dtype=image.dtype), image.shape)
    return _curve(model, image, other, score_map, steps, batch)


def insertion(
    model: Model,
    image: Images,
    score_map: NDArray[Any],
    *,
    baseline: ArrayLike | None = None,
    steps: int = 64,
    batch: int = 32,
) -> PerturbationCurve:
    """The score while the map's highest pixels are put on the baseline; the higher its area the better.

    Args:
        model: images (batch, row, col, ...) -> scores (batch,).
        image: (row, col) or (row, col, channel), as the model takes it.
        score_map: (row, col), of the image's size.
        baseline: what to begin with: a value, or an image; None = the image blurred (:func:`blurred`).
        steps: parts the pixels go in.
        batch: images handed to the model at once.
    """
    start = blurred(image) if baseline is None else np.asarray(baseline, dtype=image.dtype)
    return _curve(model, np.broadcast_to(start, image.shape), image, score_map, steps, batch)


def blurred(image: Images, share: float = 0.05) -> Images:
    """The image smoothed by a Gaussian of this share of its longer side."""
    sigma = share * max(image.shape[:2])
    values: Images = ndimage.gaussian_filter(image, (sigma, sigma) + (0,) * (image.ndim - 2))
    return values


def _curve(
    model: Model, before: Images, after: Images, score_map: NDArray[Any], steps: int, batch: int
) -> PerturbationCurve:
    if score_map.shape != before.shape[:2]:
        raise ValueError(f"a map of {score_map.shape} does not lie on an image of {before.shape}; resize it first")
    if np.isnan(score_map).any():
        raise ValueError("a map holds NaN; a map of nothing is all 0, not NaN")
    if steps < 1 or batch < 1:
        raise ValueError(f"steps and batch are at least 1, got {steps} and {batch}")
    order = np.argsort(-score_map.ravel().astype(np.float64), kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    rank = place.reshape(score_map.shape + (1,) * (before.ndim - 2))
    counts = np.rint(np.linspace(0, len(order), steps + 1)).astype(np.int64)
    scores: list[NDArray[np.float64]] = []
    for start in range(0, len(counts), batch):
        images = np.stack([np.where(rank < count, after, before) for count in counts[start : start + batch]])
        found = np.asarray(model(images), dtype=np.float64).reshape(-1)
        if len(found) != len(images):
            raise ValueError(f"the model gave {len(found)} scores for {len(images)} images; it gives one for each")
        scores.append(found)
    return PerturbationCurve(counts / len(order), np.concatenate(scores))
