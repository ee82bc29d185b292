"""Masks that are not files: run lengths or polygons in a table or a json, one class of a file, or several files as one.

Where a record has a mask, it has a path or an :class:`Outline`; :func:`read_outline` reads either. An outline is a
value: it keeps what the data set's own file says, a few kilobytes a mask, and makes pixels of it when it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radtag.errors import BadData, UnreadableImage
from radtag.images import read_mask


class Outline(Protocol):
    """A mask a source knows of without a file that has its pixels. Hashable; equal ones have the same pixels."""

    @property
    def name(self) -> str:
        """What it is called in messages; it changes with the pixels."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """The files whose pixels it is made of; none, if all is in what a table or json says."""
        ...

    def read(self) -> NDArray[np.bool_]:
        """(row, col) the mask.

        Raises:
            UnreadableImage: a file behind it that cannot be read.
        """
        ...


MaskSource: TypeAlias = Path | Outline


def read_outline(mask: MaskSource) -> NDArray[np.bool_]:
    """(row, col) the mask, be it in a file or not.

    Raises:
        UnreadableImage: as :func:`radtag.images.read_mask`.
    """
    return read_mask(mask) if isinstance(mask, Path) else mask.read()


def files_of(mask: MaskSource) -> tuple[Path, ...]:
    """The files whose pixels a mask is made of."""
    return (mask,) if isinstance(mask, Path) else mask.files


@dataclass(frozen=True)
class Runs:
    """Run lengths: pixels alternately outside and inside, down the columns, the first column first.

    Args:
        size_rc: rows and columns of the mask.
        lengths: int32 of each run as bytes, outside first. They may end early: what is left is outside.

    Raises:
        BadData: a negative length, or more pixels than the mask has.
    """

    size_rc: tuple[int, int]
    lengths: bytes

    def __post_init__(self) -> None:
        lengths = self._lengths()
        pixels = self.size_rc[0] * self.size_rc[1]
        if min(self.size_rc) < 1:
            raise BadData(f"a mask of {self.size_rc[0]} x {self.size_rc[1]} pixels. Get the official file.")
        if len(lengths) and (lengths.min() < 0 or lengths.sum(dtype=np.int64) > pixels):
            raise BadData(
                f"run lengths of {lengths.sum(dtype=np.int64)} pixels, the smallest {lengths.min()}, for a mask of"
                f" {self.size_rc[0]} x {self.size_rc[1]} = {pixels}. Get the official file."
            )

    @classmethod
    def of(cls, size_rc: Sequence[int], lengths: ArrayLike) -> Runs:
        """From numbers: pixels outside, inside, outside ..."""
        rows, cols = map(int, size_rc)
        return cls((rows, cols), np.asarray(lengths, dtype=np.int32).tobytes())

    @classmethod
    def from_coco(cls, rle: Mapping[str, Any]) -> Runs:
        """From COCO's {"size": [rows, columns], "counts": ...}, whose counts are numbers or a text they are packed in.

        Raises:
            BadData: a text that is no such code, or counts that are not of that size.
        """
        counts = rle["counts"]
        lengths = unpacked(counts) if isinstance(counts, str | bytes) else np.asarray(counts, dtype=np.int64)
        rows, cols = rle["size"]
        if lengths.sum() != rows * cols:
            raise BadData(
                f"run lengths of {lengths.sum()} pixels for a mask of {rows} x {cols}. Get the official file."
            )
        return cls.of((rows, cols), lengths)

    @property
    def name(self) -> str:
        """The runs, by content."""
        return _by_content("runs", self.size_rc, self.lengths)

    @property
    def files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    @property
    def area_px(self) -> int:
        """How many pixels are inside."""
        return int(self._lengths()[1::2].sum(dtype=np.int64))

    def read(self) -> NDArray[np.bool_]:
        """(row, col) the mask."""
        rows, cols = self.size_rc
        ends = np.cumsum(self._lengths(), dtype=np.int64)
        down = np.zeros(rows * cols, dtype=bool)
        for start, stop in zip(ends[0::2].tolist(), ends[1::2].tolist(), strict=False):  # a last run outside is alone
            down[start:stop] = True
        return np.ascontiguousarray(down.reshape(cols, rows).T)

    def _lengths(self) -> NDArray[np.int32]:
        return np.frombuffer(self.lengths, dtype=np.int32)


@dataclass(frozen=True)
class Polygon:
    """A closed line of points; a pixel is inside if its centre is, wherever the line goes round it.

    A contour drawn by hand crosses itself now and then: what it goes round twice is inside, not a hole. A centre on the
    line is inside at the left and the top, outside at the right and the bottom, so that neighbours share no pixel.

    Args:
        size_rc: rows and columns of the mask; what lies outside of it is cut off.
        points_xy: float32 x, y of each point as bytes, in pixels whose first one covers 0 to 1.

    Raises:
        BadData: fewer than three points, or one that is no number.
    """

    size_rc: tuple[int, int]
    points_xy: bytes

    def __post_init__(self) -> None:
        points = self._points()
        if len(points) < 3 or not np.isfinite(points).all():
            raise BadData(f"a polygon of {len(points)} points, {points[:3].tolist()} ... Give three or more numbers.")

    @classmethod
    def of(cls, size_rc: Sequence[int], points_xy: ArrayLike) -> Polygon:
        """From numbers (point, 2)."""
        rows, cols = map(int, size_rc)
        return cls((rows, cols), np.asarray(points_xy, dtype=np.float32).reshape(-1, 2).tobytes())

    @property
    def name(self) -> str:
        """The points, by content."""
        return _by_content("polygon", self.size_rc, self.points_xy)

    @property
    def files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def read(self) -> NDArray[np.bool_]:
        """(row, col) the mask."""
        rows, cols = self.size_rc
        x0, y0 = self._points().T.astype(np.float64)
        x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
        # The rows whose centre lines an edge crosses; a horizontal edge crosses none.
        first, stop = (
            np.clip(np.ceil(end - 0.5), 0, rows).astype(np.int64) for end in (np.minimum(y0, y1), np.maximum(y0, y1))
        )
        edge = np.repeat(np.arange(len(x0)), stop - first)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(stop - first) - stop, stop - first)
        x = x0[edge] + (row + 0.5 - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
        col = np.clip(np.ceil(x - 0.5), 0, cols).astype(np.int64)
        turns = np.zeros((rows, cols + 1), dtype=np.int32)
        np.add.at(turns, (row, col), np.where(y1 > y0, 1, -1)[edge])
        return np.cumsum(turns, axis=1)[:, :cols] != 0

    def _points(self) -> NDArray[np.float32]:
        return np.frombuffer(self.points_xy, dtype=np.float32).reshape(-1, 2)


def _by_content(kind: str, size_rc: tuple[int, int], content: bytes) -> str:
    """A short name that changes with size and content."""
    return f"{kind}-{hashlib.blake2b(repr(size_rc).encode() + content, digest_size=8).hexdigest()}"


@dataclass(frozen=True)
class ClassOf:
    """One class of a file of classes: the pixels that have its number, be they indices into a palette or gray values.

    Args:
        path: a file of 8 bits a pixel.
        number: of the class.
    """

    path: Path
    number: int

    @property
    def name(self) -> str:
        """The file's, with the class."""
        return f"{self.path.name}={self.number}"

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    def read(self) -> NDArray[np.bool_]:
        """(row, col) the mask.

        Raises:
            UnreadableImage: a file that cannot be read, or one of colours instead of numbers.
        """
        from PIL import Image as PillowImage

        try:
            with PillowImage.open(self.path) as picture:
                mode, numbers = picture.mode, np.asarray(picture)
        except (OSError, SyntaxError, ValueError, PillowImage.DecompressionBombError) as error:
            raise UnreadableImage(self.path, str(error), "Get the official file.") from error
        if mode not in ("P", "L"):
            raise UnreadableImage(
                self.path, f"it has colours ({mode}), not numbers of classes", "Get the official file."
            )
        return np.asarray(numbers == self.number)


