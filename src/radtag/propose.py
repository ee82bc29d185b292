"""From a labelled data set to one with proposed masks: a mask for every finding that an image's label says it has.

What is written
---------------
- A ``csv`` data set: ``table.csv`` with ``mask:FINDING`` columns, ``boxes.csv``, ``images/``, ``masks/``. Labels,
  patients, splits and attributes are the source's, and no label is made up. A label of 1 gets the run's mask, whatever
  the score; a label of 0 gets none; an unknown label stays unknown, and gets a mask where the score reaches the
  threshold, named in the column ``attr:by_score``. Where the map nowhere exceeds its threshold the cell stays blank:
  there is no proposal.
- ``coco.json``: the same masks, each connected part an annotation.
- ``check.html``, ``check.csv``: every proposal, the most doubtful first (:func:`doubts`).
- ``about.json``: by which run they were proposed, with which thresholds, and which images that run had seen.

Masks and boxes are a run's proposals and never truth. The column ``attr:masks`` says so in every row that has one
(:data:`PROPOSED`), which is what ``radtag train student`` asks for. The source's own masks and boxes are not read.

Images are hard links to the source's files, which take no space; where the file system has none they are symbolic
links, and where it has neither, copies.

A call that was killed, or met files that could not be read, is taken up by giving it again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
from scipy import ndimage

import radtag
from radtag import draw
from radtag.anatomy import Area
from radtag.data import coco
from radtag.data.files import held, plain_names
from radtag.data.healthy import is_normal
from radtag.data.phantom import write_tables
from radtag.data.table import PROPOSED, Dataset, Record
from radtag.errors import BadData, BadSetting
from radtag.geometry import reduce_mask
from radtag.journal import Journal, Name, Stamp, safe, stamp_of
from radtag.predictions import predictions
from radtag.process import cores
from radtag.report.checking import Doubtful, write_checks
from radtag.report.page import Picture, replace_text
from radtag.tag import Prediction, Tag, Tagger, not_limited
from radtag.train.log import fingerprint
from radtag.train.outline import run_digest
from radtag.words import changes, counted

FORMAT = 1
PICTURE_PX = 224
"""Longest side of each of the two pictures of a proposal."""
ON_PAGE = 300
"""Proposals on check.html at most, about 6 MB; check.csv has all. Those without a mask take no more than a third."""
FEW = 8
"""With fewer masks of a finding nothing is said about which of them is unusually large or high."""

CHECK_COLUMNS = (
    *("rank", "image", "finding", "doubt", "why", "split", "by", "score", "threshold", "peak", "mask_threshold"),
    *("area_px", "area_share", "picture", "original"),
)


@dataclass(frozen=True)
class Proposal:
    """What is proposed for one image and finding.

    Args:
        finding: its name.
        by: whether the label says that it is there, or, the label being unknown, the score.
        score: of the image.
        threshold: positive from this score.
        peak: highest value of the map.
        mask_threshold: what the map must exceed; NaN for the Otsu threshold of a constant map.
        area_px: pixels of the mask; 0 = no mask.
        share: of the image that the mask covers.
    """

    finding: str
    by: Literal["label", "score"]
    score: float
    threshold: float
    peak: float
    mask_threshold: float
    area_px: int
    share: float


@dataclass(frozen=True)
class Doubt:
    """How doubtful a proposal is, 0-1, and why, the strongest reason first."""

    value: float
    why: tuple[str, ...]


@dataclass(frozen=True)
class ProposeSummary:
    """What a call of :func:`propose` did.

    Args:
        out: the folder.
        images: in the table, from this call and those before.
        skipped: of these, images that were done before and whose files have not changed.
        masks: per finding, how many are proposed.
        empty: per finding, how many labels of 1 got none.
        by_score: per finding, how many masks are of unknown labels.
        failures: images that could not be read, and why; they are not in the table.
        seconds: the call took.
        area: where masks were to lie.
        unlimited: images in which that area was not found, so that their masks are not limited.
    """

    out: Path
    images: int
    skipped: int
    masks: Mapping[str, int]
    empty: Mapping[str, int]
    by_score: Mapping[str, int]
    failures: Mapping[str, str]
    seconds: float
    area: Area = "image"
    unlimited: int = 0

    @property
    def ok(self) -> bool:
        """Whether every image could be read."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(replace(self, out=Path())), "out": str(self.out), "ok": self.ok}

    def lines(self) -> list[str]:
        """For people."""
        said = [f"{counted(self.images, 'image[s]')}" + (f", {self.skipped} done before" if self.skipped else "")]
        for finding, count in self.masks.items():
            extras = []
            if self.by_score.get(finding):
                extras.append(f"{self.by_score[finding]} of unknown labels, by the score")
            if self.empty.get(finding):
                extras.append(f"{counted(self.empty[finding], 'label[s]')} of 1 without one")
            said.append(f"{finding}: {counted(count, 'mask[s]')}" + (f" ({'; '.join(extras)})" if extras else ""))
        if self.unlimited:
            said.append(not_limited(self.unlimited, self.area))
        for image, cause in self.failures.items():
            said.append(f"not read: {image}: {cause}")
        return [*said, f"-> {self.out / 'table.csv'}, coco.json", f"-> {self.out / 'check.html'}: the doubtful first"]


