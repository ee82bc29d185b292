"""CheXpert, with CheXlocalize's outlines: ``chexpert:PATH``, PATH the folder of train.csv and valid.csv.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison", AAAI 2019;
Saporta et al., "Benchmarking saliency methods for chest X-ray interpretation", Nature Machine Intelligence 4, 2022.

CheXlocalize brings val_labels.csv and test_labels.csv in a folder CheXpert, and beside it in a folder CheXlocalize
gt_segmentations_val.json and gt_segmentations_test.json: image -> finding -> COCO's run lengths, empty where there is
nothing. Training labels were mined from reports: 1, 0, blank = not mentioned, -1 = uncertain.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from radtag.data.csvfile import CsvFile, read_csv
from radtag.data.files import read_json
from radtag.data.options import choice
from radtag.data.outlines import Runs
from radtag.data.sources.csv import UNCERTAIN
from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.words import counted

OPTIONS = {
    "uncertain": "what a label of -1 becomes: unknown (default), positive or negative",
    "blank": "what a finding that a report does not mention becomes: unknown (default) or negative",
    "view": "all (default) or frontal: which images",
}
FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
TABLES = {"train": ("train.csv",), "val": ("valid.csv", "val_labels.csv"), "test": ("test_labels.csv",)}
_FOLDERS = ("train", "valid", "val", "test")
_BY_REPORT = {"Support Devices"}  # "No Finding" says that there is no disease; a tube may be there all the same
_SPELLINGS = {"Airspace Opacity": "Lung Opacity"}


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens those of the three parts whose tables are there, each as its split.

    Raises:
        BadData: no table, a cell that is no label, a path that is none of the set's, or outlines that are no masks.
        BadSetting: a value an option does not have.
    """
    uncertain = UNCERTAIN[choice("chexpert", options, "uncertain", tuple(UNCERTAIN))]
    blank = {"unknown": math.nan, "negative": 0.0}[choice("chexpert", options, "blank", ("unknown", "negative"))]
    only_frontal = choice("chexpert", options, "view", ("all", "frontal")) == "frontal"
    given = Path(location)
    root = next((home for home in (given, given / "CheXpert") if _tables(home)), None)
    if root is None:
        raise BadData(f"{given} has no train.csv, valid.csv, val_labels.csv or test_labels.csv. Give their folder.")
    outlines = _outlines(root)
    counts: Counter[str] = Counter()
    records: list[Record] = []
    for split, path in _tables(root).items():
        table = read_csv(path)
        columns = {finding: table.column(finding) for finding in FINDINGS}
        path_at, none_at = table.column("Path"), table.column("No Finding")
        details = {name: table.find(name) for name in ("Sex", "Age", "Frontal/Lateral", "AP/PA")}
        for line, row in table.rows:
            parts = PurePosixPath(row[path_at]).parts
            at = next((i for i, part in enumerate(parts) if part in _FOLDERS), -1)
            if at < 0 or len(parts) < at + 3:
                raise BadData(f"{path} line {line}, column Path: {row[path_at]!r} is no path of CheXpert.")
            sex, age, side, view = ("" if i is None else row[i] for i in details.values())
            lateral = side == "Lateral" or "lateral" in parts[-1]
            if lateral and only_frontal:
                counts["lateral"] += 1
                continue
            healthy = _value(table, line, "No Finding", row[none_at]) == 1
            labels = []
            for finding, column in columns.items():
                value = _value(table, line, finding, row[column])
                counts["uncertain"] += value == -1
                unsaid = 0.0 if healthy and finding not in _BY_REPORT else blank
                labels.append(uncertain if value == -1 else unsaid if math.isnan(value) else value)
            of_image = outlines.get("_".join(parts[at + 1 :]).rsplit(".", 1)[0], {})
            present = {finding for finding, label in zip(FINDINGS, labels, strict=True) if label == 1}
            counts["unlabelled"] += len(of_image.keys() - present)
            folder = root / parts[at]
            if parts[at] in ("val", "valid") and not folder.is_dir():  # the two have different names for it
                folder = root / {"val": "valid", "valid": "val"}[parts[at]]
            records.append(
                Record(
                    image="/".join(parts[at:]),
                    path=folder.joinpath(*parts[at + 1 :]),
                    labels=tuple(labels),
                    patient=parts[at + 1],
                    split=split,
                    masks={finding: runs for finding, runs in of_image.items() if finding in present},
                    attributes={"sex": sex, "age": age, "view": "lateral" if lateral else view},
                )
            )
    return Dataset("chexpert", FINDINGS, tuple(records), tuple(_notes(counts, options, bool(outlines))))


def _tables(home: Path) -> dict[str, Path]:
    """split -> its table, of those that are there."""
    return {
        split: next(home / name for name in names if (home / name).is_file())
        for split, names in TABLES.items()
        if any((home / name).is_file() for name in names)
    }


def _value(table: CsvFile, line: int, column: str, cell: str) -> float:
    value = table.number(line, column, cell) if cell else math.nan
    if value not in (1, 0, -1) and cell:
        raise BadData(f"{table.path} line {line}, column {column}: {cell!r} is no label. Get the official table.")
    return value


def _outlines(root: Path) -> dict[str, dict[str, Runs]]:
    """patient_study_view -> finding -> mask, of those with a pixel in them."""
    outlines: dict[str, dict[str, Runs]] = {}
    for home in (root / "CheXlocalize", root.parent / "CheXlocalize", root):
        for path in sorted(home.glob("gt_segmentations_*.json")):
            for image, masks in read_json(path).items():
                try:
                    runs = {_SPELLINGS.get(name, name): Runs.from_coco(mask) for name, mask in masks.items()}
                except (BadData, KeyError, TypeError, ValueError) as error:
                    raise BadData(f"{path}, {image}: {error}. Get the official file.") from None
                outlines[image] = {name: mask for name, mask in runs.items() if mask.area_px}
    return outlines


def _notes(counts: Counter[str], options: Mapping[str, str], outlined: bool) -> list[str]:
    notes = [f"findings that a report does not mention are taken as {options.get('blank', 'unknown')}"]
    if counts["uncertain"]:
        taken = options.get("uncertain", "unknown")
        notes.append(counted(counts["uncertain"], f"label[s] of -1 [is|are] taken as {taken}"))
    if counts["lateral"]:
        notes.append(counted(counts["lateral"], "lateral image[s] [is|are] left out"))
    if counts["unlabelled"]:
        notes.append(counted(counts["unlabelled"], "outline[s] of findings not labelled positive [is|are] left out"))
    if not outlined:
        notes.append("CheXlocalize's gt_segmentations_*.json are not there: there are no outlines")
    return notes
