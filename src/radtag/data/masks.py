"""The masks of a data set on a network's square, for a method that learns from them.

They are kept in memory, a bit a pixel: 8 KiB a mask at 256 pixels, 32 at 512. What would take more than
:data:`MOST_BYTES` is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radtag.data.outlines import read_outline
from radtag.data.prepare import Fit
from radtag.data.table import Dataset, Record
from radtag.errors import BadSetting, UnreadableImage
from radtag.geometry import Frame, mask_to_frame, stretch_mask
from radtag.images import read
from radtag.process import cores

MOST_BYTES = 4_000_000_000


@dataclass(frozen=True)
class Masks:
    """Masks of images, in their order.

    Args:
        size_px: side of the square.
        bits: (mask, byte) uint8, the pixels of each in reading order, eight to a byte.
        place: (image, finding) which of the masks; EMPTY = known to be empty, UNKNOWN = there is none to learn from.
        failures: image and cause of each mask that could not be read, which is unknown then.
    """

    size_px: int
    bits: NDArray[np.uint8]
    place: NDArray[np.int64]
    failures: tuple[tuple[str, str], ...] = ()

    EMPTY = -1
    UNKNOWN = -2

    @property
    def known(self) -> NDArray[np.bool_]:
        """(image, finding) whether the mask, be it empty, is known."""
        return self.place != self.UNKNOWN

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.bool_]:
        """(image, finding, row, col) the masks of these images; empty where they are not known."""
        place = self.place[rows]
        pixels = self.size_px**2
        taken = np.zeros((*place.shape, pixels), dtype=bool)
        there = place >= 0
        if there.any():
            taken[there] = np.unpackbits(self.bits[place[there]], axis=1, count=pixels).astype(bool)
        return taken.reshape(*place.shape, self.size_px, self.size_px)


def load_masks(
    dataset: Dataset, records: Sequence[Record], size_px: int, fit: Fit, *, frames: Sequence[Frame] | None = None
) -> Masks:
    """Reads the masks of some records of a data set.

    Args:
        dataset: whose findings are wanted.
        records: of it.
        size_px: side of the square.
        fit: how an image is fitted into it.
        frames: of each record's image, where ``fit`` does not tell it: its pixels' way into the square.

    A label of 1 with a mask gives that mask, nearest pixel; a label of 0 an empty one. A label of 1 without a mask, or
    an unknown label, gives none.

    Raises:
        BadSetting: they do not fit into :data:`MOST_BYTES`.
    """
    place = np.full((len(records), len(dataset.findings)), Masks.UNKNOWN, dtype=np.int64)
    wanted: list[tuple[Record, str, Frame | None]] = []
    at: list[tuple[int, int]] = []
    for row, record in enumerate(records):
        for column, (finding, label) in enumerate(zip(dataset.findings, record.labels, strict=True)):
            if label == 0:
                place[row, column] = Masks.EMPTY
            elif label == 1 and finding in record.masks:
                place[row, column] = len(wanted)
                wanted.append((record, finding, None if frames is None else frames[row]))
                at.append((row, column))
    each = -(-(size_px**2) // 8)
    if len(wanted) * each > MOST_BYTES:
        raise BadSetting(
            f"{len(wanted)} masks at {size_px} px take {len(wanted) * each / 1e9:.1f} GB of memory, and"
            f" {MOST_BYTES / 1e9:.0f} are allowed. Lower --size, or name fewer findings with --finding."
        )
    bits = np.zeros((len(wanted), each), dtype=np.uint8)

    def decode(number: int) -> str:
        record, finding, own = wanted[number]
        try:
            mask = read_outline(record.masks[finding])
        except (UnreadableImage, OSError) as error:
            return str(error)
        size_rc = (mask.shape[0], mask.shape[1])
        if own is not None:
            size_rc = own.original_size_rc
        elif fit == "letterbox":  # a mask may have any size, and the square keeps the image's aspect
            size_rc = read(record.path).size_rc
        square = (size_px, size_px)
        frame = own or (Frame.stretch if fit == "stretch" else Frame.letterbox)(size_rc, square)
        if size_rc != mask.shape:
            mask = stretch_mask(mask, size_rc)
        bits[number] = np.packbits(mask_to_frame(mask, frame))
        return ""

    failures = []
    with ThreadPoolExecutor(cores()) as pool:
        for number, cause in enumerate(pool.map(decode, range(len(wanted)))):
            if cause:
                place[at[number]] = Masks.UNKNOWN
                failures.append((wanted[number][0].image, f"its mask: {cause}"))
    return Masks(size_px, bits, place, tuple(failures))
