"""ChestX-ray14 in its official layout: ``nih14:PATH``, PATH the folder of Data_Entry_2017_v2020.csv.

Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks", CVPR 2017; later grown to 14 findings.

The images may be of any size: boxes are in the frame of the 1024 x 1024 PNGs and are brought from there to the file at
hand. The columns OriginalImage[Width,Height] and OriginalImagePixelSpacing[x,y] describe the DICOM file behind the PNG,
which is another frame. Whether it was stretched, cropped or padded on its way is not documented, so neither enters a
box or a distance in mm: they are attributes and no more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from radtag.data.csvfile import CsvFile, read_csv
from radtag.data.files import images_under, subfolders
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting
from radtag.geometry import XYXY
from radtag.words import counted

OPTIONS = {
    "fold": "the fold of folds.csv (image, patient, fold) that is the test part; the others are for training",
    "images": "the folder of the images (default: images, images_001 ... beside the table, else anywhere below it)",
}
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
BOX_FRAME_RC = (1024, 1024)
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOXES = "BBox_List_2017.csv"
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
_SPELLINGS = {"Infiltrate": "Infiltration", "Pleural Thickening": "Pleural_Thickening"}
_OLDEST_YEARS = 120


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens ChestX-ray14, or the part of it whose images are there.

    Split: with ``fold``, that fold is test and all others train; else train_val_list.txt and test_list.txt where both
    are there; else none.

    Raises:
        BadData: no table, a label or box that contradicts it, or a file name found in two folders.
        BadSetting: a fold there is not.
    """
    root = Path(location)
    table_path = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table_path is None:
        raise BadData(f"{root} has neither {' nor '.join(TABLES)}. Give the folder the ChestX-ray14 tables are in.")
    table = read_csv(table_path)
    path_of, folder = _images(root, options.get("images"))
    notes: list[str] = []
    boxes = _boxes(root / BOXES, notes)
    split_of = _splits(root, options.get("fold"), notes)

    image_at, labels_at, patient_at = (table.column(name) for name in ("Image Index", "Finding Labels", "Patient ID"))
    records = []
    impossible_ages = 0
    for line, row in table.rows:
        image = row[image_at]
        present = _labels(table, line, row[labels_at])
        attributes = _attributes(table, row)
        if attributes.pop("impossible age", ""):
            impossible_ages += 1
        of_image = boxes.pop(image, {})
        stem = os.path.splitext(image)[0]
        records.append(
            Record(
                image=image,
                path=path_of.pop(stem, folder / image),
                labels=tuple(float(finding in present) for finding in FINDINGS),
                patient=row[patient_at],
                split=split_of.get(image, ""),
                boxes_xyxy=of_image,
                box_frame_rc=BOX_FRAME_RC if of_image else None,
                attributes=attributes,
            )
        )
    if boxes:
        notes.append(
            f"{BOXES} has boxes of {counted(len(boxes), 'image[s] that [is|are] not in')} {table_path.name},"
            f" {next(iter(boxes))} first"
        )
    if path_of:
        first = min(path_of.values()).name
        text = f"image[s] [is|are] not in {table_path.name} and [is|are] left out"
        notes.append(f"{counted(len(path_of), text)}, {first} first")
    if impossible_ages:
        notes.append(counted(impossible_ages, f"age[s] above {_OLDEST_YEARS} years [is|are] taken as unknown"))
    return Dataset("nih14", FINDINGS, tuple(records), tuple(notes))


def _images(root: Path, images: str | None) -> tuple[dict[str, Path], Path]:
    """Name without suffix -> file, and the folder an image would be expected in."""
    if images is not None:
        folders = [Path(images)]
        if not folders[0].is_dir():
            raise BadSetting(
                f"option images={images} of source nih14 is not a folder. Give the folder the images are in."
            )
    else:
        below = subfolders(root)
        folders = [folder for folder in below if re.fullmatch(r"images(_\d+)?", folder.name, re.IGNORECASE)]
        folders = folders or [root]
    path_of: dict[str, Path] = {}
    for folder in folders:
        for path in images_under(folder):
            other = path_of.setdefault(path.stem, path)
            if other != path:
                raise BadData(
                    f"nih14: {path.stem} is in {other} and in {path}. Name the folder to use with ?images=FOLDER."
                )
    return path_of, folders[0]


