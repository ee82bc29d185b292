"""A table of one's own: ``csv:PATH``, where PATH is the file, or the folder of a ``table.csv``.

Column ``image`` is the path of the image, absolute or relative to the table, and its name. ``patient``, ``split`` and
``lungs`` (a mask file) may be there; ``attr:NAME`` is an attribute, ``mask:FINDING`` a mask file. Every other column
is a finding: 1, 0, blank = unknown, -1 = uncertain. Boxes are in a ``boxes.csv`` beside it: image, finding, x1, y1, x2,
y2, half-open, in the pixels of the image file.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from radtag.data.csvfile import CsvFile, read_csv
from radtag.data.files import missing_files
from radtag.data.options import choice
from radtag.data.outlines import files_of
from radtag.data.splits import split_name
from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.geometry import XYXY
from radtag.words import counted

OPTIONS = {
    "uncertain": "what a label of -1 becomes: unknown (default), positive or negative",
    "missing": "what a row whose image is not there does: error (default) or skip",
    "boxes": "the file of boxes (default: boxes.csv beside the table)",
}
UNCERTAIN = {"unknown": math.nan, "positive": 1.0, "negative": 0.0}
_WORDS = {
    "": math.nan,
    "nan": math.nan,
    "na": math.nan,
    "true": 1.0,
    "yes": 1.0,
    "false": 0.0,
    "no": 0.0,
}
_ROLES = ("image", "patient", "split", "lungs")


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens a table. See the module's text for its columns and ``OPTIONS`` for its options.

    Raises:
        BadData: a cell, column or file that contradicts the layout; the message gives line, column and value.
    """
    policy = choice("csv", options, "uncertain", tuple(UNCERTAIN))
    at_missing = choice("csv", options, "missing", ("error", "skip"))
    path = Path(location)
    if path.is_dir():
        path = path / "table.csv"
    table = read_csv(path)
    root = path.parent
    image_at = table.column("image")
    role_at = {role: table.find(role) for role in _ROLES}
    attribute_at = _prefixed(table, "attr:")
    mask_at = _prefixed(table, "mask:")
    special = {at for at in (*role_at.values(), *attribute_at.values(), *mask_at.values()) if at is not None}
    for at, column in enumerate(table.header):
        if not column and any(row[at] for _, row in table.rows):
            raise BadData(f"{path}: column {at + 1} has cells but no name. Name it, or empty it.")
    twice = [column for column in table.header if column and table.header.count(column) > 1]
    if twice:
        raise BadData(f"{path}: column {twice[0]!r} is there {twice.count(twice[0])} times. Keep one.")
    finding_at = {column: at for at, column in enumerate(table.header) if at not in special and column}
    if not finding_at:
        raise BadData(
            f"{path} has no column for a finding; its columns are {', '.join(table.header)}. Add one, of 1 and 0."
        )
    for finding in mask_at:
        if finding not in finding_at:
            raise BadData(
                f"{path}: column mask:{finding} is of no finding; they are {', '.join(finding_at)}. Rename it."
            )

    lines: dict[str, int] = {}
    uncertain: Counter[str] = Counter()
    records: list[Record] = []
    patient_at, lungs_at = role_at["patient"], role_at["lungs"]
    for line, row in table.rows:
        name = row[image_at]
        if not name:
            raise BadData(f"{path} line {line}, column image: blank. Give the image's path, or remove the row.")
        if name in lines:
            raise BadData(
                f"{path} line {line}: image {name!r} is in line {lines[name]} too. Keep one row for each image."
            )
        lines[name] = line
        labels = []
        for finding, at in finding_at.items():
            value = _label(table, line, finding, row[at])
            if value == -1:
                uncertain[finding] += 1
                value = UNCERTAIN[policy]
            labels.append(value)
        record = Record(
            image=name,
            path=_path(root, name),
            labels=tuple(labels),
            patient=row[patient_at] if patient_at is not None else "",
            split=_split(table, line, role_at["split"], row),
            masks={finding: _path(root, row[at]) for finding, at in mask_at.items() if row[at]},
            lungs=_path(root, row[lungs_at]) if lungs_at is not None and row[lungs_at] else None,
            attributes={attribute: row[at] for attribute, at in attribute_at.items()},
        )
        records.append(record)
    if not records:
        raise BadData(f"{path} has a header and no rows. Add a row for each image.")
    _refuse_missing(path, records, lines, at_missing)

    notes = []
    if uncertain:
        counts = ", ".join(f"{finding} {count}" for finding, count in uncertain.items())
        notes.append(f"labels of -1 are taken as {policy}: {counts}")
    boxes_path = Path(options["boxes"]) if "boxes" in options else root / "boxes.csv"
    if "boxes" in options or boxes_path.is_file():
        boxes = _read_boxes(boxes_path, table, tuple(finding_at))
        records = [replace(record, boxes_xyxy=boxes.pop(record.image, {})) for record in records]
        if boxes:
            notes.append(
                f"{boxes_path.name} has boxes of {counted(len(boxes), 'image[s]')} {path.name} has not,"
                f" {next(iter(boxes))} first"
            )
    name = path.stem if path.name != "table.csv" else path.resolve().parent.name
    return Dataset(name, tuple(finding_at), tuple(records), tuple(notes))


