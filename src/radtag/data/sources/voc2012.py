"""PASCAL VOC 2012: ``voc2012:PATH``, PATH the folder VOC2012, or the one that VOCdevkit is in.

Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 111, 2015. Photographs: PYLON's
control, that what is told of radiographs holds elsewhere.

ImageSets/Main/CLASS_train.txt and CLASS_val.txt label each image: 1, -1, or 0 = the only such objects are marked as
difficult. Boxes are in Annotations, in pixels that count from 1 with the last one inside. SegmentationClass has masks
of some images: palette indices, 255 = border or difficult. Labels of the test images are not public.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from radtag.data.files import images_by_stem
from radtag.data.options import choice
from radtag.data.outlines import ClassOf
from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.geometry import XYXY
from radtag.words import counted

OPTIONS = {
    "difficult": "what a label of 0 becomes: unknown (default), and difficult objects have no box; or positive",
    "val": "what the set's second part is: val (default); or test, and images for validation are drawn from the first",
}
_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep"
    " sofa train tvmonitor"
)
FINDINGS = tuple(_NAMES.split())
"""In the order of the palette, from 1 on."""


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens the images of the main task that have labels. Nobody's patients.

    Raises:
        BadData: no lists, a label that is none, or an annotation that cannot be read.
        BadSetting: a value an option does not have.
    """
    difficult = choice("voc2012", options, "difficult", ("unknown", "positive"))
    parts = {"train": "train", "val": choice("voc2012", options, "val", ("val", "test"))}
    given = Path(location)
    homes = (given, given / "VOC2012", given / "VOCdevkit" / "VOC2012")
    root = next((home for home in homes if (home / "ImageSets" / "Main" / "aeroplane_train.txt").is_file()), None)
    if root is None:
        raise BadData(f"{given} has no ImageSets/Main/aeroplane_train.txt. Give the folder VOC2012.")
    classes = images_by_stem(root / "SegmentationClass")
    value_of = {"1": 1.0, "-1": 0.0, "0": 1.0 if difficult == "positive" else math.nan}
    counts: Counter[str] = Counter()
    records = []
    for part, split in parts.items():
        for image, cells in _labels(root / "ImageSets" / "Main", part).items():
            labels = tuple(value_of[cell] for cell in cells)
            counts["unknown"] += sum(map(math.isnan, labels))
            present = [finding for finding, label in zip(FINDINGS, labels, strict=True) if label == 1]
            drawn = _boxes(root / "Annotations" / f"{image}.xml", difficult == "positive", counts)
            counts["unlabelled"] += sum(len(boxes) for finding, boxes in drawn.items() if finding not in present)
            outlined = classes.pop(image, None)
            masks = {name: ClassOf(outlined, FINDINGS.index(name) + 1) for name in present} if outlined else {}
            records.append(
                Record(
                    image=f"{image}.jpg",
                    path=root / "JPEGImages" / f"{image}.jpg",
                    labels=labels,
                    split=split,
                    boxes_xyxy={name: tuple(drawn[name]) for name in present if name in drawn},
                    masks=masks,
                )
            )
    notes = ["photographs of things, for comparison; the test images have no public labels"]
    for key, text in (
        ("unknown", "label[s] of 0 = difficult [is|are] taken as unknown"),
        ("difficult", "box[es] of difficult objects [is|are] left out"),
        ("unlabelled", "box[es] of things not labelled as there [is|are] left out"),
        ("unboxed", "image[s] [has|have] no annotation of boxes"),
    ):
        if counts[key]:
            notes.append(counted(counts[key], text))
    if classes:
        text = "image[s] with masks [is|are] not in the lists of the main task and [is|are] left out"
        notes.append(f"{counted(len(classes), text)}, {min(classes)} first")
    return Dataset("voc2012", FINDINGS, tuple(records), tuple(notes))


def _labels(folder: Path, part: str) -> dict[str, list[str]]:
    """image -> "1", "0" or "-1" for each finding; none where the part has no lists."""
    cells: dict[str, list[str]] = {}
    for at, finding in enumerate(FINDINGS):
        path = folder / f"{finding}_{part}.txt"
        if not path.is_file():
            if at == 0:
                return {}
            raise BadData(f"{path} is not there, though {FINDINGS[0]}_{part}.txt is. Get the official lists.")
        for line, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            words = text.split()
            if not words:
                continue
            if len(words) != 2 or words[1] not in ("1", "0", "-1"):
                raise BadData(f"{path} line {line}: {text!r} is not an image and 1, 0 or -1. Get the official list.")
            cells.setdefault(words[0], []).append(words[1])
    wrong = next((image for image, labels in cells.items() if len(labels) != len(FINDINGS)), None)
    if wrong is not None:
        raise BadData(f"{folder}: {wrong} is not once in each of the lists CLASS_{part}.txt. Get the official lists.")
    return cells


def _boxes(path: Path, with_difficult: bool, counts: Counter[str]) -> dict[str, list[XYXY]]:
    """finding -> boxes; coordinates of a few files are no whole numbers."""
    drawn: dict[str, list[XYXY]] = {}
    if not path.is_file():
        counts["unboxed"] += 1
        return drawn
    try:
        for thing in ElementTree.parse(path).iterfind("object"):
            # Parts of persons have boxes too, one level further down.
            x1, y1, x2, y2 = (float(thing.findtext(f"bndbox/{at}", "")) for at in ("xmin", "ymin", "xmax", "ymax"))
            if thing.findtext("difficult") == "1" and not with_difficult:
                counts["difficult"] += 1
            else:
                drawn.setdefault(thing.findtext("name", ""), []).append((x1 - 1, y1 - 1, x2, y2))
    except (ElementTree.ParseError, ValueError) as error:
        raise BadData(f"{path} is not a PASCAL VOC annotation: {error}. Get the official file.") from None
    return drawn
