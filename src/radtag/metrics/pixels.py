"""Pixel AUROC and average precision over whole data sets in constant memory, through histograms.

Conventions
-----------
- A pixel is a case: its score is the map's value, its label whether it lies on the mask. Maps are on one absolute scale
  (0-1) and are never stretched image by image.
- By default a value counts as its nearest of 65,536 levels, ``round(65535 * value)``: the 16-bit PNGs maps are written
  in. The measures are exact for maps so rounded. Of float32 maps many values share a level: the average precision of
  6 million pixels of smooth ones is off by 3e-5, the AUROC by 2e-6. ``levels=FLOAT_LEVELS`` takes 64 times as many,
  in 64 MiB (240 while a map is counted), and is within 1e-6; it is as exact for 16-bit maps, whose values then still
  have a level each.
- With a list of ``levels`` a value counts as the highest level not above it (a sweep of thresholds that include their
  end): ``numpy.append(numpy.arange(0, 1, .001), 1)`` is the PxAP of wsolevaluation.
- Which pixels count is the caller's: those of pairs with a mask only, or also those of negatives (an all-zero mask).
  The average precision of the two differs by much; say which.

Reference: Choe et al., Evaluating weakly supervised object localization methods right, CVPR 2020 (PxAP).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radtag.metrics import bootstrap
from radtag.metrics.classification import binned_auroc, binned_average_precision

LEVELS = 1 << 16
FLOAT_LEVELS = 1 << 22
"""For float32 maps that are not to be written in 16 bits."""
_COARSE = 1 << 10  # bins of a patient's histogram, which serves intervals only


class PixelHistogram:
    """Counts of true and false pixels per level of the map; grows by :meth:`update`, not in memory.

    Args:
        levels: how many equal steps from 0 to 1 a value may count as, or ascending lower ends of bins; the default are
            the 65,536 levels of a 16-bit map.

    Attributes:
        counts: (2, level) int64; false pixels, true pixels.
    """

    def __init__(self, levels: int | ArrayLike = LEVELS) -> None:
        self.levels = None if isinstance(levels, int) else np.asarray(levels, dtype=np.float64)
        if self.levels is not None and (self.levels.ndim != 1 or not (np.diff(self.levels) > 0).all()):
            raise ValueError("levels are one ascending list of lower ends")
        count = levels if isinstance(levels, int) else len(np.atleast_1d(levels))
        if count < 2:
            raise ValueError(f"a value counts as one of at least 2 levels, got {count}")
        self.counts: NDArray[np.int64] = np.zeros((2, count), dtype=np.int64)

    def update(self, maps: NDArray[np.floating[Any]], truth: NDArray[Any]) -> None:
        """Adds the pixels of maps and masks of one shape (...); non-zero = true.

        Raises:
            ValueError: shapes that differ, or a value outside 0-1 (outside the levels), NaN included.
        """
        self.counts += self.count(maps, truth)

    def count(self, maps: NDArray[np.floating[Any]], truth: NDArray[Any]) -> NDArray[np.int64]:
        """The counts (2, level) of these pixels alone; the histogram is left as it is."""
        if maps.shape != truth.shape:
            raise ValueError(f"maps of {maps.shape} do not lie on masks of {truth.shape}; resize one of them first")
        if maps.size == 0:
            return np.zeros_like(self.counts)
        low, high = (0.0, 1.0) if self.levels is None else (float(self.levels[0]), np.inf)
        if not (maps.min() >= low and maps.max() <= high):  # also catches NaN
            raise ValueError(f"maps run from {maps.min()} to {maps.max()}; they lie within {low}-{high}")
        if self.levels is None:
            level = np.rint(maps.astype(np.float64) * (self.counts.shape[1] - 1)).astype(np.int64)
        else:
            level = np.searchsorted(self.levels, maps.astype(np.float64), side="right") - 1
        width = self.counts.shape[1]
        both = level.ravel() + width * truth.astype(bool, copy=False).ravel()
        return np.bincount(both, minlength=2 * width).reshape(2, width)

    def merge(self, other: PixelHistogram) -> None:
        """Adds another histogram of the same levels, such as one of another process.

        Raises:
            ValueError: the levels differ.
        """
        same = self.levels is other.levels is None or (
            self.levels is not None and other.levels is not None and np.array_equal(self.levels, other.levels)
        )
        if not same or self.counts.shape != other.counts.shape:
            raise ValueError("only histograms of the same levels can be merged")
        self.counts += other.counts

    def auroc(self) -> float:
        """AUROC of all pixels so far; NaN while one class is absent."""
        return float(binned_auroc(self.counts))

    def average_precision(self) -> float:
        """Average precision of all pixels so far; NaN while no pixel is true."""
        return float(binned_average_precision(self.counts))


class PixelRanking:
    """Pixel AUROC and average precision per finding and micro, with intervals by bootstrap over patients.

    Keeps one fine histogram a finding for the values, and one of 1,024 bins for every patient and finding seen, for the
    intervals: 16 KiB each.

    Args:
        findings: how many findings there are.
    """

    def __init__(self, findings: int) -> None:
        self._fine = [PixelHistogram() for _ in range(findings)]
        self._coarse: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._pairs = np.zeros(findings, dtype=np.int64)

    def update(self, patient: int, finding: int, score_map: NDArray[np.floating[Any]], truth: NDArray[Any]) -> None:
        """Adds one pair (row, col).

        Args:
            patient: index of its patient, an entry of :attr:`radtag.metrics.bootstrap.Resampling.row`.
            finding: number of its finding.
            score_map: values of 0-1.
            truth: its mask, all zero for a negative that is to count.
        """
        counts = self._fine[finding].count(score_map, truth)
        self._fine[finding].counts += counts
        coarse = counts.reshape(2, _COARSE, -1).sum(axis=-1)
        key = (patient, finding)
        self._coarse[key] = self._coarse[key] + coarse if key in self._coarse else coarse
        self._pairs[finding] += 1

    def replicates(
        self, resampling: bootstrap.Resampling, measure: bootstrap.Ranking = "average_precision"
    ) -> bootstrap.Replicates:
        """The measure on the data and on every replicate; ``n`` counts pairs, not pixels."""
        fine = np.stack([histogram.counts for histogram in self._fine])
        fine = np.concatenate([fine, fine.sum(axis=0, keepdims=True)])
        cells = []
        for finding in range(len(self._fine)):
            row = [patient for patient, of in self._coarse if of == finding]
            own = [self._coarse[patient, finding] for patient in row]
            cells.append((np.array(row, dtype=np.int64), np.array(own, dtype=np.int64).reshape(len(row), 2, _COARSE)))
        value = (binned_auroc if measure == "auroc" else binned_average_precision)(fine)
        drawn = bootstrap.binned_ranking(cells, value, resampling, measure)
        n = np.append(self._pairs, self._pairs.sum())
        return bootstrap.Replicates(drawn.value, drawn.drawn, n, drawn.undefined, drawn.patients)

    def arrays(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """What was counted, to be kept in a file: fine (finding, 2, level), coarse (cell, 2, bin), the patient and the
        finding of each cell (cell,), and pairs (finding,)."""
        keys = np.array(list(self._coarse), dtype=np.int64).reshape(-1, 2)
        coarse = np.array(list(self._coarse.values()), dtype=np.int64).reshape(-1, 2, _COARSE)
        fine = np.array([histogram.counts for histogram in self._fine], dtype=np.int64).reshape(-1, 2, LEVELS)
        return fine, coarse, keys[:, 0], keys[:, 1], self._pairs.copy()

    @classmethod
    def from_arrays(
        cls,
        fine: NDArray[np.int64],
        coarse: NDArray[np.int64],
        patient: NDArray[np.int64],
        finding: NDArray[np.int64],
        pairs: NDArray[np.int64],
    ) -> PixelRanking:
        """The inverse of :meth:`arrays`; cells of one patient and finding are added together."""
        ranking = cls(len(fine))
        for histogram, counts in zip(ranking._fine, fine, strict=True):
            histogram.counts += counts
        for key, counts in zip(zip(patient.tolist(), finding.tolist(), strict=True), coarse, strict=True):
            ranking._coarse[key] = ranking._coarse[key] + counts if key in ranking._coarse else counts
        ranking._pairs += pairs
        return ranking