@dataclass(frozen=True)
class Union:
    """Several masks of one finding in one image, as one; they have one size.

    Args:
        parts: at least one.
    """

    parts: tuple[MaskSource, ...]

    @property
    def name(self) -> str:
        """The names of its parts."""
        return " + ".join(part.name for part in self.parts)

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of its parts."""
        return tuple(file for part in self.parts for file in files_of(part))

    def read(self) -> NDArray[np.bool_]:
        """(row, col) what is in any part.

        Raises:
            BadData: parts of unlike sizes.
        """
        masks = [read_outline(part) for part in self.parts]
        sizes = list(dict.fromkeys(mask.shape for mask in masks))
        if len(sizes) > 1:
            listed = " and ".join(f"{rows} x {cols}" for rows, cols in sizes)
            raise BadData(f"the masks {self.name} are of one image and {listed}. Get the official files.")
        return reduce(np.logical_or, masks)


def together(masks: Iterable[MaskSource]) -> MaskSource:
    """One mask of one or several."""
    parts = tuple(masks)
    return parts[0] if len(parts) == 1 else Union(parts)


def unpacked(text: str | bytes) -> NDArray[np.int64]:
    """The run lengths packed in the "counts" of a compressed COCO mask.

    Each character has six bits above "0": five of a number, the lowest first, and whether more follow; the last one's
    highest bit is the sign. From the fourth number on each is the difference to the last but one before it.

    Raises:
        BadData: a character outside of the code, or a number without an end.
    """
    codes = np.frombuffer(text.encode() if isinstance(text, str) else text, dtype=np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise BadData(f"{text[:20]!r} ... is no compressed run-length code. Get the official file.")
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    digit = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    if digit.max() > 6:
        raise BadData(f"{text[:20]!r} ... is no compressed run-length code. Get the official file.")
    numbers = np.add.reduceat((codes & 31) << (5 * digit), first)
    numbers -= np.where(codes[last] & 16, np.int64(1) << (5 * (last - first + 1)), 0)
    lengths = numbers.copy()
    lengths[1::2] = np.cumsum(numbers[1::2])
    lengths[2::2] = np.cumsum(numbers[2::2])
    return lengths
