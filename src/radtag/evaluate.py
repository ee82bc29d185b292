"""Evaluate a run on a data set: how often is it right, where is it right, and does a healthy image stay dark?

``evaluate`` writes into a folder:

- ``metrics.json``: every number with its interval (:mod:`radtag.summary`), and ``about``, what was evaluated on what;
- ``pairs.csv``: a row per image and finding (:mod:`radtag.pairs`), from which the numbers follow;
- ``pixels.npz``: histograms of the maps' values within and without the true masks, where there are masks;
- ``pictures/`` and ``pictures.json``: some cases chosen by their truth alone, the same for every run;
- ``faithfulness.csv``: where it is asked for, insertion and deletion of some pairs (:mod:`radtag.faithfulness`);
- ``report.html``: all of it to look at, one file, without network.

Images pass one batch at a time; no map is kept. Masks and boxes are read here and nowhere in training.

What is compared with what: the true boxes of a pair if the data set has them, else the boxes around the parts of
its true mask. The map is the calibrated one in original pixels, as ``radtag tag`` gives it; ``pointing_network`` alone
takes the network's own map, the plain sigmoid of its logits, laid over the network's input in tiles, as PYLON is
published. The calibrated map has the same highest cell, but between cells the two interpolate differently.

``inside="lungs"`` changes which pixels count, and nothing else: what is marked, and all that is measured against
outlines, is counted in the data set's lung mask of the image, or, where it has none, in lungs estimated from the image.
Points and boxes are taken on the whole image all the same.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

import radtag
from radtag import faithfulness as faithful
from radtag import measured, process
from radtag.anatomy import Area, estimate_lungs
from radtag.asked import asked
from radtag.data.seen import Seen, pooled, screened, sentences
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting, UnreadableImage
from radtag.gallery import FixedCase, choose_and_draw, pooled_gallery, read_fixed, write_fixed
from radtag.geometry import cell_weights, mask_to_frame, stretch_mask
from radtag.groups import By, Values, checked, grouped, values_of, write_values
from radtag.groups import pooled as pooled_groups
from radtag.images import Image, read_mask
from radtag.metrics import PixelRanking, boxes, masks, points
from radtag.metrics.classification import checked_labels
from radtag.metrics.resize import bilinear
from radtag.pairs import PairTable
from radtag.predictions import Predictor, predictions
from radtag.report.page import Curve, Gallery, Plot, replace_text, thousands, write_report
from radtag.report.plots import froc_plot, presence_plots, reliability_plot
from radtag.summary import FROC_BY, PixelCounts, operating_points, summarise
from radtag.tag import Prediction, Tag, Tagger, not_limited
from radtag.train.outline import run_digest
from radtag.train.run import Run
from radtag.truth import Mask, Truth, readers_hit, truth_of
from radtag.words import changes, counted, inflected

Progress = Callable[[int, int], None]
Inside = Literal["image", "lungs"]


def evaluate(
    run: Run | Path | str | Sequence[Run | Path | str] | Predictor,
    dataset: Dataset,
    out: Path | str,
    *,
    inside: Inside = "image",
    by: Sequence[str] = (),
    faithfulness: int = 0,
    seen: Seen = "refuse",
    bootstraps: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Tags every image of a data set, scores the tags, and writes numbers and report.

    Images that cannot be read are left out and listed in the report and in ``about``. Findings that only the run, or
    only the data set knows are left out and named.

    Args:
        run: what to evaluate: a run, several as an ensemble, or a tagger at hand.
        dataset: images with labels, and boxes or masks where they are known. Give one split: ``dataset.only("test")``.
        out: the folder; an earlier evaluation of the same run and data with the same options is replaced.
        inside: the pixels that count in what is marked and against outlines: all of the image's, or those in the lungs.
        by: columns of the table to group by as well, or "size" (:mod:`radtag.groups`).
        faithfulness: insertion and deletion, too, of so many images of each finding that have it
            (:mod:`radtag.faithfulness`); 0 = of none.
        seen: what becomes of images that the run was trained on, or had its thresholds set on
            (:mod:`radtag.data.seen`): refused, left out, or counted, which the report then says.
        bootstraps: draws of patients for the intervals; 0 gives none.
        seed: of the draws.
        overwrite: any other evaluation in the folder is replaced as well, where it is otherwise refused.
        progress: called with the number of images done and of all.
        options: as for :class:`radtag.tag.Tagger`, where ``run`` is not one (device, batch_size, grid, tta ...).

    Returns:
        The content of ``metrics.json``.

    Raises:
        BadData: no finding in common, no image, none that can be read, or images that the run has seen.
        BadSetting: a negative number of bootstraps, pixels to count that there are not, or a folder that holds another
            evaluation.
    """
    started = time.monotonic()
    _refuse_negative(bootstraps)
    if inside not in get_args(Inside):
        raise BadSetting(f"pixels are counted inside the {' or '.join(get_args(Inside))}, not inside {inside!r}.")
    tagger = _tagger(run, options)
    faithful.refuse(tagger, faithfulness)
    findings = tuple(name for name in dataset.findings if name in tagger.findings)
    if not findings:
        raise BadData(
            f"{dataset.name} and the run have no finding in common: {', '.join(dataset.findings)};"
            f" {', '.join(tagger.findings)}. Rename the columns of the data set."
        )
    if not len(dataset):
        raise BadData(f"{dataset.name} has no image. Give a data set, or a split of it, with images.")
    left_out = _left_out(tagger.findings, dataset.findings)
    dataset, seen_before = screened(
        dataset.with_findings(findings), [Path(one.path) for one in getattr(tagger, "runs", ())], seen
    )
    out = Path(out)
    groups = checked(by, dataset)
    made_from = {**_made_from(tagger, dataset, inside=inside, bootstraps=bootstraps, seed=seed), "by": list(by)}
    made_from["faithfulness"] = faithfulness
    if not overwrite:
        refuse_other(out / "metrics.json", made_from)
    out.mkdir(parents=True, exist_ok=True)

    scorer = _Scorer(tagger, findings, inside)
    bad: dict[str, str] = {}

    def rows() -> Iterator[dict[str, Any]]:
        stream = predictions(tagger, dataset, bad, seen=scorer.look)
        for done, (record, patient, prediction) in enumerate(stream, start=1):
            yield from scorer.score(record, patient, prediction)
            if progress is not None:
                progress(done + len(bad), len(dataset))

    before = time.monotonic()
    table = PairTable.of(rows())
    seconds = time.monotonic() - before
    if not len(table):
        first = next(iter(bad.values()), "")
        raise BadData(
            f"{dataset.name}: none of its {counted(len(dataset), 'image[s]')} can be read. The first: {first}"
        )
    pixels = PixelCounts.of(scorer.pixels, list(scorer.patients)) if scorer.outlined else None
    values = values_of(dataset, groups)
    result = {
        **_numbers(table, pixels, values, groups, bootstraps=bootstraps, seed=seed),
        "about": {**made_from, **_about(tagger, dataset, table, bad, scorer, left_out, seen_before)},
    }
    followed = faithful.measure(tagger, dataset, faithfulness, progress=progress)
    result |= faithful.summarised(followed, findings, images=faithfulness, bootstraps=bootstraps, seed=seed)
    gallery, fixed = choose_and_draw(tagger, dataset, table)
    result["about"]["images_per_second"] = float(f"{result['about']['images'] / max(seconds, 1e-9):.3g}")
    result["about"]["minutes"] = round((time.monotonic() - started) / 60, 2)
    _write(out, result, table, pixels, values, followed, fixed, gallery)
    return result


