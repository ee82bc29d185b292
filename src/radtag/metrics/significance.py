"""Which of several systems are better than which: p-values of paired differences, Holm's correction, ranks with ties.

Conventions
-----------
- A p-value is two-sided and comes from the replicates of a difference: twice the share of them on the other side of
  zero. It is never 0: with ``n`` replicates it is at least ``2 / (n + 1)``, so many comparisons need many replicates
  (:func:`enough_replicates`).
- Undefined (NaN) p-values are not among the comparisons that a correction counts.
- A system's rank is one more than the number of systems that are *significantly* better than it. Systems that cannot be
  told apart share a rank. Where A is better than C, and B differs from neither, A and B are first and C is second.

References: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 16; Holm, Scandinavian Journal of
Statistics 6, 1979.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]


def p_value(drawn: ArrayLike) -> float:
    """Two-sided p-value of a difference being zero.

    Definition: ``min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (1 + n))`` over the ``n`` replicates that have a value.

    Args:
        drawn: (replicate,) the difference in every replicate; NaN = undefined, left out.

    Returns:
        The p-value, NaN where no replicate has a value.
    """
    d = np.asarray(drawn, dtype=np.float64).reshape(-1)
    d = d[~np.isnan(d)]
    if len(d) == 0:
        return math.nan
    beyond = min(np.count_nonzero(d <= 0), np.count_nonzero(d >= 0))
    return min(1.0, 2 * (1 + beyond) / (1 + len(d)))


def holm(p: ArrayLike) -> Values:
    """Holm's step-down correction, which holds the chance of any false difference among all to the level asked for.

    Definition: of m sorted p-values the i-th becomes ``max over j <= i of min(1, (m - j + 1) p_j)``.

    Args:
        p: (comparison,) p-values; NaN = undefined.

    Returns:
        (comparison,) corrected p-values, to be held against the level itself.
    """
    given = np.asarray(p, dtype=np.float64).reshape(-1)
    defined = np.flatnonzero(~np.isnan(given))
    order = defined[np.argsort(given[defined], kind="stable")]
    corrected = np.full(len(given), np.nan)
    scaled = given[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def ranks(better: ArrayLike, defined: ArrayLike) -> list[int | None]:
    """Ranks with ties.

    Args:
        better: (system, system) True where the row's system is significantly better than the column's.
        defined: (system,) True for those that have a value.

    Returns:
        Per system its rank, from 1; None for one that has no value.
    """
    above = np.asarray(better, dtype=bool).sum(axis=0)
    return [1 + int(n) if known else None for n, known in zip(above, np.asarray(defined, dtype=bool), strict=True)]


def enough_replicates(comparisons: int, *, level: float = 0.05) -> int:
    """Replicates with which the smallest possible p-value is half of what Holm's first step asks for.

    Args:
        comparisons: that are corrected together.
        level: of significance.
    """
    return math.ceil(4 * max(comparisons, 1) / level)