def _labels(table: CsvFile, line: int, cell: str) -> set[str]:
    present = {_SPELLINGS.get(label.strip(), label.strip()) for label in cell.split("|")}
    if present == {"No Finding"}:
        return set()
    for label in present:
        if label not in FINDINGS:
            raise BadData(
                f"{table.path} line {line}, column Finding Labels: {cell!r} has {label!r}, which is none of "
                f"{', '.join(FINDINGS)}, and No Finding stands alone. Get the official table."
            )
    return present


def _attributes(table: CsvFile, row: tuple[str, ...]) -> dict[str, str]:
    """Age in years, sex, view, and what is told of the DICOM file; "impossible age" marks one that was dropped."""

    def cell(*names: str) -> str:
        at = next((at for at in map(table.find, names) if at is not None), None)
        return "" if at is None else row[at]

    attributes = {"sex": cell("Patient Gender", "Patient Sex"), "view": cell("View Position")}
    age = cell("Patient Age")
    unit = age[-1:].upper()
    number = age[:-1] if unit in ("Y", "M", "D") else age
    if number.isdigit():
        years = int(number) // {"M": 12, "D": 365}.get(unit, 1)
        if years <= _OLDEST_YEARS:
            attributes["age"] = str(years)
        else:
            attributes["impossible age"] = age
    # The headers OriginalImage[Width,Height] and OriginalImagePixelSpacing[x,y] are not quoted: two columns each.
    for name, first, second in (
        ("dicom_size_px", "OriginalImage[Width", "Height]"),
        ("dicom_spacing_mm", "OriginalImagePixelSpacing[x", "y]"),
    ):
        if cell(first) and cell(second):
            attributes[name] = f"{cell(first)} x {cell(second)}"
    return attributes


def _boxes(path: Path, notes: list[str]) -> dict[str, dict[str, tuple[XYXY, ...]]]:
    """image -> finding -> boxes of the 1024 x 1024 image."""
    if not path.is_file():
        notes.append(f"there is no {path.name}: no image has boxes")
        return {}
    table = read_csv(path)
    image_at, finding_at = table.column("Image Index"), table.column("Finding Label")
    # "Bbox [x,y,w,h]" is not quoted: its four columns are headed "Bbox [x", "y", "w" and "h]".
    x_at = next(
        (at for at, column in enumerate(table.header) if column.lower().replace(" ", "").startswith("bbox[x")), None
    )
    if x_at is None or x_at + 4 > len(table.header):
        raise BadData(
            f"{path} has no columns Bbox [x,y,w,h]; they are {', '.join(table.header)}. Get the official list."
        )
    boxes: dict[str, dict[str, tuple[XYXY, ...]]] = {}
    for line, row in table.rows:
        finding = _SPELLINGS.get(row[finding_at], row[finding_at])
        if finding not in FINDINGS:
            raise BadData(f"{path} line {line}, column Finding Label: {finding!r} is none of {', '.join(FINDINGS)}.")
        x, y, width, height = (table.number(line, "Bbox [x,y,w,h]", row[x_at + i]) for i in range(4))
        if not (width > 0 and height > 0):
            raise BadData(f"{path} line {line}: a box of {width:g} x {height:g} pixels. Get the official list.")
        of_image = boxes.setdefault(row[image_at], {})
        of_image[finding] = (*of_image.get(finding, ()), (x, y, x + width, y + height))
    return boxes


def _splits(root: Path, fold: str | None, notes: list[str]) -> dict[str, str]:
    """image -> train or test, as far as files say so."""
    folds_path = root / "folds.csv"
    lists = {split: root / name for split, name in LISTS.items()}
    if fold is not None:
        table = read_csv(folds_path)
        image_at, fold_at = table.column("image"), table.column("fold")
        fold_of = {row[image_at]: row[fold_at] for _, row in table.rows}
        known = sorted(set(fold_of.values()))
        if fold not in known:
            raise BadSetting(
                f"option fold={fold} of source nih14: {folds_path} has folds {', '.join(known)}. Use one of them."
            )
        notes.append(f"split: fold {fold} of {folds_path.name} is the test part, the others are for training")
        return {image: "test" if number == fold else "train" for image, number in fold_of.items()}
    if all(path.is_file() for path in lists.values()):
        notes.append(f"split: the official one, {LISTS['train']} and {LISTS['test']}")
        return {name: split for split, path in lists.items() for name in path.read_text(encoding="utf-8-sig").split()}
    if folds_path.is_file():
        notes.append(f"{folds_path.name} is there and not used; ?fold=0 makes its fold 0 the test part")
    return {}
