"""Values with 95 % intervals: per finding, micro and macro, by bootstrap over patients.

Conventions
-----------
- The patient is drawn, with replacement, and brings all its images and findings along: images of one patient are not
  independent, so drawing images would make the intervals too narrow.
- One :class:`Resampling` serves all measures of an evaluation. Per finding, micro and macro come from the same
  replicates, and so do two systems: the difference of two systems is taken replicate by replicate (:func:`difference`).
- *Per finding*: the measure over that finding's pairs. *Micro*: over all pairs. *Macro*: the mean over the findings
  that have a value.
- A replicate in which a finding has no pair (or one class only) has no value and is left out of its percentiles; the
  macro of that replicate is over the findings that remain.
- Percentile intervals, ``quantile(replicates, [.025, .975])``. With fewer than two patients behind a value nothing can
  be said about its spread: low and high are NaN.
- The value itself is that of the data, never the mean of the replicates (as CheXlocalize prints).

Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13; ``scipy.stats.bootstrap`` on
per-patient sums gives the same intervals but for the random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from radtag.metrics.classification import (
    CALIBRATION_BINS,
    auroc,
    average_precision,
    binned_auroc,
    binned_average_precision,
    calibration_bin,
    checked_labels,
)
from radtag.metrics.froc import FALSE, FALSE_PER_IMAGE, HIT, NEUTRAL, Cases, precision_at_recalls, sensitivities

Values = NDArray[np.float64]
Ranking = Literal["auroc", "average_precision"]

_CHUNK = 1 << 22  # numbers held at a time while replicates are computed
_IN_CACHE = 1 << 18  # the same for sums that are gone through several times


@dataclass(frozen=True)
class Estimate:
    """A value, its interval, and what it rests on.

    Args:
        value: the measure on the data; NaN if undefined.
        low: lower end of the interval; NaN if it cannot be told.
        high: upper end of the interval; NaN if it cannot be told.
        n: how many cases have a value and count (pairs, boxes, known labels, pixels; for a macro, findings).
        undefined: how many cases were left out because theirs is NaN (for a macro, findings).
    """

    value: float
    low: float
    high: float
    n: int
    undefined: int

    def to_dict(self) -> dict[str, float | int | None]:
        """For ``metrics.json``, where NaN, which JSON lacks, is null."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        known = {name: None if math.isnan(number) else number for name, number in numbers.items()}
        return {**known, "n": self.n, "undefined": self.undefined}


@dataclass(frozen=True)
class Estimates:
    """A measure per finding, over all pairs (micro), and as the mean over findings (macro)."""

    per_finding: tuple[Estimate, ...]
    micro: Estimate
    macro: Estimate


