"""Does the score follow the map? Insertion and deletion (RISE) of a run, on some images that have the finding.

    {"faithfulness": {"images": N, "steps": N, "findings": {NAME: PART}, "micro": PART, "macro": PART,
                      "curves": {NAME: {"share", "insertion", "deletion"}}}}

PART is ``{"insertion", "deletion", "score", "blurred", "black": ESTIMATE}``, ESTIMATE as in :mod:`radtag.summary`, with
intervals by patient: the areas under both curves, and the scores at their ends, of the image as it is, blurred, and
black. ``curves`` are means over a finding's pairs. Every pair is a row of ``faithfulness.csv``, from which the numbers
follow.

Conventions
-----------
- Pixels are those of the network's input, and go in the order of the map there, in ``steps`` parts
  (:mod:`radtag.metrics.perturbation`). Deletion makes the highest black; insertion puts them onto the blurred image.
- The score is the tag's: calibrated, and the mean with the mirrored image where that is asked for.
- Of each finding, at most so many images whose label says that it is there, evenly spaced in the order of the data
  set: neither score nor map has a say in which. So the time is bounded by findings x images x 2 (steps + 1) passes.
- It is about the model and not about the disease: a map that follows a wrong clue scores well. Nor does one number
  say much alone; compare maps of one and the same run.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radtag.data.csvfile import write_csv
from radtag.data.table import Dataset
from radtag.errors import BadData, BadSetting
from radtag.geometry import Frame, to_original
from radtag.metrics import Resampling, bootstrap, perturbation
from radtag.metrics.perturbation import PerturbationCurve
from radtag.predictions import Predictor, predictions
from radtag.tag import Layer, Tagger

FILE = "faithfulness.csv"
STEPS = 32
COLUMNS = ("image", "patient", "finding", "insertion", "deletion", "insertion_scores", "deletion_scores")
PARTS = ("insertion", "deletion", "score", "blurred", "black")


@dataclass(frozen=True)
class Followed:
    """The curves of one image and finding."""

    image: str
    patient: str
    finding: str
    insertion: PerturbationCurve
    deletion: PerturbationCurve

    def values(self) -> dict[str, float]:
        """Its numbers, by name."""
        return {
            "insertion": self.insertion.area,
            "deletion": self.deletion.area,
            "score": float(self.deletion.scores[0]),
            "blurred": float(self.insertion.scores[0]),
            "black": float(self.deletion.scores[-1]),
        }


def refuse(tagger: Predictor, images: int, steps: int = STEPS) -> None:
    """Refuses what cannot be measured, before anything is tagged.

    Raises:
        BadSetting: a number out of range, maps without a network, or several networks.
    """
    if images < 0 or steps < 1:
        raise BadSetting(f"insertion and deletion are of at least 0 images in at least 1 step, got {images}, {steps}.")
    if not images:
        return
    if not isinstance(tagger, Tagger):
        raise BadSetting("insertion and deletion ask a network again and again, and here are maps alone. Give a run.")
    if len(tagger.runs) > 1:
        raise BadSetting(
            f"insertion and deletion are of one network, got {len(tagger.runs)}. Evaluate each run by itself."
        )


def measure(
    tagger: Predictor,
    dataset: Dataset,
    images: int,
    *,
    steps: int = STEPS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Followed]:
    """The curves of some pairs of a data set, image by image.

    Args:
        tagger: of one run.
        dataset: images with labels; those that cannot be read are left out.
        images: at most so many of each finding.
        steps: parts the pixels go in.
        progress: called with the number of images done and of all.
    """
    refuse(tagger, images, steps)
    if not images:
        return []
    assert isinstance(tagger, Tagger)
    wanted = chosen(dataset, images)
    numbers = [i for i, record in enumerate(dataset.records) if record.image in wanted]
    found: list[Followed] = []
    unread: dict[str, str] = {}
    for done, (record, patient, prediction) in enumerate(predictions(tagger, dataset, unread, only=numbers), start=1):
        pixels = tagger.prepare(prediction.image).inputs[0][0].astype(np.float32)
        for finding in wanted[record.image]:
            at = tagger.findings.index(finding)
            laid = on_input(prediction.layers, at)

            def scores(batch: NDArray[np.floating[Any]], at: int = at) -> NDArray[np.float32]:
                return tagger.scores(np.rint(batch).astype(np.uint8))[:, at]

            curves = [
                curve(scores, pixels, laid, steps=steps, batch=tagger.batch_size)
                for curve in (perturbation.insertion, perturbation.deletion)
            ]
            found.append(Followed(record.image, patient, finding, *curves))
        if progress is not None:
            progress(done + len(unread), len(numbers))
    return found


def on_input(layers: Sequence[Layer], finding: int) -> NDArray[np.float32]:
    """A finding's map (row, col) at the pixels of the network's input: what is laid on the original, before that."""
    size_rc = layers[0].frame.size_rc
    laid = [to_original(one.maps[finding], one.grids[finding], Frame.identity(size_rc)) for one in layers]
    mean: NDArray[np.float32] = np.mean(laid, axis=0)
    return mean


def chosen(dataset: Dataset, images: int) -> dict[str, list[str]]:
    """Image -> the findings it is asked for: of each, so many images at most that have it, evenly spaced."""
    asked: dict[str, list[str]] = {}
    for i, finding in enumerate(dataset.findings):
        has = [record.image for record in dataset.records if record.labels[i] == 1]
        at = np.unique(np.linspace(0, len(has) - 1, min(images, len(has))).round().astype(np.int64))
        for number in at.tolist():
            asked.setdefault(has[number], []).append(finding)
    return asked


def summarised(
    pairs: Sequence[Followed], findings: Sequence[str], *, images: int, bootstraps: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """``{"faithfulness": {...}}``, or nothing where nothing was measured.

    Args:
        pairs: what was measured.
        findings: in their order.
        images: how many of each were asked for at most.
        bootstraps: draws of patients for the intervals; 0 gives values without intervals.
        seed: of the draws.
    """
    if not pairs:
        return {}
    finding = np.array([findings.index(one.finding) for one in pairs])
    draws = Resampling([one.patient for one in pairs], replicates=max(bootstraps, 1), seed=seed)
    values = [one.values() for one in pairs]
    empty = {} if bootstraps else {"low": None, "high": None}
    estimates = {
        key: bootstrap.mean([one[key] for one in values], finding, len(findings), draws).estimates() for key in PARTS
    }
    curves = {}
    for number, name in enumerate(findings):
        own = [one for one, at in zip(pairs, finding.tolist(), strict=True) if at == number]
        if own:
            curves[name] = {
                "share": own[0].insertion.share.round(6).tolist(),
                "insertion": np.mean([one.insertion.scores for one in own], axis=0).round(6).tolist(),
                "deletion": np.mean([one.deletion.scores for one in own], axis=0).round(6).tolist(),
            }
    return {
        "faithfulness": {
            "images": images,
            "steps": len(pairs[0].insertion.scores) - 1,
            "findings": {
                name: {key: {**estimates[key].per_finding[i].to_dict(), **empty} for key in PARTS}
                for i, name in enumerate(findings)
                if name in curves
            },
            "micro": {key: {**estimates[key].micro.to_dict(), **empty} for key in PARTS},
            "macro": {key: {**estimates[key].macro.to_dict(), **empty} for key in PARTS},
            "curves": curves,
        }
    }


def write(folder: Path, pairs: Iterable[Followed]) -> None:
    """A row a pair as ``faithfulness.csv``; where there is none, one of an earlier evaluation goes."""
    rows = [
        [
            *(one.image, one.patient, one.finding),
            *(f"{curve.area:.9g}" for curve in (one.insertion, one.deletion)),
            *(" ".join(f"{score:.6g}" for score in curve.scores) for curve in (one.insertion, one.deletion)),
        ]
        for one in pairs
    ]
    if not rows:
        (folder / FILE).unlink(missing_ok=True)
        return
    write_csv(folder / FILE, COLUMNS, rows)


def read(folder: Path) -> list[Followed]:
    """What :func:`write` wrote; nothing where there is no such file.

    Raises:
        BadData: a damaged file.
    """
    if not (folder / FILE).is_file():
        return []
    try:
        with (folder / FILE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return [
                Followed(
                    row["image"],
                    row["patient"],
                    row["finding"],
                    *(_curve(row[f"{name}_scores"]) for name in ("insertion", "deletion")),
                )
                for row in csv.DictReader(file)
            ]
    except (KeyError, ValueError, AttributeError) as error:
        raise BadData(f"{folder / FILE} is damaged ({error}). Write it again with radtag evaluate.") from error


def _curve(scores: str) -> PerturbationCurve:
    values = np.array([float(one) for one in scores.split()])
    if len(values) < 2:
        raise ValueError(f"{len(values)} scores are no curve")
    return PerturbationCurve(np.linspace(0, 1, len(values)), values)


def pooled(folders: Sequence[Path], asked: Sequence[int]) -> tuple[int, list[Followed], list[str]]:
    """Of how many images a finding the folds were asked for, all their pairs, and what to say if they differ.

    Args:
        folders: the evaluations, one a fold.
        asked: what each was asked for.
    """
    if not any(asked):
        return 0, [], []
    each = [read(folder) for folder in folders]
    steps = {len(one.insertion.scores) for pairs in each for one in pairs}
    if len(set(asked)) == 1 and len(steps) <= 1:  # none where no image has a finding
        return asked[0], [one for pairs in each for one in pairs], []
    return 0, [], ["Insertion and deletion are left out: not all folds have them, in as many images and steps."]
