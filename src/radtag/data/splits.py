"""Which image trains, which chooses, which is scored: drawn by patient, read from a file, written down.

A drawn split follows Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data" (ECML 2011), with
patients in place of examples: the rarest finding is dealt out first, each patient to the split that still lacks it
most. Images of unknown patients stand for themselves, except that identical files stay together.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radtag.data.csvfile import read_csv
from radtag.data.files import identical_files
from radtag.data.table import SPLITS, Dataset, told_apart
from radtag.errors import BadData

SHARES: Mapping[str, float] = {"train": 0.65, "val": 0.15, "test": 0.20}
VAL_SHARE = 0.15  # of the training part, where a set comes with its test part only

_SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_name(text: str) -> str | None:
    """ "Train", " validation " ... as "train", "val" or "test"; None if it names no split."""
    return _SPELLINGS.get(text.strip().lower())


def draw(dataset: Dataset, shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Deals the patients of a data set into splits of about the given shares of images, balanced over findings.

    Args:
        dataset: the images to deal; their present splits are ignored.
        shares: split -> share of the images; they are scaled to sum to 1.
        seed: the order in which equals are dealt. The same images, labels and seed give the same splits.

    Returns:
        image name -> split, for every image. No patient is in two splits.
    """
    names = list(shares)
    share = np.array([shares[name] for name in names], dtype=np.float64)
    if (share < 0).any() or share.sum() <= 0:
        raise ValueError(f"shares are not negative and not all 0, got {dict(shares)}")
    share /= share.sum()
    group_of = _groups(dataset)
    groups = int(group_of.max()) + 1 if len(group_of) else 0
    images = np.bincount(group_of, minlength=groups).astype(np.float64)
    columns = _columns(dataset.labels())  # (image, column)
    counts = np.zeros((groups, columns.shape[1]))
    np.add.at(counts, group_of, columns)

    lacking = share[:, None] * counts.sum(axis=0)  # (split, column): what each split should still get
    lacking_images = share * images.sum()
    split_of = np.full(groups, -1)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(groups)
    open_columns = [column for column in range(counts.shape[1]) if counts[:, column].any()]
    while open_columns:
        waiting = split_of < 0
        left = {column: counts[waiting, column].sum() for column in open_columns}
        open_columns = [column for column in open_columns if left[column] > 0]
        if not open_columns:
            break
        rarest = min(open_columns, key=lambda column: (left[column], column))
        # In random order: large patients first would balance better, and would all go to the largest split.
        for group in [group for group in shuffled if split_of[group] < 0 and counts[group, rarest] > 0]:
            _deal(group, lacking[:, rarest], lacking, lacking_images, counts, images, split_of)
    for group in [group for group in shuffled if split_of[group] < 0]:
        _deal(group, lacking_images, lacking, lacking_images, counts, images, split_of)
    return {record.image: names[split_of[group]] for record, group in zip(dataset.records, group_of, strict=True)}


def _deal(
    group: int,
    wish: NDArray[np.float64],
    lacking: NDArray[np.float64],
    lacking_images: NDArray[np.float64],
    counts: NDArray[np.float64],
    images: NDArray[np.float64],
    split_of: NDArray[np.int_],
) -> None:
    """Gives one group to the split that wishes for it most (then: that lacks images most), and books it."""
    best = np.flatnonzero(wish >= wish.max() - 1e-9)
    chosen = best[np.argmax(lacking_images[best])]
    split_of[group] = chosen
    lacking[chosen] -= counts[group]
    lacking_images[chosen] -= images[group]


def _columns(labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """What to balance, (image, column): each finding's positives, its negatives if some are unknown, all-negatives."""
    positive = labels == 1
    columns = [*positive.T]
    columns += [labels[:, i] == 0 for i in range(labels.shape[1]) if np.isnan(labels[:, i]).any()]
    columns.append((labels == 0).all(axis=1))
    return np.array(columns, dtype=np.float64).T.reshape(len(labels), -1)


def _groups(dataset: Dataset) -> NDArray[np.int_]:
    """Per image, the number of its group: its patient, or the file's content where the patient is unknown."""
    alone = [record.path for record in dataset.records if not record.patient]
    same = identical_files(alone)
    numbers: dict[object, int] = {}
    keys: list[object] = [
        record.patient if record.patient else ("file", same.get(record.path, record.image))
        for record in dataset.records
    ]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int_)


