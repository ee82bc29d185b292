"""How far the edge of a proposed mask lies from the edge of the true one.

Conventions
-----------
- A mask's boundary is the mask minus its 4-connected erosion; beyond the image is background, so pixels of a mask at
  the image's border are boundary. Distances are Euclidean, between pixel centres.
- With ``spacing_mm`` (between rows, between columns) distances are millimetres, without it pixels: say which.
- An empty mask has no boundary: every measure is NaN, and counted. MONAI answers NaN or inf, surface-distance inf,
  medpy raises an exception.
- Programs differ, on the same masks, by up to a third. Reported are the mean of the distances of both directions put
  together (MONAI's symmetric average surface distance, medpy's ``assd``), and the greater of the directions' 95th
  percentiles (MONAI's HD95). medpy's ``hd95`` puts the directions together first
  (:attr:`BoundaryDistances.hausdorff_95_together`). surface-distance (Google DeepMind) measures from pixel corners and
  weighs by contour length, and SimpleITK over all pixels of the masks: other definitions, not given here.

References: Huttenlocher et al., Comparing images using the Hausdorff distance, IEEE TPAMI 15, 1993; Heimann et al.,
Comparison and evaluation of methods for liver segmentation, IEEE TMI 28, 2009 (average symmetric surface distance).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Values = NDArray[np.float64]


@dataclass(frozen=True)
class BoundaryDistances:
    """Distances between two boundaries, in millimetres where a spacing was given, else in pixels.

    Args:
        to_truth: (n,) from each boundary pixel of the proposed mask to the nearest of the true one.
        to_proposed: (m,) the other way.
    """

    to_truth: Values
    to_proposed: Values

    @property
    def _defined(self) -> bool:
        return len(self.to_truth) > 0 and len(self.to_proposed) > 0

    @property
    def mean(self) -> float:
        """The mean of all distances, both directions put together; NaN if a mask is empty."""
        return float(np.concatenate([self.to_truth, self.to_proposed]).mean()) if self._defined else float("nan")

    @property
    def hausdorff_95(self) -> float:
        """The greater of the two directions' 95th percentiles (linear interpolation); NaN if a mask is empty."""
        if not self._defined:
            return float("nan")
        return float(max(np.percentile(self.to_truth, 95), np.percentile(self.to_proposed, 95)))

    @property
    def hausdorff_95_together(self) -> float:
        """The 95th percentile of both directions put together, medpy's ``hd95``; NaN if a mask is empty."""
        if not self._defined:
            return float("nan")
        return float(np.percentile(np.concatenate([self.to_truth, self.to_proposed]), 95))

    @property
    def hausdorff(self) -> float:
        """The greatest of all distances; NaN if a mask is empty."""
        return float(max(self.to_truth.max(), self.to_proposed.max())) if self._defined else float("nan")

    def share_within(self, tolerance: float) -> float:
        """Share of both boundaries that lies within so far of the other, ends included (MONAI's surface Dice)."""
        if not self._defined:
            return float("nan")
        return float((np.concatenate([self.to_truth, self.to_proposed]) <= tolerance).mean())


def boundary(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """The boundary pixels of a mask (row, col)."""
    inside = mask.astype(bool, copy=False)
    return np.asarray(inside & ~ndimage.binary_erosion(inside))


def boundary_distances(
    proposed: NDArray[Any], truth: NDArray[Any], *, spacing_mm: tuple[float, float] | None = None
) -> BoundaryDistances:
    """Distances between the boundaries of two masks (row, col), non-zero = set; see the module's conventions.

    Raises:
        ValueError: masks of different shapes, or a spacing that is not positive.
    """
    if proposed.ndim != 2 or proposed.shape != truth.shape:
        raise ValueError(f"{proposed.shape} does not lie on {truth.shape}: both are (row, col); resize one first")
    if spacing_mm is not None and not min(spacing_mm) > 0:
        raise ValueError(f"a spacing is positive, got {spacing_mm}")
    scale = np.array((1.0, 1.0) if spacing_mm is None else spacing_mm)
    part = _around(proposed, truth)  # most of an image is outside both
    a, b = (np.argwhere(boundary(mask[part])) * scale for mask in (proposed, truth))
    if not len(a) or not len(b):
        return BoundaryDistances(np.zeros(0), np.zeros(0))
    from scipy.spatial import KDTree  # which takes long to import, and most measures have no need of

    return BoundaryDistances(np.asarray(KDTree(b).query(a)[0]), np.asarray(KDTree(a).query(b)[0]))


def _around(*masks: NDArray[Any]) -> tuple[slice, slice]:
    """The rows and columns that hold all masks: beyond is background, as beyond the image, and no boundary changes."""
    ends = []
    for axis in (1, 0):
        at = np.flatnonzero(np.any([mask.any(axis=axis) for mask in masks], axis=0))
        ends.append(slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0))
    return ends[0], ends[1]
