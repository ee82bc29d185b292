"""RSNA Pneumonia Detection Challenge: ``rsna:PATH``, PATH the folder of stage_2_train_labels.csv.

Shih et al., "Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert Annotations of Possible
Pneumonia", Radiology: Artificial Intelligence 1, 2019. Each image is of one class: Lung Opacity, with boxes; No Lung
Opacity / Not Normal; or Normal. The images were taken from ChestX-ray14: its patients are known where the challenge's
list of the originals is beside the table. Only the training images have labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from radtag.data.csvfile import read_csv
from radtag.data.files import images_by_stem, read_json
from radtag.data.options import folder
from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.geometry import XYXY
from radtag.words import counted

OPTIONS = {"images": "the folder of the labelled images (default: stage_2_train_images beside the table)"}
LABELS = "stage_2_train_labels.csv"
CLASSES = "stage_2_detailed_class_info.csv"
ORIGINALS = "pneumonia-challenge-dataset-mappings_2018.json"
FINDINGS = ("Lung Opacity", "No Lung Opacity / Not Normal")
SIZE_RC = (1024, 1024)


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens the labelled part of the set. Without the table of classes, who is healthy is not known: one finding.

    Raises:
        BadData: no table of labels, a box without area, or two tables that contradict each other.
        BadSetting: ``images`` names no folder.
    """
    root = Path(location)
    table = read_csv(root / LABELS)
    images = folder("rsna", options, "images", root / "stage_2_train_images", root)
    path_of = images_by_stem(images)
    image_at, target_at = table.column("patientId"), table.column("Target")
    corner_at = {name: table.column(name) for name in ("x", "y", "width", "height")}
    boxes: dict[str, tuple[XYXY, ...]] = {}
    for line, row in table.rows:
        of_image = boxes.setdefault(row[image_at], ())
        if row[target_at] not in ("0", "1"):
            raise BadData(f"{table.path} line {line}, column Target: {row[target_at]!r} is neither 0 nor 1.")
        if row[target_at] == "1":
            x, y, width, height = (table.number(line, name, row[at]) for name, at in corner_at.items())
            if not (width > 0 and height > 0):
                raise BadData(f"{table.path} line {line}: a box of {width:g} x {height:g}. Get the official table.")
            boxes[row[image_at]] = (*of_image, (x, y, x + width, y + height))
    class_of = _classes(root / CLASSES, boxes)
    patient_of = _patients(root / ORIGINALS)
    findings = FINDINGS if class_of else FINDINGS[:1]
    records = tuple(
        Record(
            image=f"{image}.dcm",
            path=path_of.pop(image, images / f"{image}.dcm"),
            labels=(float(bool(drawn)), *([float(class_of[image] == FINDINGS[1])] if class_of else [])),
            patient=patient_of.get(image, ""),
            boxes_xyxy={FINDINGS[0]: drawn} if drawn else {},
            box_frame_rc=SIZE_RC if drawn else None,
        )
        for image, drawn in boxes.items()
    )
    notes = []
    if not class_of:
        notes.append(f"{CLASSES} is not there: an image without opacity may show another disease")
    unknown = sum(not record.patient for record in records)
    if unknown:
        notes.append(counted(unknown, f"image[s] of unknown patients; {ORIGINALS} would tell whose they are"))
    if path_of:
        text = f"image[s] [is|are] not in {LABELS} and [is|are] left out"
        notes.append(f"{counted(len(path_of), text)}, {min(path_of)} first")
    return Dataset("rsna", findings, records, tuple(notes))


def _classes(path: Path, boxes: Mapping[str, tuple[XYXY, ...]]) -> dict[str, str]:
    """image -> class, which agrees with the boxes; empty if there is no such table."""
    if not path.is_file():
        return {}
    table = read_csv(path)
    image_at, class_at = table.column("patientId"), table.column("class")
    class_of = {}
    for line, row in table.rows:
        if row[class_at] not in (*FINDINGS, "Normal"):
            raise BadData(
                f"{path} line {line}, column class: {row[class_at]!r} is none of {', '.join(FINDINGS)}, Normal."
            )
        class_of[row[image_at]] = row[class_at]
    for image, drawn in boxes.items():
        if image not in class_of or bool(drawn) != (class_of[image] == FINDINGS[0]):
            said = class_of.get(image, "in no class")
            raise BadData(f"{image} has {counted(len(drawn), 'box[es]')} in {LABELS} and is {said!r} in {path}.")
    return class_of


def _patients(path: Path) -> dict[str, str]:
    """image -> patient of ChestX-ray14, whose images are named PATIENT_VISIT.png; empty if there is no such list."""
    if not path.is_file():
        return {}
    return {entry["subset_img_id"]: str(int(entry["img_id"].split("_")[0])) for entry in read_json(path)}
