"""The numbers of an evaluation by group: sex, age, view, any column of the table, or the lesion's size.

    {"groups": {COLUMN: {"reference": NAME, "unknown": N, "cuts": ..., "parts": {GROUP: PART}, "gaps": {GROUP: GAP}}}}

PART is ``{"images", "patients", "findings", "micro", "macro"}`` with the metrics of that group alone, as in
:mod:`radtag.summary`. GAP is the group minus the reference, in the same form: an interval without 0 is a gap at the
95 % level. All groups share one set of draws of patients, so a patient of two groups (two views, two ages) is in both
or in neither.

Conventions
-----------
- The reference is the group with the most images (of equal ones the first in order); for size it is "large".
- Text makes a group for each value. Numbers of more than ``MOST_VALUES`` values make three groups of equal count, or
  the bands that are asked for: ``age:40,65`` is below 40, from 40 below 65, and from 65.
- ``size`` groups *lesions*: small, medium and large are the thirds of each finding's own, by their share of the image
  (the outline's, else that of its boxes), since a large nodule is smaller than a small effusion. ``size:0.01,0.05``
  cuts all findings at these shares instead. A group holds its positives and all negatives; what only speaks of
  negatives is left out, and so are positives whose place is not known.
- An image whose value is blank is in no group, and is counted as unknown.
- The pixel average precision is left out: its counts are kept for all images of a finding together.
- What the images were grouped by is kept in ``groups.csv`` (image, then a column each, as written in the table), from
  which folds are grouped when they are pooled: bands of equal count are then of all folds together.
- Many groups and metrics make some gaps by chance alone: one in twenty intervals leaves 0 out where there is none.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radtag.data.csvfile import write_csv
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting
from radtag.metrics import Resampling, bootstrap
from radtag.pairs import PairTable
from radtag.report.definitions import DEFINITIONS
from radtag.summary import as_json, replicates

Values = Mapping[str, Mapping[str, str]]
"""Column -> image -> its value as the table has it; blank = unknown."""

FILE = "groups.csv"
"""In an evaluation that is grouped by columns: their values for its images."""
MOST_VALUES = 8
"""Numbers of more different values than this are put into bands."""
MOST_GROUPS = 20
SIZES = ("small", "medium", "large")

_OF_IMAGES = [one.key for one in DEFINITIONS if one.key != "pixel_ap"]
_OF_LESIONS = [
    one.key
    for one in DEFINITIONS
    if one.key != "pixel_ap" and one.group != "healthy" and one.key not in ("specificity", "brier", "ece")
]


@dataclass(frozen=True)
class By:
    """What to group by.

    Args:
        column: of the table, or "size".
        cuts: ascending; where the bands of a number end; empty = as its values say.
    """

    column: str
    cuts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.column == "size" and len(self.cuts) not in (0, len(SIZES) - 1):
            listed = ",".join(f"{cut:g}" for cut in self.cuts)
            raise BadSetting(f"--by size:{listed}: {' '.join(SIZES)} part at two shares. Write size:0.01,0.05, say.")

    @property
    def metrics(self) -> Sequence[str]:
        """Keys of the numbers that its groups have."""
        return _OF_LESIONS if self.column == "size" else _OF_IMAGES

    @classmethod
    def parse(cls, text: str) -> By:
        """``age``, ``age:40,65`` or ``size``.

        Raises:
            BadSetting: cuts that are no ascending numbers, or for size not two.
        """
        column, colon, listed = text.partition(":")
        try:
            cuts = tuple(float(one) for one in listed.split(",")) if colon else ()
        except ValueError:
            raise BadSetting(f"--by {text}: {listed!r} are no numbers. Write COLUMN or COLUMN:40,65.") from None
        if list(cuts) != sorted(set(cuts)) or not column:
            raise BadSetting(f"--by {text}: the ends of bands ascend. Write COLUMN or COLUMN:40,65.")
        return cls(column, cuts)


def checked(by: Sequence[str], dataset: Dataset) -> list[By]:
    """What to group by, refused before anything is tagged.

    Raises:
        BadSetting: a column that the table does not have, or one of too many values.
    """
    asked = [By.parse(text) for text in by]
    for column, of_image in values_of(dataset, asked).items():
        if not any(of_image.values()):
            known = sorted({name for record in dataset.records for name, value in record.attributes.items() if value})
            raise BadSetting(
                f"--by {column}: {dataset.name} has no such column; it has {', '.join(known) or 'none'}. 'size' groups"
                " by the lesion's size."
            )
        for one in asked:
            if one.column == column:
                _of_images(one, of_image)
    return asked


def values_of(dataset: Dataset, by: Sequence[By]) -> dict[str, dict[str, str]]:
    """The columns that images are grouped by, with each image's value."""
    return {name: {record.image: _value(record, name) for record in dataset.records} for name in values_needed(by)}


