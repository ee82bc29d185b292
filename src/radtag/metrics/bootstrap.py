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
    auroc,
    average_precision,
    binned_auroc,
    binned_average_precision,
    checked_labels,
)

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
