"""RSNA Pneumonia Detection Challenge: ``rsna:PATH``, PATH the folder of stage_2_train_labels.csv.

Shih et al., "Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert Annotations of Possible
Pneumonia", Radiology: Artificial Intelligence 1, 2019. Each image is of one class: Lung Opacity, with boxes; No Lung
Opacity / Not Normal; or Normal. The images were taken from ChestX-ray14: its patients are known where the challenge's
list of the originals is beside the table. Only the training images have labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from radtag.data.boxes import from_cells
from radtag.data.csvfile import read_csv
from radtag.data.files import images_by_stem, read_json
from radtag.data.notes import left_over, told
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
_BOX = ("x", "y", "width", "height")


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
    boxes: dict[str, tuple[XYXY, ...]] = {}
    for line, row in table.named("patientId", "Target", *_BOX):
        of_image = boxes.setdefault(row["patientId"], ())
        if row["Target"] not in ("0", "1"):
            raise BadData(f"{table.path} line {line}, column Target: {row['Target']!r} is neither 0 nor 1.")
        if row["Target"] == "1":
            boxes[row["patientId"]] = (*of_image, from_cells(table, line, row, _BOX, second="size"))
    class_of = _classes(root / CLASSES, boxes)
    patient_of = _patients(root / ORIGINALS)
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
    notes = [] if class_of else [f"{CLASSES} is not there: an image without opacity may show another disease"]
    unknown = {"patients": sum(not record.patient for record in records)}
    notes += told(unknown, {"patients": f"image[s] of unknown patients; {ORIGINALS} would tell whose they are"})
    notes += left_over(path_of, f"image[s] [is|are] not in {LABELS} and [is|are] left out")
    return Dataset("rsna", FINDINGS if class_of else FINDINGS[:1], records, tuple(notes))


def _classes(path: Path, boxes: Mapping[str, tuple[XYXY, ...]]) -> dict[str, str]:
    """image -> class, which agrees with the boxes; empty if there is no such table."""
    if not path.is_file():
        return {}
    class_of = {}
    for line, row in read_csv(path).named("patientId", "class"):
        if row["class"] not in (*FINDINGS, "Normal"):
            listed = ", ".join(FINDINGS)
            raise BadData(f"{path} line {line}, column class: {row['class']!r} is none of {listed}, Normal.")
        class_of[row["patientId"]] = row["class"]
    for image, drawn in boxes.items():
        if image not in class_of or bool(drawn) != (class_of[image] == FINDINGS[0]):
            said = class_of.get(image, "in no class")
            raise BadData(f"{image} has {counted(len(drawn), 'box[es]')} in {LABELS} and is {said!r} in {path}.")
    return class_of


def _patients(path: Path) -> dict[str, str]:
    """image -> patient of ChestX-ray14, whose images are named PATIENT_VISIT.png; empty if there is no such list."""
    if not path.is_file():
        return {}
    try:
        return {entry["subset_img_id"]: str(int(entry["img_id"].split("_")[0])) for entry in read_json(path)}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadData(f"{path} is no list of subset_img_id and img_id. Get the official file, or remove it.") from None
