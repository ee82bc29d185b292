"""MaxBoxAcc and MaxBoxAccV2: boxes of a map at the threshold that is best for the whole set.

Conventions
-----------
- One threshold serves a whole set of pairs, a share of each map's own maximum; the one that finds most is taken
  *on the images scored*. That is an upper bound, not a result: nobody knows that threshold for new images.
- Those are the definitions of wsolevaluation, on integers: the map is cut to bytes (``uint8(255 * map)``), foreground
  is ``byte > int(t * greatest byte)``; a box is (x, y, x + w, y + h), clipped to the last column and row, and the IoU
  counts its corners as inclusive pixels (+ 1). On images of 64 to 128 pixels this differs from the IoU of half-open
  boxes by up to 0.1. An empty foreground gives the box (0, 0, 0, 0). True boxes are cut to whole pixels.
- ``contours="largest"`` takes the box of the contour with the greatest area (MaxBoxAcc), ``"all"`` those of all of
  them, inner ones too (MaxBoxAccV2). A contour runs through the centres of its pixels; its area is that polygon's.
- The unit is a pair with boxes, found if any box fits any true box with ``IoU >= threshold``.
- PxAP, the third measure of that paper, is :class:`radtag.metrics.pixels.PixelHistogram` with ``levels``.

Reference: Choe et al., Evaluating weakly supervised object localization methods right, CVPR 2020 (MaxBoxAcc, PxAP), and
its extension, arXiv 2007.04178 (MaxBoxAccV2); github.com/clovaai/wsolevaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Values = NDArray[np.float64]
Maps = NDArray[np.floating[Any]]
Contours = Literal["largest", "all"]

THRESHOLDS = tuple(np.arange(0, 1, 0.01).tolist())
IOU_THRESHOLDS = (0.3, 0.5, 0.7)

_EIGHT = np.ones((3, 3), dtype=int)


@dataclass(frozen=True)
class BoxAccuracy:
    """The best IoU of each pair at each threshold of the maps, and what follows.

    Args:
        iou: (pair, threshold) as :func:`best_ious` gives it; NaN = a pair without boxes.
        thresholds: (threshold,) shares of the maps' maxima.
    """

    iou: Values
    thresholds: Values

    def accuracy(self, iou: float = 0.5) -> float:
        """MaxBoxAcc at an IoU: the greatest share of pairs found at any one threshold; NaN without pairs."""
        shares = self._shares(iou)
        return float(shares.max()) if len(shares) else float("nan")

    def best_threshold(self, iou: float = 0.5) -> float:
        """The first threshold that finds most; NaN without pairs."""
        shares = self._shares(iou)
        return float(self.thresholds[int(shares.argmax())]) if len(shares) else float("nan")

    def v2(self, ious: Sequence[float] = IOU_THRESHOLDS) -> float:
        """MaxBoxAccV2: the mean of :meth:`accuracy` over IoU .3, .5 and .7, each at its own best threshold."""
        return float(np.mean([self.accuracy(iou) for iou in ious]))

    def _shares(self, iou: float) -> Values:
        known = self.iou[~np.isnan(self.iou).any(axis=1)]
        return (known >= iou).mean(axis=0) if len(known) else np.zeros(0)


def box_accuracy(
    maps: Sequence[Maps],
    boxes_xyxy: Sequence[ArrayLike],
    *,
    contours: Contours = "all",
    thresholds: Sequence[float] = THRESHOLDS,
) -> BoxAccuracy:
    """The best IoU of every pair at every threshold.

    Args:
        maps: one map (row, col) a pair, values 0-1, each of its own size.
        boxes_xyxy: its true boxes (n, 4) in the map's pixels.
        contours: ``"largest"`` for MaxBoxAcc, ``"all"`` for MaxBoxAccV2.
        thresholds: shares of the maps' maxima.
    """
    if len(maps) != len(boxes_xyxy):
        raise ValueError(f"{len(maps)} maps have {len(boxes_xyxy)} lists of boxes; give one for each map")
    rows = [
        best_ious(one, boxes, contours=contours, thresholds=thresholds)
        for one, boxes in zip(maps, boxes_xyxy, strict=True)
    ]
    return BoxAccuracy(np.array(rows, dtype=np.float64).reshape(-1, len(thresholds)), np.asarray(thresholds))


def best_ious(
    score_map: Maps, boxes_xyxy: ArrayLike, *, contours: Contours = "all", thresholds: Sequence[float] = THRESHOLDS
) -> Values:
    """The best IoU of a map's boxes with any true box, at each threshold (threshold,); NaN without true boxes.

    Raises:
        ValueError: a map outside 0-1.
    """
    truth = np.trunc(np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4))
    if not len(truth):
        return np.full(len(thresholds), np.nan)
    if not (score_map.min() >= 0 and score_map.max() <= 1):  # also catches NaN
        raise ValueError(f"a map lies within 0-1, got {score_map.min()} to {score_map.max()}")
    levels = (255 * score_map.astype(np.float64)).astype(np.uint8)
    top = int(levels.max())
    at: dict[int, float] = {}  # bytes have few levels: many thresholds share a mask
    for threshold in thresholds:
        level = int(threshold * top)
        if level not in at:
            at[level] = float(inclusive_iou(contour_boxes(levels > level, contours), truth).max())
    return np.array([at[int(threshold * top)] for threshold in thresholds])


def contour_boxes(mask: NDArray[np.bool_], contours: Contours = "all") -> NDArray[np.int64]:
    """Boxes (n, 4) of a mask's contours (row, col), inclusive corners as in wsolevaluation; (0, 0, 0, 0) if empty."""
    if contours not in ("largest", "all"):
        raise ValueError(f"contours are 'largest' or 'all', got {contours!r}")
    rows, cols = mask.shape
    down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(down):
        return np.zeros((1, 4), dtype=np.int64)
    top, left = int(down[0]), int(across[0])  # labelling takes the time, and much of a mask is empty
    inside = mask[top : int(down[-1]) + 1, left : int(across[-1]) + 1]
    labels, _ = ndimage.label(inside, structure=_EIGHT)
    outer = ndimage.find_objects(labels)
    if contours == "largest":
        outer = [outer[_largest(labels, outer)]]
    found = [(across.start, down.start, across.stop, down.stop) for down, across in outer]
    if contours == "all":
        # A hole's contour runs on the pixels around it: its box is one pixel larger on each side.
        holes, _ = ndimage.label(np.pad(~inside, 1, constant_values=True))  # 4-connected, where the mask is 8-
        for i, (down, across) in enumerate(ndimage.find_objects(holes)):
            if i + 1 != holes[0, 0]:
                found.append((across.start - 2, down.start - 2, across.stop, down.stop))
    boxes = np.array(found, dtype=np.int64) + [left, top, left, top]
    return np.asarray(np.minimum(boxes, [cols - 1, rows - 1, cols - 1, rows - 1]))


