"""Pointing and IoU of given maps alone: what ``radtag score --measure`` works out.

Of the images nothing is read but their size, maps stay the 16-bit levels they are stored as, pairs are worked on in
threads, and no network library is imported: a thousand maps of 1024 x 1024 pixels take a few seconds. What is worked
out equals :mod:`radtag.evaluate`'s to the last digit. ``metrics.json`` and ``pairs.csv`` are written, and no report.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

import radtag
from radtag import process, regions
from radtag.ahead import map_ahead
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting, UnreadableImage
from radtag.groups import checked, grouped, values_of, write_values
from radtag.images.size import size_of
from radtag.mapfiles import read_levels, read_map
from radtag.metrics import boxes, masks, points
from radtag.pairs import PairTable
from radtag.report.page import replace_text
from radtag.summary import summarise
from radtag.truth import Truth, truth_of
from radtag.words import counted

if TYPE_CHECKING:
    from radtag.score import GivenMaps

Measure = Literal["pointing", "iou"]
"""pointing: of the highest pixel. iou: what follows from masks and boxes (IoU, Dice, precision, PoI, T(IoBB) ...)."""

VALUES = np.divide(np.arange(1 << 16, dtype=np.uint16), np.float32(65535), dtype=np.float32)
"""What each level of a 16-bit map stands for."""


class Rows(NamedTuple):
    """What was found out about one image: its rows, and what could not be read."""

    rows: list[dict[str, Any]]
    bad: str = ""
    lost: tuple[str, ...] = ()


def score_places(
    given: GivenMaps,
    dataset: Dataset,
    out: Path,
    measures: Sequence[str],
    *,
    by: Sequence[str] = (),
    bootstraps: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Scores maps by these measures alone, and writes the numbers.

    Args:
        given: the maps.
        dataset: images with labels, and boxes or masks.
        out: the folder.
        measures: what is wanted; numbers that cost nothing more are there as well.
        by: columns of the table to group by as well, or "size".
        bootstraps: draws of patients for the intervals; 0 gives none.
        seed: of the draws.
        overwrite: any other evaluation in the folder is replaced as well, where it is otherwise refused.
        progress: called with the number of images done and of all.

    Returns:
        The content of ``metrics.json``.

    Raises:
        BadData: an empty data set, or none of its images can be read.
        BadSetting: a measure there is not, or a folder that holds another evaluation.
        UnreadableImage: a map that cannot be read.
    """
    started = time.monotonic()
    unknown = [one for one in measures if one not in get_args(Measure)]
    if unknown or not measures:
        listed = " and ".join(get_args(Measure))
        raise BadSetting(f"measures worked out alone are {listed}, not {', '.join(unknown) or 'none'}.")
    if bootstraps < 0:
        raise BadSetting(f"bootstraps is a number of draws, at least 0, got {bootstraps}.")
    left_out = [name for name in dataset.findings if name not in given.findings]
    dataset = dataset.with_findings(given.findings)
    groups = checked(by, dataset)
    made_from = _made_from(given, dataset, measures, by, bootstraps, seed)
    if not overwrite and (out / "metrics.json").exists():
        from radtag.evaluate import refuse_other  # whose imports take longer than all else here

        refuse_other(out / "metrics.json", made_from)

    patients = dataset.patients()
    rows: list[dict[str, Any]] = []
    bad: dict[str, str] = {}
    lost: list[str] = []
    threads = min(8, max(2, process.cores()))  # more wait for each other
    found = map_ahead(
        lambda i: _image(given, dataset.records[i], patients[i], measures),
        range(len(dataset)),
        threads=threads,
        ahead=4 * threads,
    )
    for i, one in enumerate(found):
        rows += one.rows
        lost += one.lost
        if one.bad:
            bad[dataset.records[i].image] = one.bad
        if progress is not None:
            progress(i + 1, len(dataset))
    seconds = time.monotonic() - started
    if not rows:
        first = next(iter(bad.values()), "")
        raise BadData(
            f"{dataset.name}: none of its {counted(len(dataset), 'image[s]')} can be read. The first: {first}"
        )
    table = PairTable.of(rows)
    result = {
        **_without_empty(summarise(table, bootstraps=bootstraps, seed=seed)),
        **grouped(table, values := values_of(dataset, groups), groups, bootstraps=bootstraps, seed=seed),
        "about": {
            **made_from,
            **table.counts(),
            "unreadable": bad,
            "left_out": [f"Not scored, having no map: {', '.join(left_out)}."] if left_out else [],
            "versions": {name: importlib.metadata.version(name) for name in ("numpy", "scipy")}
            | {"radtag": radtag.__version__, "python": platform.python_version()},
            "hardware": f"cpu, {counted(process.cores(), 'core[s]')}, {platform.machine()}",
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            "card": {},
            "notes": [*dataset.notes, *_notes(measures, bad, lost), *given.notes()],
            "images_per_second": float(f"{(len(dataset) - len(bad)) / max(seconds, 1e-9):.3g}"),
        },
    }
    result["about"]["minutes"] = round((time.monotonic() - started) / 60, 2)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("pixels.npz", "report.html", "pictures.json", "faithfulness.csv"):  # of an earlier evaluation
        (out / name).unlink(missing_ok=True)
    table.write(out / "pairs.csv")
    write_values(out, values)
    replace_text(out / "metrics.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


def _image(given: GivenMaps, record: Record, patient: str, measures: Sequence[str]) -> Rows:
    """The rows of one image."""
    try:
        size_rc = size_of(record.path)
    except UnreadableImage as error:
        return Rows([], bad=str(error))
    rows, lost = [], []
    for finding, label in zip(given.findings, record.labels, strict=True):
        map_, own = _map_of(given, record, finding, size_rc)
        highest = map_.max(axis=1)  # of each row, which tells the rows that need no further look
        row = int(highest.argmax())
        col = int(map_[row].argmax())
        top = float(_value(map_[row, col]))
        named = given.score_of(record, finding)
        score = float(np.float32(named if named is not None else top if own is None else own))
        threshold = given.thresholds.score[finding]
        values: dict[str, Any] = {
            "image": record.image,
            "patient": patient,
            "split": record.split,
            "finding": finding,
            "label": label,
            "score": score,
            "threshold": threshold,
            "positive": float(np.float32(score) >= np.float32(threshold)),  # as in Tag.positive
            "map_max": top,
            "peak_x": col + 0.5,
            "peak_y": row + 0.5,
            "located": 0.0,
        }
        region = None
        if "iou" in measures:
            region = _region(map_, highest, given.thresholds.mask[finding], given.min_area_px)
            values["marked"] = region.area_px / map_.size
        truth = None
        if label == 1:
            try:
                truth = truth_of(record, finding, size_rc)
            except (UnreadableImage, BadData) as error:
                lost.append(str(error))
        if truth is not None and len(truth.boxes_xyxy):
            values["located"] = 1.0
            if "pointing" in measures:
                values["pointing"] = _points_at(truth, (row, col))
            if region is not None:
                values |= _overlaps(_above_half(map_, highest), region, truth)
        rows.append(values)
    return Rows(rows, lost=tuple(lost))


def _map_of(
    given: GivenMaps, record: Record, finding: str, size_rc: tuple[int, int]
) -> tuple[NDArray[Any], float | None]:
    """A pair's map (row, col) over its image, levels of 16 bits or values of 0-1, and the score in its file."""
    path = given.folder.files[finding].of(record)
    if path is None:
        return np.zeros(size_rc, dtype=np.uint16), None
    levels = read_levels(path) if path.suffix.lower() == ".png" else None
    if levels is not None and given.values == "absolute" and levels.shape == size_rc:
        return levels, None
    stored, own = (VALUES[levels], None) if levels is not None else read_map(path)
    return given.laid(path, stored, size_rc), own


def _value(map_: Any) -> Any:
    return VALUES[map_] if map_.dtype == np.uint16 else map_


def _region(
    map_: NDArray[Any], highest: NDArray[Any], rule: float | Literal["otsu"], min_area_px: float | None
) -> regions.Regions:
    """What a map (row, col), with the highest of each row (row,), marks; levels stay levels."""
    levels = map_.dtype == np.uint16
    if rule == "otsu":
        values = _value(map_)
        return regions.find(values, regions.otsu_threshold(values), min_area_px=min_area_px)
    threshold = int(np.searchsorted(VALUES, np.float32(rule), side="right")) - 1 if levels else rule
    rows = _reaching(highest, threshold)
    part = regions.Part(rows, slice(0, map_.shape[1]), (map_.shape[0], map_.shape[1]))
    return regions.find(map_[rows], threshold, min_area_px=min_area_px, part=part)


def _reaching(highest: NDArray[Any], threshold: float) -> slice:
    """The rows from the first to the last whose highest value (row,) exceeds a threshold."""
    at = np.flatnonzero(highest > threshold)
    return slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0)


