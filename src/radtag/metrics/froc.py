"""FROC and average precision of detections: what a found lesion costs in false ones, healthy images included.

Conventions
-----------
- A case is a pair of image and finding; those labelled 0 count, and all that is detected there is false. Pairs of which
  nobody said where the lesion is are left out by the caller.
- Detections are taken by descending score. One is a *hit* (1), *false* (0), or *neutral* (-1), which costs nothing.
- :func:`match` is COCO's and nnDetection's rule: a detection takes the free lesion it overlaps most, if by at least the
  threshold; a second one on a taken lesion is false. :func:`match_points` is MONAI's: a detection hits the lesion its
  point lies on; a further one on the same lesion is neutral.
- FROC: sensitivity (hits per lesion) over false detections per image. ``read="step"``, the reported one, reads the
  last operating point with at most so many false detections, as PI-CAI does: a point that can be chosen. ``"linear"``
  interpolates between points from (0, 0) on, as nnDetection and MONAI do. MONAI also drops the lowest score of all,
  even where it is an operating point; we do not. The same detections read from .04 to .31 at 1/4 under these rules.
- Average precision is COCO's: precision made monotone, read at the 101 recalls 0, .01 ... 1, then averaged; each
  detection is a step of its own, equal scores in the order given. At most 100 detections a case is the caller's.
- Detections come from a mask threshold: the curve ends where it is reached, and the last sensitivity is held beyond.
- Undefined is NaN: no lesion, or no case.

References: Chakraborty, Maximum likelihood analysis of free-response ROC data, Medical Physics 16, 1989; van Ginneken
et al., Medical Image Analysis 14, 2010 (ANODE09: the mean sensitivity at 1/8 to 8); Lin et al., Microsoft COCO, ECCV
2014; Baumgartner et al., nnDetection, MICCAI 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radtag.geometry import box_iou

Values = NDArray[np.float64]
Read = Literal["step", "linear"]

FALSE_PER_IMAGE = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
RECALLS = np.linspace(0, 1, 101)

HIT, FALSE, NEUTRAL = 1, 0, -1


@dataclass(frozen=True)
class Cases:
    """The detections of many cases, and how many lesions each case has: what a bootstrap over patients draws from.

    Args:
        kinds: (detection,) 1 = hit, 0 = false, -1 = neutral.
        scores: (detection,).
        case: (detection,) number of the case each belongs to.
        lesions: (case,) how many there are, found or not.
        finding: (case,) number of its finding, from 0.

    Raises:
        ValueError: lengths that differ, a kind that there is not, or a detection of no case.
    """

    kinds: NDArray[np.int8]
    scores: Values
    case: NDArray[np.int64]
    lesions: NDArray[np.int64]
    finding: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.kinds) == len(self.scores) == len(self.case):
            raise ValueError(
                f"{len(self.kinds)} kinds, {len(self.scores)} scores and {len(self.case)} cases do not fit"
            )
        if len(self.lesions) != len(self.finding):
            raise ValueError(f"{len(self.lesions)} numbers of lesions do not fit {len(self.finding)} findings")
        if not np.isin(self.kinds, (HIT, FALSE, NEUTRAL)).all():
            raise ValueError(f"a detection is 1, 0 or -1, got {set(self.kinds.tolist())}")
        if len(self.case) and not (self.case.min() >= 0 and self.case.max() < len(self.lesions)):
            raise ValueError(f"detections are of cases {self.case.min()} to {self.case.max()} of {len(self.lesions)}")

    def of(self, finding: int) -> Curve:
        """The curve of one finding."""
        own = self.finding == finding
        at = own[self.case]
        return curve(self.kinds[at], self.scores[at], lesions=int(self.lesions[own].sum()), images=int(own.sum()))


@dataclass(frozen=True)
class Curve:
    """An FROC curve.

    Args:
        false_per_image: (point,) rising.
        sensitivity: (point,) rising.
        scores: (point,) the least score counted at each point.
    """

    false_per_image: Values
    sensitivity: Values
    scores: Values

    def at(self, false_per_image: Sequence[float] = FALSE_PER_IMAGE, *, read: Read = "step") -> Values:
        """Sensitivity at so many false detections per image (k,)."""
        if read not in ("step", "linear"):
            raise ValueError(f"a curve is read by 'step' or 'linear', got {read!r}")
        if read == "linear":
            return np.interp(false_per_image, np.append(0.0, self.false_per_image), np.append(0.0, self.sensitivity))
        found = sensitivities(self.sensitivity[:, None], self.false_per_image[:, None], false_per_image)
        return np.asarray(found[:, 0])

    def score(self, false_per_image: Sequence[float] = FALSE_PER_IMAGE, *, read: Read = "step") -> float:
        """The mean of :meth:`at`: by default the seven points from 1/8 to 8."""
        return float(self.at(false_per_image, read=read).mean())


def match(overlap: ArrayLike, scores: ArrayLike, threshold: float) -> NDArray[np.int8]:
    """Which detections of one case are hits: (detection,) 1 or 0.

    Definition: by descending score (equal ones in order), each takes the free lesion of greatest overlap, if that is
    ``>= threshold``; of equally good ones the last, as in pycocotools.

    Args:
        overlap: (detection, lesion), such as :func:`radtag.geometry.box_iou` gives.
        scores: (detection,).
        threshold: the least overlap.
    """
    shared = np.asarray(overlap, dtype=np.float64)
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    hits = np.zeros(len(order), dtype=np.int8)
    if shared.size == 0:
        return hits
    free = np.ones(shared.shape[1], dtype=bool)
    for i in order.tolist():
        fits = np.where(free & (shared[i] >= threshold), shared[i], -1.0)
        best = len(fits) - 1 - int(fits[::-1].argmax())
        if fits[best] >= 0:
            free[best], hits[i] = False, HIT
    return hits


def match_boxes(boxes_xyxy: ArrayLike, scores: ArrayLike, true_xyxy: ArrayLike, iou: float) -> NDArray[np.int8]:
    """:func:`match` by the IoU of boxes (n, 4) with true boxes (m, 4), half-open, of one case."""
    return match(box_iou(boxes_xyxy, true_xyxy), scores, iou)


def match_points(lesion: ArrayLike, scores: ArrayLike) -> NDArray[np.int8]:
    """Hits by the lesion a detection's point lies on (detection,), 0 = none: (detection,) 1, 0 or -1 = neutral."""
    on, order = np.asarray(lesion, dtype=np.int64), np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    found = np.zeros(len(on), dtype=np.int8)
    _, first = np.unique(on[order], return_index=True)
    found[on > 0] = NEUTRAL
    best = order[first]
    found[best[on[best] > 0]] = HIT
    return found


