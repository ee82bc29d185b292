"""PASCAL VOC 2012: ``voc2012:PATH``, PATH the folder VOC2012, or the one that VOCdevkit is in.

Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 111, 2015. Photographs: PYLON's
control, that what is told of radiographs holds elsewhere.

ImageSets/Main/CLASS_train.txt and CLASS_val.txt label each image: 1, -1, or 0 = the only such objects are marked as
difficult. Boxes are in Annotations, in pixels that count from 1 with the last one inside. SegmentationClass has masks
of some images: palette indices, 255 = border or difficult. Labels of the test images are not public.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from radtag.data.boxes import by_name
from radtag.data.files import images_by_stem
from radtag.data.notes import left_over, told
from radtag.data.options import choice
from radtag.data.outlines import ClassOf
from radtag.data.table import Dataset, Record
from radtag.data.voc import read_annotation, read_class_lists
from radtag.errors import BadData

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
        for image, cells in read_class_lists(root / "ImageSets" / "Main", part, FINDINGS).items():
            labels = tuple(value_of[cell] for cell in cells)
            counts["unknown"] += sum(map(math.isnan, labels))
            present = [finding for finding, label in zip(FINDINGS, labels, strict=True) if label == 1]
            annotation = root / "Annotations" / f"{image}.xml"
            _, things = read_annotation(annotation) if annotation.is_file() else (None, [])
            kept = [thing for thing in things if difficult == "positive" or not thing.difficult]
            drawn = by_name(kept)
            counts["unboxed"] += not annotation.is_file()
            counts["difficult"] += len(things) - len(kept)
            counts["unlabelled"] += sum(len(boxes) for finding, boxes in drawn.items() if finding not in present)
            outlined = classes.pop(image, None)
            masks = {name: ClassOf(outlined, FINDINGS.index(name) + 1) for name in present} if outlined else {}
            records.append(
                Record(
                    image=f"{image}.jpg",
                    path=root / "JPEGImages" / f"{image}.jpg",
                    labels=labels,
                    split=split,
                    boxes_xyxy={name: drawn[name] for name in present if name in drawn},
                    masks=masks,
                )
            )
    texts = {
        "unknown": "label[s] of 0 = difficult [is|are] taken as unknown",
        "difficult": "box[es] of difficult objects [is|are] left out",
        "unlabelled": "box[es] of things not labelled as there [is|are] left out",
        "unboxed": "image[s] [has|have] no annotation of boxes",
    }
    notes = ["photographs of things, for comparison; the test images have no public labels", *told(counts, texts)]
    notes += left_over(classes, "image[s] with masks [is|are] not in the lists of the main task and [is|are] left out")
    return Dataset("voc2012", FINDINGS, tuple(records), tuple(notes))
