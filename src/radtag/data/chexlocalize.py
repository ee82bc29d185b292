"""CheXlocalize's files: where findings lie in images of CheXpert's validation and test part.

Saporta et al., "Benchmarking saliency methods for chest X-ray interpretation", Nature Machine Intelligence 4, 2022.

- ``gt_segmentations_PART.json``, the truth: image -> finding -> COCO's run lengths, empty where there is nothing.
- ``gt_annotations_PART.json``, the contours they were filled from: image -> finding -> contours -> points x, y, beside
  ``img_size`` = rows, columns. They count for images that are in no file of segmentations.
- ``hb_salient_pt_PART.json``, the human benchmark: image -> finding -> points x, y. Three other radiologists, told what
  is in the image, set them where it shows most. They are no truth, but what a map's highest point is compared with.

All are in pixels of the large images. An image is called patient64541_study1_view1_frontal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from radtag.data.files import read_json
from radtag.data.notes import told
from radtag.data.outlines import MaskSource, Polygon, Runs, together
from radtag.data.table import Point
from radtag.errors import BadData

SPELLINGS = {"Airspace Opacity": "Lung Opacity"}
_SIZE = "img_size"
_TOLD = {
    "lines": "contour[s] of fewer than three points [is|are] left out",
    "asked": "image[s] of CheXlocalize [has|have] points of readers, who are scored beside a run",
}
Value = TypeVar("Value")


@dataclass(frozen=True)
class Places:
    """What is known of one image.

    Args:
        size_rc: rows and columns of the image that was drawn on.
        masks: finding -> where it is.
        readers_xy: finding -> points of other readers, () where they set none; empty where nobody was asked.
    """

    size_rc: tuple[int, int]
    masks: dict[str, MaskSource]
    readers_xy: dict[str, tuple[Point, ...]]

    @property
    def frame_rc(self) -> tuple[int, int] | None:
        """What a record has to say of its points' pixels."""
        return self.size_rc if self.readers_xy else None


NOWHERE = Places((0, 0), {}, {})


def read(*homes: Path) -> tuple[dict[str, Places], list[str]]:
    """What the files in some folders say.

    Args:
        homes: folders; those that are not there, or have no such files, say nothing.

    Returns:
        Image -> places, and notes.

    Raises:
        BadData: a file that is not as told above.
    """
    found: dict[str, Places] = {}
    counts: Counter[str] = Counter()
    for home in homes:
        parts = {path.stem.rsplit("_", 1)[1] for path in home.glob("gt_*_*.json")}
        for part in sorted(parts):
            places = _each(home / f"gt_segmentations_{part}.json", _segmented)
            places |= _each(home / f"gt_annotations_{part}.json", lambda entry: _contoured(entry, counts), places)
            for path in home.glob(f"hb_salient_*{part}.json"):
                points_of = _each(path, _points)
                for image, of_image in places.items():
                    # As the benchmark has it: no point, or none in this image, is a miss.
                    set_there = points_of.get(image, {})
                    of_image.readers_xy.update({name: set_there.get(name, ()) for name in of_image.masks})
            found |= places
    if not found:
        return found, ["CheXlocalize's gt_segmentations_*.json are not there: there are no outlines"]
    counts["asked"] = sum(bool(places.readers_xy) for places in found.values())
    return found, told(counts, _TOLD)


def _each(path: Path, value_of: Callable[[dict[str, Any]], Value], known: Container[str] = ()) -> dict[str, Value]:
    """image -> what its entry says, of those not yet known; nothing where there is no such file."""
    values: dict[str, Value] = {}
    for image, entry in read_json(path).items() if path.is_file() else ():
        if image in known:
            continue
        try:
            values[image] = value_of({SPELLINGS.get(name, name): value for name, value in entry.items()})
        except (AttributeError, BadData, IndexError, KeyError, TypeError, ValueError) as error:
            raise BadData(f"{path}, {image}: {error}. Get the official file.") from None
    return values


def _segmented(entry: dict[str, Any]) -> Places:
    runs = {name: Runs.from_coco(mask) for name, mask in entry.items()}
    size_rc = next((mask.size_rc for mask in runs.values()), NOWHERE.size_rc)
    return Places(size_rc, {name: mask for name, mask in runs.items() if mask.area_px}, {})


def _contoured(entry: dict[str, Any], counts: Counter[str]) -> Places:
    rows, cols = map(int, entry.pop(_SIZE))
    masks: dict[str, MaskSource] = {}
    for name, contours in entry.items():
        closed = [Polygon.of((rows, cols), points) for points in contours if len(points) > 2]
        counts["lines"] += len(contours) - len(closed)
        masks |= {name: together(closed)} if closed else {}
    return Places((rows, cols), masks, {})


def _points(entry: dict[str, Any]) -> dict[str, tuple[Point, ...]]:
    entry.pop(_SIZE, None)
    return {name: tuple((float(x), float(y)) for x, y in points) for name, points in entry.items()}