def curve(kinds: ArrayLike, scores: ArrayLike, *, lesions: int, images: int) -> Curve:
    """The FROC curve of all cases' detections; an operating point for every distinct score.

    Args:
        kinds: (detection,) 1 = hit, 0 = false, -1 = neutral.
        scores: (detection,).
        lesions: of all cases, found or not.
        images: cases, with lesions or without.
    """
    kind, score = np.asarray(kinds, dtype=np.int8), np.asarray(scores, dtype=np.float64)
    order = np.argsort(-score, kind="stable")
    kind, score = kind[order], score[order]
    last = np.append(score[1:] != score[:-1], True)[: len(score)]
    hits, false = (kind == HIT).cumsum()[last], (kind == FALSE).cumsum()[last]
    if not (lesions and images):
        undefined = np.full(max(1, len(hits)), np.nan)
        return Curve(undefined, undefined, np.resize(score[last], len(undefined)) if len(hits) else undefined)
    return Curve(false / images, hits / lesions, score[last])


def sensitivities(sensitivity: Values, false_per_image: Values, at: Sequence[float]) -> Values:
    """Curves (point, replicate) read by steps at (k,) -> (k, replicate); NaN where a curve is.

    Before the first operating point nothing is found.
    """
    if not len(sensitivity):
        return np.zeros((len(at), sensitivity.shape[1]))
    below = np.stack([(false_per_image <= x).sum(axis=0) for x in at])
    read = np.take_along_axis(sensitivity, np.maximum(below - 1, 0), axis=0)
    undefined = np.isnan(sensitivity).all(axis=0) | np.isnan(false_per_image).all(axis=0)
    return np.where(undefined, np.nan, np.where(below > 0, read, 0.0))


def average_precision(kinds: ArrayLike, scores: ArrayLike, *, lesions: int) -> float:
    """COCO's average precision of all cases' detections, case by case in a fixed order; see the conventions.

    Args:
        kinds: (detection,) 1 = hit, 0 = false.
        scores: (detection,).
        lesions: of all cases, found or not.
    """
    kind = np.asarray(kinds, dtype=np.int8)[np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")]
    at = kind == HIT
    hits, false = (running.cumsum()[at, None].astype(np.float64) for running in (at, kind == FALSE))
    return float(precision_at_recalls(hits, false, np.array([float(lesions)]))[0])


def precision_at_recalls(hits: Values, false: Values, lesions: Values) -> Values:
    """COCO's average precision of many replicates: running counts at the hits alone (hit, replicate), best first.

    Between two hits precision falls, so that its greatest value from any point on is that of a hit: nothing else is
    needed. NaN without lesions.

    Args:
        hits: (hit, replicate) lesions found by then; a hit that is not drawn leaves it as it was.
        false: (hit, replicate) false detections by then.
        lesions: (replicate,).
    """
    called = hits + false
    precision = np.divide(hits, called, out=np.zeros(hits.shape), where=called > 0)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = np.divide(hits, lesions, out=np.zeros(hits.shape), where=lesions > 0)
    reached = np.searchsorted(RECALLS, recall, side="right")
    gained = np.diff(reached, axis=0, prepend=0)
    return np.where(lesions > 0, (gained * precision).sum(axis=0) / len(RECALLS), np.nan)
