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

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from radtag.data.csvfile import read_csv
from radtag.data.files import images_by_stem
from radtag.data.options import choice, folder
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting
from radtag.geometry import XYXY, box_iou
from radtag.words import counted

OPTIONS = {
    "readers": "whose word a label is: majority (default), any (one is enough), agreed (else unknown), or R1 to R17",
    "boxes": "fused (default): one where readers drew the same; each: every reader's",
    "images": "the folder of the images (default: train and test beside the tables, else anywhere below)",
}
FINDINGS = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)
RULES = ("majority", "any", "agreed")
NONE = "No finding"
SAME = 0.4  # from this intersection over union on, two readers' boxes are of one thing, as the challenge counts them
_SPELLINGS = {"Other disease": "Other diseases"}
Drawn = list[tuple[str, XYXY]]  # (reader, box)


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens the labelled images of the set; patients are unknown. PhysioNet's two parts are the split.

    Raises:
        BadData: no table, a class or box there cannot be, or an image in two folders.
        BadSetting: a value an option does not have.
    """
    readers = options.get("readers", RULES[0])
    alone = readers not in RULES
    if alone and not (readers[:1] == "R" and readers[1:].isdigit()):
        raise BadSetting(f"option readers={readers} of source vindr: use {', '.join(RULES)} or a name such as R8.")
    fused = choice("vindr", options, "boxes", ("fused", "each")) == "fused"
    root = Path(location)
    tables = {split: root / "annotations" / f"annotations_{split}.csv" for split in ("train", "test")}
    tables = {split: path for split, path in tables.items() if path.is_file()} or {"": root / "train.csv"}
    if not all(path.is_file() for path in tables.values()):
        raise BadData(f"{root} has neither annotations/annotations_train.csv nor train.csv. Give the folder of them.")
    usual = [path for path in (root / "train", root / "test") if path.is_dir()]
    folders = [folder("vindr", options, "images")] if "images" in options else usual or [root]
    path_of = images_by_stem(*folders)

    readings = _Readings(_sizes(root))
    split_of: dict[str, str] = {}
    named: dict[str, None] = {}  # findings, in the order of the tables of labels
    for split, path in tables.items():
        _read_boxes(path, readings)
        labels_path = root / "annotations" / f"image_labels_{split}.csv"
        if labels_path.is_file():
            named |= dict.fromkeys(_read_labels(labels_path, readings))
        split_of |= {image: split for image in readings.said if image not in split_of}
    boxed = {finding for of_image in readings.boxes.values() for finding in of_image}
    findings = tuple(named or FINDINGS) + tuple(sorted(boxed - set(named or FINDINGS)))

    records: list[Record] = []
    unread = dropped = 0
    for image, of_reader in readings.said.items():
        if alone and "" not in of_reader:  # of a consensus, nobody's own reading is known
            if readers not in of_reader:
                unread += 1
                path_of.pop(image, None)
                continue
            of_reader = {readers: of_reader[readers]}
        marks = Counter(finding for names in of_reader.values() for finding in names)
        labels = tuple(_label(marks[finding], len(of_reader), readers) for finding in findings)
        drawn: dict[str, tuple[XYXY, ...]] = {}
        for finding, label in zip(findings, labels, strict=True):
            own = [(who, box) for who, box in readings.boxes.get(image, {}).get(finding, []) if who in of_reader]
            if label == 1 and own:
                drawn[finding] = _fused(own) if fused else tuple(box for _, box in own)
            dropped += len(own) if label != 1 else 0
        records.append(
            Record(
                image=f"{image}.dicom",
                path=path_of.pop(image, folders[0] / f"{image}.dicom"),
                labels=labels,
                split=split_of[image] if len(tables) > 1 else "",
                boxes_xyxy=drawn,
                box_frame_rc=readings.size_of.get(image) if drawn else None,
            )
        )
    drawing = "those of several readers are fused" if fused else "each reader's"
    notes = [f"labels: {readers} of the readers; boxes: {drawing}; patients are unknown"]
    if unread:
        notes.append(counted(unread, f"image[s] that {readers} did not read [is|are] left out"))
    if dropped:
        notes.append(counted(dropped, "box[es] of findings that are not labelled positive [is|are] left out"))
    if path_of:
        text = "image[s] [has|have] no labels and [is|are] left out"
        notes.append(f"{counted(len(path_of), text)}, {min(path_of)} first")
    resized = [one for one in records if one.boxes_xyxy and one.path.suffix.lower() not in (".dicom", ".dcm")]
    if any(record.box_frame_rc is None for record in resized):
        notes.append("no train_meta.csv says how large the originals are: boxes are taken in the pixels of the images")
    return Dataset("vindr", findings, tuple(records), tuple(notes))


@dataclass
class _Readings:
    """What the tables say: image -> (rows, columns) of its original; -> reader -> findings; -> finding -> boxes."""

    size_of: dict[str, tuple[int, int]]
    said: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    boxes: dict[str, dict[str, Drawn]] = field(default_factory=dict)

    def names(self, image: str, reader: str) -> set[str]:
        """What a reader found in an image, to add to; the reader of a consensus is ""."""
        return self.said.setdefault(image, {}).setdefault(reader, set())


def _read_boxes(path: Path, readings: _Readings) -> None:
    """Adds the findings, boxes and, where the table has them, sizes of the originals."""
    table = read_csv(path)
    image_at, class_at, reader_at = table.column("image_id"), table.column("class_name"), table.find("rad_id")
    corner_at = {corner: table.column(corner) for corner in ("x_min", "y_min", "x_max", "y_max")}
    side_at = [table.find(side) for side in ("height", "width")]
    for line, row in table.rows:
        image, finding = row[image_at], row[class_at]
        reader = row[reader_at] if reader_at is not None else ""
        names = readings.names(image, reader)
        if finding == NONE:
            continue
        finding = _SPELLINGS.get(finding, finding)
        names.add(finding)
        x1, y1, x2, y2 = (table.number(line, corner, row[at]) for corner, at in corner_at.items())
        if not (x1 < x2 and y1 < y2):
            raise BadData(f"{path} line {line}: a box from {x1:g}, {y1:g} to {x2:g}, {y2:g}. Get the official table.")
        readings.boxes.setdefault(image, {}).setdefault(finding, []).append((reader, (x1, y1, x2, y2)))
        rows, cols = ("" if at is None else row[at] for at in side_at)
        if rows and cols:
            readings.size_of[image] = (
                int(table.number(line, "height", rows)),
                int(table.number(line, "width", cols)),
            )


def _read_labels(path: Path, readings: _Readings) -> tuple[str, ...]:
    """Adds what PhysioNet's table of findings says; returns the findings it has."""
    table = read_csv(path)
    image_at, reader_at = table.column("image_id"), table.find("rad_id")
    columns = {
        _SPELLINGS.get(name, name): at
        for at, name in enumerate(table.header)
        if at not in (image_at, reader_at) and name != NONE
    }
    for line, row in table.rows:
        names = readings.names(row[image_at], row[reader_at] if reader_at is not None else "")
        for name, at in columns.items():
            if row[at] and table.number(line, name, row[at]) == 1:
                names.add(name)
    return tuple(columns)


