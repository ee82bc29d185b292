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
- pointing_game: as pointing, with a margin of 15 pixels; hit_rate: 1 where the map's first maximum lies on the outline
- iou_otsu: of CheXlocalize's Otsu mask with the true mask, empty where there is none; ncc: of the map with the outline
- boundary_px, hd95_px: mean and 95th percentile of the distances between the boundaries of mask and true mask;
  boundary_mm, hd95_mm: the same where the image's file tells the size of a pixel
- proposed: how many boxes are proposed, in pairs labelled 0 and in those whose place is known

Of these boxes, at most the ``MOST_DETECTIONS`` highest, separated by ";" and highest first:

- detection_score: the map's maximum within
- detection_point: 1 where that point lies in a true box (the first of several in one; the others are -1), else 0
- detection_0.3, detection_0.5: 1 where the box takes a true one, by at least this IoU, else 0

In an evaluation ``inside`` the lungs, marked and the columns against the true mask count the pixels in there alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radtag.data.csvfile import write_csv
from radtag.errors import BadData
from radtag.metrics import froc

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
    "pointing_game",
    "hit_rate",
    "iou_otsu",
    "ncc",
    "boundary_px",
    "hd95_px",
    "boundary_mm",
    "hd95_mm",
    "proposed",
)
DETECTIONS = ("detection_score", "detection_point", "detection_0.3", "detection_0.5")
"""What is kept of a detection: its score, and whether it is a hit by each rule."""
MOST_DETECTIONS = 100
"""Of a pair, as in COCO."""
DETECTION_IOUS = (0.3, 0.5)
_BOXES_AT = NUMBERS.index("poi_matched")
COLUMNS = (*TEXT, *NUMBERS[:_BOXES_AT], "box_iou", *NUMBERS[_BOXES_AT:], *DETECTIONS)
LATER = (*NUMBERS[NUMBERS.index("map_outside_lungs") :], *DETECTIONS)
"""Columns that files of earlier versions lack, which reads as undefined."""

Values = NDArray[np.float64]
Detection = tuple[float, ...]
"""As ``DETECTIONS`` names its numbers."""


