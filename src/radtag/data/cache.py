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
import time
import uuid
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from radtag.data.prepare import Fit, prepare
from radtag.errors import BadData, BadSetting, RadtagError
from radtag.images import read

VERSION = 1  # of the preparation: raise it when the same file would give other pixels


@dataclass(frozen=True)
class PixelCache:
    """Prepared images, in the order of the paths asked for.

    Args:
        pixels: (image, row, col) uint8, memory-mapped, read only.
        readable: (image,) False where the file could not be read; its pixels are 0.
        failures: path and cause of each of those.
    """

    pixels: NDArray[np.uint8]
    readable: NDArray[np.bool_]
    failures: tuple[tuple[str, str], ...]

    @property
    def kept(self) -> ReadablePixels:
        """The images that could be read, in order."""
        return ReadablePixels(self.pixels, np.flatnonzero(self.readable))


class ReadablePixels:
    """Some images of a memory map, left where they are: an index, where picking them would copy all into memory.

    Args:
        pixels: (image, row, col) uint8.
        rows: (n,) which of them, in the order wanted.
    """

    def __init__(self, pixels: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        self._pixels, self._rows = pixels, rows

    def __len__(self) -> int:
        return len(self._rows)

    def only(self, rows: NDArray[np.int64]) -> ReadablePixels:
        """Some of them, in this order, as an index too."""
        return ReadablePixels(self._pixels, self._rows[rows])

    def __getitem__(self, at: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """(m, row, col): the images at these places, read now."""
        return np.asarray(self._pixels[self._rows[at]])


def folder() -> Path:
    """Where entries are kept."""
    return Path(os.environ.get("RADTAG_CACHE", Path.home() / ".cache" / "radtag"))


def open_cache(paths: Sequence[Path], size_px: int, fit: Fit, *, root: Path | None = None) -> PixelCache:
    """The prepared pixels of these files, decoded now if no entry has them.

    Args:
        paths: image files; of a file with several frames the first is taken.
        size_px: side of the square.
        fit: how an image is fitted into it.
        root: the cache folder; default :func:`folder`.

    Raises:
        BadData: not one file could be read.
    """
    root = (root or folder()) / "pixels"
    root.mkdir(parents=True, exist_ok=True)
    digests = _digests(paths, root)
    key = hashlib.sha256(json.dumps([VERSION, size_px, fit, digests]).encode()).hexdigest()[:32]
    entry = root / key
    with FileLock(root / f"{key}.lock"):
        found = _open(entry, paths, size_px)
        if found is None:
            shutil.rmtree(entry, ignore_errors=True)
            _write(entry, paths, size_px, fit)
            _evict(root, keep=entry)
            found = _open(entry, paths, size_px)
    if found is None:
        raise BadData(
            f"the cache entry {entry} cannot be read back. Is the disk full? Set RADTAG_CACHE to another folder."
        )
    if not found.readable.any():
        path, cause = found.failures[0]
        raise BadData(f"none of {len(paths)} images could be read; the first: {path}: {cause}")
    return found


def _write(entry: Path, paths: Sequence[Path], size_px: int, fit: Fit) -> None:
    temporary = entry.with_name(f"{entry.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    shape = (len(paths), size_px, size_px)
    pixels = np.lib.format.open_memmap(temporary / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)

    def decode(index: int) -> tuple[int, str | None]:
        try:
            pixels[index] = prepare(read(paths[index]), size_px, fit)[0]
        except (RadtagError, OSError) as error:
            return index, str(error).removeprefix(f"{paths[index]}: ")
        return index, None

    # Decoders release the interpreter's lock, so threads are enough and nothing is pickled.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        decoded = pool.map(decode, range(len(paths)))
        shown = Console(stderr=True)  # what a command prints for other programs goes to stdout alone
        done = track(decoded, total=len(paths), description="decode", transient=True, console=shown)
        failures = [(index, cause) for index, cause in done if cause is not None]
    pixels.flush()
    about = {"shape": shape, "crc32": _checksum(pixels, failures), "failures": failures}
    del pixels
    (temporary / "about.json").write_text(json.dumps(about))
    os.replace(temporary, entry)


def _open(entry: Path, paths: Sequence[Path], size_px: int) -> PixelCache | None:
    try:
        about = json.loads((entry / "about.json").read_text())
        pixels = np.load(entry / "pixels.npy", mmap_mode="r")
        failures = [(int(index), str(cause)) for index, cause in about["failures"]]
        whole = pixels.shape == (len(paths), size_px, size_px) and _checksum(pixels, failures) == about["crc32"]
    # Whatever a bad byte gives.
    except (OSError, EOFError, ValueError, TypeError, LookupError, SyntaxError, TokenError):
        return None
    if not whole or pixels.dtype != np.uint8:
        return None
    os.utime(entry)  # the last use, for eviction
    readable = np.ones(len(paths), dtype=bool)
    readable[[index for index, _ in failures]] = False
    # The entry knows contents, not names: the same file may have moved since.
    return PixelCache(pixels, readable, tuple((str(paths[index]), cause) for index, cause in failures))


def _checksum(pixels: NDArray[np.uint8], failures: Sequence[tuple[int, str]]) -> int:
    checksum = zlib.crc32(json.dumps(failures).encode())
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

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
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
    entries = []  # last use, size, entry
    for entry in root.iterdir():
        try:
            if entry.is_dir() and entry != keep:
                entries.append((entry.stat().st_mtime, _bytes(entry), entry))
        except FileNotFoundError:
            continue  # another process renamed or evicted it just now
    used = _bytes(keep)
    for last_use, size, entry in sorted(entries, reverse=True):
        used += size
        # A temporary entry may be another process's, half written; a killed one's goes a day later.
        if used > limit and not (entry.suffix == ".tmp" and time.time() - last_use < 86_400):
            shutil.rmtree(entry, ignore_errors=True)


def _bytes(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.iterdir() if file.is_file())
