"""The size of an image, from its file's header where that says it."""

from __future__ import annotations

import os
from pathlib import Path

from radtag.images import read
from radtag.images.limits import refuse_bomb

_TURNING = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""Chunks of a PNG that may say how to turn it."""


def size_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Rows and columns of what :func:`radtag.images.read` gives, its pixels not looked at if it is a PNG or JPEG.

    Raises:
        UnreadableImage: as :func:`radtag.images.read`; a damaged PNG or JPEG whose header is whole is not noticed.
    """
    path = Path(path)
    try:
        found = _of_header(path)
    except OSError:  # which reading it says, with the next step
        found = None
    if found is None:
        return read(path).size_rc
    refuse_bomb(path, *found)
    return found


def _of_header(path: Path) -> tuple[int, int] | None:
    """None for every other file, and for one that might have to be turned."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(33)
        if start.startswith(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR") and len(start) == 33:
            while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
                if head[4:] in _TURNING:
                    return None
                file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
            return int.from_bytes(start[20:24], "big"), int.from_bytes(start[16:20], "big")
        if start.startswith(b"\xff\xd8"):
            from radtag.images.jpeg import header

            file.seek(0)
            stream = file.read(64 * 1024)
            told = header(stream)
            if told is not None and b"Exif" not in stream and b"http://ns.adobe.com/xap" not in stream:
                return told.rows, told.cols
    return None
