"""Further columns of the table of pairs: the proposed boxes as detections, and mask and map against the outline.

What they are stands in :mod:`radtag.pairs`. Detections are taken on the whole image, as points and boxes are. What is
measured against the outline counts the pixels that :mod:`radtag.evaluate` counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from radtag.metrics import boundaries, chexlocalize, froc, masks, points
from radtag.pairs import DETECTION_IOUS, MOST_DETECTIONS
from radtag.tag import Tag
from radtag.truth import Mask, Truth

Map = NDArray[np.float32]


def false_detections(tag: Tag) -> dict[str, Any]:
    """The columns of detections of a pair without the finding: all of them are false."""
    found = tag.regions
    kinds = (0.0,) * (1 + len(DETECTION_IOUS))
    return {
        "proposed": float(len(found.values)),
        "detections": tuple((score, *kinds) for score in found.values[:MOST_DETECTIONS]),
    }


def detections(tag: Tag, map_: Map, truth: Truth) -> dict[str, Any]:
    """The columns of detections of a pair whose place is known."""
    found = tag.regions
    scores = found.values[:MOST_DETECTIONS]
    boxes_xyxy = np.array(found.boxes_xyxy[:MOST_DETECTIONS], dtype=np.float64).reshape(-1, 4)
    peaks = np.array([_peak(map_, tag.mask, box, score) for box, score in zip(boxes_xyxy, scores, strict=True)])
    kinds = [
        froc.match_points(_lesions_at(peaks.reshape(-1, 2).astype(np.int64), truth), scores),
        *(froc.match_boxes(boxes_xyxy, scores, truth.boxes_xyxy, iou) for iou in DETECTION_IOUS),
    ]
    each = zip(scores, *(kind.astype(np.float64).tolist() for kind in kinds), strict=True)
    return {"proposed": float(len(found.values)), "detections": tuple(each)}


def _peak(map_: Map, mask: Mask, box_xyxy: NDArray[np.float64], score: float) -> tuple[int, int]:
    """Where (row, col) the map has its highest value in the component that a box is around."""
    x1, y1, x2, y2 = (int(edge) for edge in box_xyxy)
    # Another component may reach into the box, but one as high is only there if both are equally high.
    part = np.where(mask[y1:y2, x1:x2], map_[y1:y2, x1:x2], -np.inf)
    at = int((np.where(part > score, -np.inf, part)).argmax())
    return y1 + at // part.shape[1], x1 + at % part.shape[1]


def _lesions_at(peaks_rc: NDArray[np.int64], truth: Truth) -> NDArray[np.int64]:
    """The lesion each point lies on (point,), from 1; 0 = none."""
    if truth.mask is None or truth.drawn:
        return points.box_of_points(peaks_rc, truth.boxes_xyxy)
    parts, _ = ndimage.label(truth.mask, structure=np.ones((3, 3)))  # as the boxes were made
    return np.asarray(parts[peaks_rc[:, 0], peaks_rc[:, 1]], dtype=np.int64)


def near(peak_rc: tuple[int, int], truth: Truth) -> float:
    """The pointing game: whether the map's first maximum lies within 15 pixels of the truth."""
    margin = points.POINTING_GAME_MARGIN_PX
    if truth.mask is None or truth.drawn:
        owner = np.zeros(len(truth.boxes_xyxy), dtype=np.int64)
        return float(points.points_in_boxes([peak_rc], truth.boxes_xyxy, owner, margin_px=margin)[0])
    there = np.zeros(truth.mask.shape, dtype=np.uint8)
    there[peak_rc] = 1
    return points.pointing_hit_mask(there.astype(np.float32), truth.mask, margin_px=margin)


def against_outline(
    tag: Tag, map_: Map, outline: Mask, peak_rc: tuple[int, int], where: Mask | None
) -> dict[str, float]:
    """The columns of a pair with an outline.

    Args:
        tag: with the proposed mask.
        map_: (row, col) of the tag, original pixels.
        outline: (row, col), not empty.
        peak_rc: the map's first maximum.
        where: (row, col) the pixels that count; None = all.
    """
    proposed, true = (tag.mask, outline) if where is None else (tag.mask & where, outline & where)
    otsu = chexlocalize.segmentation(map_, "otsu")
    within: Any = ... if where is None else where
    row = {
        "hit_rate": float(outline[peak_rc]),
        "iou_otsu": float(chexlocalize.mask_iou(_line(otsu[within]), _line(outline[within]))),
        "ncc": float(masks.ncc(_line(map_[within]), _line(outline[within]))),
    }
    apart = boundaries.boundary_distances(proposed, true)
    row |= {"boundary_px": apart.mean, "hd95_px": apart.hausdorff_95}
    spacing_mm = tag.prediction.image.spacing_mm
    if spacing_mm is None:
        return row
    if spacing_mm[0] != spacing_mm[1]:
        apart = boundaries.boundary_distances(proposed, true, spacing_mm=spacing_mm)
        return row | {"boundary_mm": apart.mean, "hd95_mm": apart.hausdorff_95}
    return row | {"boundary_mm": apart.mean * spacing_mm[0], "hd95_mm": apart.hausdorff_95 * spacing_mm[0]}


def _line(values: NDArray[Any]) -> NDArray[Any]:
    """Pixels as one row, whose order no measure here minds."""
    return values.reshape(1, -1)
