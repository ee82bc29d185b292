"""Decode once: a data set's images as one memory-mapped uint8 array on disk.

An entry is named by the content of the files and by how they were prepared, so that a changed image, size or fit never
meets a stale entry. It is written to a temporary name and renamed, under a lock, so that several processes can ask for
it at once and a killed one leaves nothing half made. Its checksum is verified whenever it is opened. The folder is
bounded: the entries not used for longest go first.

The folder is ``$RADTAG_CACHE``, else ``~/.cache/radtag``; the bound is ``$RADTAG_CACHE_GB``, else 50.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import uuid
import weakref
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from radtag.data.prepare import Fit, LungFinder, lung_field, prepare
from radtag.errors import BadData, BadSetting, RadtagError
from radtag.geometry import Frame
from radtag.images import Image, read
from radtag.process import cores

VERSION = 2  # of the preparation: raise it when the same file would give other pixels

_in_use: dict[Path, weakref.ref[NDArray[np.uint8]]] = {}
"""Entries that this process has opened, and their pixels as long as somebody holds them."""


@dataclass(frozen=True)
class PixelCache:
    """Prepared images, in the order of the paths asked for.

    Args:
        pixels: (image, row, col) uint8, memory-mapped, read only.
        readable: (image,) False where the file could not be read; its pixels are 0.
        failures: path and cause of each of those.
        frames: the way back to each image's own pixels, where it is each image's own; None = they were not confined.
    """

    pixels: NDArray[np.uint8]
    readable: NDArray[np.bool_]
    failures: tuple[tuple[str, str], ...]
    frames: tuple[Frame, ...] | None = None

    @property
    def kept(self) -> ReadablePixels:
        """The images that could be read, in order."""
        return ReadablePixels(self.pixels, np.flatnonzero(self.readable), self.frames)


class ReadablePixels:
    """Some images of a memory map, left where they are: an index, where picking them would copy all into memory.

    Args:
        pixels: (image, row, col) uint8.
        rows: (n,) which of them, in the order wanted.
        frames: as :class:`PixelCache` has them.
    """

    def __init__(
        self, pixels: NDArray[np.uint8], rows: NDArray[np.int64], frames: tuple[Frame, ...] | None = None
    ) -> None:
        self._pixels, self._rows, self._frames = pixels, rows, frames

    @property
    def frames(self) -> list[Frame] | None:
        """The way back to each of these images' own pixels; None = they were not confined."""
        return None if self._frames is None else [self._frames[row] for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def only(self, rows: NDArray[np.int64]) -> ReadablePixels:
        """Some of them, in this order, as an index too."""
        return ReadablePixels(self._pixels, self._rows[rows], self._frames)

    def __getitem__(self, at: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """(m, row, col): the images at these places, read now."""
        return np.asarray(self._pixels[self._rows[at]])


def folder() -> Path:
    """Where entries are kept."""
    return Path(os.environ.get("RADTAG_CACHE", Path.home() / ".cache" / "radtag"))


class Preparation(NamedTuple):
    """What images go through: the side of the square, how they are fitted into it, and what they are confined to."""

    size_px: int
    fit: Fit
    find_lungs: LungFinder | None = None

    @property
    def key(self) -> list[Any]:
        """What an entry's name has of it."""
        return [VERSION, self.size_px, self.fit, *([] if self.find_lungs is None else [self.find_lungs.digest])]

    def __call__(self, image: Image) -> tuple[NDArray[np.uint8], Frame]:
        """The square, and the way back."""
        field = None if self.find_lungs is None else lung_field(image, self.find_lungs)
        return prepare(image, self.size_px, self.fit, None if field is None else field.seen)


def open_cache(
    paths: Sequence[Path],
    size_px: int,
    fit: Fit,
    *,
    find_lungs: LungFinder | None = None,
    root: Path | None = None,
) -> PixelCache:
    """The prepared pixels of these files, decoded now if no entry has them.

    Args:
        paths: image files; of a file with several frames the first is taken.
        size_px: side of the square.
        fit: how an image is fitted into it.
        find_lungs: what images are confined to (:func:`radtag.data.prepare.lung_field`); None = nothing.
        root: the cache folder; default :func:`folder`.

    Raises:
        BadData: not one file could be read.
    """
    root = (root or folder()) / "pixels"
    root.mkdir(parents=True, exist_ok=True)
    digests = _digests(paths, root)
    preparation = Preparation(size_px, fit, find_lungs)
    key = hashlib.sha256(json.dumps([*preparation.key, digests]).encode()).hexdigest()[:32]
    entry = root / key
    lock = FileLock(root / f"{key}.lock")
    if _about(entry).get("passing"):
        with lock:
            _try_again(entry, paths, preparation)
    before = _made_at(entry)
    # This reads all of it: not under the lock, where each process would wait for the last.
    found = _open(entry, paths, preparation)
    if found is None:
        with lock:
            if _made_at(entry) == before:  # nobody else has made it meanwhile
                shutil.rmtree(entry, ignore_errors=True)
                _write(entry, paths, preparation)
                _evict(root, keep=entry)
        found = _open(entry, paths, preparation)
    if found is None:
        raise BadData(
            f"the cache entry {entry} cannot be read back. Is the disk full? Set RADTAG_CACHE to another folder."
        )
    if not found.readable.any():
        path, cause = found.failures[0]
        raise BadData(f"none of {len(paths)} images could be read; the first: {path}: {cause}")
    return found


def _write(entry: Path, paths: Sequence[Path], preparation: Preparation) -> None:
    temporary = entry.with_name(f"{entry.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    shape = (len(paths), preparation.size_px, preparation.size_px)
    pixels = np.lib.format.open_memmap(temporary / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    frames: dict[int, Frame] | None = None if preparation.find_lungs is None else {}
    _describe(temporary, pixels, _decode(pixels, frames, range(len(paths)), paths, preparation), frames)
    del pixels
    os.replace(temporary, entry)


def _try_again(entry: Path, paths: Sequence[Path], preparation: Preparation) -> None:
    """Decodes what could not be read for no fault of its own; killed half-way, the entry is made anew."""
    about = _about(entry)
    again = about.get("passing", [])
    if not again:
        return  # another process has done it
    pixels = np.load(entry / "pixels.npy", mmap_mode="r+")
    others = [_Failure(index, cause, False) for index, cause in about["failures"] if index not in again]
    frames = None
    if preparation.find_lungs is not None:
        frames = {at: _frame_from(one) for at, one in enumerate(about["frames"]) if one is not None}
    _describe(entry, pixels, sorted([*others, *_decode(pixels, frames, again, paths, preparation)]), frames)


class _Failure(NamedTuple):
    """A file that could not be read: which, why, and whether the cause is the machine's and not the file's."""

    at: int
    cause: str
    passing: bool


def _decode(
    pixels: NDArray[np.uint8],
    frames: dict[int, Frame] | None,
    indexes: Sequence[int],
    paths: Sequence[Path],
    preparation: Preparation,
) -> list[_Failure]:
    """Fills the places of some images, and their frames if each has its own; those that could not be read."""

    def decode(index: int) -> _Failure | None:
        try:
            pixels[index], frame = preparation(read(paths[index]))
            if frames is not None:
                frames[index] = frame
        except (RadtagError, OSError, MemoryError) as error:
            cause = str(error).removeprefix(f"{paths[index]}: ") or type(error).__name__
            return _Failure(index, cause, _of_the_machine(error))
        return None

    # Decoders release the interpreter's lock, so threads are enough and nothing is pickled.
    with ThreadPoolExecutor(max_workers=cores()) as pool:
        decoded = pool.map(decode, indexes)
        shown = Console(stderr=True)  # what a command prints for other programs goes to stdout alone
        done = track(decoded, total=len(indexes), description="decode", transient=True, console=shown)
        return [failure for failure in done if failure is not None]


def _describe(
    entry: Path, pixels: NDArray[np.uint8], failed: Sequence[_Failure], frames: Mapping[int, Frame] | None
) -> None:
    """Writes what an entry holds, beside its pixels."""
    pixels.flush()  # type: ignore[attr-defined]
    failures = [(one.at, one.cause) for one in failed]
    passing = [one.at for one in failed if one.passing]
    about: dict[str, Any] = {"shape": pixels.shape, "failures": failures, "passing": passing}
    if frames is not None:
        about["frames"] = [_frame_values(frames[at]) if at in frames else None for at in range(len(pixels))]
    about["crc32"] = _checksum(pixels, failures, about.get("frames"))
    temporary = entry / f"about.{uuid.uuid4().hex}.tmp"
    temporary.write_text(json.dumps(about))
    os.replace(temporary, entry / "about.json")


def _frame_values(frame: Frame) -> list[tuple[float, float]]:
    return [frame.original_size_rc, frame.size_rc, frame.scale_rc, frame.offset_rc]


def _frame_from(values: Sequence[Sequence[float]]) -> Frame:
    original, size, scale, offset = values
    whole = [(int(one[0]), int(one[1])) for one in (original, size)]
    return Frame(whole[0], whole[1], (scale[0], scale[1]), (offset[0], offset[1]))


def _about(entry: Path) -> dict[str, Any]:
    """What an entry says of itself; nothing if it is not there, or damaged."""
    try:
        return dict(json.loads((entry / "about.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _of_the_machine(error: BaseException | None) -> bool:
    """Whether a file was not read for what the system had to say: no permission, no memory, too many open files.

    A file that is not there is left out as a damaged one is, since the key of an entry knows of it.
    """
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError):
            return True
        error = error.__cause__
    return False


def _made_at(entry: Path) -> int | None:
    """When an entry was made; None = there is none."""
    try:
        return (entry / "about.json").stat().st_mtime_ns
    except OSError:
        return None


def _open(entry: Path, paths: Sequence[Path], preparation: Preparation) -> PixelCache | None:
    size_px = preparation.size_px
    try:
        about = json.loads((entry / "about.json").read_text())
        pixels = np.load(entry / "pixels.npy", mmap_mode="r")
        failures = [(int(index), str(cause)) for index, cause in about["failures"]]
        whole = pixels.shape == (len(paths), size_px, size_px)
        whole = whole and _checksum(pixels, failures, about.get("frames")) == about["crc32"]
        frames = None
        if preparation.find_lungs is not None:  # of an image that could not be read any frame will do
            unread = Frame.identity((size_px, size_px))
            frames = tuple(unread if one is None else _frame_from(one) for one in about["frames"])
    # Whatever a bad byte gives.
    except (OSError, EOFError, ValueError, TypeError, LookupError, SyntaxError, TokenError):
        return None
    if not whole or pixels.dtype != np.uint8:
        return None
    os.utime(entry)  # the last use, for eviction
    _in_use[entry] = weakref.ref(pixels)
    readable = np.ones(len(paths), dtype=bool)
    readable[[index for index, _ in failures]] = False
    # The entry knows contents, not names: the same file may have moved since.
    return PixelCache(pixels, readable, tuple((str(paths[index]), cause) for index, cause in failures), frames)


def _checksum(pixels: NDArray[np.uint8], failures: Sequence[tuple[int, str]], frames: Sequence[Any] | None) -> int:
    checksum = zlib.crc32(json.dumps(failures if frames is None else [failures, frames]).encode())
    for start in range(0, len(pixels), 256):
        checksum = zlib.crc32(pixels[start : start + 256].tobytes(), checksum)
    return checksum


def content_digests(paths: Sequence[Path], *, root: Path | None = None) -> list[str]:
    """What entries are keyed by: SHA-256 of every file, read only where its path, size or time is not known yet."""
    root = (root or folder()) / "pixels"
    root.mkdir(parents=True, exist_ok=True)
    return _digests(paths, root)


def _digests(paths: Sequence[Path], root: Path) -> list[str]:
    """SHA-256 of every file; a file whose path, size and time are known is not read again."""
    index_file = root / "digests.json"
    with FileLock(root / "digests.lock"):
        try:
            known: dict[str, str] = dict(json.loads(index_file.read_text()))
        except (OSError, ValueError, TypeError):
            known = {}
        before = len(known)

        def digest(path: Path) -> tuple[str, str]:
            try:
                status = path.stat()
                name = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
                return name, known.get(name) or hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                return "", f"unreadable: {path} {error.errno}"

        with ThreadPoolExecutor(max_workers=cores()) as pool:
            digests = list(pool.map(digest, paths))
        known.update({name: value for name, value in digests if name})
        if len(known) != before:
            temporary = index_file.with_suffix(".tmp")
            temporary.write_text(json.dumps(known))
            os.replace(temporary, index_file)
    return [value for _, value in digests]


def _evict(root: Path, keep: Path) -> None:
    given = os.environ.get("RADTAG_CACHE_GB", "50")
    try:
        limit = float(given) * 1e9
    except ValueError:
        raise BadSetting(f"RADTAG_CACHE_GB is {given!r}. Set it to a number of gigabytes, such as 50.") from None
    held = {keep, *(entry for entry, pixels in _in_use.items() if pixels() is not None)}
    entries = []  # last use, size, entry
    for entry in root.iterdir():
        try:
            if entry.is_dir() and entry not in held:
                entries.append((entry.stat().st_mtime, _bytes(entry), entry))
        except FileNotFoundError:
            continue  # another process renamed or evicted it just now
    used = sum(_bytes(entry) for entry in held if entry.is_dir())
    if used > limit and len(held) > 1:
        print(
            f"note: images that are in use take {used / 1e9:.1f} GB in {root}, over the bound of {limit / 1e9:.0f}:"
            " nothing else is kept, and other runs decode anew. Raise RADTAG_CACHE_GB.",
            file=sys.stderr,
        )
    for last_use, size, entry in sorted(entries, reverse=True):
        used += size
        # A temporary entry may be another process's, half written; a killed one's goes a day later.
        if used > limit and not (entry.suffix == ".tmp" and time.time() - last_use < 86_400):
            shutil.rmtree(entry, ignore_errors=True)


def _bytes(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.iterdir() if file.is_file())