def _above_half(map_: NDArray[Any], highest: NDArray[Any]) -> NDArray[np.bool_]:
    """Of a map (row, col), with the highest of each row (row,), the pixels above half of its maximum."""
    if map_.dtype != np.uint16:
        return boxes.above_share_of_maximum(map_)
    reached = boxes.above_share_of_maximum(VALUES[None, : int(highest.max()) + 1])[0]
    threshold = len(reached) - 1 - int(np.count_nonzero(reached))
    rows = _reaching(highest, threshold)
    above = np.zeros(map_.shape, dtype=bool)
    np.greater(map_[rows], threshold, out=above[rows])
    return above


def _points_at(truth: Truth, peak: tuple[int, int]) -> float:
    if truth.mask is not None and not truth.drawn:  # the outline itself is the better truth than boxes around it
        return float(truth.mask[peak])
    own = np.zeros(len(truth.boxes_xyxy), dtype=np.int64)
    return float(points.points_in_boxes([peak], truth.boxes_xyxy, own)[0])


def _overlaps(above_half: NDArray[np.bool_], region: regions.Regions, truth: Truth) -> dict[str, Any]:
    """The columns of boxes and masks of a pair whose place is known."""
    own = np.zeros(len(truth.boxes_xyxy), dtype=np.int64)
    union = boxes.union_overlap(above_half[None], truth.boxes_xyxy, own)
    values: dict[str, Any] = {
        "iobb": union.iobb[0],
        "iou_boxes": union.iou[0],
        "box_iou": boxes.best_iou(truth.boxes_xyxy, np.array(region.boxes_xyxy).reshape(-1, 4)),
        "box_share": int(union.boxes_px[0]) / above_half.size,
    }
    if truth.mask is not None:
        within = masks.overlap(region.inside, truth.mask[region.part.rows, region.part.cols])
        shared = dataclasses.replace(within, true_px=np.asarray(np.count_nonzero(truth.mask)))
        values |= {
            "dice": float(shared.dice),
            "iou": float(shared.iou),
            "precision": float(shared.precision),
            "poi": float(shared.poi),
            "mask_share": int(shared.true_px) / truth.mask.size,
        }
    return values