@dataclass(frozen=True)
class PairTable:
    """Pairs as columns.

    Args:
        text: per name of ``TEXT``, (pair,) strings.
        numbers: per name of ``NUMBERS``, (pair,) float64, NaN = empty.
        box_iou: per pair, the best IoU of each of its true boxes.
        detections: per pair, of each of its detections the numbers of ``DETECTIONS``, the highest score first.
    """

    text: Mapping[str, NDArray[np.str_]]
    numbers: Mapping[str, Values]
    box_iou: tuple[tuple[float, ...], ...]
    detections: tuple[tuple[Detection, ...], ...]

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
        found: list[tuple[Detection, ...]] = []
        for row in rows:
            for name in TEXT:
                text[name].append(row.get(name, ""))
            for name in NUMBERS:
                numbers[name].append(row.get(name, float("nan")))
            boxes.append(tuple(row.get("box_iou", ())))
            found.append(tuple(row.get("detections", ())))
        return cls(
            {name: np.array(values, dtype=np.str_) for name, values in text.items()},
            {name: np.array(values, dtype=np.float64) for name, values in numbers.items()},
            tuple(boxes),
            tuple(found),
        )

    def take(self, at: NDArray[Any]) -> PairTable:
        """The pairs at these indices (or where True), in this order."""
        indices = np.flatnonzero(at) if at.dtype == bool else at
        return PairTable(
            {name: values[indices] for name, values in self.text.items()},
            {name: values[indices] for name, values in self.numbers.items()},
            tuple(self.box_iou[i] for i in indices),
            tuple(self.detections[i] for i in indices),
        )

    @classmethod
    def join(cls, tables: Sequence[PairTable]) -> PairTable:
        """One table under another."""
        return cls(
            {name: np.concatenate([table.text[name] for table in tables]) for name in TEXT},
            {name: np.concatenate([table.numbers[name] for table in tables]) for name in NUMBERS},
            tuple(ious for table in tables for ious in table.box_iou),
            tuple(found for table in tables for found in table.detections),
        )

    def counts(self) -> dict[str, Any]:
        """How many images, patients and pairs with a known label there are, and what is known of each finding's."""
        label, located, outlined = self["label"], self["located"] == 1, ~np.isnan(self["mask_share"])
        return {
            "images": len(set(self["image"].tolist())),
            "patients": len(set(self["patient"].tolist())),
            "pairs": int(np.count_nonzero(~np.isnan(label))),
            "counts": {
                finding: {
                    "positive": int(np.count_nonzero(label[at] == 1)),
                    "negative": int(np.count_nonzero(label[at] == 0)),
                    "unknown": int(np.count_nonzero(np.isnan(label[at]))),
                    "located": int(np.count_nonzero(located[at])),
                    "outlined": int(np.count_nonzero(outlined[at])),
                }
                for finding in self.findings
                for at in [self["finding"] == finding]
            },
        }

    def detection_pairs(self) -> NDArray[np.int64]:
        """The pairs (k,) whose detections are hits or false: those labelled 0, and those whose place is known.

        Pairs of files of earlier versions, which have no detections, are among them; their ``proposed`` is NaN.
        """
        boxed = np.array([bool(ious) for ious in self.box_iou], dtype=bool)
        return np.flatnonzero((self["label"] == 0) | ((self["located"] == 1) & boxed))

    def cases(self, by: str) -> tuple[froc.Cases, NDArray[np.int64]]:
        """Detections and lesions, for FROC and average precision.

        Args:
            by: which rule tells a hit, a name of ``DETECTIONS``.

        Returns:
            The cases, and the pair of each (case,): those of :meth:`detection_pairs` that have detections.
        """
        at = self.detection_pairs()
        at = at[~np.isnan(self["proposed"][at])]
        column = DETECTIONS.index(by)
        counts = np.array([len(self.detections[i]) for i in at.tolist()], dtype=np.int64)
        flat = np.array([(one[0], one[column]) for i in at.tolist() for one in self.detections[i]], dtype=np.float64)
        score, kind = flat.reshape(-1, 2).T
        lesions = np.array([len(self.box_iou[i]) for i in at.tolist()], dtype=np.int64)
        number = {name: i for i, name in enumerate(self.findings)}
        finding = np.array([number[name] for name in self["finding"][at].tolist()], dtype=np.int64)
        return froc.Cases(kind.astype(np.int8), score, np.repeat(np.arange(len(at)), counts), lesions, finding), at

    def write(self, path: Path) -> None:
        """As ``pairs.csv``; whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        columns: list[Iterable[str]] = []
        for name in COLUMNS:
            if name in self.text:
                columns.append(self.text[name].tolist())
            elif name == "box_iou":
                columns.append(";".join(map(_cell, ious)) for ious in self.box_iou)
            elif name in DETECTIONS:
                columns.append(self._cells(DETECTIONS.index(name)))
            else:
                columns.append(map(_cell, self.numbers[name].tolist()))
        write_csv(path, COLUMNS, zip(*columns, strict=True))

    def _cells(self, of: int) -> Iterator[str]:
        return (";".join(_cell(one[of]) for one in found) for found in self.detections)

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
            boxes = _several(row["box_iou"])
            found = tuple(zip(*(_several(row.get(name) or "") for name in DETECTIONS), strict=True))
        except (TypeError, ValueError, AttributeError) as error:
            raise BadData(f"{path}, line {line}: {error}. Write it again with radtag evaluate.") from error
        yield {**{name: row[name] for name in TEXT}, **numbers, "box_iou": boxes, "detections": found}


def _several(cell: str) -> tuple[float, ...]:
    return tuple(float(one) for one in cell.split(";")) if cell else ()


def _cell(value: float) -> str:
    """Nine digits bring a float32 back exactly."""
    return "" if value != value else format(value, ".9g")
