"""From the table of pairs to ``metrics.json``: every number with its interval, and differences of two tables.

    {"findings": {NAME: {METRIC: {"value", "low", "high", "n", "undefined"}}},
     "micro": {METRIC: {...}}, "macro": {METRIC: {...}}}

What each METRIC is stands in :mod:`radtag.report.definitions`. Undefined numbers are null. ``n`` counts what a number
rests on: pairs of image and finding (true boxes for ``box_*``, ``froc*`` and ``ap_*``; findings for macro);
``undefined`` counts what belongs but has no value (for ``auroc``, ``average_precision`` and ``ece`` the pairs whose
label is unknown).
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from radtag.errors import BadData
from radtag.metrics import Estimates, PixelRanking, Replicates, Resampling, bootstrap, boxes, froc
from radtag.pairs import DETECTION_IOUS, PairTable
from radtag.report.definitions import BOX_ACCURACY_THRESHOLDS, BOX_THRESHOLDS, DEFINITIONS, REGION_THRESHOLDS

FROC_BY = {"froc": "detection_point", "froc_0.3": "detection_0.3"}
"""By which column of detections each FROC tells a hit."""

Values = NDArray[np.float64]
Named = tuple[str, Callable[[], Replicates]]
"""The key of a metric, and what works it out."""


@dataclass(frozen=True)
class PixelCounts:
    """Histograms of the maps' values within and without the true masks, for the pixel average precision.

    Args:
        fine: (finding, 2, level) counts over all pairs, false pixels first.
        coarse: (cell, 2, bin) counts of one patient and finding each.
        patient: (cell,) names.
        finding: (cell,) number of the finding.
        pairs: (finding,) pairs behind them.
    """

    fine: NDArray[np.int64]
    coarse: NDArray[np.int64]
    patient: NDArray[np.str_]
    finding: NDArray[np.int64]
    pairs: NDArray[np.int64]

    @classmethod
    def of(cls, ranking: PixelRanking, patients: list[str]) -> PixelCounts:
        """From what was counted; ``patients`` are the names behind its patient numbers."""
        fine, coarse, patient, finding, pairs = ranking.arrays()
        return cls(fine, coarse, np.array([patients[i] for i in patient], dtype=np.str_), finding, pairs)

    def write(self, path: Path) -> None:
        """As a compressed ``.npz``; whole or not at all."""
        beside = path.with_name(f".{path.name}.part.npz")
        try:
            np.savez_compressed(
                beside, fine=self.fine, coarse=self.coarse, patient=self.patient, finding=self.finding, pairs=self.pairs
            )
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> PixelCounts | None:
        """What :meth:`write` wrote; None where there is nothing (no outlines, or none that count).

        Raises:
            BadData: a file that is damaged.
        """
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(*(arrays[name] for name in ("fine", "coarse", "patient", "finding", "pairs")))
        except (EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error) as error:
            raise BadData(f"{path} is damaged ({error}). Write it again with radtag evaluate.") from error

    @classmethod
    def join(cls, parts: list[PixelCounts]) -> PixelCounts:
        """The counts of several evaluations of the same findings together."""
        return cls(
            np.sum([part.fine for part in parts], axis=0),
            np.concatenate([part.coarse for part in parts]),
            np.concatenate([part.patient for part in parts]),
            np.concatenate([part.finding for part in parts]),
            np.sum([part.pairs for part in parts], axis=0),
        )

    def renamed(self, was: PairTable, now: PairTable) -> PixelCounts | None:
        """The same counts by the patients of another evaluation of the same images; None where these divide a patient.

        Args:
            was: the pairs that the counts are of.
            now: the pairs of the other evaluation.
        """
        other = dict(zip(now["image"].tolist(), now["patient"].tolist(), strict=True))
        name: dict[str, str] = {}
        for image, patient in zip(was["image"].tolist(), was["patient"].tolist(), strict=True):
            if name.setdefault(patient, other.get(image, "")) != other.get(image, ""):
                return None
        return replace(self, patient=np.array([name.get(patient, patient) for patient in self.patient.tolist()]))

    def ranking(self, resampling: Resampling, number: dict[str, int]) -> Replicates:
        """Average precision with its replicates; ``number`` gives each patient's index in the resampling."""
        ranking = PixelRanking.from_arrays(
            self.fine,
            self.coarse,
            np.array([number[name] for name in self.patient], dtype=np.int64),
            self.finding,
            self.pairs,
        )
        return ranking.replicates(resampling)


