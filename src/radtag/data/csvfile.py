"""Comma-separated files as people save them, with byte-order marks, semicolons, blank columns; and as we write them."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from radtag.errors import BadData


@dataclass(frozen=True)
class CsvFile:
    """A file of rows.

    Args:
        path: the file.
        header: column names, stripped; trailing blank ones are left off.
        rows: (line number in the file from 1, cells stripped, as many as the header has).
        decimal_comma: whether cells may write 1,5 for 1.5 (where semicolons separate the cells).
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    decimal_comma: bool = False

    def column(self, name: str) -> int:
        """Where the column is, whatever its case.

        Raises:
            BadData: there is none, or there are two.
        """
        found = self.find(name)
        if found is None:
            raise BadData(f"{self.path} has no column {name!r}; its columns are {', '.join(self.header)}. Rename one.")
        return found

    def find(self, name: str) -> int | None:
        """Where the column is, whatever its case; None if there is none."""
        at = [i for i, column in enumerate(self.header) if column.lower() == name.lower()]
        if len(at) > 1:
            raise BadData(f"{self.path} has {len(at)} columns {name!r}. Rename or remove all but one.")
        return at[0] if at else None

    def named(self, *columns: str, optional: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
        """Line and cells of each row by the name of their column; cells of an optional column that is not there are "".

        Raises:
            BadData: a column is not there, or twice.
        """
        at = {column: self.column(column) for column in columns}
        at |= {column: found for column in optional if (found := self.find(column)) is not None}
        blank = dict.fromkeys(optional, "")
        for line, row in self.rows:
            yield line, blank | {column: row[i] for column, i in at.items()}

    def number(self, line: int, column: str, cell: str) -> float:
        """A cell as a finite number.

        Raises:
            BadData: it is none; the message gives line, column and value.
        """
        try:
            value = float(cell.replace(",", ".") if self.decimal_comma else cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise BadData(f"{self.path} line {line}, column {column}: {cell!r} is not a number.")
        return value

    def label(self, line: int, column: str, cell: str, allowed: Sequence[float] = (1, 0)) -> float:
        """A cell as a label; NaN where it is blank.

        Raises:
            BadData: it is none of those allowed; the message gives line, column and value.
        """
        value = self.number(line, column, cell) if cell else math.nan
        if cell and value not in allowed:
            raise BadData(f"{self.path} line {line}, column {column}: {cell!r} is no label. Get the official table.")
        return value


def read_csv(path: Path) -> CsvFile:
    """Reads a table of UTF-8 (or UTF-16 with a mark) text with commas, semicolons or tabs between its cells.

    Raises:
        BadData: no such file, another encoding, nothing in it, or a row that does not fit the header.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror or error}. Give the path of a CSV file.") from None
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadData(f"{path} line {line}: not UTF-8 text. Save it as CSV UTF-8.") from None
    separator = _separator(text)
    numbered: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                numbered.append((line, [cell.strip() for cell in cells]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadData(f"{path} line {line}: {error}. Save it as CSV UTF-8.") from None
    if not numbered:
        raise BadData(f"{path} is empty. It needs a header line and a row for each image.")
    header = _trimmed(numbered[0][1])
    rows = []
    for line, cells in numbered[1:]:
        if len(cells) < len(header) or len(_trimmed(cells)) > len(header):
            raise BadData(
                f"{path} line {line} has {len(cells)} cells where the header has {len(header)} columns "
                f"({', '.join(header)}). Add the missing cells, or put cells that hold a {separator!r} in quotes."
            )
        rows.append((line, tuple(cells[: len(header)])))
    return CsvFile(path, tuple(header), tuple(rows), decimal_comma=separator != ",")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table, whole or not at all; a name that is not UTF-8 as the bytes it has on the disk.

    Args:
        path: the file, in a folder that is there.
        header: column names.
        rows: cells, in the columns' order.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _separator(text: str) -> str:
    """The first of comma, semicolon and tab that separates the header line, quoted parts aside."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    bare = "".join(first.split('"')[::2])
    counts = {separator: bare.count(separator) for separator in ",;\t"}
    best = max(counts, key=lambda separator: counts[separator])
    return best if counts[best] else ","


def _trimmed(cells: list[str]) -> list[str]:
    """The cells without blank ones at the end."""
    last = max((i for i, cell in enumerate(cells) if cell), default=-1)
    return cells[: last + 1]
