"""The contract every data source fills: a table of images with findings, patient and split.

Boxes and masks ride along for scoring only; nothing under :mod:`radtag.train` reads them. The one exception is
:mod:`radtag.train.segment`, which learns from masks that a run proposed (:data:`PROPOSED`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from radtag.data.outlines import MaskSource
from radtag.errors import BadData
from radtag.geometry import XYXY

Point: TypeAlias = tuple[float, float]

SPLITS = ("train", "val", "test")
PROPOSED = "proposed by"
"""How the attribute "masks" of an image begins whose masks and boxes are a run's proposals, and not truth."""
LUNGS = "lungs"
"""What the lungs are called as a finding, to train what outlines them and to measure it."""


@dataclass(frozen=True)
class Record:
    """One image of a data set.

    Args:
        image: its name, unique within the data set; what ``tags.csv`` and ``--splits`` call it.
        path: the file.
        labels: per finding of the data set, 1.0, 0.0 or NaN = unknown.
        patient: who it is of; images of unknown patients stand for themselves.
        split: "train", "val", "test" or "" = not assigned.
        boxes_xyxy: per finding, boxes in ``box_frame_rc`` pixels.
        box_frame_rc: rows and columns of the image the boxes were drawn on; None = the file as it is.
        masks: per finding, a mask file (non-zero = lesion) of any size, stretched over the image, or an outline that
            is no file (:mod:`radtag.data.outlines`).
        lungs: a mask file of the area lesions can lie in, if the set has one.
        attributes: further columns (sex, age, view ...), for reports by group.
        source: which of several data sets that are put side by side it is of; "" where there is one.
        readers_xy: per finding, points (x, y) in ``box_frame_rc`` pixels that readers set on it who did not draw the
            truth: people to compare a network with. () = they were asked, and set none; left out = nobody was asked.
    """

    image: str
    path: Path
    labels: tuple[float, ...]
    patient: str = ""
    split: str = ""
    boxes_xyxy: Mapping[str, tuple[XYXY, ...]] = field(default_factory=dict)
    box_frame_rc: tuple[int, int] | None = None
    masks: Mapping[str, MaskSource] = field(default_factory=dict)
    lungs: Path | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    readers_xy: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)

    def boxes_in(self, finding: str, size_rc: tuple[int, int]) -> NDArray[np.float64]:
        """The finding's boxes (n, 4) xyxy in the pixels of an image of ``size_rc`` (the file's own size)."""
        boxes = np.array(self.boxes_xyxy.get(finding, ()), dtype=np.float64).reshape(-1, 4)
        return boxes * np.tile(self._scale_xy(size_rc), 2)

    def readers_in(self, finding: str, size_rc: tuple[int, int]) -> NDArray[np.float64] | None:
        """The readers' points (n, 2) xy in the pixels of an image of ``size_rc``; None where nobody was asked."""
        if finding not in self.readers_xy:
            return None
        points = np.array(self.readers_xy[finding], dtype=np.float64).reshape(-1, 2)
        return points * self._scale_xy(size_rc)

    def _scale_xy(self, size_rc: tuple[int, int]) -> NDArray[np.float64]:
        """By how much x and y of ``box_frame_rc`` grow towards an image of ``size_rc``."""
        rows, cols = self.box_frame_rc or size_rc
        return np.array([size_rc[1] / cols, size_rc[0] / rows])