def pool(
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    bootstraps: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Several evaluations as one: folds of a cross-validation, each run tested on the images it was not trained on.

    Pairs are put together and every number is taken over all of them, with one bootstrap over all patients. Scores of
    different runs are compared as they are, on their calibrated scale.

    Args:
        folders: what :func:`evaluate` wrote, once a fold.
        out: the folder, written as an evaluation; one of the same folds with the same options is replaced.
        bootstraps: draws of patients for the intervals; 0 gives none.
        seed: of the draws.
        overwrite: any other evaluation in the folder is replaced as well, where it is otherwise refused.

    Raises:
        BadData: a folder that is no evaluation, folds that share an image, that differ in their findings, or that were
            tagged in different ways.
        BadSetting: a negative number of bootstraps, or a folder that holds another evaluation.
    """
    _refuse_negative(bootstraps)
    if not folders:
        raise BadData("nothing to pool. Give the folders that radtag evaluate wrote, one a fold.")
    paths, out = [Path(folder) for folder in folders], Path(out)
    parts = [PairTable.read(path / "pairs.csv") for path in paths]
    abouts = [read_metrics(path)["about"] for path in paths]
    refuse_mixed(paths, abouts)
    refuse_other_ways(paths, abouts)
    seen: dict[str, Path] = {}
    for path, part in zip(paths, parts, strict=True):
        if part.findings != parts[0].findings:
            raise BadData(
                f"{path} has the findings {', '.join(part.findings)}; {paths[0]} has {', '.join(parts[0].findings)}."
                " Pool evaluations of the same findings in the same order."
            )
        for image in dict.fromkeys(part["image"].tolist()):
            if image in seen:
                raise BadData(
                    f"{image} is in {seen[image]} and in {path}. Folds share no image: pool evaluations of others."
                )
            seen[image] = path
    table = PairTable.join(parts)
    counts = [PixelCounts.read(path / "pixels.npz") for path in paths]
    known = [one for one in counts if one is not None]
    pixels = PixelCounts.join(known) if known else None
    first = abouts[0]
    by, values, lost = pooled_groups(paths, [one.get("by", []) for one in abouts])
    faithfulness, followed, differing = faithful.pooled(paths, [one.get("faithfulness", 0) for one in abouts])
    made_from = {
        "run": _same([one["run"] for one in abouts]) or f"{len(paths)} runs",
        "data": _same([one["data"] for one in abouts]) or ", ".join(dict.fromkeys(one["data"] for one in abouts)),
        "split": _same([one["split"] for one in abouts]) or "",
        "folds": len(paths),
        "inside": first.get("inside", "image"),
        "seed": seed,
        "bootstraps": bootstraps,
        "by": by,
        "faithfulness": faithfulness,
        "digests": {"pairs": _digest([(path / "pairs.csv").read_bytes() for path in paths])},
    }
    if not overwrite:
        refuse_other(out / "metrics.json", made_from)
    about = {
        **made_from,
        **table.counts(),
        "unreadable": {name: cause for one in abouts for name, cause in one["unreadable"].items()},
        **({"seen": seen_before} if (seen_before := pooled([one.get("seen", {}) for one in abouts])) else {}),
        "versions": first["versions"],
        "hardware": _same([one["hardware"] for one in abouts]) or first["hardware"],
        "minutes": round(sum(one["minutes"] for one in abouts), 2),
        "date": _today(),
        "card": {f"fold {i}": {"run": one["run"], **one["card"]} for i, one in enumerate(abouts, start=1)},
        "notes": [
            f"{len(paths)} evaluations pooled: every image is scored by the run that was not trained on it, and"
            " scores of different runs are ranked together as they are.",
            *lost,
            *differing,
            *dict.fromkeys(note for one in abouts for note in one["notes"]),
        ],
    }
    result = {
        **_numbers(table, pixels, values, [By.parse(text) for text in by], bootstraps=bootstraps, seed=seed),
        **faithful.summarised(followed, table.findings, images=faithfulness, bootstraps=bootstraps, seed=seed),
        "about": about,
    }
    out.mkdir(parents=True, exist_ok=True)
    # Chosen by their truth alone, fold by fold, so that they stand for all.
    fixed = [case for path in paths for case in read_fixed(path)]
    _write(out, result, table, pixels, values, followed, fixed, pooled_gallery(fixed))
    return result


def _numbers(
    table: PairTable, pixels: PixelCounts | None, values: Values, by: Sequence[By], *, bootstraps: int, seed: int
) -> dict[str, Any]:
    """What ``metrics.json`` has that follows from the table."""
    return {
        **summarise(table, pixels, bootstraps=bootstraps, seed=seed),
        **operating_points(table, bootstraps=bootstraps, seed=seed),
        **asked(table, bootstraps=bootstraps, seed=seed),
        **grouped(table, values, by, bootstraps=bootstraps, seed=seed),
    }


def _write(
    out: Path,
    result: Mapping[str, Any],
    table: PairTable,
    pixels: PixelCounts | None,
    values: Values,
    followed: Sequence[faithful.Followed],
    fixed: Sequence[FixedCase],
    gallery: Gallery,
) -> None:
    """All files of a folder; of an earlier evaluation there none stays that this one has no content for."""
    (out / "pixels.npz").unlink(missing_ok=True)
    if pixels is not None:
        pixels.write(out / "pixels.npz")
    table.write(out / "pairs.csv")
    write_values(out, values)
    faithful.write(out, followed)
    write_fixed(out, fixed)
    replace_text(out / "metrics.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    write_report(out / "report.html", result, curves(table), gallery, plots(table, result))


def read_metrics(folder: Path) -> dict[str, Any]:
    """The content of an evaluation's ``metrics.json``.

    Raises:
        BadData: the folder is no evaluation, or its file is damaged.
    """
    file = folder / "metrics.json"
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        values["about"], values["findings"], values["micro"], values["macro"]
    except FileNotFoundError as error:
        raise BadData(f"{file} does not exist. Give the folder that radtag evaluate wrote with --out.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"{file} is damaged ({error}). Write it again with radtag evaluate.") from error
    return values


_USUAL: dict[str, Any] = {"inside": "image", "by": [], "faithfulness": 0, "measures": []}
"""What a result does not say of itself that is made in the usual way, or was when there was no other."""


def refuse_other(file: Path, made_from: Mapping[str, Any]) -> None:
    """Refuses to replace a result that was made from something else.

    Args:
        file: the JSON file of an earlier result, with an ``about``; none there, or a damaged one, is no reason.
        made_from: of the result that is about to be made; what the earlier one does not say is not compared.

    Raises:
        BadSetting: it was made from something else.
    """
    try:
        about = {**_USUAL, **json.loads(file.read_text(encoding="utf-8"))["about"]}
        made_from = {**_USUAL, **made_from}
        was = {name: about[name] for name in made_from if name in about}
    except (OSError, ValueError, KeyError, TypeError):
        return
    now = json.loads(json.dumps({name: made_from[name] for name in was}))
    if was != now:
        raise BadSetting(
            f"{file.parent} holds a result made otherwise: {changes(was, now)}."
            " Give another --out, or replace it with --overwrite."
        )


def refuse_mixed(folders: Sequence[Path], abouts: Sequence[Mapping[str, Any]]) -> None:
    """Refuses evaluations that count different pixels.

    Args:
        folders: the evaluations.
        abouts: theirs.

    Raises:
        BadData: one counts all pixels, another those inside the lungs.
    """
    counted_in = [about.get("inside", "image") for about in abouts]
    for folder, inside in zip(folders, counted_in, strict=True):
        if inside != counted_in[0]:
            raise BadData(
                f"{folder} counts the pixels inside the {inside}, and {folders[0]} those inside the {counted_in[0]}."
                " Evaluate both with the same --inside."
            )


TAGGED_BY = ("grid", "tta", "min_area_px", "area", "explain", "explain_layer", "explain_scale", "values", "missing")
"""Of a tagger's settings, those that are not a run's own, as thresholds are: what they make is not to be pooled."""


def refuse_other_ways(folders: Sequence[Path], abouts: Sequence[Mapping[str, Any]]) -> None:
    """Refuses to pool folds that were tagged in different ways.

    Raises:
        BadData: one mirrored its images, or limited its masks, and another did not.
    """
    ways = []
    for about in abouts:
        tagging = about.get("tagging", {})
        mask = tagging.get("mask")
        by_image = "otsu" in (mask.values() if isinstance(mask, Mapping) else [mask])
        ways.append({**{name: tagging.get(name) for name in TAGGED_BY}, "mask": "otsu" if by_image else None})
    for folder, way in zip(folders, ways, strict=True):
        if way != ways[0]:
            raise BadData(
                f"{folder} was tagged otherwise than {folders[0]}, where {changes(ways[0], way)}."
                " Evaluate all folds with the same options."
            )


def curves(table: PairTable) -> list[Curve]:
    """ROC, precision-recall and reliability of each finding that has both classes."""
    found = []
    for finding in table.findings:
        at = (table["finding"] == finding) & ~np.isnan(table["label"])
        label, score = checked_labels(table["label"][at], table["score"][at])
        if not 0 < label.sum() < len(label):
            continue
        order = np.argsort(-score, kind="stable")
        last = np.append(score[order][1:] != score[order][:-1], True)  # equal scores enter together
        true, false = label[order].cumsum()[last], (1 - label[order]).cumsum()[last]
        roc = np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])
        pr = np.append(0.0, true / true[-1]), np.append(1.0, true / (true + false))
        pr[1][0] = pr[1][1]
        found.append(Curve(finding, len(label), int(label.sum()), presence_plots(label, score, roc, pr, finding)))
    return found


def plots(table: PairTable, result: Mapping[str, Any]) -> dict[str, list[Plot]]:
    """FROC of each finding with known places, and the reliability of all scores together, by section of the report."""
    drawn: dict[str, list[Plot]] = {}
    points: Mapping[str, Any] = result.get("froc", {"findings": {}})
    cases = {key: table.cases(rule)[0] for key, rule in FROC_BY.items()} if points["findings"] else {}
    for number, (finding, of) in enumerate(points["findings"].items()):
        lesions = of["froc"][0]["n"]
        if not lesions:
            continue
        low, high = (np.array([one[side] for one in of["froc"]], dtype=np.float64) for side in ("low", "high"))
        lines = [(one.false_per_image, one.sensitivity) for one in (case.of(number) for case in cases.values())]
        images = int(np.count_nonzero(cases["froc"].finding == number))
        said = (
            f"{thousands(lesions)} {inflected(lesions, 'true box[es]')}"
            f" in {thousands(images)} {inflected(images, 'image[s]')}"
        )
        drawn.setdefault("detections", []).append(
            Plot(finding, said, froc_plot(lines, points["false_per_image"], low, high, finding))
        )
    known = ~np.isnan(table["label"])
    label, score = table["label"][known], table["score"][known]
    if 0 < label.sum() < len(label):
        said = f"{thousands(len(label))} scores of images"
        drawn["calibration"] = [Plot("All findings", said, reliability_plot(label, score, "All findings"))]
    return drawn


class _Lungs(NamedTuple):
    """Lungs of an image, in original pixels: as the data set has them, and as estimated where that is asked for."""

    given: Mask | None = None
    estimated: Mask | None = None


class _Scorer:
    """Turns predictions into rows of the table, and counts pixels."""

    def __init__(self, tagger: Predictor, findings: tuple[str, ...], inside: Inside) -> None:
        self.tagger, self.findings, self.inside = tagger, findings, inside
        self.area: Area = getattr(tagger, "area", "image")
        self.lungs: dict[str, _Lungs] = {}  # of images on their way
        self.unlimited = self.estimated = self.lungless = self.beyond = 0
        self.at = [tagger.findings.index(name) for name in findings]
        self.pixels = PixelRanking(len(findings))
        self.patients: dict[str, int] = {}  # in the order of their first image, as in Resampling
        self.outlined = self.made_boxes = self.unlabelled = self.empty = 0
        self.lost: list[str] = []

    def look(self, record: Record, image: Image) -> None:
        """Reads or estimates an image's lungs where they are needed; called in the threads that read images."""
        given = estimated = None
        placed = any(
            label == 1 and (finding in record.masks or len(record.boxes_xyxy.get(finding, ())))
            for finding, label in zip(self.findings, record.labels, strict=True)
        )
        if record.lungs is not None and (placed or self.inside == "lungs"):
            try:
                given = stretch_mask(read_mask(record.lungs), image.size_rc)
            except UnreadableImage as error:
                self.lost.append(str(error))
            given = given if given is not None and given.any() else None
        if self.inside == "lungs" and given is None and self.area != "lungs":  # where masks are limited, it is known
            estimated = estimate_lungs(image.pixels)
        self.lungs[record.image] = _Lungs(given, estimated)

    def _counted(self, lungs: _Lungs, prediction: Prediction) -> Mask | None:
        """The pixels in the lungs, where those alone count; None where no lungs are found."""
        if lungs.given is not None:
            return lungs.given
        estimated = prediction.area if self.area == "lungs" else lungs.estimated
        self.estimated += estimated is not None
        self.lungless += estimated is None
        return estimated

    def score(self, record: Record, patient: str, prediction: Prediction) -> list[dict[str, Any]]:
        """The rows of one image."""
        lungs = self.lungs.pop(record.image)
        where = self._counted(lungs, prediction) if self.inside == "lungs" else None
        known = self.inside == "image" or where is not None
        self.unlimited += self.area != "image" and prediction.area is None
        number = self.patients.setdefault(patient, len(self.patients))
        tags = self.tagger.tags(prediction, record.image)
        means = _means(prediction)
        rows = []
        for i, (finding, at) in enumerate(zip(self.findings, self.at, strict=True)):
            tag, label = tags[at], record.labels[i]
            x, y = tag.peak_xy
            row: dict[str, Any] = {
                "image": record.image,
                "patient": patient,
                "split": record.split,
                "finding": finding,
                "label": label,
                "score": tag.score,
                "threshold": tag.threshold,
                "positive": float(tag.positive),
                "map_max": float(prediction.peaks[at, 2]),
                "map_mean": float(means[at]),
                "peak_x": x,
                "peak_y": y,
                "marked": _marked(tag, where) if known else float("nan"),
                "located": 0.0,
            }
            if label == 0:
                row |= measured.false_detections(tag)
            if label != 1:
                self.unlabelled += bool(len(record.boxes_xyxy.get(finding, ())))
            else:
                try:
                    truth = truth_of(record, finding, prediction.image.size_rc)
                except (UnreadableImage, BadData) as error:  # or parts of an outline that do not fit each other
                    self.lost.append(str(error))
                    truth = None
                if truth is not None and not len(truth.boxes_xyxy):
                    self.empty += 1  # an outline of nothing says nothing about the place
                elif truth is not None and where is not None and _beyond(truth.mask, where):
                    self.beyond += 1
                elif truth is not None and known:
                    map_ = tag.map  # made anew each time it is asked for
                    row |= self._place(record, prediction, tag, map_, truth, where)
                    row |= _outside(map_, lungs.given)
                    if truth.mask is not None:
                        within = np.clip(_within(map_, where), 0, 1)
                        self.pixels.update(number, i, within, _within(truth.mask, where))
            rows.append(row)
        return rows

    def _place(
        self,
        record: Record,
        prediction: Prediction,
        tag: Tag,
        map_: NDArray[np.float32],
        truth: Truth,
        where: Mask | None,
    ) -> dict[str, Any]:
        """The columns of a pair whose place is known; against outlines, of the pixels that count alone."""
        own = np.zeros(len(truth.boxes_xyxy), dtype=np.int64)
        x, y = tag.peak_xy
        peak = (int(y), int(x))
        near = _network_map(prediction, tag.index) if getattr(self.tagger, "is_network", True) else None
        small = truth.boxes_xyxy if near is None else prediction.frame.boxes_to_frame(truth.boxes_xyxy)
        union = boxes.union_overlap(boxes.above_share_of_maximum(map_)[None], truth.boxes_xyxy, own)
        row: dict[str, Any] = {
            "located": 1.0,
            "pointing": points.points_in_boxes([peak], truth.boxes_xyxy, own)[0],
            "iobb": union.iobb[0],
            "iou_boxes": union.iou[0],
            "box_iou": boxes.best_iou(truth.boxes_xyxy, np.array(tag.boxes).reshape(-1, 4)),
            "box_share": int(union.boxes_px[0]) / map_.size,
            "pointing_game": measured.near(peak, truth),
            **measured.detections(tag, map_, truth),
            "pointing_readers": readers_hit(record, tag.finding, truth),
        }
        if near is not None:
            row["pointing_network"] = points.points_in_boxes(points.first_maximum(near[None]), small, own)[0]
        self.made_boxes += not truth.drawn
        if truth.mask is not None:
            self.outlined += 1
            if not truth.drawn:  # the outline itself is the better truth than boxes around it
                row["pointing"] = float(truth.mask[peak])
                if near is not None:
                    place = points.first_maximum(near[None])[0]
                    row["pointing_network"] = float(mask_to_frame(truth.mask, prediction.frame)[tuple(place)])
            true = _within(truth.mask, where)
            shared = masks.overlap(_within(tag.mask, where), true)
            row |= {
                "poi_matched": float(masks.poi_at_matched_area(_within(map_, where), true)),
                "dice": float(shared.dice),
                "iou": float(shared.iou),
                "precision": float(shared.precision),
                "poi": float(shared.poi),
                "mask_share": float(true.mean()),
                **measured.against_outline(tag, map_, truth.mask, peak, where),
            }
        return row


def _within(values: NDArray[Any], where: Mask | None) -> NDArray[Any]:
    """The pixels (row, col) that count: all, or those in a mask as one row, whose order no measure minds."""
    return values if where is None else values[where][None]


def _beyond(mask: Mask | None, where: Mask) -> bool:
    """Whether an outline has pixels, and none of them count."""
    return mask is not None and bool(mask.any()) and not mask[where].any()


def _marked(tag: Tag, where: Mask | None) -> float:
    """The proposed mask's share of the pixels that count."""
    if where is None:
        return tag.mask_area_px / math.prod(tag.prediction.image.size_rc)
    return float(tag.mask[where].mean())


def _outside(map_: NDArray[np.float32], lungs: Mask | None) -> dict[str, float]:
    """How much of a map lies outside the lungs, and of a map spread evenly."""
    if lungs is None:
        return {}
    inside = float(masks.mass_in_mask(np.maximum(map_, 0), lungs))
    return {"map_outside_lungs": 1 - inside, "area_outside_lungs": 1 - float(lungs.mean())}


def _refuse_negative(bootstraps: int) -> None:
    if bootstraps < 0:
        raise BadSetting(f"bootstraps is a number of draws, at least 0, got {bootstraps}.")


def _tagger(run: Run | Path | str | Sequence[Run | Path | str] | Predictor, options: Mapping[str, Any]) -> Predictor:
    if isinstance(run, str | os.PathLike):
        return Tagger.load(Path(run), **options)
    if isinstance(run, Run):
        return Tagger(run, **options)
    if isinstance(run, Sequence):
        return Tagger([one if isinstance(one, Run) else Run.load(one) for one in run], **options)
    if options:
        raise BadSetting(f"{', '.join(options)}: give options when the tagger is made.")
    return run


def _network_map(prediction: Prediction, at: int) -> NDArray[np.float32] | None:
    """The sum of a finding's uncalibrated maps at the network's input size, their cells as tiles.

    None where networks differ in their frame, or in what their maps are.
    """
    if prediction.joint or any(layer.frame != prediction.frame for layer in prediction.layers):
        return None
    size = prediction.frame.size_rc
    cells = [layer.maps if layer.sigmoids is None else layer.sigmoids for layer in prediction.layers]
    total = bilinear(np.ascontiguousarray(cells[0][at]), size)
    for further in cells[1:]:
        total = total + bilinear(np.ascontiguousarray(further[at]), size)
    return total


def _means(prediction: Prediction) -> NDArray[np.float64]:
    """(finding,) mean of the map over original pixels, without making it: interpolation is linear."""
    if prediction.joint or prediction.confined:  # of which a sigmoid is taken, or a part, which is not
        return np.array([prediction.map(i).mean(dtype=np.float64) for i in range(len(prediction.scores))])
    total = np.zeros(len(prediction.scores))
    for layer in prediction.layers:
        for i, grid in enumerate(layer.grids):
            rows, cols = _weights(grid, layer.frame)
            total[i] += rows @ layer.maps[i].astype(np.float64) @ cols
    return total / len(prediction.layers)


_weights = lru_cache(maxsize=4096)(cell_weights)  # images of one size share them, a grid per finding


# ---- about ---------------------------------------------------------------------------------------------------------


def _about(
    tagger: Predictor,
    dataset: Dataset,
    table: PairTable,
    bad: Mapping[str, str],
    scorer: _Scorer,
    left_out: Sequence[str],
    seen: Mapping[str, Any],
) -> dict[str, Any]:
    """What to know of an evaluation, beside what it was made from."""
    runs = tuple(getattr(tagger, "runs", ()))
    cards = [dict(run.card) for run in runs]
    notes = [*sentences(seen), *dataset.notes, *left_out]
    if scorer.made_boxes:
        notes.append(
            counted(
                scorer.made_boxes,
                "pair[s] [has|have] an outline and no boxes: [its|their] boxes are those around the outline's parts,"
                " and the pointing accuracy is taken on the outline itself.",
            )
        )
    if scorer.unlabelled:
        notes.append(
            counted(
                scorer.unlabelled,
                "pair[s] [has|have] boxes but [is|are] not labelled positive: [its|their] boxes are not counted.",
            )
        )
    if scorer.empty:
        notes.append(
            counted(scorer.empty, "positive pair[s] [has|have] an empty outline: [its|their] place counts as unknown.")
        )
    if scorer.lost:
        text = "true or lung mask[s] cannot be read and count[s|] as unknown"
        notes.append(f"{counted(len(scorer.lost), text)}; the first: {scorer.lost[0]}")
    if scorer.beyond:
        text = "positive pair[s] [has|have] an outline that lies outside the lungs: [its|their] place counts as unknown"
        notes.append(f"{counted(scorer.beyond, text)}.")
    if scorer.inside == "lungs":
        notes.append("What is marked, and what is measured against outlines, counts the pixels inside the lungs alone.")
    if scorer.estimated:
        notes.append(counted(scorer.estimated, "image[s] [has|have] no lung mask: [its|their] lungs are estimated."))
    if scorer.lungless:
        text = "image[s] [has|have] no lung mask, and no lungs were found in [it|them]: places there count as unknown,"
        notes.append(f"{counted(scorer.lungless, text)} and what is marked as undefined.")
    explained = getattr(tagger, "settings", {}).get("explain")
    if explained is not None:
        notes.append(f"Maps are explanations by {explained}, not the network's own.")
    if scorer.unlimited:
        notes.append(not_limited(scorer.unlimited, scorer.area) + ".")
    if bad:
        text = "image[s] cannot be read and [is|are] left out"
        notes.append(f"{counted(len(bad), text)}: " + "; ".join(list(bad.values())[:20]))
    for run in runs:
        notes += [f"Calibration: {note}" for note in run.calibration.notes]
    if hasattr(tagger, "notes"):
        notes += tagger.notes()
    return {
        **table.counts(),
        "unreadable": dict(bad),
        "left_out": list(left_out),
        **({"seen": dict(seen)} if seen else {}),
        "versions": _versions(),
        "hardware": _hardware(getattr(tagger, "device", "cpu")),
        "minutes": 0.0,
        "date": _today(),
        "card": cards[0] if len(cards) == 1 else {f"run {i}": card for i, card in enumerate(cards, start=1)},
        "notes": notes,
    }


def _made_from(tagger: Predictor, dataset: Dataset, *, inside: Inside, bootstraps: int, seed: int) -> dict[str, Any]:
    """What was evaluated on what, and how: two evaluations that agree in it have the same numbers."""
    runs = tuple(getattr(tagger, "runs", ()))
    splits = [split for split in dict.fromkeys(record.split for record in dataset.records) if split]
    on_disk = [run_digest(run.path) for run in runs if (Path(run.path) / "run.toml").is_file()]
    return {
        "run": " + ".join(_run_name(run) for run in runs) or getattr(tagger, "name", type(tagger).__name__),
        "data": dataset.name,
        "split": ", ".join(splits),
        "findings": list(dataset.findings),
        "inside": inside,
        "seed": seed,
        "bootstraps": bootstraps,
        "tagging": {
            key: dict(zip(tagger.findings, value, strict=True)) if isinstance(value, list) else value
            for key, value in getattr(tagger, "settings", {}).items()
            if key != "findings"
        },
        "digests": {"run": getattr(tagger, "digest", "") or _digest(on_disk), "data": dataset.digest()},
    }


def _digest(parts: Sequence[Any]) -> str:
    """A short name of plain values or bytes, in order."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part if isinstance(part, bytes) else json.dumps(part).encode())
    return hashed.hexdigest()[:16]


def _left_out(of_run: Sequence[str], of_data: Sequence[str]) -> list[str]:
    """The findings that are not evaluated, in sentences."""
    sentences = []
    unlabelled = [name for name in of_run if name not in of_data]
    if unlabelled:
        sentences.append(f"Not evaluated, not being among the findings of the data: {', '.join(unlabelled)}.")
    unknown = [name for name in of_data if name not in of_run]
    if unknown:
        sentences.append(f"Not evaluated, not being among the findings of the run: {', '.join(unknown)}.")
    return sentences


def _run_name(run: Any) -> str:
    method = getattr(getattr(run, "settings", None), "method", "")
    name = Path(getattr(run, "path", "")).name
    return method if not name or name == method else f"{method} ({name})" if method else name


def _versions() -> dict[str, str]:
    import torch

    return {
        "radtag": radtag.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
    }


def _hardware(device: Any) -> str:
    kind = str(device)
    if kind.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return f"{kind}, {counted(process.cores(), 'core[s]')}, {platform.machine()}"


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")


def _same(values: Sequence[Any]) -> Any:
    """The value all share, or None."""
    return values[0] if all(value == values[0] for value in values) else None