def replicates(
    table: PairTable,
    pixels: PixelCounts | None,
    *,
    bootstraps: int,
    seed: int,
    wanted: Collection[str] | None = None,
    draws: Resampling | None = None,
) -> Iterator[tuple[str, Replicates]]:
    """Every metric of the table by its key, on the data and on every draw of patients.

    Args:
        table: pairs, image by image, every image with every finding in one order.
        pixels: of the pairs with a true mask.
        bootstraps: draws of patients, at least 1.
        seed: of the draws; tables of the same images have the same draws.
        wanted: keys of metrics; None = all.
        draws: of patients that this table's are among, to be used in place of its own.

    Raises:
        BadData: no pair, or images that do not all have the same findings.
    """
    patients = table["patient"].tolist()
    if draws is None and patients:
        draws = Resampling(patients, replicates=bootstraps, seed=seed)
    for key, measure in _measures(table, pixels, draws):
        if wanted is None or key in wanted:
            yield key, measure()


def _measures(table: PairTable, pixels: PixelCounts | None, draws: Resampling | None) -> Iterator[Named]:
    """Every metric of the table by its key, worked out when it is called for."""
    findings = table.findings
    count = len(findings)
    if (
        draws is None
        or count == 0
        or len(table) % count
        or (table["finding"].reshape(-1, count) != np.array(findings)).any()
    ):
        raise BadData(f"{len(table)} pairs are not whole images of {count} findings each. Write pairs.csv again.")
    pairs = _Pairs(table, draws.of(table["patient"].tolist()), np.tile(np.arange(count), len(table) // count), count)
    yield from _presence(pairs)
    if pairs.located.any():
        yield from _places(pairs)
    if pairs.outlined.any():
        yield from _outlines(pairs, pixels)
    # Of what evaluations of earlier versions lack, nothing is said where all are such.
    detected = ~np.isnan(table["proposed"])
    if (pairs.located & detected).any():
        yield from _detections(pairs)
    if (pairs.outlined & detected).any():
        yield from _against_outlines(pairs)
    lunged = pairs.located & ~np.isnan(table["area_outside_lungs"])
    if lunged.any():
        for name in ("map_outside_lungs", "area_outside_lungs"):
            yield name, pairs.mean(table[name], lunged)
    if pairs.negative.any():
        marked = table["marked"]
        yield "healthy_marked", pairs.mean(marked, pairs.negative)
        yield "healthy_any", pairs.mean(np.where(np.isnan(marked), np.nan, marked > 0), pairs.negative)
        yield "healthy_peak", pairs.mean(table["map_max"], pairs.negative)


@dataclass(frozen=True)
class _Pairs:
    """A table and what its measures have in common.

    Args:
        table: pairs, image by image, every image with every finding in one order.
        resampling: of the patients of these pairs.
        finding: (pair,) number of each pair's finding.
        count: how many findings there are.
    """

    table: PairTable
    resampling: Resampling
    finding: NDArray[np.int64]
    count: int

    @cached_property
    def negative(self) -> NDArray[np.bool_]:
        """(pair,) labelled 0."""
        return self.table["label"] == 0

    @cached_property
    def located(self) -> NDArray[np.bool_]:
        """(pair,) of a finding whose place is known."""
        return self.table["located"] == 1

    @cached_property
    def outlined(self) -> NDArray[np.bool_]:
        """(pair,) of a finding with a true mask."""
        return self.located & ~np.isnan(self.table["mask_share"])

    def mean(self, values: Values, where: NDArray[np.bool_]) -> Callable[[], Replicates]:
        """The mean of the values (pair,) of some pairs (pair,)."""
        rows = np.flatnonzero(where)
        return lambda: bootstrap.mean(values[rows], self.finding[rows], self.count, _rows(self.resampling, rows))


def _presence(pairs: _Pairs) -> Iterator[Named]:
    table = pairs.table
    label, score = table["label"], table["score"]
    grids = label.reshape(-1, pairs.count), score.reshape(-1, pairs.count)  # (image, finding)
    by_image = _rows(pairs.resampling, np.arange(0, len(table), pairs.count))
    yield "auroc", partial(bootstrap.ranking, *grids, by_image)
    yield "average_precision", partial(bootstrap.ranking, *grids, by_image, "average_precision")
    yield "sensitivity", pairs.mean(table["positive"], label == 1)
    yield "specificity", pairs.mean(1 - table["positive"], pairs.negative)
    yield "brier", pairs.mean((score - label) ** 2, (label == 1) | pairs.negative)
    if not ((score < 0) | (score > 1)).any():  # scores that anyone made may be no probabilities
        yield "ece", partial(bootstrap.calibration_error, label, score, pairs.finding, pairs.count, pairs.resampling)


def _places(pairs: _Pairs) -> Iterator[Named]:
    """Points, regions and boxes."""
    table, located = pairs.table, pairs.located
    yield "pointing", pairs.mean(table["pointing"], located)
    yield "pointing_network", pairs.mean(table["pointing_network"], located)
    asked = located & ~np.isnan(table["pointing_readers"])
    if asked.any():
        yield "pointing_readers", pairs.mean(table["pointing_readers"], asked)
    drawn = located & ~np.isnan(table["iou_boxes"])  # of a pair that was asked for its areas
    for name, column in (("iobb", "iobb"), ("iou", "iou_boxes")):
        for threshold in REGION_THRESHOLDS:
            # An area of nothing has an undefined share in the boxes, but it has not found them.
            yield f"{name}_{threshold:g}", pairs.mean((table[column] > threshold).astype(np.float64), drawn)
    boxed = np.repeat(np.arange(len(table)), [len(ious) for ious in table.box_iou])
    rows = _rows(pairs.resampling, boxed)
    found = boxes.found_at_iou([iou for ious in table.box_iou for iou in ious], BOX_THRESHOLDS)
    for i, threshold in enumerate(BOX_THRESHOLDS):
        of_box = pairs.finding[boxed], pairs.count
        yield f"box_{threshold:g}", partial(bootstrap.mean, found[:, i], *of_box, rows)
    best = np.array([max(ious, default=np.nan) for ious in table.box_iou])
    fits = np.mean([best >= threshold for threshold in BOX_ACCURACY_THRESHOLDS], axis=0)
    yield "box_accuracy_v2", pairs.mean(np.where(np.isnan(best), np.nan, fits), located)


def _outlines(pairs: _Pairs, pixels: PixelCounts | None) -> Iterator[Named]:
    """Pixels, and masks against true masks."""
    table, outlined, resampling = pairs.table, pairs.outlined, pairs.resampling
    if pixels is not None:
        number = dict(zip(table["patient"].tolist(), resampling.row.tolist(), strict=True))
        yield "pixel_ap", partial(pixels.ranking, resampling, number)
    for name in ("poi_matched", "dice", "iou", "precision", "poi"):
        yield name, pairs.mean(table[name], outlined)
    # CheXlocalize: a mask of nothing has no value where only what is found counts, and is 0 where all counts.
    yield "miou", pairs.mean(np.where(np.isnan(table["precision"]), np.nan, table["iou"]), outlined)
    known = np.isin(pairs.finding, pairs.finding[outlined]) & pairs.negative
    false_alarm = np.where(table["marked"] > 0, 0.0, np.nan)
    yield "miou_all", pairs.mean(np.where(outlined, table["iou"], false_alarm), outlined | known)


def _detections(pairs: _Pairs) -> Iterator[Named]:
    yield "pointing_game", pairs.mean(pairs.table["pointing_game"], pairs.located)
    for key, rule in FROC_BY.items():
        yield key, partial(_froc, pairs.table, rule, pairs.resampling)
    for threshold in DETECTION_IOUS:
        rule = f"detection_{threshold:g}"
        yield f"ap_{threshold:g}", partial(_detection_precision, pairs.table, rule, pairs.resampling)


def _against_outlines(pairs: _Pairs) -> Iterator[Named]:
    """What only later versions measure against true masks."""
    table, outlined = pairs.table, pairs.outlined
    for name, column in (("hit_rate", "hit_rate"), ("miou_otsu", "iou_otsu"), ("ncc", "ncc")):
        yield name, pairs.mean(table[column], outlined)
    for name in ("boundary", "hd95"):
        yield f"{name}_px", pairs.mean(table[f"{name}_px"], outlined)
        if not np.isnan(table[f"{name}_mm"][outlined]).all():
            yield f"{name}_mm", pairs.mean(table[f"{name}_mm"], outlined)


def _froc(table: PairTable, rule: str, resampling: Resampling) -> Replicates:
    """The mean sensitivity at 1/8 to 8 false detections per image."""
    cases, at = table.cases(rule)
    found = bootstrap.mean_of(bootstrap.froc(cases, len(table.findings), _rows(resampling, at)))
    return _with_unknown(found, table)


def _detection_precision(table: PairTable, rule: str, resampling: Resampling) -> Replicates:
    cases, at = table.cases(rule)
    return _with_unknown(bootstrap.detection_precision(cases, len(table.findings), _rows(resampling, at)), table)


def _with_unknown(found: Replicates, table: PairTable) -> Replicates:
    """Counts the lesions of which no detections are known."""
    at = table.detection_pairs()
    at = at[np.isnan(table["proposed"][at])]
    lesions = np.array([len(table.box_iou[i]) for i in at.tolist()], dtype=np.int64)
    each = [int(lesions[table["finding"][at] == name].sum()) for name in table.findings]
    return replace(found, undefined=np.array([*each, sum(each)], dtype=np.int64))


def operating_points(table: PairTable, *, bootstraps: int = 1000, seed: int = 0) -> dict[str, Any]:
    """What FROC is the mean of, ``{"froc": {...}}``, or nothing where there are no detections.

        {"froc": {"false_per_image": [0.125 ... 8], "findings": {NAME: {KEY: [ESTIMATE ...]}}, "micro": {KEY: [...]}}}

    KEY is one of ``FROC_BY``; an ESTIMATE, as elsewhere, is the sensitivity at that many false detections per image.

    Args:
        table: pairs, image by image.
        bootstraps: draws of patients for the intervals; 0 gives values without intervals.
        seed: of the draws.
    """
    if not ((table["located"] == 1) & ~np.isnan(table["proposed"])).any():
        return {}
    resampling = Resampling(table["patient"].tolist(), replicates=max(bootstraps, 1), seed=seed)
    empty = {} if bootstraps else {"low": None, "high": None}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in (*table.findings, "")}
    for key, rule in FROC_BY.items():
        cases, at = table.cases(rule)
        rates = bootstrap.froc(cases, len(table.findings), _rows(resampling, at))
        estimates = [_with_unknown(one, table).estimates() for one in rates]
        for i, name in enumerate(found):
            each = [one.per_finding[i] if name else one.micro for one in estimates]
            found[name][key] = [{**one.to_dict(), **empty} for one in each]
    micro = found.pop("")
    return {"froc": {"false_per_image": list(froc.FALSE_PER_IMAGE), "findings": found, "micro": micro}}


def summarise(
    table: PairTable, pixels: PixelCounts | None = None, *, bootstraps: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """``{"findings", "micro", "macro"}`` of a table of pairs.

    Args:
        table: pairs, image by image.
        pixels: of the pairs with a true mask, for the pixel average precision.
        bootstraps: draws of patients for the intervals; 0 gives values without intervals.
        seed: of the draws.
    """
    measured = {
        key: value.estimates() for key, value in replicates(table, pixels, bootstraps=max(bootstraps, 1), seed=seed)
    }
    return as_json(table.findings, measured, intervals=bootstraps > 0)


def differences(
    a: PairTable,
    b: PairTable,
    *,
    pixels: tuple[PixelCounts, PixelCounts] | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Table a minus table b on the pairs both have, in the form of :func:`summarise`.

    The draws of patients are the same for both, and so are the pairs: one that is undefined for either (an image that
    could not be read, a mask that is empty) is left out of both. Labels and truths are those of a.

    Args:
        a: pairs, image by image.
        b: pairs of the same data.
        pixels: of a and of b; used only where both tables hold the same images, since they cannot be taken apart.
        bootstraps: draws of patients, at least 1.
        seed: of the draws.

    Raises:
        BadData: the tables share no image, or disagree about labels.
    """
    whole = a.findings == b.findings and set(a["image"].tolist()) == set(b["image"].tolist())
    first_counts = second_counts = None
    if pixels is not None and whole:
        second_counts = pixels[1].renamed(b, a)
        first_counts = pixels[0] if second_counts is not None else None
    a, b = in_common([a, b])
    second = dict(replicates(b, second_counts, bootstraps=bootstraps, seed=seed))
    measured = {
        key: bootstrap.difference(first, second[key]).estimates()
        for key, first in replicates(a, first_counts, bootstraps=bootstraps, seed=seed)
        if key in second
    }
    return as_json(a.findings, measured, intervals=True)


def as_json(findings: tuple[str, ...], measured: dict[str, Estimates], *, intervals: bool) -> dict[str, Any]:
    """Estimates in the form of ``metrics.json``, metrics in the order of their definitions."""
    empty = {} if intervals else {"low": None, "high": None}
    keys = [one.key for one in DEFINITIONS if one.key in measured]
    return {
        "findings": {
            name: {key: {**measured[key].per_finding[i].to_dict(), **empty} for key in keys}
            for i, name in enumerate(findings)
        },
        "micro": {key: {**measured[key].micro.to_dict(), **empty} for key in keys},
        "macro": {key: {**measured[key].macro.to_dict(), **empty} for key in keys},
    }


def in_common(tables: Sequence[PairTable]) -> list[PairTable]:
    """The images and findings all tables have, in the first's order; what is undefined for one is so for all.

    Labels, patients and truths are those of the first.

    Args:
        tables: of the same data, at least one.

    Raises:
        BadData: they share no image, or disagree about labels.
    """
    keys = [list(zip(table["image"].tolist(), table["finding"].tolist(), strict=True)) for table in tables]
    at = [{key: i for i, key in enumerate(of_table)} for of_table in keys]
    kept = [key for key in keys[0] if all(key in one for one in at)]
    if not kept:
        few = "two " if len(tables) == 2 else ""
        raise BadData(f"the {few}evaluations share no image and finding. Compare evaluations of the same data.")
    taken = [table.take(np.array([one[key] for key in kept])) for table, one in zip(tables, at, strict=True)]
    a = taken[0]
    for b in taken[1:]:
        unequal = ~((a["label"] == b["label"]) | (np.isnan(a["label"]) & np.isnan(b["label"])))
        if unequal.any():
            i = int(np.flatnonzero(unequal)[0])
            raise BadData(
                f"{a['image'][i]}, {a['finding'][i]} is labelled {a['label'][i]:g} in one evaluation and"
                f" {b['label'][i]:g} in the other. Compare evaluations of the same data."
            )
    undefined = {
        name: np.any([np.isnan(table[name]) for table in taken], axis=0)
        for name in a.numbers
        if name != "iobb"  # which is undefined for an area of nothing
    }
    located = np.min([table["located"] for table in taken], axis=0)
    counts = np.array([[len(ious) for ious in table.box_iou] for table in taken])
    boxed = ((counts == counts[0]) & (counts > 0)).all(axis=0)

    def cut(table: PairTable) -> PairTable:
        numbers = dict(table.numbers)
        for name, missing in undefined.items():
            numbers[name] = np.where(missing, np.nan, numbers[name])
        numbers["located"] = located
        ious = tuple(own if has else () for own, has in zip(table.box_iou, boxed, strict=True))
        return PairTable({**table.text, "patient": a["patient"]}, numbers, ious, table.detections)

    return [cut(table) for table in taken]


def _rows(resampling: Resampling, at: NDArray[np.int64]) -> Resampling:
    """The same draws for some of the rows."""
    some = copy.copy(resampling)
    some.row = resampling.row[at]
    return some