def _prefixed(table: CsvFile, prefix: str) -> dict[str, int]:
    """What follows the prefix -> where, for the columns that begin with it."""
    found = {}
    for at, column in enumerate(table.header):
        if column.lower().startswith(prefix):
            name = column[len(prefix) :].strip()
            if not name or name in found:
                raise BadData(
                    f"{table.path}: column {column!r} has no name of its own. Name it {prefix}SOMETHING, once."
                )
            found[name] = at
    return found


def _label(table: CsvFile, line: int, finding: str, cell: str) -> float:
    """A cell as 1, 0, -1 or NaN."""
    word = cell.lower()
    if word in _WORDS:
        return _WORDS[word]
    try:
        value = float(cell.replace(",", ".") if table.decimal_comma else cell)
    except ValueError:
        value = math.inf
    if value not in (1.0, 0.0, -1.0):
        raise BadData(
            f"{table.path} line {line}, column {finding}: {cell!r} is no label. Use 1, 0, blank = unknown or "
            f"-1 = uncertain; if the column is not a finding, name it attr:{finding}."
        )
    return value


def _split(table: CsvFile, line: int, at: int | None, row: tuple[str, ...]) -> str:
    if at is None or not row[at]:
        return ""
    split = split_name(row[at])
    if split is None:
        raise BadData(
            f"{table.path} line {line}, column split: {row[at]!r} is no split. Use train, val, test or blank."
        )
    return split


def _path(root: Path, cell: str) -> Path:
    """A path relative to the table, or absolute; written with slashes or, as on Windows, backslashes."""
    return root / (cell if os.sep == "\\" else cell.replace("\\", "/"))


def _refuse_missing(path: Path, records: Sequence[Record], lines: Mapping[str, int], at_missing: str) -> None:
    """A mask that is not there is refused, and so is an image unless such rows are to be skipped."""
    gone = missing_files([record.path for record in records])
    if gone and at_missing == "error":
        first = next(record for record in records if record.path in gone)
        raise BadData(
            f"{path} line {lines[first.image]}, column image: {first.image!r} is not there ({first.path}); "
            f"{counted(len(gone), f'of {len(records)} images [is|are] missing')}. Correct the paths, or leave such rows"
            " out with ?missing=skip."
        )
    masks = [
        (record, file)
        for record in records
        if record.path not in gone  # such a row is left out
        for mask in (*record.masks.values(), *filter(None, [record.lungs]))
        for file in files_of(mask)
    ]
    gone = missing_files(mask for _, mask in masks)
    for record, mask in masks:
        if mask in gone:
            raise BadData(
                f"{path} line {lines[record.image]}: the mask {mask} is not there; {len(gone)} masks are missing. "
                "Correct the path, or leave the cell blank."
            )


def _read_boxes(path: Path, table: CsvFile, findings: Sequence[str]) -> dict[str, dict[str, tuple[XYXY, ...]]]:
    """image -> finding -> boxes."""
    rows = read_csv(path)
    image_at, finding_at = rows.column("image"), rows.column("finding")
    corner_at = {corner: rows.column(corner) for corner in ("x1", "y1", "x2", "y2")}
    boxes: dict[str, dict[str, tuple[XYXY, ...]]] = {}
    for line, row in rows.rows:
        finding = row[finding_at]
        if finding not in findings:
            raise BadData(
                f"{path} line {line}, column finding: {finding!r} is no finding of {table.path.name}; "
                f"they are {', '.join(findings)}. Correct the name, or add the column."
            )
        x1, y1, x2, y2 = (rows.number(line, corner, row[at]) for corner, at in corner_at.items())
        if not (x1 < x2 and y1 < y2):
            raise BadData(
                f"{path} line {line}: box x1={x1:g} y1={y1:g} x2={x2:g} y2={y2:g} has no area. "
                "Give its left, top, right and bottom edge in pixels."
            )
        of_image = boxes.setdefault(row[image_at], {})
        of_image[finding] = (*of_image.get(finding, ()), (x1, y1, x2, y2))
    return boxes