def inclusive_iou(a_xyxy: ArrayLike, b_xyxy: ArrayLike) -> Values:
    """IoU (n, m) of boxes whose corners are both pixels within them: a side is ``x2 - x1 + 1`` long."""
    a = np.asarray(a_xyxy, dtype=np.float64).reshape(-1, 1, 4)
    b = np.asarray(b_xyxy, dtype=np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    shared = np.maximum(sides, 0).prod(axis=-1)
    areas = (a[..., 2:] - a[..., :2] + 1).prod(axis=-1) + (b[..., 2:] - b[..., :2] + 1).prod(axis=-1)
    return np.asarray(shared / (areas - shared))


def _polygon_area(component: NDArray[np.bool_]) -> float:
    """Area of a component's outer contour through the centres of its pixels (row, col).

    Of each four neighbouring pixels the contour encloses a whole square if all are within, half if three are.
    """
    filled = ndimage.binary_fill_holes(component).astype(np.int64)
    corners = filled[:-1, :-1] + filled[1:, :-1] + filled[:-1, 1:] + filled[1:, 1:]
    return float(np.count_nonzero(corners == 4) + np.count_nonzero(corners == 3) / 2)


def _largest(labels: NDArray[Any], places: Sequence[Any]) -> int:
    """Which component has the contour of greatest area.

    Of equal ones the last in reading order: OpenCV lists contours from the bottom up, and its first greatest is taken.
    """
    bounds = np.array([(down.stop - down.start - 1) * (across.stop - across.start - 1) for down, across in places])
    best, area = 0, -1.0
    for i in np.argsort(-bounds, kind="stable").tolist():
        if bounds[i] < area:  # no contour is larger than its box
            break
        own = _polygon_area(labels[places[i]] == i + 1)
        if own > area or (own == area and i > best):
            best, area = i, own
    return best
