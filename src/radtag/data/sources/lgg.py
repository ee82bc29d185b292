"""LGG MRI Segmentation, as it is on Kaggle: ``lgg:PATH``, PATH the folder kaggle_3m or the one it is in.

Buda et al., "Association of genomic subtypes of lower-grade gliomas with shape features automatically extracted by a
deep learning algorithm", Computers in Biology and Medicine 109, 2019. A folder for each patient,
TCGA_INSTITUTION_PATIENT_DATE, with slices ``FOLDER_1.tif`` and ``FOLDER_1_mask.tif``. A slice's colours are three
sequences: before contrast, FLAIR, after contrast. Its label is whether the mask has a pixel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image as PillowImage

from radtag.data.csvfile import read_csv
from radtag.data.files import images_under, subfolders
from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.words import counted

OPTIONS: dict[str, str] = {}
FINDINGS = ("FLAIR abnormality",)
_INSIDE = "kaggle_3m"
_SLICE = re.compile(r"(TCGA_[^_]+_[^_]+)_\d+_(\d+)(_mask)?")


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens the set. It comes without splits; slices of one patient stay together. Every mask is opened.

    Raises:
        BadData: no folder of a patient with slices.
    """
    root = Path(location)
    if (root / _INSIDE).is_dir():  # the archive has all a second time, in lgg-mri-segmentation
        root = root / _INSIDE
    ages = _ages(root / "data.csv")
    records: list[Record] = []
    orphans: list[str] = []
    unlabelled = other = 0
    for folder in subfolders(root) if root.is_dir() else []:
        slices: dict[tuple[str, int], Path] = {}
        masks: dict[tuple[str, int], Path] = {}
        for path in images_under(folder):
            told = _SLICE.fullmatch(path.stem)
            if told is None:
                other += 1
                continue
            (masks if told[3] else slices)[told[1], int(told[2])] = path
        for (patient, number), path in sorted(slices.items()):
            mask = masks.pop((patient, number), None)
            label = math.nan if mask is None else _label(mask)
            unlabelled += math.isnan(label)
            outlines = {FINDINGS[0]: mask} if mask is not None and label != 0 else {}
            details = {"age": ages.get(patient, ""), "institution": patient.split("_")[1]}
            name = path.relative_to(root).as_posix()
            records.append(Record(name, path, (label,), patient=patient, masks=outlines, attributes=details))
        orphans += [path.name for path in masks.values()]
    if not records:
        raise BadData(f"{root} has no folder with slices such as TCGA_CS_4941_19960909_1.tif. Give kaggle_3m.")
    notes = ["an image is one slice; its label is whether its mask has a pixel"]
    if unlabelled:
        notes.append(counted(unlabelled, "slice[s] [has|have] no mask that can be read: unknown"))
    if orphans:
        notes.append(f"{counted(len(orphans), 'mask[s] of no slice [is|are] left out')}, {min(orphans)} first")
    if other:
        notes.append(counted(other, "image[s] of another name [is|are] left out"))
    return Dataset("lgg", FINDINGS, tuple(records), tuple(notes))


def _label(mask: Path) -> float:
    """1 or 0; unknown where the mask cannot be read."""
    try:
        with PillowImage.open(mask) as picture:
            return float(picture.convert("L").getbbox() is not None)
    except (OSError, ValueError, SyntaxError):
        return math.nan


def _ages(path: Path) -> dict[str, str]:
    """patient -> age in years, as far as the table says so."""
    if not path.is_file():
        return {}
    table = read_csv(path)
    patient_at, age_at = table.column("Patient"), table.column("age_at_initial_pathologic")
    return {row[patient_at]: row[age_at] for _, row in table.rows}
