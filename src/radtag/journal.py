"""What of a folder of tags is done, and what its images are called."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple


class Name(NamedTuple):
    """What an image is called in tags.csv, and where its pictures go: a relative path without ending."""

    name: str
    leaf: str

    def numbered(self, number: str) -> Name:
        """The name of a frame."""
        return Name(self.name + number, self.leaf + number)


def name_files(files: Iterable[Path], taken: Mapping[Path, Name] | None = None) -> dict[Path, Name]:
    """A name for each file: its own, with as many of its folders before it as it takes to be the only one.

    Args:
        files: the files.
        taken: names given before, which stay.
    """
    given = dict(taken or {})
    new = [file for file in dict.fromkeys(files) if file not in given]
    siblings: dict[tuple[Path, str], set[str]] = {}
    for file in (*given, *new):
        siblings.setdefault((file.parent, file.stem), set()).add(file.name)
    depth = dict.fromkeys(new, 0)

    def called(file: Path) -> Name:
        base = file.stem if len(siblings[file.parent, file.stem]) == 1 else file.name
        folders = [part for part in file.parent.parts if part != file.anchor]
        # Where all folders together do not tell two files apart, their path's digest does.
        known = depth[file] <= len(folders)
        folders = folders[len(folders) - min(depth[file], len(folders)) :]
        mark = "" if known else "~" + hashlib.sha256(str(file).encode()).hexdigest()[:8]
        return Name("/".join([*folders, file.name + mark]), "/".join(safe(part) for part in [*folders, base + mark]))

    names = {file: called(file) for file in new}
    while True:
        uses: dict[str, list[Path]] = {}
        for file, name in (*given.items(), *names.items()):
            uses.setdefault("name " + name.name, []).append(file)
            uses.setdefault("leaf " + name.leaf, []).append(file)
        clashing = {file for group in uses.values() if len(group) > 1 for file in group if file in names}
        if not clashing:
            return {**given, **names}
        for file in clashing:
            depth[file] += 1
            names[file] = called(file)


def safe(part: str) -> str:
    """A name as one part of a path: what a file system may take amiss is written as %XX, so that no two names meet."""
    if not part.strip("."):
        return part.replace(".", "%2E")
    return re.sub(r'[%/\\:*?"<>|\x00-\x1f]', lambda match: f"%{ord(match[0]):02X}", part)


Stamp = tuple[int, int]
"""Size in bytes and time of change in nanoseconds."""


class Journal:
    """Finished images and files, a JSON line each, only ever appended to; where lines disagree, the last one holds.

    Rows stay in the file: what is kept in memory of an image is its name and where its line begins.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a+b")  # noqa: SIM115 - closed by close()
        self.names: dict[Path, Name] = {}
        self._latest: dict[Path, Stamp | None] = {}
        self._ends: dict[Path, str | None] = {}
        self._images: dict[str, tuple[Path, Stamp, str, int]] = {}
        self._file.seek(0)
        at = 0
        for line in self._file:
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("torn line")
                entry = json.loads(line)
            except ValueError:  # the call was killed within this line
                break
            self._take(entry, at)
            at += len(line)
        self._file.truncate(at)

    def add_image(
        self,
        file: Path,
        stamp: Stamp,
        of: Name,
        name: Name,
        rows: Sequence[Any],
        also: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """An image whose pictures are written, with what is said of it: lines of tags.csv, or other plain values.

        ``also`` is said of the image and of no finding; it stands in the journal alone.
        """
        self._add({**also, "file": str(file), "stamp": stamp, "of": of, "image": name, "rows": rows})

    def add_end(self, file: Path, stamp: Stamp | None, error: str | None) -> None:
        """A file all of whose images are in, or that could not be read to its end."""
        self._add({"file": str(file), "stamp": stamp, "error": error})

    def _add(self, entry: dict[str, Any]) -> None:
        at = self._file.seek(0, os.SEEK_END)
        # In ASCII, with escapes: a file's name need not be UTF-8.
        self._file.write(json.dumps(entry).encode("ascii") + b"\n")
        self._file.flush()  # with the system now: a kill of this process loses nothing
        self._take(entry, at)

    def _take(self, entry: dict[str, Any], at: int) -> None:
        file = Path(entry["file"])
        stamp = None if entry["stamp"] is None else (entry["stamp"][0], entry["stamp"][1])
        self._latest[file] = stamp
        if "image" in entry:
            assert stamp is not None
            self.names[file] = Name(*entry["of"])
            self._images[entry["image"][0]] = (file, stamp, entry["image"][1], at)
            self._ends.pop(file, None)
        else:
            self._ends[file] = entry["error"]

    def is_done(self, file: Path) -> bool:
        """Whether the file, as it is now, was tagged to its end."""
        if file not in self._ends or self._ends[file] is not None:
            return False
        try:
            return self._latest[file] == stamp_of(file)
        except OSError:
            return False

    def done(self, files: Iterable[Path]) -> int:
        """How many of the files were tagged to their end."""
        return sum(file in self._ends and self._ends[file] is None for file in files)

    def leaves(self) -> dict[Path, list[str]]:
        """Per file, where the pictures of its images are."""
        leaves: dict[Path, list[str]] = {}
        for file, _, leaf, _ in self._images.values():
            leaves.setdefault(file, []).append(leaf)
        return leaves

    def images(self) -> list[str]:
        """Names of the images that hold, in natural order: a2 before a10."""
        return sorted(
            filter(self.holds, self._images),
            key=lambda name: [(t, len(d), d) for t, d in re.findall(r"(\D*)(\d*)", name)],
        )

    def holds(self, name: str) -> bool:
        """Whether the image is in, from its file as it was last."""
        return name in self._images and self._latest[self._images[name][0]] == self._images[name][1]

    def entry(self, name: str) -> dict[str, Any] | None:
        """What was added of an image ("file", "stamp", "rows" ...), if it holds."""
        if not self.holds(name):
            return None
        self._file.seek(self._images[name][3])
        found: dict[str, Any] = json.loads(self._file.readline())
        return found

    def count(self, said: str) -> int:
        """The images that hold of which this is ``also`` said."""
        return sum(bool((self.entry(name) or {}).get(said)) for name in self.images())

    def assemble(self, path: Path, columns: Sequence[str], findings: Sequence[str]) -> dict[str, int]:
        """Writes tags.csv, whole or not at all; how many images are positive for each finding."""
        positives = dict.fromkeys(findings, 0)
        beside = path.with_name(f".{path.name}.part")
        # A name that is not UTF-8 is written as the bytes it has on the disk.
        with open(beside, "w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(columns)
            for name in self.images():
                entry = self.entry(name)
                assert entry is not None
                for row in entry["rows"]:
                    table.writerow([*row, entry["file"]])
                    positives[row[1]] += row[4] == "1"
        os.replace(beside, path)
        return positives

    def files(self) -> Iterator[dict[str, Any]]:
        """For the manifest: the files tagged to their end, and as what."""
        for file, error in self._ends.items():
            stamp = self._latest[file]
            if error is None and stamp is not None:
                yield {"file": str(file), "size": stamp[0], "mtime_ns": stamp[1]}

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def stamp_of(file: Path) -> Stamp:
    """Of a file as it is now."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns
