"""PASCAL VOC's formats, which other sets have too: xml of what is in an image, a list of images for each class."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from radtag.data.boxes import SizeRC, Thing
from radtag.errors import BadData


def read_annotation(path: Path) -> tuple[SizeRC | None, list[Thing]]:
    """The size of an image, None = not said, and what is in it; pixels count from 1 there, and the last one is inside.

    Parts of a thing (a person's head) have boxes too, one level further down, and are not read.

    Raises:
        BadData: a file that is no such xml.
    """
    things = []
    try:
        tree = ElementTree.parse(path)
        sides = [tree.findtext(f"size/{side}") for side in ("height", "width")]
        for entry in tree.iterfind("object"):
            x1, y1, x2, y2 = (float(entry.findtext(f"bndbox/{at}", "")) for at in ("xmin", "ymin", "xmax", "ymax"))
            difficult = entry.findtext("difficult") == "1"
            things.append(Thing(entry.findtext("name", ""), (x1 - 1, y1 - 1, x2, y2), difficult))
        rows, cols = (int(side) if side else 0 for side in sides)
    except (ElementTree.ParseError, ValueError) as error:
        raise BadData(f"{path} is not a PASCAL VOC annotation: {error}. Get the official file.") from None
    return (rows, cols) if rows and cols else None, things


def read_class_lists(folder: Path, part: str, classes: Sequence[str]) -> dict[str, list[str]]:
    """The lists CLASS_PART.txt of images and 1, -1 or 0 = difficult things alone.

    Returns:
        Image -> "1", "0" or "-1" for each class, in their order; none where the part has no list of the first class.

    Raises:
        BadData: a list that is not there, a line that is none, or an image that is not in all of them.
    """
    cells: dict[str, list[str]] = {}
    for at, name in enumerate(classes):
        path = folder / f"{name}_{part}.txt"
        if not path.is_file():
            if at == 0:
                return {}
            raise BadData(f"{path} is not there, though {classes[0]}_{part}.txt is. Get the official lists.")
        for line, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            words = text.split()
            if not words:
                continue
            if len(words) != 2 or words[1] not in ("1", "0", "-1"):
                raise BadData(f"{path} line {line}: {text!r} is not an image and 1, 0 or -1. Get the official list.")
            cells.setdefault(words[0], []).append(words[1])
    wrong = next((image for image, labels in cells.items() if len(labels) != len(classes)), None)
    if wrong is not None:
        raise BadData(f"{folder}: {wrong} is not once in each of the lists CLASS_{part}.txt. Get the official lists.")
    return cells
