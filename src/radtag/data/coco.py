"""COCO's json of images and outlined objects, as pycocotools, detectron2 and annotation tools read it.

Boxes are x, y, width, height. An outline is COCO's run-length code of the whole image, not compressed: counts of pixels
that are alternately outside and inside, down the columns, the first column first. It is exact, where polygons are not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radtag.data.boxes import SizeRC, Thing
from radtag.data.files import read_json
from radtag.errors import BadData


def rle(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """A mask (row, col) as {"size": [rows, columns], "counts": [outside, inside, outside, ...]}."""
    down = mask.ravel(order="F")
    edges = np.concatenate([[0], np.flatnonzero(down[1:] != down[:-1]) + 1, [down.size]])
    counts = np.diff(edges).tolist()
    if down.size and down[0]:
        counts = [0, *counts]
    return {"size": [int(side) for side in mask.shape], "counts": counts}


def write(
    path: Path,
    info: Mapping[str, Any],
    categories: Sequence[str],
    images: Iterable[Mapping[str, Any]],
    annotations: Iterable[Mapping[str, Any]],
) -> None:
    """Writes the file line by line, whole or not at all.

    Args:
        path: where to.
        info: what the file says of itself.
        categories: their names; ids count from 1.
        images: with "id", "file_name", "width" and "height".
        annotations: with "id", "image_id", "category_id", "segmentation", "area" and "bbox".
    """
    beside = path.with_name(f".{path.name}.part")
    with open(beside, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(f'{{"info": {json.dumps(info)},\n"categories": ')
        json.dump([{"id": i, "name": name} for i, name in enumerate(categories, 1)], stream)
        for key, values in (("images", images), ("annotations", annotations)):
            stream.write(f',\n"{key}": [')
            for i, value in enumerate(values):
                stream.write(("," if i else "") + "\n" + json.dumps(value))
            stream.write("\n]")
        stream.write("}\n")
    os.replace(beside, path)


def read_boxes(path: Path) -> dict[str, tuple[SizeRC, list[Thing]]]:
    """Boxes of a file: file name of an image -> its rows and columns, and what is in it.

    Raises:
        BadData: a file that is no such json.
    """
    coco = read_json(path)
    try:
        name_of = {entry["id"]: str(entry["name"]) for entry in coco["categories"]}
        images = {entry["id"]: entry for entry in coco["images"]}
        found: dict[str, tuple[SizeRC, list[Thing]]] = {
            entry["file_name"]: ((int(entry["height"]), int(entry["width"])), []) for entry in images.values()
        }
        for entry in coco["annotations"]:
            x, y, width, height = entry["bbox"]
            thing = Thing(name_of[entry["category_id"]], (x, y, x + width, y + height))
            found[images[entry["image_id"]]["file_name"]][1].append(thing)
    except (KeyError, TypeError, ValueError) as error:
        raise BadData(f"{path} is not COCO's json: {error!r}. Get the official file.") from None
    return found
