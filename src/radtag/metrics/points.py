"""Pointing: does the highest pixel of a map lie where the finding is?

Conventions
-----------
- A map is (row, col); its point is the *index* (row, col) of its first maximum in raster order, as in PYLON and
  CheXlocalize. A constant map therefore points at (0, 0), and is scored there.
- Boxes are ``xyxy`` in the map's own pixels. Batches take the boxes of all pairs in one array (box, 4) with
  ``owner`` (box,) = the number of the pair each belongs to.
- A hit is 1.0, a miss 0.0, a pair without a box or with an empty mask NaN = undefined.
- ``convention="pylon"`` (the reported one) compares the pixel's index with the box, both ends included:
  ``x1 <= col <= x2 and y1 <= row <= y2``. ``convention="radtag"`` asks whether the pixel's centre lies in the half-open
  box: ``x1 <= col + .5 < x2 and y1 <= row + .5 < y2``, which agrees with :func:`radtag.geometry.boxes_to_mask`.

References: Zhang et al., Top-down neural attention by excitation backprop, IJCV 2018 (the pointing game); Preechakul et
al., iScience 25(3):103933, 2022 (PYLON's point localisation accuracy); Saporta et al., Nature Machine Intelligence 4,
2022 (CheXlocalize's hit rate).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Convention = Literal["pylon", "radtag"]
POINTING_GAME_MARGIN_PX = 15.0
"""What the pointing game of Zhang et al. allows between point and object, in pixels of the image."""
Maps = NDArray[np.floating[Any]]
Values = NDArray[np.float64]


def first_maximum(maps: Maps) -> NDArray[np.int64]:
    """The point of each map: (..., row, col) -> (..., 2) indices (row, col) of the first maximum in raster order.

    Raises:
        ValueError: a map holding NaN, or one without pixels.
    """
    if maps.ndim < 2 or 0 in maps.shape[-2:]:
        raise ValueError(f"a map has rows and columns, got an array of shape {maps.shape}")
    flat = maps.reshape(*maps.shape[:-2], -1)
    at = flat.argmax(axis=-1)
    # argmax stops at the first NaN, so looking at the winner is enough to find one anywhere.
    if np.isnan(np.take_along_axis(flat, np.expand_dims(at, -1), -1)).any():
        raise ValueError("a map holds NaN; a map of nothing is all 0, not NaN")
    return np.stack(np.unravel_index(at, maps.shape[-2:]), axis=-1)


def points_in_boxes(
    points_rc: ArrayLike,
    boxes_xyxy: ArrayLike,
    owner: ArrayLike,
    *,
    convention: Convention = "pylon",
    margin_px: float = 0.0,
) -> Values:
    """Whether each pair's point lies in at least one of its boxes.

    Args:
        points_rc: (pair, 2) pixel indices (row, col).
        boxes_xyxy: (box, 4), in the pixels of the points.
        owner: (box,) number of the pair each box belongs to.
        convention: how a pixel and a box are compared; see the module's conventions.
        margin_px: a point this near to a box (Euclidean) hits as well; the pointing game of Zhang et al. allows 15.

    Returns:
        (pair,) 1.0, 0.0, or NaN for a pair without boxes.
    """
    points = np.asarray(points_rc, dtype=np.float64).reshape(-1, 2)
    boxes, owners = checked_boxes(boxes_xyxy, owner, len(points))
    if convention == "pylon":
        row, col = points[owners].T
        inside = (boxes[:, 0] <= col) & (col <= boxes[:, 2]) & (boxes[:, 1] <= row) & (row <= boxes[:, 3])
    elif convention == "radtag":
        row, col = points[owners].T + 0.5
        inside = (boxes[:, 0] <= col) & (col < boxes[:, 2]) & (boxes[:, 1] <= row) & (row < boxes[:, 3])
    else:
        raise ValueError(f"convention is 'pylon' or 'radtag', got {convention!r}")
    if margin_px:
        away_x = np.maximum(np.maximum(boxes[:, 0] - col, col - boxes[:, 2]), 0)
        away_y = np.maximum(np.maximum(boxes[:, 1] - row, row - boxes[:, 3]), 0)
        inside |= np.hypot(away_x, away_y) <= margin_px
    hits = np.bincount(owners, weights=inside, minlength=len(points)) > 0
    has_box = np.bincount(owners, minlength=len(points)) > 0
    return np.where(has_box, hits.astype(np.float64), np.nan)


def box_of_points(
    points_rc: ArrayLike, boxes_xyxy: ArrayLike, *, convention: Convention = "pylon"
) -> NDArray[np.int64]:
    """In which box each point of one image lies (point,): the boxes' numbers from 1, the smallest of several; 0 = none.

    Args:
        points_rc: (point, 2) pixel indices (row, col).
        boxes_xyxy: (box, 4), in the pixels of the points.
        convention: how a pixel and a box are compared; see the module's conventions.
    """
    points = np.asarray(points_rc, dtype=np.float64).reshape(-1, 2)
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    found = np.zeros(len(points), dtype=np.int64)
    sides = boxes[:, 2:] - boxes[:, :2]
    for number in np.argsort(-sides.prod(axis=1), kind="stable").tolist():  # smaller ones last, over the larger
        same = np.repeat(boxes[[number]], len(points), axis=0)
        inside = points_in_boxes(points, same, np.arange(len(points)), convention=convention)
        found[inside == 1] = number + 1
    return found


def pointing_hits(
    maps: Maps, boxes_xyxy: ArrayLike, owner: ArrayLike, *, convention: Convention = "pylon", margin_px: float = 0.0
) -> Values:
    """Pointing of many maps of one size: (pair, row, col) -> (pair,) 1.0, 0.0 or NaN; see :func:`points_in_boxes`.

    Their mean over the pairs that are not NaN is PYLON's point localisation accuracy when the maps are sigmoid maps
    resized by :func:`radtag.metrics.resize.bilinear` to the size the boxes are in.
    """
    return points_in_boxes(first_maximum(maps), boxes_xyxy, owner, convention=convention, margin_px=margin_px)


def pointing_hit(
    score_map: Maps, boxes_xyxy: ArrayLike, *, convention: Convention = "pylon", margin_px: float = 0.0
) -> float:
    """Pointing of one map (row, col) against its boxes (box, 4): 1.0, 0.0, or NaN without boxes."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    owner = np.zeros(len(boxes), dtype=np.int64)
    return float(pointing_hits(score_map[None], boxes, owner, convention=convention, margin_px=margin_px)[0])


