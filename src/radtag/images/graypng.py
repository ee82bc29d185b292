"""Gray PNGs packed as radtag packs them, three times as fast as by any library.

Every row of such a file is told by its differences from the row above (PNG's filter 2), or every row is plain; there is
one plane, of one bit or of 16 bits a pixel, and no interlacing. libdeflate unpacks, and rows are added up many at once.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from radtag.images.limits import refuse_bomb

_STEP = 32
"""Rows of a block; they are added up one after the other, and all blocks at once."""


class GrayRows(NamedTuple):
    """What a file holds.

    Args:
        values: (row, col) uint16 of 16 bits; of one bit (row, byte) uint8, the first of eight pixels the highest bit.
        cols: pixels of a row.
        further: names of the chunks that are not looked at, such as those that may tell how to turn the picture.
    """

    values: NDArray[Any]
    cols: int
    further: frozenset[bytes]


def read_rows(path: Path, bits: Literal[1, 16]) -> GrayRows | None:
    """The rows of a gray PNG of so many bits a pixel; None for any other file, and for a damaged one.

    Raises:
        UnreadableImage: a size that is none.
        OSError: a file that may not be read.
    """
    with path.open("rb", buffering=0) as file:  # in one piece: a buffer would be filled first, and copied
        start = file.read(33)
        gray = start[24:29] == bytes([bits, 0, 0, 0, 0])
        whole = zlib.crc32(start[12:29]) == int.from_bytes(start[29:], "big")
        if not (gray and whole and start.startswith(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")):
            return None
        data = memoryview(file.read())
    cols, rows = (int.from_bytes(start[at : at + 4], "big") for at in (16, 20))
    refuse_bomb(path, rows, cols)
    import imagecodecs

    packed, further, at = [], set(), 0
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        if name == b"IDAT":
            packed.append(data[at + 8 : at + 8 + length])
        else:
            further.add(name)
        at += 12 + length
    wide = 1 + -(-cols * bits // 8)
    try:
        unpacked = imagecodecs.deflate_decode(b"".join(packed), out=rows * wide)  # its checksum is looked at
    except imagecodecs.DeflateError:
        return None  # Pillow says what is wrong
    if len(unpacked) != rows * wide:
        return None
    lines = np.frombuffer(unpacked, dtype=np.uint8).reshape(rows, wide)
    filters, own = lines[1:, 0], lines[:, 1:]
    if lines[0, 0] not in (0, 2):  # above the first row all is 0
        return None
    kind: np.dtype[Any] = np.dtype(">u2" if bits == 16 else "u1")
    if (filters == 2).all():
        values = _added_up(own, kind)
    elif filters.any():
        return None
    else:
        values = np.ascontiguousarray(own).view(kind).astype(kind.newbyteorder("="))
    return GrayRows(values, cols, frozenset(further - {b"IEND"}))


def _added_up(differences: NDArray[np.uint8], kind: np.dtype[Any]) -> NDArray[Any]:
    """Values (row, col) of rows of bytes that are told by the differences of each from the row above.

    First of each block of rows what lies above it; then all blocks at once, row after row, which is few calls.
    """
    sums = differences[::_STEP].copy()
    for i in range(1, _STEP):
        further = differences[i::_STEP]
        sums[: len(further)] += further  # the last block may be shorter, and nothing lies below it
    last = np.zeros_like(sums)
    for block in range(1, len(sums)):
        np.add(last[block - 1], sums[block - 1], out=last[block])
    values = np.empty((len(differences), differences.shape[1] // kind.itemsize), dtype=kind.newbyteorder("="))
    for i in range(min(_STEP, len(values))):
        further = differences[i::_STEP]
        last = last[: len(further)]
        last += further
        values[i::_STEP] = last.view(kind)
    return values
