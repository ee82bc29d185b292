"""What is on the disk: which files are there, which are images, which are one and the same; folders written whole, and
held by one process at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from radtag.errors import BadData
from radtag.images import KNOWN_SUFFIXES

_PROBE_BYTES = 1 << 16


def is_image_name(name: str) -> bool:
    """Whether a file name looks like an image's; hidden files (._x.png, which macOS leaves in zips) do not."""
    return not name.startswith(".") and name.lower().endswith(KNOWN_SUFFIXES)


def images_under(folder: Path) -> list[Path]:
    """Every image file in a folder and its sub-folders, links followed once, sorted by path."""
    return images_and_others(folder)[0]


def images_and_others(folder: Path) -> tuple[list[Path], list[Path]]:
    """Every image file there, and every other that is not hidden or Windows' own; each sorted by path."""
    windows = ("thumbs.db", "desktop.ini")
    images: list[Path] = []
    others: list[Path] = []
    for path in sorted(_files_under(folder)):
        if is_image_name(path.name):
            images.append(path)
        elif not path.name.startswith(".") and path.name.lower() not in windows:
            others.append(path)
    return images, others


def _files_under(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        yield from (Path(parent, name) for name in names)


def images_by_stem(*folders: Path) -> dict[str, Path]:
    """Name without suffix -> image file, of every one in the folders and below them.

    Raises:
        BadData: two files of one name.
    """
    by_stem: dict[str, Path] = {}
    for folder in folders:
        for path in images_under(folder):
            other = by_stem.setdefault(path.stem, path)
            if other != path:
                raise BadData(f"{path.stem} is in {other} and in {path}. Keep one of them, or name a folder.")
    return by_stem


def read_json(path: Path) -> Any:
    """What a json file holds.

    Raises:
        BadData: it cannot be read, or is no json.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror or error}. Give the path of a json file.") from None
    except ValueError as error:
        raise BadData(f"{path} is no json: {error}. Get the official file.") from None


def subfolders(folder: Path) -> list[Path]:
    """The folders directly inside one, sorted; hidden ones are left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def missing_files(paths: Iterable[Path]) -> set[Path]:
    """Those of the paths where no file is. Each folder is listed once, which keeps it quick on network disks."""
    listed: dict[Path, set[str]] = {}
    gone = set()
    for path in paths:
        if path.parent not in listed:
            try:
                listed[path.parent] = set(os.listdir(path.parent))
            except (OSError, ValueError):  # ValueError: no folder can have such a name
                listed[path.parent] = set()
        if path.name not in listed[path.parent]:
            gone.add(path)
    return gone


def identical_files(paths: Sequence[Path]) -> dict[Path, str]:
    """A common key for every set of paths with the same bytes; files unlike all others have none.

    Cheap enough to run at each opening: only files that share their size with another are opened, and of those at
    most 192 KiB is read (start, middle, end). Files that agree there are taken for identical.
    """
    by_size: dict[int, list[Path]] = {}
    for path in dict.fromkeys(paths):
        try:
            by_size.setdefault(os.stat(path).st_size, []).append(path)
        except OSError:
            continue
    by_content: dict[str, list[Path]] = {}
    for size, candidates in by_size.items():
        if len(candidates) > 1:
            for path in candidates:
                by_content.setdefault(f"{size}:{_probe(path, size)}", []).append(path)
    return {path: key for key, alike in by_content.items() if len(alike) > 1 for path in alike}


@contextmanager
def held(file: Path, busy: Exception, *, wait: bool = False) -> Iterator[None]:
    """Holds a lock file for what no two processes may do at once.

    The file and the folder it lies in are made. The file stays behind, and is free again.

    Args:
        file: of the lock.
        busy: the error for where another process holds it.
        wait: until it does not, in place of the error.

    Raises:
        Exception: ``busy``.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout as error:
        raise busy from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that appears when all is written, not before, and not at all where writing fails.

    Args:
        out: where it will be; nothing, or an empty folder, is there now.

    Yields:
        The folder to write into, empty, beside the other.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if out.exists():
            out.rmdir()  # empty: replacing a folder wants that on some systems
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def plain_names(images: Iterable[str]) -> dict[str, str]:
    """Image -> a file name without ending, plain and unique whatever the case of its letters."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for image in images:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", str(Path(image).with_suffix(""))).strip("._") or "image"
        if plain.lower() in taken:
            bare = image.encode("utf-8", "surrogateescape")  # as it is on the disk, UTF-8 or not
            plain = f"{plain}-{hashlib.blake2b(bare, digest_size=4).hexdigest()}"
        taken.add(plain.lower())
        names[image] = plain
    return names


def _probe(path: Path, size: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            for start in dict.fromkeys((0, max(0, size // 2 - _PROBE_BYTES // 2), max(0, size - _PROBE_BYTES))):
                file.seek(start)
                digest.update(file.read(_PROBE_BYTES))
    except OSError:
        return f"unread:{path}"
    return digest.hexdigest()
