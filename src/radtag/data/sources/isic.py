"""ISIC 2018 (task 1) and ISIC 2017: ``isic:PATH``, PATH the folder with the unpacked archives of one or both.

Codella et al., "Skin Lesion Analysis Toward Melanoma Detection", ISBI 2018 (the challenge of 2017), and arXiv
1902.03368, 2019 (that of 2018). Every image shows one lesion, outlined in IMAGE_segmentation.png. In 2017 tables say
what it is: melanoma, seborrheic_keratosis, or neither = nevus. The images of 2018's task 1 have no diagnosis.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from radtag.data.csvfile import read_csv
from radtag.data.files import images_by_stem, images_under
from radtag.data.options import choice
from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.words import counted

OPTIONS = {
    "year": "2018 (default where it is there) or 2017: which challenge",
    "labels": "diagnosis (default in 2017, where its tables are there) or lesion, which every image shows",
}
DIAGNOSES = ("melanoma", "seborrheic_keratosis")
LESION = "lesion"
_SPLITS = {"train": "Training", "val": "Validation", "test": "Test"}


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens one year's training, validation and test part, as far as they are there; patients are unknown.

    Raises:
        BadData: no folder of the layout, a diagnosis that is none, or no table of them where they are asked for.
        BadSetting: a value an option does not have.
    """
    choice("isic", options, "year", ("2018", "2017"))
    choice("isic", options, "labels", ("diagnosis", "lesion"))
    root = Path(location)
    years = (options["year"],) if "year" in options else ("2018", "2017")
    year = next((year for year in years if any(_part(root, year, split)[0].is_dir() for split in _SPLITS)), None)
    if year is None:
        names = " or ".join(_part(root, year, "train")[0].name for year in years)
        raise BadData(f"{root} has no {names}. Give the folder that the archives were unpacked in.")
    parts = {split: _part(root, year, split) for split in _SPLITS if _part(root, year, split)[0].is_dir()}
    diagnosed = year == "2017" and all(table.is_file() for _, _, table in parts.values())
    if options.get("labels") == "diagnosis" and not diagnosed:
        gone = [str(table) for _, _, table in parts.values() if year == "2017" and not table.is_file()]
        why = f"there is no {gone[0]}" if gone else "the images of 2018 have none"
        raise BadData(f"isic: diagnoses are asked for, and {why}. Get it, or use ?labels=lesion or ?year=2017.")
    by_diagnosis = diagnosed and options.get("labels") != "lesion"
    findings = DIAGNOSES if by_diagnosis else (LESION,)
    only_train = list(parts) == ["train"]  # alone it does not say which images are for scoring: they are to be drawn
    records: list[Record] = []
    unoutlined = unlabelled = 0
    for split, (folder, outlines, table) in parts.items():
        masks = images_by_stem(outlines)
        labels_of = _labels(table) if by_diagnosis else {}
        details_of = _details(folder)
        for path in images_under(folder):
            if path.stem.endswith("_superpixels"):
                continue
            labels = labels_of.get(path.stem) if by_diagnosis else (1.0,)
            if labels is None:
                unlabelled += 1
                continue
            mask = masks.get(f"{path.stem}_segmentation") or masks.get(f"{path.stem}_Segmentation")
            unoutlined += mask is None
            of_image = {name: mask for name, label in zip(findings, labels, strict=True) if label == 1 and mask}
            name, details = path.relative_to(root).as_posix(), details_of.get(path.stem, {})
            part = "" if only_train else split
            records.append(Record(name, path, labels, split=part, masks=of_image, attributes=details))
    if not records:
        raise BadData(f"{root} has no image of {year} with a label. Unpack the archives of images there.")
    notes = [f"year {year}; patients are unknown, each image stands for itself"]
    if by_diagnosis:
        notes.append("outlines are of the whole lesion; those of nevi, which are no finding, are not used")
    else:
        notes.append("every image shows a lesion: this is for scoring")
    if only_train:
        notes.append("there is the training part alone, which is not taken as a split")
    if unlabelled:
        notes.append(counted(unlabelled, "image[s] without a diagnosis [is|are] left out"))
    if unoutlined:
        notes.append(counted(unoutlined, "image[s] [has|have] no outline"))
    return Dataset("isic", findings, tuple(records), tuple(notes))


def _part(root: Path, year: str, split: str) -> tuple[Path, Path, Path]:
    """Folder of images, folder of outlines and, in 2017, table of diagnoses, whether there or not."""
    name = _SPLITS[split]
    if year == "2018":
        begin = "ISIC2018_Task1"
        return root / f"{begin}-2_{name}_Input", root / f"{begin}_{name}_GroundTruth", root
    begin = f"ISIC-2017_{name}{'_v2' if split == 'test' else ''}"
    return root / f"{begin}_Data", root / f"{begin}_Part1_GroundTruth", root / f"{begin}_Part3_GroundTruth.csv"


def _labels(path: Path) -> dict[str, tuple[float, ...]]:
    """image -> a label for each diagnosis."""
    table = read_csv(path)
    image_at, columns = table.column("image_id"), {name: table.column(name) for name in DIAGNOSES}
    labels = {}
    for line, row in table.rows:
        cells = tuple(table.number(line, name, row[at]) for name, at in columns.items())
        if not set(cells) <= {0, 1}:
            raise BadData(f"{path} line {line}: {', '.join(map(str, cells))} are no labels. Get the official table.")
        labels[row[image_at]] = cells
    return labels


def _details(folder: Path) -> dict[str, dict[str, str]]:
    """image -> age in years (to five) and sex, as far as the year's table beside the images says so."""
    details = {}
    for path in sorted(folder.rglob("*_metadata.csv")):
        table = read_csv(path)
        image_at, columns = table.column("image_id"), {"age": table.find("age_approximate"), "sex": table.find("sex")}
        for _, row in table.rows:
            cells = {name: row[at] for name, at in columns.items() if at is not None}
            details[row[image_at]] = {name: "" if cell == "unknown" else cell for name, cell in cells.items()}
    return details
