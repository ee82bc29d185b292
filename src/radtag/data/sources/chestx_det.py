"""ChestX-Det and ChestX-Det10: ``chestx_det:PATH``, PATH the folder of ChestX_Det_train.json, or of train.json.

Lian et al., "A Structure-Aware Relation Network for Thoracic Diseases Detection and Segmentation", IEEE TMI 40, 2021;
Liu et al., "ChestX-Det10: Chest X-ray Dataset on Detection of Thoracic Abnormalities", arXiv 2006.10550, 2020.

Images of ChestX-ray14 that three radiologists read anew. Each json is a list of file_name, syms, boxes (x1, y1, x2, y2)
and, in ChestX-Det, polygons; syms, boxes and polygons go together. An image without syms shows none of the findings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from radtag.data.files import images_by_stem, read_json
from radtag.data.notes import left_over, told
from radtag.data.options import folders
from radtag.data.outlines import Polygon, together
from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.geometry import XYXY

OPTIONS = {"images": "the folder of the images (default: train and test beside the json, else anywhere below)"}
_TEN = "Atelectasis Calcification Consolidation Effusion Emphysema Fibrosis Fracture Mass Nodule Pneumothorax"
TEN = tuple(_TEN.split())
THIRTEEN = tuple(sorted((*TEN, "Cardiomegaly", "Diffuse Nodule", "Pleural Thickening")))
VERSIONS = (("ChestX_Det_train.json", "ChestX_Det_test.json", THIRTEEN), ("train.json", "test.json", TEN))
SIZE_RC = (1024, 1024)


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens those of the two parts whose json is there, ChestX-Det's before ChestX-Det10's, which tells patients.

    Raises:
        BadData: no json, or an entry that is none of the set's.
        BadSetting: ``images`` names no folder.
    """
    root = Path(location)
    there = (one for one in VERSIONS if any((root / name).is_file() for name in one[:2]))
    *names, findings = next(there, ("", "", ()))
    if not findings:
        raise BadData(f"{root} has neither ChestX_Det_train.json nor train.json (or _test). Give the folder of them.")
    homes = folders("chestx_det", options, "images", root, "train", "test", "train_data", "test_data")
    path_of = images_by_stem(*homes)
    counts: Counter[str] = Counter()
    records = []
    for split, name in zip(("train", "test"), names, strict=True):
        entries = read_json(root / name) if (root / name).is_file() else []
        if not isinstance(entries, list):
            raise BadData(f"{root / name} is not the set's list of images. Get the official file.")
        for entry in entries:
            try:
                image, boxes, masks = _read(entry, findings, counts)
            except (BadData, AttributeError, KeyError, TypeError, ValueError) as error:
                shown = entry.get("file_name") if isinstance(entry, dict) else entry
                what = error if isinstance(error, BadData) else "its syms, boxes and polygons do not go together"
                raise BadData(f"{root / name}, {shown}: {what}. Get the official file.") from None
            of_nih = re.fullmatch(r"(\d{8})_\d{3}\.\w+", image)
            records.append(
                Record(
                    image=image,
                    path=path_of.pop(Path(image).stem, homes[0] / image),
                    labels=tuple(float(finding in boxes) for finding in findings),
                    patient=str(int(of_nih[1])) if of_nih else "",
                    split=split,
                    boxes_xyxy={finding: tuple(drawn) for finding, drawn in boxes.items() if drawn},
                    box_frame_rc=SIZE_RC,
                    masks={finding: together(parts) for finding, parts in masks.items()},
                )
            )
    texts = {
        "flat": "box[es] without area [is|are] left out",
        "line": "outline[s] of fewer than three points [is|are] left out",
    }
    notes = told(counts, texts)
    if any(not record.patient for record in records):
        notes.append("patients are unknown, each image stands for itself")
    notes += left_over(path_of, "image[s] [is|are] in no json and [is|are] left out")
    return Dataset("chestx_det", findings, tuple(records), tuple(notes))


def _read(
    entry: Mapping[str, list], findings: tuple[str, ...], counts: Counter[str]
) -> tuple[str, dict[str, list[XYXY]], dict[str, list[Polygon]]]:
    """The image, and for each finding in it its boxes and outlines."""
    boxes: dict[str, list[XYXY]] = {}
    masks: dict[str, list[Polygon]] = {}
    drawn = entry.get("polygons") or [()] * len(entry["syms"])
    for finding, (x1, y1, x2, y2), points in zip(entry["syms"], entry["boxes"], drawn, strict=True):
        if finding not in findings:
            raise BadData(f"{finding!r} is none of {', '.join(findings)}")
        flat = not (x1 < x2 and y1 < y2)
        counts["flat"] += flat
        boxes.setdefault(finding, []).extend([] if flat else [(float(x1), float(y1), float(x2), float(y2))])
        if len(points) > 2:
            masks.setdefault(finding, []).append(Polygon.of(SIZE_RC, points))
        elif "polygons" in entry:
            counts["line"] += 1
    return str(entry["file_name"]), boxes, masks