class Resampling:
    """Which patients each replicate draws; made once, used for every measure.

    Args:
        patients: patient of each row (row,): of each image, or of each pair. Rows of one patient stay together.
        replicates: how many times to draw.
        seed: of numpy's default generator; the same patients, replicates and seed give the same draws.

    Attributes:
        row: (row,) index of each row's patient.
        counts: (patient, replicate) how often each patient is drawn.

    Raises:
        ValueError: no patients, or fewer than one replicate.
    """

    def __init__(
        self, patients: Sequence[Hashable] | NDArray[np.generic], *, replicates: int = 1000, seed: int = 0
    ) -> None:
        if len(patients) == 0 or replicates < 1:
            raise ValueError(f"cannot draw {replicates} replicates of {len(patients)} rows; both are at least 1")
        self._index: dict[Hashable, int] = {}
        for patient in patients:
            self._index.setdefault(patient, len(self._index))
        self.row = self._rows(patients)
        self.patients = len(self._index)
        self.replicates = replicates
        draw = np.random.default_rng(seed)
        self.counts: NDArray[np.uint16] = np.empty((self.patients, replicates), dtype=np.uint16)
        step = max(1, _CHUNK // self.patients)
        for start in range(0, replicates, step):
            width = min(step, replicates - start)
            drawn = draw.integers(self.patients, size=(width, self.patients)) * width + np.arange(width)[:, None]
            counted = np.bincount(drawn.ravel(), minlength=self.patients * width)
            self.counts[:, start : start + width] = counted.reshape(self.patients, width)

    def of(self, patients: Sequence[Hashable] | NDArray[np.generic]) -> Resampling:
        """The same draws for other rows of these patients: those of pairs or boxes, where this one is of images.

        Raises:
            ValueError: a patient who was not drawn from.
        """
        other = copy(self)
        other.row = self._rows(patients)
        return other

    def _rows(self, patients: Sequence[Hashable] | NDArray[np.generic]) -> NDArray[np.int64]:
        missing = [patient for patient in patients if patient not in self._index]
        if missing:
            raise ValueError(f"patient {missing[0]!r} is not among the {len(self._index)} the draws were made from")
        return np.array([self._index[patient] for patient in patients], dtype=np.int64)

    def blocks(self, rows: int, *, chunk: int = _CHUNK) -> Iterator[tuple[slice, Values]]:
        """The counts as float64 (patient, some replicates), so few that ``rows`` numbers for each fit a chunk."""
        step = max(16, chunk // max(rows, self.patients))
        for start in range(0, self.replicates, step):
            where = slice(start, min(start + step, self.replicates))
            yield where, self.counts[:, where].astype(np.float64)


@dataclass(frozen=True)
class Replicates:
    """A measure on the data and on every replicate.

    Args:
        value: (finding + 1,) per finding, and last the micro value.
        drawn: (finding + 1, replicate) the same of every replicate.
        n: (finding + 1,) cases that count.
        undefined: (finding + 1,) cases left out.
        patients: (finding + 1,) patients behind the cases that count.
    """

    value: Values
    drawn: Values
    n: NDArray[np.int64]
    undefined: NDArray[np.int64]
    patients: NDArray[np.int64]

    def estimates(self, *, level: float = 0.95) -> Estimates:
        """Values with percentile intervals that hold ``level`` of the replicates."""
        low, high = _interval(self.drawn, level)
        several = self.patients >= 2
        low, high = np.where(several, low, np.nan), np.where(several, high, np.nan)
        each = [
            Estimate(float(v), float(a), float(b), int(n), int(u))
            for v, a, b, n, u in zip(self.value, low, high, self.n, self.undefined, strict=True)
        ]
        findings = self.value[:-1]
        defined = int(np.count_nonzero(~np.isnan(findings)))
        macro_low, macro_high = _interval(_mean_defined(self.drawn[:-1])[None], level)
        sure = several[-1]
        macro = Estimate(
            float(_mean_defined(findings[:, None])[0]),
            float(macro_low[0]) if sure and defined else math.nan,
            float(macro_high[0]) if sure and defined else math.nan,
            defined,
            len(findings) - defined,
        )
        return Estimates(tuple(each[:-1]), each[-1], macro)


def mean(values: ArrayLike, finding: ArrayLike, findings: int, resampling: Resampling) -> Replicates:
    """The mean of a per-pair measure (hits, IoU, Dice ...), per finding and micro, with its replicates.

    Definition: per replicate, ``sum of the drawn patients' values / number of their pairs that have one``, so a patient
    with many pairs weighs more, as it does in the data.

    Args:
        values: (pair,) one value a pair; NaN = undefined, left out and counted.
        finding: (pair,) number of each pair's finding, from 0.
        findings: how many findings there are.
        resampling: made of the patients of these pairs, in their order.
    """
    v = np.asarray(values, dtype=np.float64).reshape(-1)
    f = np.asarray(finding, dtype=np.int64).reshape(-1)
    _fits(len(v), resampling)
    if len(f) != len(v) or (len(f) and not (f.min() >= 0 and f.max() < findings)):
        raise ValueError(f"{len(v)} values need as many findings, each from 0 to {findings - 1}")
    defined = ~np.isnan(v)
    cell = f[defined] * resampling.patients + resampling.row[defined]
    size = findings * resampling.patients
    sums = np.bincount(cell, weights=v[defined], minlength=size).reshape(findings, resampling.patients)
    counts = np.bincount(cell, minlength=size).reshape(findings, resampling.patients).astype(np.float64)
    sums, counts = np.vstack([sums, sums.sum(axis=0)]), np.vstack([counts, counts.sum(axis=0)])
    drawn = np.empty((findings + 1, resampling.replicates))
    for where, weights in resampling.blocks(findings):
        drawn[:, where] = _ratio(sums @ weights, counts @ weights)
    left_out = np.bincount(f[~defined], minlength=findings)
    return Replicates(
        _ratio(sums.sum(axis=1), counts.sum(axis=1)),
        drawn,
        counts.sum(axis=1).astype(np.int64),
        np.append(left_out, left_out.sum()),
        np.count_nonzero(counts, axis=1),
    )


def ranking(labels: ArrayLike, scores: ArrayLike, resampling: Resampling, measure: Ranking = "auroc") -> Replicates:
    """AUROC or average precision of image scores, per finding and micro, with its replicates.

    Definition: as :func:`radtag.metrics.classification.auroc` and
    :func:`~radtag.metrics.classification.average_precision`, every case counted as often as its patient is drawn. Micro
    takes all known (image, finding) pairs as one problem.

    Args:
        labels: (image, finding) 1, 0 or NaN = unknown.
        scores: (image, finding).
        resampling: made of the patients of these images, in their order.
        measure: which of the two.
    """
    y, s = checked_labels(labels, scores)
    if y.ndim != 2:
        raise ValueError(f"labels are (image, finding), got {y.shape}; for one finding add an axis")
    _fits(len(y), resampling)
    exact = _of_measure(measure, auroc, average_precision)
    findings = y.shape[1]
    value = np.append(exact(y, s), exact(y.ravel(), s.ravel()))
    known = ~np.isnan(y)
    drawn = np.empty((findings + 1, resampling.replicates))
    patients = np.empty(findings + 1, dtype=np.int64)
    for i in range(findings):
        at = known[:, i]
        drawn[i] = _ranking_drawn(y[at, i], s[at, i], resampling.row[at], resampling, measure)
        patients[i] = len(np.unique(resampling.row[at]))
    rows = np.broadcast_to(resampling.row[:, None], y.shape)[known]
    drawn[-1] = _ranking_drawn(y[known], s[known], rows, resampling, measure)
    patients[-1] = len(np.unique(rows))
    n = known.sum(axis=0)
    undefined = len(y) - n
    return Replicates(value, drawn, np.append(n, n.sum()), np.append(undefined, undefined.sum()), patients)


def binned_ranking(
    cells: Sequence[tuple[ArrayLike, NDArray[np.generic]]],
    value: ArrayLike,
    resampling: Resampling,
    measure: Ranking = "average_precision",
) -> Replicates:
    """AUROC or average precision of binned scores (pixels), per finding and micro, with its replicates.

    The intervals come from coarse histograms, one a patient; the values from fine ones. Each replicate is moved by what
    the coarse bins lose on the data, so value and interval belong together.

    Args:
        cells: per finding, the indices (k,) of the patients who have cases, and the counts (k, 2, bin) of those cases,
            bins ascending, negatives first. One number of bins throughout.
        value: (finding + 1,) the fine values, micro last.
        resampling: what draws the patients.
        measure: which of the two.
    """
    findings = len(cells)
    fine = np.asarray(value, dtype=np.float64).reshape(findings + 1)
    binned = _of_measure(measure, binned_auroc, binned_average_precision)
    drawn = np.full((findings + 1, resampling.replicates), np.nan)
    cases, patients = np.zeros((2, findings + 1), dtype=np.int64)
    everyone: dict[int, Values] = {}
    for row, counts in cells:
        for patient, own in zip(np.asarray(row, dtype=np.int64).tolist(), counts, strict=True):
            everyone[patient] = everyone[patient] + own if patient in everyone else own.astype(np.float64)
    micro = (list(everyone), np.array(list(everyone.values()), dtype=np.float64))
    for i, (row, counts) in enumerate([*cells, micro]):
        if len(counts) == 0:
            continue
        if counts.ndim != 3 or counts.shape[1] != 2:
            raise ValueError(f"counts are (patient, 2, bin), negatives first, got {counts.shape}")
        own = counts.reshape(len(counts), -1).astype(np.float64)
        bins = counts.shape[-1]
        at = np.asarray(row, dtype=np.int64)
        for where, weights in resampling.blocks(2 * bins):
            drawn[i, where] = binned((weights[at].T @ own).reshape(-1, 2, bins))
        drawn[i] += fine[i] - binned(own.sum(axis=0).reshape(2, bins))
        cases[i], patients[i] = int(own.sum()), len(counts)
    return Replicates(fine, drawn, cases, np.zeros(findings + 1, dtype=np.int64), patients)


def calibration_error(
    labels: ArrayLike,
    scores: ArrayLike,
    finding: ArrayLike,
    findings: int,
    resampling: Resampling,
    *,
    bins: int = CALIBRATION_BINS,
) -> Replicates:
    """Expected calibration error per finding and micro, with its replicates.

    Definition: as :func:`radtag.metrics.classification.calibration_error`; micro takes all cases as one problem. A draw
    with replacement makes the gaps of bins larger by chance, and so the error: the replicates are moved, each finding's
    by one amount, so that their mean is the value, and end at 0.

    Args:
        labels: (case,) 1, 0 or NaN = unknown.
        scores: (case,) 0-1.
        finding: (case,) number of each case's finding, from 0.
        findings: how many findings there are.
        resampling: made of the patients of these cases, in their order.
        bins: of equal width.
    """
    y, s = checked_labels(labels, scores)
    f = np.asarray(finding, dtype=np.int64)
    _fits(len(y), resampling)
    known = ~np.isnan(y)
    value, n, patients = np.full(findings + 1, np.nan), *np.zeros((2, findings + 1), dtype=np.int64)
    drawn = np.full((findings + 1, resampling.replicates), np.nan)
    for i in range(findings + 1):
        own = known & (f == i) if i < findings else known
        if not own.any():
            continue
        row = resampling.row[own]
        place = calibration_bin(s[own], bins=bins), row
        apart = sparse.coo_array((s[own] - y[own], place), shape=(bins, resampling.patients)).tocsr()
        cases = np.bincount(row, minlength=resampling.patients).astype(np.float64)
        n[i], patients[i] = len(row), np.count_nonzero(cases)
        value[i] = np.abs(apart.sum(axis=1)).sum() / n[i]
        for where, weights in resampling.blocks(bins):
            drawn[i, where] = _ratio(np.abs(apart @ weights).sum(axis=0), cases @ weights)
        defined = drawn[i, ~np.isnan(drawn[i])]
        drawn[i] = np.maximum(drawn[i] + value[i] - (defined.mean() if len(defined) else 0.0), 0.0)
    unknown = np.bincount(f[~known], minlength=findings)
    return Replicates(value, drawn, n, np.append(unknown, unknown.sum()), patients)


def froc(
    cases: Cases, findings: int, resampling: Resampling, *, at: Sequence[float] = FALSE_PER_IMAGE
) -> list[Replicates]:
    """Sensitivity at so many false detections per image: per finding and micro with replicates, one for each rate.

    Definition: as :class:`radtag.metrics.froc.Curve`, read by steps, every case counted as often as its patient is
    drawn. The mean over the rates (:func:`mean_of`) is the score of ANODE09. Micro takes all cases as one problem, so
    that a rate is one of false detections per pair of image and finding. ``n`` counts lesions.

    Args:
        cases: with their detections.
        findings: how many findings there are.
        resampling: made of the patients of these cases, in their order.
        at: false detections per image.
    """
    rates = list(at)
    value, drawn = np.empty((len(rates), findings + 1)), np.empty((len(rates), findings + 1, resampling.replicates))

    def read(hits: Values, false: Values, lesions: Values, images: Values) -> Values:
        sensitivity = np.divide(hits, lesions, out=np.full(hits.shape, np.nan), where=lesions > 0)
        rate = np.divide(false, images, out=np.full(false.shape, np.nan), where=images > 0)
        return np.where((lesions > 0) & (images > 0), sensitivities(sensitivity, rate, rates), np.nan)

    for i, running in enumerate(_of_findings(cases, findings, resampling, ties="together")):
        value[:, i] = read(*running.whole())[:, 0]
        for where, counts in running.drawn():
            drawn[:, i, where] = read(*counts)
    n, patients = _lesions(cases, findings, resampling)
    none = np.zeros(findings + 1, dtype=np.int64)
    return [Replicates(value[k], drawn[k], n, none, patients) for k in range(len(rates))]


def detection_precision(cases: Cases, findings: int, resampling: Resampling) -> Replicates:
    """COCO's average precision of detections, per finding and micro, with its replicates.

    Definition: as :func:`radtag.metrics.froc.average_precision`, every case counted as often as its patient is drawn.
    ``n`` counts lesions.

    Args:
        cases: with their detections, none of them neutral.
        findings: how many findings there are.
        resampling: made of the patients of these cases, in their order.
    """
    value, drawn = np.empty(findings + 1), np.empty((findings + 1, resampling.replicates))
    for i, running in enumerate(_of_findings(cases, findings, resampling, ties="in order")):
        value[i] = precision_at_recalls(*running.whole()[:3])[0]
        for where, counts in running.drawn():
            drawn[i, where] = precision_at_recalls(*counts[:3])
    n, patients = _lesions(cases, findings, resampling)
    return Replicates(value, drawn, n, np.zeros(findings + 1, dtype=np.int64), patients)


def mean_of(several: Sequence[Replicates]) -> Replicates:
    """The mean of measures that rest on the same cases, replicate by replicate; NaN where one is."""
    first = several[0]
    return Replicates(
        np.mean([one.value for one in several], axis=0),
        np.mean([one.drawn for one in several], axis=0),
        first.n,
        first.undefined,
        first.patients,
    )


def difference(a: Replicates, b: Replicates) -> Replicates:
    """System a minus system b, replicate by replicate: both made with one :class:`Resampling` on the same cases.

    A finding that is undefined for either is undefined. ``n`` is the smaller number of cases of the two.
    """
    if a.drawn.shape != b.drawn.shape:
        raise ValueError(
            f"{a.drawn.shape} and {b.drawn.shape} replicates cannot be paired; use one resampling for both"
        )
    return Replicates(
        a.value - b.value,
        a.drawn - b.drawn,
        np.minimum(a.n, b.n),
        np.maximum(a.undefined, b.undefined),
        np.minimum(a.patients, b.patients),
    )


def paired_difference(
    a: ArrayLike, b: ArrayLike, finding: ArrayLike, findings: int, resampling: Resampling, *, level: float = 0.95
) -> Estimates:
    """The mean of ``a - b`` over the pairs where both systems have a value, with intervals.

    Pairs undefined for either are left out of both and counted. An interval without 0 is a difference at that level.

    Args:
        a: (pair,) values of one system.
        b: (pair,) values of the other on the same pairs, in the same order.
        finding: (pair,) number of each pair's finding.
        findings: how many findings there are.
        resampling: made of the patients of these pairs, in their order.
        level: share of the replicates the interval holds.
    """
    apart = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return mean(apart, finding, findings, resampling).estimates(level=level)


@dataclass(frozen=True)
class _Running:
    """Detections of one finding by descending score, as sums per patient, of which a draw is a product.

    Sensitivity and precision change for the better at hits alone, so that no other point of a curve is needed, however
    many false detections lie between.

    Args:
        hits: (point, patient) sparse; lesions found at this point.
        false: (point, patient) sparse; false detections since the last point.
        lesions: (patient,).
        images: (patient,).
        resampling: what draws.
    """

    hits: sparse.csr_array
    false: sparse.csr_array
    lesions: Values
    images: Values
    resampling: Resampling

    def _sums(self, weights: Values) -> tuple[Values, Values, Values, Values]:
        """Running hits and false detections (point, k), lesions and images (k,), of weights (patient, k)."""
        return _run(self.hits @ weights), _run(self.false @ weights), self.lesions @ weights, self.images @ weights

    def whole(self) -> tuple[Values, Values, Values, Values]:
        """Of every patient once."""
        return self._sums(np.ones((self.resampling.patients, 1)))

    def drawn(self) -> Iterator[tuple[slice, tuple[Values, Values, Values, Values]]]:
        """Of some replicates at a time."""
        for where, weights in self.resampling.blocks(self.hits.shape[0], chunk=_IN_CACHE):
            yield where, self._sums(weights)


def _of_findings(
    cases: Cases, findings: int, resampling: Resampling, *, ties: Literal["together", "in order"]
) -> Iterator[_Running]:
    """Each finding's detections, and last those of all; equal scores make one point, or one each in the order given."""
    _fits(len(cases.lesions), resampling)
    order = np.argsort(-cases.scores, kind="stable")
    order = order[cases.kinds[order] != NEUTRAL]
    kinds, case = cases.kinds[order], cases.case[order]
    row, level = resampling.row[case], -cases.scores[order]
    for i in range(findings + 1):
        own, of_case = (cases.finding[case] == i, cases.finding == i) if i < findings else (slice(None), slice(None))
        kind, who = kinds[own], row[own]
        hit = kind == HIT
        if ties == "together":
            points = np.unique(level[own][hit])
            of_hit, of_false = (np.searchsorted(points, level[own][at], "left") for at in (hit, kind == FALSE))
        else:
            points = np.flatnonzero(hit)
            of_hit, of_false = np.arange(len(points)), hit.cumsum()[kind == FALSE]
        counts = of_false < len(points)  # what comes after the last hit changes nothing
        everyone = resampling.row[of_case]
        yield _Running(
            _sums(of_hit, who[hit], 1.0, len(points), resampling),
            _sums(of_false[counts], who[kind == FALSE][counts], 1.0, len(points), resampling),
            np.bincount(everyone, cases.lesions[of_case], resampling.patients).astype(np.float64),
            np.bincount(everyone, minlength=resampling.patients).astype(np.float64),
            resampling,
        )


def _lesions(cases: Cases, findings: int, resampling: Resampling) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(finding + 1,) lesions, and patients who have one."""
    n = np.bincount(cases.finding, weights=cases.lesions, minlength=findings).astype(np.int64)
    has = cases.lesions > 0
    who = [np.unique(resampling.row[has & (cases.finding == i)]) for i in range(findings)]
    patients = [*map(len, who), len(np.unique(resampling.row[has]))]
    return np.append(n, n.sum()), np.array(patients, dtype=np.int64)


def _of_measure(
    measure: Ranking, of_auroc: Callable[..., Values], of_ap: Callable[..., Values]
) -> Callable[..., Values]:
    if measure not in ("auroc", "average_precision"):
        raise ValueError(f"measure is 'auroc' or 'average_precision', got {measure!r}")
    return of_auroc if measure == "auroc" else of_ap


def _ranking_drawn(
    labels: Values, scores: Values, row: NDArray[np.int64], resampling: Resampling, measure: Ranking
) -> Values:
    """One finding's AUROC or average precision of every replicate (replicate,); all labels known.

    Both need, at each distinct score of positives, how many negatives lie beyond it. Those numbers change by sums per
    patient, a sparse matrix with one or two entries a negative, and its product with the counts gives every replicate.
    """
    positive = labels == 1
    levels = np.unique(scores[positive])  # ascending
    result = np.full(resampling.replicates, np.nan)
    if len(levels) == 0 or (measure == "auroc" and positive.all()):
        return result
    negatives, who = scores[~positive], row[~positive]
    at_least, above = np.searchsorted(levels, negatives, "left"), np.searchsorted(levels, negatives, "right")
    hits = _sums(np.searchsorted(levels, scores[positive]), row[positive], 1.0, len(levels), resampling)
    if measure == "auroc":
        # What each level adds to "negatives below, and half of those that tie"; of a tie, half there, half one further.
        both = np.concatenate([at_least, above]), np.concatenate([who, who])
        steps = _sums(*both, 0.5, len(levels) + 1, resampling)
        for where, weights in resampling.blocks(len(levels), chunk=_IN_CACHE):
            true, beaten = hits @ weights, _run(steps @ weights)
            won = np.einsum("kr,kr->r", true, beaten[:-1])
            result[where] = _ratio(won, true.sum(axis=0) * beaten[-1])
    else:
        # From the highest level down: what each adds to "negatives at or above". Those below every level never count.
        counted = above > 0
        falls = _sums(len(levels) - above[counted], who[counted], 1.0, len(levels), resampling)
        for where, weights in resampling.blocks(len(levels), chunk=_IN_CACHE):
            true = (hits @ weights)[::-1]
            recalled = _run(true.copy())
            called = recalled + _run(falls @ weights)
            gained = np.einsum("kr,kr->r", true, _ratio(recalled, called, 0.0))
            result[where] = _ratio(gained, recalled[-1])
    return result


def _run(values: Values) -> Values:
    """Running sums down axis 0, in place (of an array of our own): ``cumsum`` is several times slower on long rows."""
    for before, here in pairwise(values):
        here += before
    return values


def _sums(
    bins: NDArray[np.int64], row: NDArray[np.int64], each: float, size: int, resampling: Resampling
) -> sparse.csr_array:
    """How many cases of each patient lie in each bin, times ``each``: (bin, patient) sparse."""
    weights = np.full(len(bins), each)
    return sparse.coo_array((weights, (bins, row)), shape=(size, resampling.patients)).tocsr()


def _interval(drawn: Values, level: float) -> tuple[Values, Values]:
    """Percentiles along the last axis of the replicates that have a value: (k, replicate) -> (k,) and (k,)."""
    if not 0 < level < 1:
        raise ValueError(f"an interval holds a share between 0 and 1 of the replicates, got {level}")
    ends = np.full((2, len(drawn)), np.nan)
    for i, replicates in enumerate(drawn):
        defined = replicates[~np.isnan(replicates)]
        if len(defined):
            ends[:, i] = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return ends[0], ends[1]


def _mean_defined(values: Values) -> Values:
    """Mean over axis 0 of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0).astype(np.float64))


def _fits(rows: int, resampling: Resampling) -> None:
    if rows != len(resampling.row):
        raise ValueError(
            f"{rows} rows do not fit a resampling of {len(resampling.row)}; make it of these rows' patients"
        )


def _ratio(part: Values, whole: Values, otherwise: float = math.nan) -> Values:
    return np.divide(part, whole, out=np.full(np.shape(part), otherwise), where=whole > 0)
