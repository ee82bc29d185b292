"""CheXpert, with CheXlocalize's outlines and points: ``chexpert:PATH``, PATH the folder of train.csv and valid.csv.

Irvin et al., "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison", AAAI 2019.

CheXlocalize brings val_labels.csv and test_labels.csv in a folder CheXpert, and what :mod:`radtag.data.chexlocalize`
reads in a folder CheXlocalize beside it. Labels of training are from reports: 1, 0, blank = not said, -1 = uncertain.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from radtag.data import chexlocalize
from radtag.data.csvfile import read_csv
from radtag.data.notes import told
from radtag.data.options import choice
from radtag.data.sources.csv import UNCERTAIN
from radtag.data.table import Dataset, Record
from radtag.errors import BadData

OPTIONS = {
    "uncertain": "what a label of -1 becomes: unknown (default), positive or negative",
    "blank": "what a finding that a report does not mention becomes: unknown (default) or negative",
    "view": "all (default) or frontal: which images",
}
_NAMES = (
    "Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,"
    "Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
FINDINGS = tuple(_NAMES.split(","))
DETAILS = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
TABLES = {"train.csv": "train", "valid.csv": "val", "val_labels.csv": "val", "test_labels.csv": "test"}
_FOLDERS = {"train": "train", "valid": "val", "val": "valid", "test": "test"}  # and what else it is called
_BY_REPORT = {"Support Devices"}  # "No Finding" says that there is no disease; a tube may be there all the same


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens those of the three parts whose tables are there, each as its split.

    Raises:
        BadData: no table, a cell that is no label, a path that is none of the set's, or outlines that are no masks.
        BadSetting: a value an option does not have.
    """
    uncertain = choice("chexpert", options, "uncertain", tuple(UNCERTAIN))
    blank = choice("chexpert", options, "blank", ("unknown", "negative"))
    only_frontal = choice("chexpert", options, "view", ("all", "frontal")) == "frontal"
    given = Path(location)
    homes = [home for home in (given, given / "CheXpert") if any((home / name).is_file() for name in TABLES)]
    if not homes:
        raise BadData(f"{given} has no {', '.join(TABLES)}. Give the folder of one of them.")
    root, counts = homes[0], Counter[str]()
    places, notes = chexlocalize.read(root / "CheXlocalize", root.parent / "CheXlocalize", root)
    there = {name: name if (root / name).is_dir() else other for name, other in _FOLDERS.items()}
    path_of = {split: root / name for name, split in reversed(TABLES.items()) if (root / name).is_file()}
    records: list[Record] = []
    for split in sorted(path_of, key=("train", "val", "test").index):
        table = read_csv(path_of[split])
        for line, row in table.named("Path", "No Finding", *FINDINGS, optional=DETAILS):
            parts = PurePosixPath(row["Path"]).parts
            at = next((i for i, part in enumerate(parts) if part in _FOLDERS), -1)
            if at < 0 or len(parts) < at + 3:
                raise BadData(f"{table.path} line {line}, column Path: {row['Path']!r} is no path of CheXpert.")
            lateral = row["Frontal/Lateral"] == "Lateral" or "lateral" in parts[-1]
            if lateral and only_frontal:
                counts["lateral"] += 1
                continue
            healthy = table.label(line, "No Finding", row["No Finding"], (1, 0, -1)) == 1
            labels = {}
            for finding in FINDINGS:
                value = table.label(line, finding, row[finding], (1, 0, -1))
                counts["uncertain"] += value == -1
                unsaid = 0.0 if healthy and finding not in _BY_REPORT else UNCERTAIN[blank]
                labels[finding] = UNCERTAIN[uncertain] if value == -1 else unsaid if math.isnan(value) else value
            place = places.get("_".join(parts[at + 1 :]).rsplit(".", 1)[0], chexlocalize.NOWHERE)
            masks = {finding: mask for finding, mask in place.masks.items() if labels.get(finding) == 1}
            counts["unlabelled"] += len(place.masks) - len(masks)
            records.append(
                Record(
                    image="/".join(parts[at:]),
                    path=root.joinpath(there[parts[at]], *parts[at + 1 :]),
                    labels=tuple(labels.values()),
                    patient=parts[at + 1],
                    split=split,
                    box_frame_rc=place.frame_rc,
                    masks=masks,
                    attributes={"sex": row["Sex"], "age": row["Age"], "view": "lateral" if lateral else row["AP/PA"]},
                    readers_xy=place.readers_xy,
                )
            )
    texts = {
        "uncertain": f"label[s] of -1 [is|are] taken as {uncertain}",
        "lateral": "lateral image[s] [is|are] left out",
        "unlabelled": "outline[s] of findings not labelled positive [is|are] left out",
    }
    notes = [f"findings that a report does not mention are taken as {blank}", *told(counts, texts), *notes]
    return Dataset("chexpert", FINDINGS, tuple(records), tuple(notes))
