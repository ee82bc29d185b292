"""Where a finding truly is, for scoring only: boxes and masks as the data set has them, in original pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radtag import regions
from radtag.data.outlines import read_outline
from radtag.data.table import Record
from radtag.geometry import stretch_mask

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """Where a finding is, in original pixels.

    Args:
        boxes_xyxy: (n, 4) as drawn, or around the parts of the mask.
        mask: (row, col) or None.
        drawn: whether the boxes were drawn by people.
    """

    boxes_xyxy: NDArray[np.float64]
    mask: Mask | None
    drawn: bool


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
        return Truth(drawn, mask, True)
    if mask is None:
        return None
    around = regions.find(mask.astype(np.float32), 0.5, min_area_px=0).boxes_xyxy
    return Truth(np.array(around, dtype=np.float64).reshape(-1, 4), mask, False)
