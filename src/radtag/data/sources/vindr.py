"""VinDr-CXR: ``vindr:PATH``, PATH the folder of PhysioNet's annotations/, or of the train.csv of the Kaggle challenge.

Nguyen et al., "VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations", Scientific Data 9, 2022.

Each training image was read by three radiologists, who need not agree; a test image has the consensus of five. In
Kaggle's train.csv a row is a box of one reader, or, as class 14, "No finding", that this reader saw nothing; its test
images have no labels. PhysioNet has the boxes in annotations/annotations_train.csv and _test.csv, and all findings,
also those without a box, in image_labels_train.csv and _test.csv. Boxes are in the pixels of the DICOM files. For
images made smaller, columns width and height of the table, or a train_meta.csv (image_id, dim0 = rows, dim1 = columns),
say how large these are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from radtag.data.boxes import SizeRC, from_cells
from radtag.data.csvfile import CsvFile, read_csv
from radtag.data.files import images_by_stem
from radtag.data.notes import left_over, told
from radtag.data.options import choice, folders
from radtag.data.readers import RULES, Readings
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting

OPTIONS = {
    "readers": "whose word a label is: majority (default), any (one is enough), agreed (else unknown), or R1 to R17",
    "boxes": "fused (default): one where readers drew the same; each: every reader's",
    "images": "the folder of the images (default: train and test beside the tables, else anywhere below)",
}
_NAMES = (
    "Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Consolidation,ILD,Infiltration,Lung Opacity,Nodule/Mass,"
    "Other lesion,Pleural effusion,Pleural thickening,Pneumothorax,Pulmonary fibrosis"
)
FINDINGS = tuple(_NAMES.split(","))
NONE = "No finding"
CORNERS = ("x_min", "y_min", "x_max", "y_max")
SIDES, META = ("height", "width"), ("dim0", "dim1")
_SPELLINGS = {"Other disease": "Other diseases"}


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens the labelled images of the set; patients are unknown. PhysioNet's two parts are the split.

    Raises:
        BadData: no table, a class or box there cannot be, or an image in two folders.
        BadSetting: a value an option does not have.
    """
    rule = options.get("readers", RULES[0])
    if rule not in RULES and not re.fullmatch(r"R\d+", rule):
        raise BadSetting(f"option readers={rule} of source vindr: use {', '.join(RULES)} or a name such as R8.")
    boxes = cast(Literal["fused", "each"], choice("vindr", options, "boxes", ("fused", "each")))
    root = Path(location)
    tables = {split: root / "annotations" / f"annotations_{split}.csv" for split in ("train", "test")}
    tables = {split: path for split, path in tables.items() if path.is_file()} or {"": root / "train.csv"}
    if not all(path.is_file() for path in tables.values()):
        raise BadData(f"{root} has neither annotations/annotations_train.csv nor train.csv. Give the folder of them.")
    homes = folders("vindr", options, "images", root, "train", "test")
    path_of = images_by_stem(*homes)

    readings, size_of = Readings(), _sizes(root)
    split_of: dict[str, str] = {}
    named: dict[str, None] = {}  # findings, in the order of the tables of labels
    for split, path in tables.items():
        _read_boxes(path, readings, size_of)
        named |= dict.fromkeys(_read_labels(path.with_name(f"image_labels_{split}.csv"), readings))
        split_of |= {image: split for image in readings.said if image not in split_of}
    boxed = {finding for of_image in readings.boxes.values() for finding in of_image}
    findings = tuple(named or FINDINGS) + tuple(sorted(boxed - set(named or FINDINGS)))
    records: list[Record] = []
    counts = {"unread": 0, "unlabelled": 0}
    for image in readings.said:
        path = path_of.pop(image, homes[0] / f"{image}.dicom")
        truth = readings.truth(image, findings, rule, boxes)
        if truth is None:
            counts["unread"] += 1
            continue
        labels, drawn, left_out = truth
        counts["unlabelled"] += left_out
        split, frame = split_of[image] if len(tables) > 1 else "", size_of.get(image) if drawn else None
        records.append(Record(f"{image}.dicom", path, labels, split=split, boxes_xyxy=drawn, box_frame_rc=frame))
    if readings.said and not records:
        known = sorted({reader for readers in readings.said.values() for reader in readers})
        raise BadData(f"{rule} read none of these images; their readers are {', '.join(known)}. Name another.")
    drawing = "those of several readers are fused" if boxes == "fused" else "each reader's"
    texts = {
        "unread": f"image[s] that {rule} did not read [is|are] left out",
        "unlabelled": "box[es] of findings that are not labelled positive [is|are] left out",
    }
    notes = [f"labels: {rule} of the readers; boxes: {drawing}; patients are unknown", *told(counts, texts)]
    notes += left_over(path_of, "image[s] [has|have] no labels and [is|are] left out")
    resized = [one for one in records if one.boxes_xyxy and one.path.suffix.lower() not in (".dicom", ".dcm")]
    if any(record.box_frame_rc is None for record in resized):
        notes.append("no train_meta.csv says how large the originals are: boxes are taken in the pixels of the images")
    return Dataset("vindr", findings, tuple(records), tuple(notes))


def _read_boxes(path: Path, readings: Readings, size_of: dict[str, SizeRC]) -> None:
    """Adds the findings, boxes and, where the table has them, sizes of the originals."""
    table = read_csv(path)
    for line, row in table.named("image_id", "class_name", *CORNERS, optional=("rad_id", *SIDES)):
        image, reader = row["image_id"], row["rad_id"]  # nobody's name is the consensus
        if row["class_name"] == NONE:
            readings.of(image, reader)
            continue
        finding = _SPELLINGS.get(row["class_name"], row["class_name"])
        readings.add_box(image, reader, finding, from_cells(table, line, row, CORNERS))
        if all(row[side] for side in SIDES):
            size_of[image] = _size(table, line, row, SIDES)


def _read_labels(path: Path, readings: Readings) -> tuple[str, ...]:
    """Adds what PhysioNet's table of findings says, if it is there; returns the findings it has."""
    if not path.is_file():
        return ()
    table = read_csv(path)
    columns = [name for name in table.header if name not in ("image_id", "rad_id", NONE)]
    for line, row in table.named("image_id", *columns, optional=("rad_id",)):
        marked = {name for name in columns if row[name] and table.number(line, name, row[name]) == 1}
        readings.of(row["image_id"], row["rad_id"]).update(_SPELLINGS.get(name, name) for name in marked)
    return tuple(_SPELLINGS.get(name, name) for name in columns)


def _sizes(root: Path) -> dict[str, SizeRC]:
    """image -> (rows, columns) of its original, as far as a train_meta.csv or test_meta.csv says so."""
    size_of = {}
    for path in (root / "train_meta.csv", root / "test_meta.csv"):
        if path.is_file():
            table = read_csv(path)
            for line, row in table.named("image_id", *META):
                size_of[row["image_id"]] = _size(table, line, row, META)
    return size_of


def _size(table: CsvFile, line: int, row: Mapping[str, str], columns: Sequence[str]) -> SizeRC:
    rows, cols = (int(table.number(line, column, row[column])) for column in columns)
    if rows < 1 or cols < 1:
        raise BadData(f"{table.path} line {line}: an image of {rows} x {cols} pixels. Get the official table.")
    return rows, cols
