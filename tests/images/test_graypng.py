"""Gray PNGs as radtag packs them: what is read of them is what Pillow reads, and everything else is left to it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from radtag import draw
from radtag.errors import UnreadableImage
from radtag.images import read_mask
from radtag.images.graypng import read_rows
from radtag.mapfiles import read_levels

SIZES = [(1, 1), (3, 17), (32, 9), (33, 8), (64, 7), (101, 30)]
"""Fewer rows than are added up at once, as many, and more."""


def png(levels: np.ndarray, filters: list[int]) -> bytes:
    """A 16-bit gray PNG file, each of its rows plain (0) or the differences from the row above (2)."""
    packed = levels.astype(">u2").view(np.uint8)
    above = np.vstack([np.zeros_like(packed[:1]), packed[:-1]])
    rows = [row - last if by else row for by, row, last in zip(filters, packed, above, strict=True)]
    lines = b"".join(bytes([by]) + row.tobytes() for by, row in zip(filters, rows, strict=True))
    head = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 16, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@pytest.mark.parametrize("size_rc", SIZES)
@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("later", [0, 2])
def test_levels(tmp_path: Path, size_rc: tuple[int, int], first: int, later: int) -> None:
    levels = np.random.default_rng(0).integers(0, 65536, size_rc).astype(np.uint16)
    path = tmp_path / "map.png"
    path.write_bytes(png(levels, [first, *[later] * (size_rc[0] - 1)]))
    np.testing.assert_array_equal(read_levels(path), levels)
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(path)), levels)


@pytest.mark.parametrize("size_rc", SIZES)
def test_masks(tmp_path: Path, size_rc: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(size_rc) < 0.5
    own, foreign = tmp_path / "own.png", tmp_path / "foreign.png"
    own.write_bytes(draw.encode_mask(mask))
    PIL.Image.fromarray(mask).save(foreign)  # rows told in many ways
    assert read_rows(own, 1) is not None
    assert read_rows(own, 16) is None
    for path in (own, foreign):
        np.testing.assert_array_equal(read_mask(path), mask)
        assert read_mask(path).dtype == bool


def test_what_is_left_to_pillow(tmp_path: Path) -> None:
    levels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    path = tmp_path / "map.png"
    path.write_bytes(png(levels, [0, 2, 0]))
    assert read_rows(path, 16) is None
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(path)), levels)
    data = png(levels, [2, 2, 2])
    for at in (19, 29, len(data) - 20):  # the number of columns, the header's checksum, and that of what is packed
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert read_rows(path, 16) is None
    path.write_bytes(data[:-30])
    assert read_rows(path, 16) is None
    mask = levels > 20000
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "which may turn it")
    PIL.Image.fromarray(mask).save(path, pnginfo=text)
    found = read_rows(path, 1)
    assert found is not None
    assert found.further == {b"tEXt"}
    np.testing.assert_array_equal(read_mask(path), mask)


def test_a_size_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    head = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 16, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + head + struct.pack(">I", zlib.crc32(head)))
    with pytest.raises(UnreadableImage, match="declares 100000 x 100000 pixels"):
        read_rows(path, 16)