def _sizes(root: Path) -> dict[str, tuple[int, int]]:
    """image -> (rows, columns) of its original, as far as a train_meta.csv or test_meta.csv says so."""
    size_of = {}
    for path in (root / "train_meta.csv", root / "test_meta.csv"):
        if path.is_file():
            table = read_csv(path)
            image_at, rows_at, cols_at = (table.column(name) for name in ("image_id", "dim0", "dim1"))
            for line, row in table.rows:
                rows, cols = (table.number(line, "dim0", row[rows_at]), table.number(line, "dim1", row[cols_at]))
                size_of[row[image_at]] = (int(rows), int(cols))
    return size_of


def _label(marks: int, readers: int, rule: str) -> float:
    """1, 0 or NaN, where so many of so many readers marked a finding."""
    if rule == "any":
        return float(marks > 0)
    if rule == "agreed" and 0 < marks < readers:
        return math.nan
    return float(2 * marks > readers)


def _fused(drawn: Sequence[tuple[str, XYXY]]) -> tuple[XYXY, ...]:
    """The mean of the boxes that different readers drew of one thing; each box joins the mean that it covers best."""
    groups: list[list[tuple[str, XYXY]]] = []
    for reader, box in drawn:
        free = [group for group in groups if reader not in {who for who, _ in group}]
        if free:
            means = np.array([np.mean([one for _, one in group], axis=0) for group in free])
            overlap = box_iou(np.array([box]), means)[0]
            best = int(overlap.argmax())
            if overlap[best] >= SAME:
                free[best].append((reader, box))
                continue
        groups.append([(reader, box)])
    corners = (np.mean([one for _, one in group], axis=0).tolist() for group in groups)
    return tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in corners)
