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
from radtag.data.notes import told
from radtag.data.options import choice
from radtag.data.table import Dataset, Record
from radtag.errors import BadData

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
    counts = {"unlabelled": 0, "unoutlined": 0}
    for split, (folder, outlines, table) in parts.items():
        masks = images_by_stem(outlines)
        labels_of = _labels(table) if by_diagnosis else {}
        details_of = _details(folder)
        for path in (one for one in images_under(folder) if not one.stem.endswith("_superpixels")):
            labels = labels_of.get(path.stem) if by_diagnosis else (1.0,)
            if labels is None:
                counts["unlabelled"] += 1
                continue
            mask = masks.get(f"{path.stem}_segmentation") or masks.get(f"{path.stem}_Segmentation")
            counts["unoutlined"] += mask is None
            of_image = {name: mask for name, label in zip(findings, labels, strict=True) if label == 1 and mask}
            name, details = path.relative_to(root).as_posix(), details_of.get(path.stem, {})
            part = "" if only_train else split
            records.append(Record(name, path, labels, split=part, masks=of_image, attributes=details))
    if not records:
        raise BadData(f"{root} has no image of {year} with a label. Unpack the archives of images there.")
    texts = {
        "unlabelled": "image[s] without a diagnosis [is|are] left out",
        "unoutlined": "image[s] [has|have] no outline",
    }
    nevi = "outlines are of the whole lesion; those of nevi, which are no finding, are not used"
    notes = [
        f"year {year}; patients are unknown, each image stands for itself",
        nevi if by_diagnosis else "every image shows a lesion: this is for scoring",
        *(["there is the training part alone, which is not taken as a split"] if only_train else []),
        *told(counts, texts),
    ]
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
    rows = table.named("image_id", *DIAGNOSES)
    return {row["image_id"]: tuple(table.label(line, name, row[name]) for name in DIAGNOSES) for line, row in rows}


def _details(folder: Path) -> dict[str, dict[str, str]]:
    """image -> age in years (to five) and sex, as far as the year's table beside the images says so."""
    tables = map(read_csv, sorted(folder.rglob("*_metadata.csv")))
    rows = (row for table in tables for _, row in table.named("image_id", optional=("age_approximate", "sex")))
    known = ({name: "" if cell == "unknown" else cell for name, cell in row.items()} for row in rows)
    return {row["image_id"]: {"age": row["age_approximate"], "sex": row["sex"]} for row in known}
