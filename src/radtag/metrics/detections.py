"""Detections of a map: its connected components, each with a box, a score and a peak.

Conventions: a component is 8-connected in ``map > threshold`` (strict); its box is ``xyxy``, half-open, whole pixels
(x2 is the last column + 1); its score is the map's maximum within it and its peak the first such maximum in raster
order. These are what box accuracy at an IoU, COCO average precision and FROC are computed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True)
class Detections:
    """The components of one map, by descending score (ties in raster order of their first pixel).

    Args:
        boxes_xyxy: (n, 4) half-open, in pixels of the map.
        scores: (n,) the map's maximum in each.
        peaks_rc: (n, 2) index (row, col) of that maximum.
        areas_px: (n,) number of pixels.
    """

    boxes_xyxy: NDArray[np.int64]
    scores: NDArray[np.float64]
    peaks_rc: NDArray[np.int64]
    areas_px: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


def detections(score_map: NDArray[np.floating[Any]], threshold: float) -> Detections:
    """The components of ``score_map > threshold``, (row, col); see the module's conventions."""
    if score_map.ndim != 2 or np.isnan(score_map).any():
        raise ValueError(f"a map is (row, col) without NaN, got shape {score_map.shape}")
    labelled, count = ndimage.label(score_map > threshold, structure=np.ones((3, 3)))
    boxes, scores = np.zeros((count, 4), dtype=np.int64), np.zeros(count)
    peaks, areas = np.zeros((count, 2), dtype=np.int64), np.zeros(count, dtype=np.int64)
    for i, (rows, cols) in enumerate(ndimage.find_objects(labelled)):
        own = labelled[rows, cols] == i + 1
        values = np.where(own, score_map[rows, cols], -np.inf)
        row, col = np.unravel_index(int(values.argmax()), values.shape)
        boxes[i] = cols.start, rows.start, cols.stop, rows.stop
        scores[i], areas[i] = values[row, col], np.count_nonzero(own)
        peaks[i] = rows.start + row, cols.start + col
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes[order], scores[order], peaks[order], areas[order])