def write_values(folder: Path, values: Values) -> None:
    """What images are grouped by as ``groups.csv``; where they are by nothing, an earlier one goes."""
    if not values:
        (folder / FILE).unlink(missing_ok=True)
        return
    images = next(iter(values.values()))
    rows = ([image, *(of_image[image] for of_image in values.values())] for image in images)
    write_csv(folder / FILE, ["image", *values], rows)


def read_values(folder: Path, by: Sequence[By] = ()) -> dict[str, dict[str, str]]:
    """What :func:`write_values` wrote; nothing where there is no such file and nothing that needs it.

    Raises:
        BadData: a damaged file, or one without a column to group by.
    """
    values = _read_values(folder)
    for column in values_needed(by):
        if column not in values:
            raise BadData(
                f"{folder / FILE} is missing or has no column {column}, which the evaluation is grouped by."
                f" Write it again with radtag evaluate --by {column} --overwrite."
            )
    return values


def values_needed(by: Sequence[By]) -> list[str]:
    """The columns whose values ``groups.csv`` keeps; "size" is of lesions, and none of them."""
    return list(dict.fromkeys(one.column for one in by if one.column != "size"))


def _read_values(folder: Path) -> dict[str, dict[str, str]]:
    if not (folder / FILE).is_file():
        return {}
    with (folder / FILE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if header[:1] != ["image"] or any(len(row) != len(header) for row in rows):
        raise BadData(f"{folder / FILE} is damaged. Write it again with radtag evaluate.")
    return {name: {row[0]: row[i] for row in rows} for i, name in enumerate(header) if i > 0}


def pooled(folders: Sequence[Path], asked: Sequence[Sequence[str]]) -> tuple[list[str], Values, list[str]]:
    """What all folds are grouped by, the values of all their images, and what to say of the columns that are lost.

    Args:
        folders: the evaluations, one a fold.
        asked: what each of them was grouped by.
    """
    each = [read_values(folder) for folder in folders]
    kept: list[str] = []
    values: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    for text in dict.fromkeys(text for of_fold in asked for text in of_fold):
        by = By.parse(text)
        there = by.column == "size" or all(by.column in fold for fold in each)
        if not (there and all(text in of_fold for of_fold in asked)):
            notes.append(f"Not grouped by {text}: not all folds are. Evaluate them again with --by {text}.")
            continue
        if by.column != "size":
            of_image = {image: value for fold in each for image, value in fold[by.column].items()}
            try:
                _of_images(by, of_image)
            except BadSetting as error:  # of all folds together, as more values than of any
                notes.append(f"Not grouped by {text}. {error}")
                continue
            values[by.column] = of_image
        kept.append(text)
    return kept, values, notes


def grouped(
    table: PairTable, values: Values, by: Sequence[By], *, bootstraps: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """``{"groups": {...}}`` of a table of pairs, or nothing where nothing is grouped by.

    Args:
        table: pairs, image by image, every image with every finding in one order.
        values: of the columns to group by, for every image (:func:`values_of`).
        by: what to group by.
        bootstraps: draws of patients for the intervals; 0 gives values without intervals.
        seed: of the draws.
    """
    if not by:
        return {}
    draws = Resampling(table["patient"].tolist(), replicates=max(bootstraps, 1), seed=seed)
    found: dict[str, Any] = {}
    for one in by:
        groups = divided(table, values, one)
        tables = {name: groups.part(table, name) for name in groups.rows}
        measured = {
            name: dict(
                replicates(part, None, bootstraps=max(bootstraps, 1), seed=seed, wanted=one.metrics, draws=draws)
            )
            for name, part in tables.items()
        }
        own, intervals = measured.get(groups.reference, {}), bootstraps > 0
        parts, gaps = {}, {}
        for name, of_part in measured.items():
            estimates = {key: value.estimates() for key, value in of_part.items()}
            parts[name] = {**groups.counts(tables[name]), **as_json(table.findings, estimates, intervals=intervals)}
            if name != groups.reference:
                apart = {k: bootstrap.difference(v, own[k]).estimates() for k, v in of_part.items() if k in own}
                gaps[name] = as_json(table.findings, apart, intervals=intervals)
        found[one.column] = {**groups.about(), "parts": parts, "gaps": gaps}
    return {"groups": found}


@dataclass(frozen=True)
class Groups:
    """How the pairs of a table are divided; made by :func:`divided`.

    Args:
        by: what they are grouped by.
        rows: group -> (pair,) whether it is of this group; groups of nothing are not there.
        reference: the group that the others are held against; "" where there is none.
        unknown: images without a value; for size, positives whose place is not known.
        cuts: for size, finding -> the shares of the image at which sizes part; else None.
    """

    by: By
    rows: Mapping[str, NDArray[np.bool_]]
    reference: str
    unknown: int
    cuts: Mapping[str, Sequence[float]] | None

    def part(self, table: PairTable, name: str) -> PairTable:
        """One group of the table that was divided, or of another with the same pairs in the same order."""
        at = self.rows[name]
        return _only_lesions(table, at) if self.by.column == "size" else table.take(at)

    def counts(self, part: PairTable) -> dict[str, int]:
        """``{"images", "patients"}`` of a group (:meth:`part`); of lesions, those that have one."""
        at = part["located"] == 1 if self.by.column == "size" else np.ones(len(part), dtype=bool)
        return {"images": len(set(part["image"][at].tolist())), "patients": len(set(part["patient"][at].tolist()))}

    def about(self) -> dict[str, Any]:
        """What to know beside the numbers, for JSON."""
        return {"reference": self.reference, "unknown": self.unknown, "cuts": self.cuts}


def divided(table: PairTable, values: Values, by: By) -> Groups:
    """The groups of a table.

    Args:
        table: pairs, image by image, every image with every finding in one order.
        values: of the columns to group by, for every image (:func:`values_of`).
        by: what to group by.

    Raises:
        BadSetting: a column of too many values, or bands of what is no number.
    """
    if by.column == "size":
        cuts, sizes = _sizes(table, by.cuts)
        rows = {name: sizes == i for i, name in enumerate(SIZES) if (sizes == i).any()}
        unknown = int(np.count_nonzero((table["label"] == 1) & (sizes < 0)))
        return Groups(by, rows, "large" if "large" in rows else next(iter(rows), ""), unknown, cuts)
    names, of_image = _of_images(by, values[by.column])
    group = np.array([of_image.get(name, -1) for name in table["image"].tolist()])
    rows = {name: group == i for i, name in enumerate(names) if (group == i).any()}
    unknown = int(np.count_nonzero(group < 0)) // max(1, len(table.findings))
    return Groups(by, rows, max(rows, key=lambda name: int(rows[name].sum()), default=""), unknown, None)


# ---- groups of images ----------------------------------------------------------------------------------------------


def _of_images(by: By, values: Mapping[str, str]) -> tuple[list[str], dict[str, int]]:
    """The groups' names, and image -> the number of its group; blank values have none."""
    known = {image: value for image, value in values.items() if value}
    numbers = {image: _number(value) for image, value in known.items()}
    as_numbers = not any(np.isnan(number) for number in numbers.values())
    if by.cuts and not as_numbers:
        wrong = next(value for image, value in known.items() if np.isnan(numbers[image]))
        raise BadSetting(f"--by {by.column}: {wrong!r} is no number, so that there are no bands. Leave them out.")
    if by.cuts or (as_numbers and len(set(numbers.values())) > MOST_VALUES):
        cuts = by.cuts or tuple(np.unique(np.quantile(list(numbers.values()), [1 / 3, 2 / 3])).tolist())
        at = np.searchsorted(cuts, list(numbers.values()), side="right").tolist()
        return _band_names(cuts), dict(zip(numbers, at, strict=True))
    names = sorted(set(known.values()), key=lambda text: (_rank(text), text))
    if len(names) > MOST_GROUPS:
        raise BadSetting(
            f"--by {by.column}: it has {len(names)} different values, such as {names[0]!r}."
            f" Group by a column of at most {MOST_GROUPS}."
        )
    return names, {image: names.index(value) for image, value in known.items()}


def _rank(text: str) -> float:
    """For sorting: a number by its value, other text behind all of them."""
    number = _number(text)
    return float("inf") if np.isnan(number) else number


def _value(record: Record, column: str) -> str:
    if column in ("split", "source"):
        return str(getattr(record, column))
    by_name: Mapping[str, str] = {name.lower(): value for name, value in record.attributes.items()}
    return by_name.get(column.lower(), "").strip()


def _number(text: str) -> float:
    """A number, or an age as DICOM writes it (058Y); NaN if it is none."""
    years = re.fullmatch(r"(\d+)Y", text)
    try:
        return float(years[1] if years else text)
    except ValueError:
        return float("nan")


def _band_names(cuts: Sequence[float]) -> list[str]:
    edges = [f"{cut:g}" for cut in cuts]
    between = [f"{low} to below {high}" for low, high in pairwise(edges)]
    return [f"below {edges[0]}", *between, f"from {edges[-1]}"]


# ---- groups of lesions ---------------------------------------------------------------------------------------------


def _sizes(table: PairTable, cuts: Sequence[float]) -> tuple[dict[str, list[float]], NDArray[np.int64]]:
    """The shares of the image at which sizes part, by finding, and each pair's size (pair,), -1 = of no group."""
    share = np.where(np.isnan(table["mask_share"]), table["box_share"], table["mask_share"])
    located = (table["located"] == 1) & ~np.isnan(share)
    size = np.full(len(table), -1, dtype=np.int64)
    used: dict[str, list[float]] = {}
    for finding in table.findings:
        at = located & (table["finding"] == finding)
        if not at.any():
            continue
        ends = np.asarray(cuts) if cuts else np.quantile(share[at], [1 / 3, 2 / 3])
        used[finding] = ends.tolist()
        # At the end of a third belongs to the smaller one, at a given end to the larger one, as for any band.
        size[at] = np.searchsorted(ends, share[at], side="right" if cuts else "left")
    return used, size


def _only_lesions(table: PairTable, of_group: NDArray[np.bool_]) -> PairTable:
    """The table with these positives and all negatives; other positives become of unknown label."""
    out = (table["label"] == 1) & ~of_group
    numbers = dict(table.numbers)
    for name in ("label", "positive"):
        numbers[name] = np.where(out, np.nan, numbers[name])
    numbers["located"] = np.where(out, 0.0, numbers["located"])
    ious = tuple(() if gone else own for own, gone in zip(table.box_iou, out.tolist(), strict=True))
    return PairTable(table.text, numbers, ious, table.detections)