def pointing_hit_mask(
    score_map: Maps,
    mask: NDArray[Any],
    *,
    ties: Literal["first", "any", "expected"] = "first",
    margin_px: float = 0.0,
) -> float:
    """Pointing of one map against a mask.

    Definition: 1 if the maximum lies on a true pixel, or with a margin as near to one (between pixel centres). Of
    several equal maxima, ``"first"`` takes the first in raster order (CheXlocalize's hit rate), ``"any"`` is content
    with one on the mask (Quantus' pointing game) and ``"expected"`` is the share of them on the mask, the chance of a
    hit if one is drawn.

    Args:
        score_map: (row, col).
        mask: (row, col), non-zero = the finding.
        ties: what to make of equal maxima.
        margin_px: a point this near to the mask (Euclidean) hits as well; the pointing game of Zhang et al. allows 15.

    Returns:
        0-1, or NaN if the mask is empty.
    """
    if score_map.shape != mask.shape:
        raise ValueError(f"a map of {score_map.shape} does not lie on a mask of {mask.shape}; resize one of them first")
    row, col = first_maximum(score_map)
    truth = mask.astype(bool)
    if not truth.any():
        return float("nan")
    if ties == "first":
        return float(truth[row, col] or (margin_px > 0 and _near(truth, int(row), int(col), margin_px)))
    if margin_px > 0:
        truth = ndimage.distance_transform_edt(~truth) <= margin_px
    at_top = truth[score_map == score_map[row, col]]
    if ties == "any":
        return float(at_top.any())
    if ties == "expected":
        return float(at_top.mean())
    raise ValueError(f"ties is 'first', 'any' or 'expected', got {ties!r}")


def _near(truth: NDArray[np.bool_], row: int, col: int, margin_px: float) -> bool:
    """Whether a true pixel lies within so far of a pixel."""
    reach = int(margin_px)
    top, left = max(0, row - reach), max(0, col - reach)
    rows, cols = np.nonzero(truth[top : row + reach + 1, left : col + reach + 1])
    return bool((np.hypot(rows + top - row, cols + left - col) <= margin_px).any())


def checked_boxes(boxes_xyxy: ArrayLike, owner: ArrayLike, pairs: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Boxes (box, 4) and owners (box,) as arrays.

    Raises:
        ValueError: lengths that differ, a coordinate that is not finite, corners the wrong way round, or an owner that
            is no pair.
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    owners = np.asarray(owner, dtype=np.int64).reshape(-1)
    if len(boxes) != len(owners):
        raise ValueError(f"{len(boxes)} boxes have {len(owners)} owners; give each box the number of its pair")
    if len(owners) and not (owners.min() >= 0 and owners.max() < pairs):
        raise ValueError(f"owners run from {owners.min()} to {owners.max()}, but there are {pairs} pairs")
    wrong = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1]))
    if wrong.any():
        raise ValueError(f"box {boxes[wrong][0].tolist()} is not x1, y1, x2, y2 with x1 <= x2 and y1 <= y2")
    return boxes, owners
