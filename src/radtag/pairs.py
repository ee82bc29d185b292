"""The table of pairs: a row per image and finding, from which every number of an evaluation follows.

``pairs.csv`` has these columns. An empty cell is undefined or does not apply; a label that is empty is unknown.

- image, patient, split, finding
- label: 1, 0 or empty; score; threshold; positive: 1 if score >= threshold
- map_max, map_mean: of the map in original pixels, 0-1; peak_x, peak_y: its first highest point, original pixels
- marked: share of the image's pixels in the proposed mask
- located: 1 where the pair's true place is known and it is labelled 1; only these have the columns that follow
- pointing, pointing_network: 1 hit, 0 miss, in original pixels and at the network's input size
- iobb, iou_boxes: of the map's area above half its maximum with the union of the true boxes
- box_iou: per true box the best IoU with a proposed box, separated by ";"
- poi_matched, dice, iou, precision, poi: against the true mask; mask_share: the true mask's share of the image
- map_outside_lungs: share of the map's mass outside the data set's lung mask of the image, where it has one;
  area_outside_lungs: the same of a map spread evenly, which is the share of the image outside the lungs
- box_share: the share of the image in the union of the true boxes
- pointing_readers: 1 where a point that a reader set lies in the truth, 0 where none does; empty where nobody was asked

In an evaluation ``inside`` the lungs, marked and the columns against the true mask count the pixels in there alone.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radtag.errors import BadData

TEXT = ("image", "patient", "split", "finding")
NUMBERS = (
    "label",
    "score",
    "threshold",
    "positive",
    "map_max",
    "map_mean",
    "peak_x",
    "peak_y",
    "marked",
    "located",
    "pointing",
    "pointing_network",
    "iobb",
    "iou_boxes",
    "poi_matched",
    "dice",
    "iou",
    "precision",
    "poi",
    "mask_share",
    "map_outside_lungs",
    "area_outside_lungs",
    "box_share",
    "pointing_readers",
)
COLUMNS = (*TEXT, *NUMBERS[:-10], "box_iou", *NUMBERS[-10:])
LATER = ("map_outside_lungs", "area_outside_lungs", "box_share", "pointing_readers")
"""Columns that files of earlier versions lack, which reads as undefined."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class PairTable:
    """Pairs as columns.

    Args:
        text: per name of ``TEXT``, (pair,) strings.
        numbers: per name of ``NUMBERS``, (pair,) float64, NaN = empty.
        box_iou: per pair, the best IoU of each of its true boxes.
    """

    text: Mapping[str, NDArray[np.str_]]
    numbers: Mapping[str, Values]
    box_iou: tuple[tuple[float, ...], ...]

    def __len__(self) -> int:
        return len(self.box_iou)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.text[name] if name in self.text else self.numbers[name]

    @property
    def findings(self) -> tuple[str, ...]:
        """In the order of their first pair."""
        return tuple(dict.fromkeys(self.text["finding"].tolist()))

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> PairTable:
        """From rows, each a mapping of column to value; columns left out are empty."""
        text: dict[str, list[str]] = {name: [] for name in TEXT}
        numbers: dict[str, list[float]] = {name: [] for name in NUMBERS}
        boxes: list[tuple[float, ...]] = []
        for row in rows:
            for name in TEXT:
                text[name].append(row.get(name, ""))
            for name in NUMBERS:
                numbers[name].append(row.get(name, float("nan")))
            boxes.append(tuple(row.get("box_iou", ())))
        return cls(
            {name: np.array(values, dtype=np.str_) for name, values in text.items()},
            {name: np.array(values, dtype=np.float64) for name, values in numbers.items()},
            tuple(boxes),
        )

    def take(self, at: NDArray[Any]) -> PairTable:
        """The pairs at these indices (or where True), in this order."""
        indices = np.flatnonzero(at) if at.dtype == bool else at
        return PairTable(
            {name: values[indices] for name, values in self.text.items()},
            {name: values[indices] for name, values in self.numbers.items()},
            tuple(self.box_iou[i] for i in indices),
        )

    @classmethod
    def join(cls, tables: Sequence[PairTable]) -> PairTable:
        """One table under another."""
        return cls(
            {name: np.concatenate([table.text[name] for table in tables]) for name in TEXT},
            {name: np.concatenate([table.numbers[name] for table in tables]) for name in NUMBERS},
            tuple(ious for table in tables for ious in table.box_iou),
        )

    def write(self, path: Path) -> None:
        """As ``pairs.csv``; whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        columns: list[Iterable[str]] = []
        for name in COLUMNS:
            if name in self.text:
                columns.append(self.text[name].tolist())
            elif name == "box_iou":
                columns.append(";".join(map(_cell, ious)) for ious in self.box_iou)
            else:
                columns.append(map(_cell, self.numbers[name].tolist()))
        try:
            # A name that is not UTF-8 is written as the bytes it has on the disk.
            with beside.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(zip(*columns, strict=True))
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    @classmethod
    def read(cls, path: Path) -> PairTable:
        """What :meth:`write` wrote.

        Raises:
            BadData: no such file, a column is missing, or a cell is no number.
        """
        if not path.is_file():
            raise BadData(f"{path} does not exist. Give the folder that radtag evaluate wrote with --out.")
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (*(reader.fieldnames or ()), *LATER)]
            if missing:
                raise BadData(f"{path} has no column {missing[0]!r}. Write it again with radtag evaluate.")
            return cls.of(_rows(path, reader))


def _rows(path: Path, reader: Iterable[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    for line, row in enumerate(reader, start=2):
        try:
            numbers = {name: float(row[name]) if row.get(name) else float("nan") for name in NUMBERS}
            boxes = tuple(float(one) for one in row["box_iou"].split(";") if one)
        except (TypeError, ValueError, AttributeError) as error:
            raise BadData(f"{path}, line {line}: {error}. Write it again with radtag evaluate.") from error
        yield {**{name: row[name] for name in TEXT}, **numbers, "box_iou": boxes}


def _cell(value: float) -> str:
    """Nine digits bring a float32 back exactly."""
    return "" if value != value else format(value, ".9g")