def assign(dataset: Dataset, seed: int) -> Dataset:
    """Completes the splits a source came with.

    No image has a split: all are drawn, 65 % train, 15 % val, 20 % test. There is a training part and no validation
    part: 15 % of the training images become the validation part. Otherwise nothing changes. Drawing is by patient.

    Returns:
        The same images, with a note that says what was drawn, how and with which seed.
    """
    present = {record.split for record in dataset.records}
    if present <= {""}:
        drawn = draw(dataset, SHARES, seed)
        shares = ", ".join(f"{name} {share:.0%}" for name, share in SHARES.items())
        return dataset.with_splits(drawn, f"split: drawn by patient, balanced over findings, seed {seed} ({shares})")
    if "train" in present and "val" not in present:
        drawn = {record.image: record.split for record in dataset.records}
        drawn.update(draw(dataset.only("train"), {"train": 1 - VAL_SHARE, "val": VAL_SHARE}, seed))
        note = f"split: no validation part, so {VAL_SHARE:.0%} of the training part is drawn by patient, seed {seed}"
        return dataset.with_splits(drawn, note)
    return dataset


def from_file(dataset: Dataset, path: Path) -> Dataset:
    """The splits of a CSV with the columns image and split; images it does not name are in no split.

    Raises:
        BadData: a missing column, an unknown split, an image named twice, or no image of the data set named at all.
    """
    return from_file_for([dataset], path)[0]


def from_file_for(datasets: Sequence[Dataset], path: Path) -> list[Dataset]:
    """The splits of one file for several data sets that are used together.

    An image is named as its data set does, or, where two have one of that name, with the set's name before it:
    ``east:a.png``. A data set that the file names no image of is returned as it is.

    Args:
        datasets: one or several.
        path: a CSV with the columns image and split.

    Raises:
        BadData: a missing column, an unknown split, an image named twice, a name that two data sets have, or no image
            of any of them named.
    """
    table = read_csv(path)
    image_of = [_names(dataset, name) for dataset, name in zip(datasets, _set_names(datasets), strict=True)]
    split_of: list[dict[str, str]] = [{} for _ in datasets]
    seen: set[str] = set()
    strangers: list[str] = []
    for line, row in table.named("image", "split"):
        name = row["image"]
        if row["split"] == "":
            continue
        split = split_name(row["split"])
        if split is None:
            raise BadData(f"{path} line {line}, column split: {row['split']!r} is no split. Use train, val or test.")
        owners = [i for i, names in enumerate(image_of) if name in names]
        if len(owners) > 1:
            whose = _set_names(datasets)
            both = " and ".join(whose[i] for i in owners)
            raise BadData(f"{path} line {line}: {name!r} is in {both}. Write {whose[owners[0]]}:{name}, say.")
        if name in seen or (owners and image_of[owners[0]][name] in split_of[owners[0]]):
            raise BadData(f"{path} line {line}: image {name!r} is listed twice. Keep one row for each image.")
        seen.add(name)
        if owners:
            split_of[owners[0]][image_of[owners[0]][name]] = split
        else:
            strangers.append(name)
    if not any(split_of):
        own = min((record.image for dataset in datasets for record in dataset.records), default="(none)")
        listed = " or ".join(dataset.name for dataset in datasets)
        raise BadData(
            f"{path} names no image of {listed}: it has names like {min(strangers, default='(none)')!r}, the data set"
            f" like {own!r}. Use the data set's names in column image."
        )
    where = "data set" if len(datasets) == 1 else "data sets"
    notes = [_named(path.name, len(found), len(data)) for data, found in zip(datasets, split_of, strict=True)]
    if strangers:
        notes[next(i for i, found in enumerate(split_of) if found)] += (
            f"; {len(strangers)} names in it are not in the {where}"
        )
    return [
        replace(data.with_splits(found, note), splits_from=path.name) if found else data
        for data, found, note in zip(datasets, split_of, notes, strict=True)
    ]


def _set_names(datasets: Sequence[Dataset]) -> list[str]:
    return told_apart([dataset.name for dataset in datasets])


def _names(dataset: Dataset, set_name: str) -> dict[str, str]:
    """What an image may be called -> its name."""
    plain = {record.image: record.image for record in dataset.records}
    return {f"{set_name}:{image}": image for image in plain} | plain


def _named(file: str, named: int, images: int) -> str:
    rest = f"; the other {images - named} are in no split" if named < images else ""
    return f"split: {file} names {named} of {images} images{rest}"


def write(dataset: Dataset, path: Path) -> None:
    """Writes the splits as a CSV that ``--splits`` reads: image, split; images in no split are left out."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "split"))
        writer.writerows((record.image, record.split) for record in dataset.records if record.split in SPLITS)
    os.replace(temporary, path)
