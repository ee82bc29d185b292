"""Boxes as data sets write them down, as x1, y1, x2, y2, half-open, in the pixels of the image they were drawn on.

From cells of a table they come here, from COCO's json in :mod:`.coco`, from PASCAL VOC's xml in :mod:`.voc`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from radtag.data.csvfile import CsvFile
from radtag.errors import BadData
from radtag.geometry import XYXY

Boxes: TypeAlias = dict[str, tuple[XYXY, ...]]
"""Name of what is in the box -> boxes."""
SizeRC: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Thing:
    """One thing in an image.

    Args:
        name: what it is.
        box_xyxy: where.
        difficult: marked as hard to tell.
    """

    name: str
    box_xyxy: XYXY
    difficult: bool = False


def by_name(things: Iterable[Thing]) -> Boxes:
    """The boxes of each kind of thing."""
    boxes: Boxes = {}
    for thing in things:
        boxes[thing.name] = (*boxes.get(thing.name, ()), thing.box_xyxy)
    return boxes


def from_cells(
    table: CsvFile,
    line: int,
    row: Mapping[str, str],
    columns: Sequence[str],
    *,
    second: Literal["corner", "size"] = "corner",
) -> XYXY:
    """The box that four cells say.

    Args:
        table: of the row, for messages.
        line: of the row.
        row: its cells by column.
        columns: the four, left and top first.
        second: what the last two are, the other corner or width and height.

    Raises:
        BadData: a cell that is no number, or a box without area.
    """
    x1, y1, x2, y2 = (table.number(line, column, row[column]) for column in columns)
    if second == "size":
        x2, y2 = x1 + x2, y1 + y2
    if not (x1 < x2 and y1 < y2):
        raise BadData(f"{table.path} line {line}: a box from {x1:g}, {y1:g} to {x2:g}, {y2:g}. Get the official table.")
    return x1, y1, x2, y2
