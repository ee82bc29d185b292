"""Where a finding truly is, for scoring only: boxes and masks as the data set has them, in original pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radtag import regions
from radtag.data.outlines import read_outline
from radtag.data.table import Record
from radtag.geometry import stretch_mask
from radtag.metrics.points import points_in_boxes

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """Where a finding is, in original pixels.

    Args:
        boxes_xyxy: (n, 4) as drawn, or around the parts of the mask.
        mask: (row, col) or None.
        drawn: whether the boxes were drawn by people.
        size_rc: rows and columns of the image.
    """

    boxes_xyxy: NDArray[np.float64]
    mask: Mask | None
    drawn: bool
    size_rc: tuple[int, int]


def readers_hit(record: Record, finding: str, truth: Truth) -> float:
    """Whether a point that a reader set lies in the truth, as CheXlocalize asks of its readers: 1, 0, NaN = not asked.

    The pixel that holds the point counts, and any of several points. Readers who set none have missed.

    Args:
        record: of the image.
        finding: one that the image has.
        truth: where it is; its mask counts where there are no drawn boxes.
    """
    size_rc = truth.size_rc
    points_xy = record.readers_in(finding, size_rc)
    if points_xy is None:
        return float("nan")
    cols, rows = np.clip(points_xy.astype(np.int64), 0, [size_rc[1] - 1, size_rc[0] - 1]).T
    if truth.mask is not None and not truth.drawn:
        return float(truth.mask[rows, cols].any())
    owner = np.zeros(len(truth.boxes_xyxy), dtype=np.int64)
    return float(any(points_in_boxes([point], truth.boxes_xyxy, owner)[0] for point in zip(rows, cols, strict=True)))


def truth_of(record: Record, finding: str, size_rc: tuple[int, int]) -> Truth | None:
    """Where a finding is in an image of ``size_rc``; None where nobody said.

    Raises:
        UnreadableImage: a mask file that cannot be read.
    """
    drawn = record.boxes_in(finding, size_rc)
    mask = None
    if finding in record.masks:
        mask = stretch_mask(read_outline(record.masks[finding]), size_rc)
    if len(drawn):
        return Truth(drawn, mask, True, size_rc)
    if mask is None:
        return None
    around = regions.find(mask.astype(np.float32), 0.5, min_area_px=0).boxes_xyxy
    return Truth(np.array(around, dtype=np.float64).reshape(-1, 4), mask, False, size_rc)