def propose(
    run: Path | str | Sequence[Path | str] | Tagger,
    dataset: Dataset,
    out: Path | str,
    *,
    progress: Callable[[int, int], None] | None = None,
    on_page: int = ON_PAGE,
    **options: Any,
) -> ProposeSummary:
    """Writes a data set of the same images with the run's masks for what their labels say.

    Args:
        run: a run folder, several as an ensemble, or a tagger.
        dataset: images with labels; its masks and boxes are not read.
        out: the folder; one that holds proposals made in the same way is completed.
        progress: called with the number of images done and of all.
        on_page: so many proposals are shown on check.html.
        options: as for :class:`Tagger`, where ``run`` is not one.

    Raises:
        BadData: the run and the data know no finding in common.
        BadSetting: the folder holds something else, or another call is writing into it.
    """
    started = time.monotonic()
    out = Path(out)
    if not isinstance(run, Tagger):
        run = Tagger.load(run, **options)
    elif options:
        raise BadSetting(f"{', '.join(options)}: give options when the tagger is made.")
    # A healthy image has no outline of its health.
    wanted = tuple(name for name in run.findings if name in dataset.findings and not is_normal(name))
    if not wanted:
        raise BadData(
            f"the run knows {', '.join(run.findings)} and {dataset.name} has {', '.join(dataset.findings)}:"
            " there is no finding to propose masks for. Rename the columns, or use another run."
        )
    if out.exists() and not (out / "about.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadSetting(f"{out} exists and is no folder of proposals. Name a new folder, or empty that one.")
    with held(out / ".lock", BadSetting(f"{out}: another call is writing into it. Wait for it, or choose another.")):
        identity = {
            "format": FORMAT,
            "made_by": "radtag tag --as-dataset",
            "masks_are": "proposals of the run below, made from image labels; not truth",
            "runs": [_about_run(one) for one in run.runs],
            "settings": run.settings,
            "source": dataset.name,
            "data": fingerprint(dataset),
            "findings": list(wanted),
        }
        _claim(out, identity)
        journal = Journal(out / "journal.jsonl")
        try:
            failures: dict[str, str] = {}
            skipped = _propose_all(run, wanted, dataset, out, journal, failures, progress)
            return _write_all(
                out, dataset, wanted, journal, identity, failures, skipped, on_page, time.monotonic() - started
            )
        finally:
            journal.close()


def doubts(proposals: Sequence[Proposal]) -> list[Doubt]:
    """How doubtful each proposal is among the others of its finding, 0-1, and why.

    Reasons, each from 0 to 1, are put together as 1 - (1 - a)(1 - b)...:

    - no mask though the label says 1: 0.9.
    - the score is below the threshold though the label says 1: by what share of the threshold.
    - the map's peak is nearer to the mask threshold than is usual: by what share of the median mask's distance.
    - the area is unusual: 0 up to two (robust) standard deviations of the logarithm from the median, 1 from five.
    - the label is unknown, and the mask is there by the score alone: 0.25.
    """
    found = []
    usual: dict[str, tuple[float, float, float]] = {}
    for finding in dict.fromkeys(one.finding for one in proposals):
        masks = [one for one in proposals if one.finding == finding and one.area_px]
        if len(masks) >= FEW:
            margin = float(np.median([one.peak - one.mask_threshold for one in masks]))
            areas = np.log([one.share for one in masks])
            middle = float(np.median(areas))
            # A quarter at least: masks that are nearly all of one size make no mask of 1.5 times that size unusual.
            usual[finding] = (margin, middle, max(1.4826 * float(np.median(np.abs(areas - middle))), 0.25))
    for one in proposals:
        reasons: list[tuple[float, str]] = []
        if one.score < one.threshold:
            reasons.append(
                (1 - one.score / one.threshold, f"score {one.score:.2f}, and positive is from {one.threshold:.2f}")
            )
        if one.by == "score":
            reasons.append((0.25, "the label is unknown: taken by the score"))
        if not one.area_px:
            where = ", outside its area or in too small a part" if one.peak > one.mask_threshold else ""
            text = f"no mask: the map's peak is {one.peak:.3g}{where}, the mask from {one.mask_threshold:.3g}"
            reasons.append((0.9, text))
        elif one.finding in usual:
            margin, middle, spread = usual[one.finding]
            near = 1 - (one.peak - one.mask_threshold) / margin if margin > 0 else 0.0
            if near > 0:
                text = f"the map's peak, {one.peak:.3g}, is little above the mask's threshold, {one.mask_threshold:.3g}"
                reasons.append((near, text))
            away = (np.log(one.share) - middle) / spread
            if abs(away) > 2:
                what = "large" if away > 0 else "small"
                usually = f"half of them cover less than {100 * np.exp(middle):.2g} %"
                if away < 0:
                    usually = f"half of them cover more than {100 * np.exp(middle):.2g} %"
                reasons.append((min((abs(away) - 2) / 3, 1.0), f"unusually {what} for {one.finding}: {usually}"))
        certain = float(np.prod([1 - value for value, _ in reasons])) if reasons else 1.0
        reasons.sort(key=lambda reason: -reason[0])
        found.append(Doubt(1 - certain, tuple(text for value, text in reasons if value >= 0.2)))
    return found


def _about_run(run: Any) -> dict[str, Any]:
    """Which run, and which images it has seen."""
    return {
        "path": str(run.path),
        "sha256": run_digest(run.path),
        "method": run.settings.method,
        "trained_on": run.card.get("trained_on"),
        "trained_on_data": run.card.get("contents"),
        "splits_seen": {"train": "its weights", "val": "the choice of weights, calibration and thresholds"},
        "mask_thresholds": dict(zip(run.findings, run.calibration.mask_threshold, strict=True)),
    }


def _claim(out: Path, identity: Mapping[str, Any]) -> None:
    """Sees to it that a folder holds the proposals of one run for one data set.

    Raises:
        BadSetting: it holds others.
    """
    file = out / "about.json"
    if file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadSetting(f"{file} is damaged. Choose another folder, or delete this one.") from error
        now = json.loads(json.dumps(identity))
        for one in (*now["runs"], *before.get("runs", ())):
            one.pop("path")  # a run may have moved
        was = {key: before.get(key) for key in now}
        if was != now:
            how = changes({**was, "runs": [one["sha256"] for one in was["runs"] or ()]},
                          {**now, "runs": [one["sha256"] for one in now["runs"]]})  # fmt: skip
            raise BadSetting(
                f"{out} holds proposals made otherwise ({how}). Choose another folder, or delete this one."
            )
        return
    replace_text(file, json.dumps({**identity, "complete": False}, indent=1) + "\n")


def _propose_all(
    tagger: Tagger,
    wanted: Sequence[str],
    dataset: Dataset,
    out: Path,
    journal: Journal,
    failures: dict[str, str],
    progress: Callable[[int, int], None] | None,
) -> int:
    """Proposals for the images that have none yet; how many had. Only this thread touches the journal."""
    names = plain_names(record.image for record in dataset.records)
    waiting: list[int] = []
    stamps: dict[str, Stamp] = {}
    for number, record in enumerate(dataset.records):
        if not (journal.is_done(record.path) and journal.holds(record.image)):
            waiting.append(number)
            try:
                stamps[record.image] = stamp_of(record.path)  # before it is read
            except OSError:  # which reading it will report; if it is there by then, it is done again next time
                stamps[record.image] = (0, 0)
    skipped = len(dataset) - len(waiting)
    done = skipped
    written: deque[tuple[Record, bool, Future[list[dict[str, Any]]]]] = deque()

    def settle(keep: int) -> None:
        nonlocal done
        while len(written) > keep:
            record, unlimited, rows = written.popleft()
            name = Name(record.image, names[record.image])
            also = {"unlimited": True} if unlimited else {}
            journal.add_image(record.path, stamps[record.image], name, name, rows.result(), also)
            journal.add_end(record.path, stamps[record.image], None)
            done += 1
            if progress is not None:
                progress(done, len(dataset))

    labels = [dataset.findings.index(name) for name in wanted]
    with ThreadPoolExecutor(min(8, cores()), thread_name_prefix="write") as writers:
        for record, _, prediction in predictions(tagger, dataset, failures, only=waiting):
            tags = [tag for tag in tagger.tags(prediction, record.image) if tag.finding in wanted]
            of = {name: record.labels[at] for name, at in zip(wanted, labels, strict=True)}
            made = writers.submit(_propose_one, record, names[record.image], tags, of, prediction, out)
            written.append((record, tagger.unlimited(prediction), made))
            settle(2 * tagger.batch_size)
        settle(0)
    return skipped


def _propose_one(
    record: Record, name: str, tags: Iterable[Tag], labels: Mapping[str, float], prediction: Prediction, out: Path
) -> list[dict[str, Any]]:
    """Writes an image's files; what is said of it: its file and size, then a row for each proposal."""
    ending = ".nii.gz" if record.path.name.lower().endswith(".nii.gz") else record.path.suffix
    image = f"images/{name}{ending}"
    _link(record.path, out / image)
    rows: list[dict[str, Any]] = [{"image": image, "size_rc": list(prediction.image.size_rc)}]
    for tag in tags:
        mask_file = out / "masks" / safe(tag.finding) / f"{name}.png"
        mask_file.unlink(missing_ok=True)  # of an earlier version of the image
        label = labels[tag.finding]
        if label == 0 or (np.isnan(label) and not tag.positive):
            continue
        mask = tag.mask
        if mask.any():
            draw.write_mask(mask_file, mask)
        draw.write_picture(out / "pictures" / safe(tag.finding) / f"{name}.jpg", _picture(tag))
        proposal = Proposal(
            finding=tag.finding,
            by="label" if label == 1 else "score",
            score=tag.score,
            threshold=tag.threshold,
            peak=float(prediction.peaks[tag.index, 2]),
            mask_threshold=float(tag.mask_threshold),
            area_px=int(mask.sum()),
            share=float(mask.mean()),
        )
        rows.append({**asdict(proposal), "parts": _parts(mask)})
    return rows


def _parts(mask: draw.Mask) -> list[dict[str, Any]]:
    """The connected parts of a mask (8-connected, as everywhere), as COCO has them."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3), dtype=int))
    parts = []
    for number, (rows, cols) in enumerate(ndimage.find_objects(labels), 1):
        part = labels == number
        box = [cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start]
        parts.append({"bbox": box, "area": int(part.sum()), "segmentation": coco.rle(part)})
    return parts


def _picture(tag: Tag) -> draw.Picture:
    """The image as it came, and with the map and the mask's outline over it, both small."""
    prediction = tag.prediction
    factor = -(-max(prediction.image.size_rc) // PICTURE_PX)
    gray = np.asarray(PIL.Image.fromarray(prediction.image.gray8).reduce(factor))
    map_ = prediction.map(tag.index, frame_of=lambda frame: frame.of_reduced(factor))
    over = draw.overlay(gray, np.clip(map_ / np.float32(prediction.full), 0, 1))
    over = draw.outline(over, reduce_mask(tag.mask, factor))
    return draw.side_by_side([draw.gray(gray), over], gap_px=2)


def _link(file: Path, at: Path) -> None:
    """The file under another name: a hard link, else a symbolic one, else a copy."""
    at.parent.mkdir(parents=True, exist_ok=True)
    at.unlink(missing_ok=True)
    real = os.path.realpath(file)
    for way in (os.link, os.symlink):
        try:
            way(real, at)
            return
        except OSError:
            continue
    shutil.copyfile(real, at)


def _write_all(
    out: Path,
    dataset: Dataset,
    wanted: Sequence[str],
    journal: Journal,
    identity: Mapping[str, Any],
    failures: Mapping[str, str],
    skipped: int,
    on_page: int,
    seconds: float,
) -> ProposeSummary:
    """The tables, coco.json, the page and about.json, from the journal."""
    mark = ", ".join(f"{Path(one['path']).name} ({one['sha256'][:12]})" for one in identity["runs"])
    mark = f"{PROPOSED} {mark}"
    kept: list[Record] = []
    rows: list[dict[str, object]] = []
    boxes: list[tuple[str, str, float, float, float, float]] = []
    proposals: list[tuple[int, Proposal]] = []
    leaves = plain_names(record.image for record in dataset.records)
    files: list[str] = []
    for record in dataset.records:
        entry = journal.entry(record.image)
        if entry is None or record.image in failures:
            continue
        image, found = entry["rows"][0]["image"], entry["rows"][1:]
        row: dict[str, object] = {"image": image, "patient": record.patient, "split": record.split}
        row |= {
            name: "" if np.isnan(label) else int(label)
            for name, label in zip(dataset.findings, record.labels, strict=True)
        }
        row |= {f"attr:{name}": value for name, value in record.attributes.items()}
        masked = [one for one in found if one["area_px"]]
        row |= {f"mask:{one['finding']}": f"masks/{safe(one['finding'])}/{leaves[record.image]}.png" for one in masked}
        row["attr:original"] = record.image
        row["attr:masks"] = mark if masked else ""
        row["attr:by_score"] = "; ".join(one["finding"] for one in masked if one["by"] == "score")
        rows.append(row)
        for one in found:
            parts = one.pop("parts")
            proposals.append((len(kept), Proposal(**one)))
            for part in parts:
                x, y, width, height = part["bbox"]
                boxes.append((image, one["finding"], x, y, x + width, y + height))
        kept.append(record)
        files.append(image)
    if not rows:
        raise BadData(f"{dataset.name}: not one image could be read; {next(iter(failures.values()))}")
    attributes = dict.fromkeys(name for record in kept for name in record.attributes)
    columns = dict.fromkeys(
        ["image", "patient", "split", *dataset.findings, *(f"mask:{name}" for name in wanted)]
        + ["attr:original", "attr:masks", "attr:by_score", *(f"attr:{name}" for name in attributes)]
    )
    beside = out / ".tables"
    beside.mkdir(exist_ok=True)
    write_tables(beside, list(columns), rows, boxes)
    for name in ("boxes.csv", "table.csv"):
        os.replace(beside / name, out / name)
    beside.rmdir()
    info = {
        "description": "masks proposed from image labels; not truth",
        "contributor": mark,
        "version": radtag.__version__,
    }
    coco.write(out / "coco.json", info, wanted, _coco_images(kept, journal), _coco_parts(kept, journal, wanted))
    values = doubts([one for _, one in proposals])
    # Of equal doubts, as of many without a mask, the lower score comes first.
    order = sorted(range(len(proposals)), key=lambda i: (-values[i].value, proposals[i][1].score))
    _write_checks(out, dataset.name, mark, kept, files, leaves, proposals, values, order, on_page)

    def count(which: Callable[[Proposal], object]) -> dict[str, int]:
        of = Counter(one.finding for _, one in proposals if which(one))
        return {name: of[name] for name in wanted}

    summary = ProposeSummary(
        out,
        len(rows),
        skipped,
        count(lambda one: one.area_px),
        count(lambda one: one.by == "label" and not one.area_px),
        count(lambda one: one.by == "score" and one.area_px),
        dict(failures),
        seconds,
        identity["settings"].get("area", "image"),
        sum(bool((journal.entry(record.image) or {}).get("unlimited")) for record in kept),
    )
    about = {
        **identity,
        "radtag": radtag.__version__,
        "complete": not failures,
        "images": len(rows),
        "images_of_split": dict(Counter(record.split or "none" for record in kept)),
        "masks": summary.masks,
        "labels_of_1_without_a_mask": summary.empty,
        "masks_of_unknown_labels": summary.by_score,
        "images_without_the_area": summary.unlimited,
        "failures": [{"image": image, "cause": cause} for image, cause in failures.items()],
        "notes": list(dataset.notes),
    }
    replace_text(out / "about.json", json.dumps(about, indent=1) + "\n")
    return summary


def _coco_images(records: Sequence[Record], journal: Journal) -> Iterator[dict[str, Any]]:
    for number, record in enumerate(records, 1):
        entry = journal.entry(record.image)
        assert entry is not None
        rows, columns = entry["rows"][0]["size_rc"]
        more = {"split": record.split, "patient": record.patient}
        yield {"id": number, "file_name": entry["rows"][0]["image"], "width": columns, "height": rows, **more}


def _coco_parts(records: Sequence[Record], journal: Journal, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    made = 0
    for number, record in enumerate(records, 1):
        entry = journal.entry(record.image)
        assert entry is not None
        for one in entry["rows"][1:]:
            for part in one["parts"]:
                made += 1
                category = wanted.index(one["finding"]) + 1
                more = {"iscrowd": 0, "score": one["score"], "by": one["by"]}
                yield {"id": made, "image_id": number, "category_id": category, **part, **more}


def _write_checks(
    out: Path,
    source: str,
    mark: str,
    kept: Sequence[Record],
    files: Sequence[str],
    leaves: Mapping[str, str],
    proposals: Sequence[tuple[int, Proposal]],
    values: Sequence[Doubt],
    order: Sequence[int],
    on_page: int,
) -> None:
    """check.csv with every proposal, and check.html with the most doubtful."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(CHECK_COLUMNS)
    shown: list[Doubtful] = []
    empty = 0
    for rank, i in enumerate(order, 1):
        at, one = proposals[i]
        picture = f"pictures/{safe(one.finding)}/{leaves[kept[at].image]}.jpg"
        table.writerow(
            (
                *(rank, files[at], one.finding, f"{values[i].value:.4f}", "; ".join(values[i].why), kept[at].split),
                *(one.by, f"{one.score:.6g}", f"{one.threshold:.6g}", f"{one.peak:.6g}", f"{one.mask_threshold:.6g}"),
                *(one.area_px, f"{one.share:.6g}", picture, kept[at].image),
            )
        )
        room = len(shown) < on_page and (one.area_px or empty < -(-on_page // 3))
        if room:
            empty += not one.area_px
            data = (out / picture).read_bytes()
            width, height = PIL.Image.open(io.BytesIO(data)).size
            shown.append(
                Doubtful(
                    image=kept[at].image,
                    finding=one.finding,
                    split=kept[at].split,
                    doubt=values[i].value,
                    why=values[i].why,
                    facts=(
                        f"score {one.score:.2f} (positive from {one.threshold:.2f})",
                        f"mask {100 * one.share:.2g} % of the image" if one.area_px else "no mask",
                        f"map up to {one.peak:.3g} (mask from {one.mask_threshold:.3g})",
                    ),
                    picture=Picture(
                        data, width, height, f"{one.finding}, {kept[at].image}: as it came, and with the map"
                    ),
                    masked=one.area_px > 0,
                )
            )
    replace_text(out / "check.csv", text.getvalue())
    write_checks(out / "check.html", source, mark, shown, of=len(order), images=len(kept))