@dataclass(frozen=True)
class Dataset:
    """Images with findings; immutable, every change returns a new one.

    Args:
        name: what a card or report calls it.
        findings: names, in the order of every record's labels.
        records: the images, in a stable order.
        notes: what the source wants said (labels without images, how splits came about ...), in order.
        splits_from: the file of ``--splits`` that says which images train and which choose; "" = the set, or chance.

    Raises:
        BadData: two records with one name, a label row of another length, a value that is not 1, 0 or NaN, or an
            unknown split.
    """

    name: str
    findings: tuple[str, ...]
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    splits_from: str = ""

    def __post_init__(self) -> None:
        if len(set(self.findings)) != len(self.findings):
            raise BadData(f"{self.name}: a finding is named twice in {list(self.findings)}. Rename one column.")
        seen: set[str] = set()
        for record in self.records:
            if record.image in seen:
                raise BadData(f"{self.name}: image {record.image!r} is listed twice. Keep one row for each image.")
            seen.add(record.image)
            if len(record.labels) != len(self.findings):
                raise BadData(
                    f"{self.name}: {record.image} has {len(record.labels)} labels for {len(self.findings)} findings."
                )
            if any(not (label in (0.0, 1.0) or np.isnan(label)) for label in record.labels):
                raise BadData(f"{self.name}: {record.image} has labels {record.labels}; use 1, 0 or blank = unknown.")
            if record.split not in ("", *SPLITS):
                raise BadData(f"{self.name}: {record.image} is in split {record.split!r}; use train, val or test.")

    def __len__(self) -> int:
        return len(self.records)

    def labels(self) -> NDArray[np.float32]:
        """(image, finding) float32: 1, 0 or NaN."""
        return np.array([record.labels for record in self.records], dtype=np.float32).reshape(
            len(self), len(self.findings)
        )

    def patients(self) -> list[str]:
        """Per image; an image without a patient is its own."""
        return [record.patient or f"image:{record.image}" for record in self.records]

    def digest(self) -> str:
        """A short name of what an evaluation takes from here: images, labels and where findings lie, by name."""
        hashed = hashlib.sha256()
        for one in self.records:
            row = [
                *(one.image, one.patient, one.split, one.labels, dict(one.boxes_xyxy), one.box_frame_rc),
                {finding: mask.name for finding, mask in one.masks.items()},
                *([dict(one.readers_xy)] if one.readers_xy else []),
            ]
            hashed.update(json.dumps(row).encode())
        return hashed.hexdigest()[:16]

    def only(self, *splits: str) -> Dataset:
        """The images of the named splits.

        Raises:
            BadData: none of them is in these splits.
        """
        chosen = tuple(record for record in self.records if record.split in splits)
        if not chosen:
            present = sorted({record.split or "(none)" for record in self.records})
            raise BadData(
                f"{self.name}: no image is in {' or '.join(splits)}; the splits present are {', '.join(present)}."
                " Choose one of these, or give others with --splits."
            )
        return replace(self, records=chosen)

    def outlined(self, limit: int, seed: int = 0) -> Dataset:
        """At most ``limit`` of the images where a finding is outlined, by a box or a mask, drawn with a seed.

        Findings come in turn, the one with the fewest images so far first, so that each has about as many as the
        others. Images stay in their order.

        Raises:
            BadData: nothing is outlined in any image.
        """
        found = [set(record.boxes_xyxy) | set(record.masks) for record in self.records]
        left = {
            finding: [int(i) for i in np.random.default_rng(seed).permutation(len(self)) if finding in found[i]]
            for finding in self.findings
        }
        outlined = len(set().union(*left.values()))
        if not outlined:
            raise BadData(f"{self.name}: no finding is outlined in any image. Leave the limit out.")
        counts = dict.fromkeys(self.findings, 0)
        chosen: set[int] = set()
        while len(chosen) < min(limit, outlined):
            finding = min((name for name in left if set(left[name]) - chosen), key=counts.__getitem__)
            image = next(i for i in left[finding] if i not in chosen)
            chosen.add(image)
            for name in found[image] & counts.keys():
                counts[name] += 1
        note = f"{len(chosen)} of {outlined} images where a finding is outlined, drawn with seed {seed}"
        return replace(self, records=tuple(self.records[i] for i in sorted(chosen)), notes=(*self.notes, note))

    def with_splits(self, split_of: Mapping[str, str], note: str) -> Dataset:
        """The same images, each in the split its name is given; names not given are left out of every split."""
        records = tuple(replace(record, split=split_of.get(record.image, "")) for record in self.records)
        return replace(self, records=records, notes=(*self.notes, note))

    def join(self, other: Dataset) -> Dataset:
        """These images and, as further training images, those of another set; what that one does not know is unknown.

        The findings, and the images that choose and score, stay this set's: of ``other`` all that is not its test split
        is taken, with the labels of the findings that both name. Where a file said of its images what each is for,
        that holds: its images for validation choose too, and those in no split are left out.

        Raises:
            BadData: no finding in common, or a file that one set trains on and the other scores.
        """
        other = other._with_lungs_of(self.findings)
        shared = [name for name in self.findings if name in other.findings]
        if not shared:
            raise BadData(
                f"{other.name} shares no finding with {self.name}: it has {', '.join(other.findings)}; "
                f"wanted are {', '.join(self.findings)}. Rename its columns."
            )
        at = [other.findings.index(name) if name in shared else -1 for name in self.findings]
        becomes = (
            {"train": "train", "val": "val"} if other.splits_from else dict.fromkeys(("train", "val", ""), "train")
        )
        scored = {os.path.abspath(record.path) for record in self.records if record.split in ("val", "test")}
        for record in other.records:
            if record.split in becomes and os.path.abspath(record.path) in scored:
                raise BadData(
                    f"{record.path} would be trained on as an image of {other.name}, and {self.name} has it for"
                    " validation or scoring. Leave it out of one of them."
                )
        added = tuple(
            replace(
                record,
                image=record.path.as_posix(),  # names may be the same in both sets, files are not
                patient=f"{other.name}:{record.patient}" if record.patient else "",
                split=becomes[record.split],
                labels=tuple(record.labels[i] if i >= 0 else float("nan") for i in at),
            )
            for record in other.records
            if record.split in becomes
        )
        choosing = sum(record.split == "val" for record in added)
        count = f"{len(added) - choosing} training images" + (f" and {choosing} for validation" if choosing else "")
        note = f"joined by {count} of {other.name}, labelled for {', '.join(shared)}"
        return replace(self, records=(*self.records, *added), notes=(*self.notes, note))

    def beside(self, *others: Dataset) -> Dataset:
        """These images and those of other sets as equals: each in its own split, with the findings of all of them.

        A finding that an image's own set does not name is unknown. Images and patients bear their set's name, so that
        they stay apart; with no other set, this one is returned as it is.

        Raises:
            BadData: a file that two of the sets have.
        """
        if not others:
            return self
        sets = (self, *others)
        findings = tuple(dict.fromkeys(name for one in sets for name in one.findings))
        owner: dict[str, str] = {}
        records: list[Record] = []
        sources = told_apart([one.name for one in sets])
        for one, source in zip(sets, sources, strict=True):
            at = {name: i for i, name in enumerate(one.findings)}
            for record in one.records:
                path = os.path.abspath(record.path)
                if owner.setdefault(path, source) != source:
                    raise BadData(f"{record.path} is in {owner[path]} and in {source}. Leave it out of one of them.")
                records.append(
                    replace(
                        record,
                        image=f"{source}:{record.image}",
                        patient=f"{source}:{record.patient}" if record.patient else "",
                        labels=tuple(record.labels[at[name]] if name in at else float("nan") for name in findings),
                        source=source,
                    )
                )
        notes = tuple(f"{source}: {note}" for one, source in zip(sets, sources, strict=True) for note in one.notes)
        return Dataset(" + ".join(sources), findings, tuple(records), notes)

    def with_findings(self, findings: Iterable[str]) -> Dataset:
        """The same images with these findings, in this order.

        :data:`LUNGS` is a finding of every data set that has masks of lungs, where it is asked for.

        Raises:
            BadData: a finding the data set does not know.
        """
        names = tuple(findings)
        known = self._with_lungs_of(names)
        missing = [name for name in names if name not in known.findings]
        if missing:
            raise BadData(f"{self.name} has no finding {missing[0]!r}; it has {', '.join(self.findings)}.")
        at = [known.findings.index(name) for name in names]
        records = tuple(replace(record, labels=tuple(record.labels[i] for i in at)) for record in known.records)
        return replace(self, findings=names, records=records)

    def _with_lungs_of(self, wanted: Sequence[str]) -> Dataset:
        """With the lungs as one more finding, if they are wanted and there is a mask of them; unknown where not."""
        if LUNGS not in wanted or LUNGS in self.findings or not any(record.lungs for record in self.records):
            return self

        def labelled(record: Record) -> Record:
            if record.lungs is None:
                return replace(record, labels=(*record.labels, math.nan))
            return replace(record, labels=(*record.labels, 1.0), masks={**record.masks, LUNGS: record.lungs})

        return replace(self, findings=(*self.findings, LUNGS), records=tuple(map(labelled, self.records)))


def told_apart(names: Sequence[str]) -> list[str]:
    """The names, with a number behind one that was there before: a, b, a 2."""
    apart: list[str] = []
    for name in names:
        number = 1
        while (told := name if number == 1 else f"{name} {number}") in apart:
            number += 1
        apart.append(told)
    return apart
