"""TBX11K: ``tbx11k:PATH``, PATH the folder of imgs, lists and annotations.

Liu et al., "Rethinking Computer-aided Tuberculosis Diagnosis", CVPR 2020. An image lies in imgs/health, imgs/sick (ill,
no tuberculosis) or imgs/tb, whose boxes say of which kind the tuberculosis is. TBX11K_train.txt and TBX11K_val.txt are
the split; labels of the test images are not public, and imgs/extra, older sets without boxes, is not read.

The boxes are those of annotations/json, in the 512 x 512 pixels of the images; where there is no json, those of
annotations/xml, in the pixels of the radiographs before they were made smaller.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

from radtag.data.files import read_json
from radtag.data.options import choice
from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.geometry import XYXY
from radtag.words import counted

OPTIONS = {"kinds": "apart (default): active and obsolete tuberculosis; together: tuberculosis of any kind"}
KINDS = ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis")
TOGETHER = "Tuberculosis"
SICK = "sick but non-TB"
LISTS = {"train": "TBX11K_train.txt", "val": "TBX11K_val.txt"}
Boxes = dict[str, tuple[XYXY, ...]]


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens the set's own training and validation part; patients are unknown.

    Raises:
        BadData: no lists, annotations that are none, or an image in none of the set's folders.
        BadSetting: a value an option does not have.
    """
    together = choice("tbx11k", options, "kinds", ("apart", "together")) == "together"
    root = Path(location)
    if not any((root / "lists" / name).is_file() for name in LISTS.values()):
        raise BadData(f"{root / 'lists'} has no {' or '.join(LISTS.values())}. Give the folder of imgs and lists.")
    boxes = _from_json(root / "annotations" / "json") or _from_xml(root / "annotations" / "xml")
    findings = (TOGETHER, SICK) if together else (*KINDS, SICK)
    records = []
    unboxed = other = 0
    for split, name in LISTS.items():
        path = root / "lists" / name
        for image in path.read_text(encoding="utf-8-sig").split() if path.is_file() else []:
            image = image.removeprefix("imgs/")
            part = image.split("/")[0]
            if part not in ("health", "sick", "tb"):
                raise BadData(f"{path}: {image!r} is not in health, sick or tb. Get the official list.")
            size_rc, drawn = boxes.get(Path(image).stem, (None, {})) if part == "tb" else (None, {})
            other += bool(drawn.keys() - set(KINDS))
            if together:
                drawn = {TOGETHER: tuple(box for kind in drawn.values() for box in kind)} if drawn else {}
            drawn = {finding: of_kind for finding, of_kind in drawn.items() if finding in findings}
            unboxed += part == "tb" and not drawn
            ill = [float(part == "tb")] if together else [float(kind in drawn) for kind in KINDS]
            if part == "tb" and not drawn and not together:
                ill = [math.nan] * len(KINDS)
            labels = (*ill, float(part == "sick"))
            frame = size_rc if drawn else None
            records.append(
                Record(image, root / "imgs" / image, labels, split=split, boxes_xyxy=drawn, box_frame_rc=frame)
            )
    notes = ["patients are unknown, each image stands for itself; the test images have no public labels"]
    if unboxed:
        what = "" if together else ", so that its kind is unknown"
        notes.append(counted(unboxed, f"image[s] of tuberculosis [has|have] no box of a known kind{what}"))
    if other and not together:
        notes.append(counted(other, "image[s] [has|have] boxes of tuberculosis of an unknown kind, which are left out"))
    return Dataset("tbx11k", findings, tuple(records), tuple(notes))


def _from_json(folder: Path) -> dict[str, tuple[tuple[int, int], Boxes]]:
    """Name of an image -> its size, and finding -> boxes; the same image may be in several files."""
    found: dict[str, tuple[tuple[int, int], Boxes]] = {}
    for path in sorted(folder.glob("TBX11K_*.json")):
        coco = read_json(path)
        try:
            kind_of = {entry["id"]: entry["name"] for entry in coco["categories"]}
            images = {entry["id"]: entry for entry in coco["images"]}
            here: dict[str, tuple[tuple[int, int], Boxes]] = {}
            for entry in coco["annotations"]:
                image = images[entry["image_id"]]
                size_rc = (int(image["height"]), int(image["width"]))
                _, drawn = here.setdefault(Path(image["file_name"]).stem, (size_rc, {}))
                x, y, width, height = entry["bbox"]
                kind = kind_of[entry["category_id"]]
                drawn[kind] = (*drawn.get(kind, ()), (x, y, x + width, y + height))
        except (KeyError, TypeError, ValueError) as error:
            raise BadData(f"{path} is not COCO's json: {error!r}. Get the official file.") from None
        found.update(here)
    return found


def _from_xml(folder: Path) -> dict[str, tuple[tuple[int, int], Boxes]]:
    """The same from files in PASCAL VOC's way, whose pixels count from 1 and whose last one is inside."""
    found: dict[str, tuple[tuple[int, int], Boxes]] = {}
    for path in sorted(folder.glob("*.xml")):
        try:
            tree = ElementTree.parse(path)
            width, height = (int(tree.findtext(f"size/{side}", "")) for side in ("width", "height"))
            drawn: Boxes = {}
            for entry in tree.iterfind("object"):
                x1, y1, x2, y2 = (int(entry.findtext(f"bndbox/{at}", "")) for at in ("xmin", "ymin", "xmax", "ymax"))
                kind = entry.findtext("name", "")
                drawn[kind] = (*drawn.get(kind, ()), (x1 - 1.0, y1 - 1.0, float(x2), float(y2)))
        except (ElementTree.ParseError, ValueError) as error:
            raise BadData(f"{path} is not a PASCAL VOC annotation: {error}. Get the official file.") from None
        found[path.stem] = ((height, width), drawn)
    return found