# ---- about ---------------------------------------------------------------------------------------------------------


def _made_from(
    given: GivenMaps,
    dataset: Dataset,
    measures: Sequence[str],
    by: Sequence[str],
    bootstraps: int,
    seed: int,
) -> dict[str, Any]:
    """As of an evaluation, and which measures alone were worked out."""
    return {
        "run": given.name,
        "data": dataset.name,
        "split": ", ".join(dict.fromkeys(record.split for record in dataset.records if record.split)),
        "findings": list(dataset.findings),
        "inside": "image",
        "seed": seed,
        "bootstraps": bootstraps,
        "tagging": {
            key: dict(zip(given.findings, value, strict=True)) if isinstance(value, list) else value
            for key, value in given.settings.items()
        },
        "digests": {"run": given.digest, "data": dataset.digest()},
        "by": list(by),
        "measures": list(measures),
    }


def _notes(measures: Sequence[str], bad: Mapping[str, str], lost: Sequence[str]) -> list[str]:
    said = [f"Worked out alone: {' and '.join(measures)}. Of the images only the size was read."]
    if lost:
        text = "true mask[s] cannot be read and count[s|] as unknown"
        said.append(f"{counted(len(lost), text)}; the first: {lost[0]}")
    if bad:
        text = "image[s] cannot be read and [is|are] left out"
        said.append(f"{counted(len(bad), text)}: " + "; ".join(list(bad.values())[:20]))
    return said


def _without_empty(result: Mapping[str, Any]) -> dict[str, Any]:
    """Without the metrics that no pair has, not having been worked out."""
    gone = {key for key, one in result["micro"].items() if one["value"] is None}
    return {
        part: {key: value for key, value in held.items() if key not in gone}
        if part != "findings"
        else {name: {key: value for key, value in own.items() if key not in gone} for name, own in held.items()}
        for part, held in result.items()
    }
