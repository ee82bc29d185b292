"""Maps and predicted boxes against true boxes: T(IoBB), T(IoU), and the share of boxes found at an IoU.

Conventions
-----------
- Boxes are ``xyxy``, half-open, float, in the pixels of the map they are compared with. Batches take the boxes of all
  pairs in one array (box, 4) with ``owner`` (box,) = the number of the pair each belongs to.
- Every overlap threshold is strict (``> T``), as in Wang et al. 2017 and PYLON.
- ``convention="pylon"`` (the reported one) draws a box as PYLON does: x, y, width and height each cut to whole pixels
  towards 0, one by one. ``convention="radtag"`` takes the pixels whose centre lies in the box
  (:func:`radtag.geometry.boxes_to_mask`). The two can differ by a pixel on each side.
- A pair without boxes is NaN. A map that predicts nothing on a pair with boxes has an undefined IoBB (0/0), but it has
  not found them: it counts as not found, not as undefined.

References: Wang et al., ChestX-ray8, CVPR 2017 (T(IoBB), T(IoU)); Preechakul et al., iScience 25(3):103933, 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radtag.geometry import box_iou
from radtag.metrics.points import Convention, checked_boxes

Values = NDArray[np.float64]
Maps = NDArray[np.floating[Any]]

IOBB_THRESHOLDS = (0.1, 0.25, 0.5)
IOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
_WHOLE = 1e-6  # a width within this of a whole number of pixels is that number: x2 - x1 has lost the last digit


@dataclass(frozen=True)
class UnionOverlap:
    """Pixel counts of predictions against the union of each pair's boxes.

    Args:
        shared_px: (pair,) predicted pixels in a box.
        predicted_px: (pair,) predicted pixels.
        boxes_px: (pair,) pixels of the union of the boxes.
        has_box: (pair,) whether the pair has a box at all.
    """

    shared_px: NDArray[np.int64]
    predicted_px: NDArray[np.int64]
    boxes_px: NDArray[np.int64]
    has_box: NDArray[np.bool_]

    @property
    def iobb(self) -> Values:
        """Intersection over the predicted area (pair,): ``|P and B| / |P|``; NaN if nothing is predicted or boxed.

        Called IoBB after the "detected bounding box" of Wang et al.; as in PYLON, P is every predicted pixel of the map
        and not one box around them.
        """
        return _ratio(self.shared_px, self.predicted_px, self.has_box)

    @property
    def iou(self) -> Values:
        """Intersection over union (pair,): ``|P and B| / |P or B|``; NaN without boxes."""
        return _ratio(self.shared_px, self.predicted_px + self.boxes_px - self.shared_px, self.has_box)

    def found(self, threshold: float, *, by: Literal["iobb", "iou", "either"] = "iobb") -> Values:
        """Whether each pair's finding is found (pair,): 1.0, 0.0, or NaN without boxes.

        Definition: ``by="iobb"``: IoBB > threshold, whose mean is T(IoBB) accuracy; ``"iou"``: IoU > threshold;
        ``"either"``: one of the two, PYLON's ``iobb_or_iou``. An undefined ratio of a pair with boxes is not found.
        """
        if by not in ("iobb", "iou", "either"):
            raise ValueError(f"by is 'iobb', 'iou' or 'either', got {by!r}")
        hit = np.zeros(len(self.has_box), dtype=bool)
        if by != "iou":
            hit |= self.iobb > threshold
        if by != "iobb":
            hit |= self.iou > threshold
        return np.where(self.has_box, hit.astype(np.float64), np.nan)


def above_share_of_maximum(maps: Maps, share: float = 0.5) -> NDArray[np.bool_]:
    """PYLON's prediction: the pixels above a share of each map's own maximum, (..., row, col) -> bool, same shape.

    Definition: ``map / max(map) > share``, divided in the map's own precision. A map of zeros predicts nothing, a
    constant map everything.

    Raises:
        ValueError: a map holding NaN or without any value of at least 0, such as logits.
    """
    top = maps.max(axis=(-2, -1), keepdims=True)
    if not (top >= 0).all():  # also catches NaN
        raise ValueError(f"a map's maximum is {top[~(top >= 0)][0]}; give maps of 0-1 (the sigmoid of logits)")
    # Division rounds, but never out of order: find the greatest value that does not exceed the share once
    # it is divided, and compare with that.
    divisor = np.where(top > 0, top, 1).astype(maps.dtype)
    wanted, up = maps.dtype.type(share), maps.dtype.type(np.inf)
    level = wanted * divisor
    while (over := level / divisor > wanted).any():
        level = np.where(over, np.nextafter(level, -up), level)
    while (under := (following := np.nextafter(level, up)) / divisor <= wanted).any():
        level = np.where(under, following, level)
    predicted: NDArray[np.bool_] = maps > level
    return predicted


def union_overlap(
    predictions: NDArray[np.bool_], boxes_xyxy: ArrayLike, owner: ArrayLike, *, convention: Convention = "pylon"
) -> UnionOverlap:
    """Counts predicted pixels within and without the union of each pair's boxes.

    Args:
        predictions: (pair, row, col) bool, such as :func:`above_share_of_maximum` gives.
        boxes_xyxy: (box, 4), in pixels of the predictions.
        owner: (box,) number of the pair each box belongs to.
        convention: how a box is drawn; see the module's conventions.
    """
    pairs, rows, cols = predictions.shape
    boxes, owners = checked_boxes(boxes_xyxy, owner, pairs)
    x1, y1, x2, y2 = _drawn(boxes, (rows, cols), convention).T.tolist()
    boxes_of: list[list[int]] = [[] for _ in range(pairs)]
    for box, pair in enumerate(owners.tolist()):
        boxes_of[pair].append(box)
    shared = np.zeros(pairs, dtype=np.int64)
    drawn = np.zeros(pairs, dtype=np.int64)
    for pair, own in enumerate(boxes_of):
        if len(own) == 1:
            (b,) = own
            shared[pair] = np.count_nonzero(predictions[pair, y1[b] : y2[b], x1[b] : x2[b]])
            drawn[pair] = (y2[b] - y1[b]) * (x2[b] - x1[b])
        elif own:
            union = np.zeros((rows, cols), dtype=bool)
            for b in own:
                union[y1[b] : y2[b], x1[b] : x2[b]] = True
            shared[pair] = np.count_nonzero(predictions[pair] & union)
            drawn[pair] = np.count_nonzero(union)
    has_box = np.array([bool(own) for own in boxes_of], dtype=bool)
    # One by one, which numpy does thirty times as fast as by axes.
    predicted = np.array([np.count_nonzero(one) for one in predictions], dtype=np.int64)
    return UnionOverlap(shared, predicted, drawn, has_box)


def iobb(score_map: Maps, boxes_xyxy: ArrayLike, *, share: float = 0.5, convention: Convention = "pylon") -> float:
    """IoBB of one map (row, col) with its boxes (box, 4): see :attr:`UnionOverlap.iobb`."""
    return float(_one(score_map, boxes_xyxy, share, convention).iobb[0])


def iou_with_union(
    score_map: Maps, boxes_xyxy: ArrayLike, *, share: float = 0.5, convention: Convention = "pylon"
) -> float:
    """IoU of one map (row, col) with the union of its boxes (box, 4): see :attr:`UnionOverlap.iou`."""
    return float(_one(score_map, boxes_xyxy, share, convention).iou[0])


def best_iou(true_xyxy: ArrayLike, predicted_xyxy: ArrayLike) -> Values:
    """The greatest IoU each true box (box, 4) of a pair reaches with any of its predicted boxes (n, 4) -> (box,).

    Continuous, half-open boxes; 0 where nothing is predicted. A predicted box may serve several true ones, and false
    ones cost nothing here: report them beside it (:mod:`radtag.metrics.detections`).
    """
    iou = box_iou(true_xyxy, predicted_xyxy)
    return iou.max(axis=1, initial=0.0)


def found_at_iou(iou: ArrayLike, thresholds: Sequence[float] = IOU_THRESHOLDS) -> Values:
    """Box accuracy: whether each box is found, at every threshold: (box,) IoU -> (box, threshold) 1.0, 0.0 or NaN.

    Definition: the unit is one annotated box; it is found at T if a predicted box overlaps it by IoU > T. The predicted
    boxes are those around the connected components of the map's mask, and the best of them counts
    (:func:`best_iou`); pass only the box of the component of greatest score to score one box a map instead. The share
    of boxes found, averaged over findings, is the figure the ChestX-ray14 literature reports at T = .1 to .5.

    References: Wang et al., CVPR 2017; Li et al., Thoracic disease identification and localization with limited
    supervision, CVPR 2018; Zhu et al., PCAN, Computerized Medical Imaging and Graphics 102, 2022.
    """
    values = np.asarray(iou, dtype=np.float64).reshape(-1)
    found = (values[:, None] > np.asarray(thresholds, dtype=np.float64)[None]).astype(np.float64)
    return np.where(np.isnan(values)[:, None], np.nan, found)


def _one(score_map: Maps, boxes_xyxy: ArrayLike, share: float, convention: Convention) -> UnionOverlap:
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    predicted = above_share_of_maximum(score_map, share)[None]
    return union_overlap(predicted, boxes, np.zeros(len(boxes), dtype=np.int64), convention=convention)


def _drawn(boxes: Values, size_rc: tuple[int, int], convention: Convention) -> NDArray[np.int64]:
    """Boxes (box, 4) as whole pixel ranges x1, y1, x2, y2, clipped to the map."""
    if convention == "pylon":
        start = np.trunc(boxes[:, :2])
        extent = boxes[:, 2:] - boxes[:, :2]
        whole = np.rint(extent)
        stop = start + np.where(np.abs(extent - whole) < _WHOLE, whole, np.trunc(extent))
    elif convention == "radtag":
        start, stop = np.ceil(boxes[:, :2] - 0.5), np.ceil(boxes[:, 2:] - 0.5)
    else:
        raise ValueError(f"convention is 'pylon' or 'radtag', got {convention!r}")
    rows, cols = size_rc
    return np.clip(np.hstack([start, stop]), 0, [cols, rows, cols, rows]).astype(np.int64)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64], defined: NDArray[np.bool_]) -> Values:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=defined & (whole > 0))
