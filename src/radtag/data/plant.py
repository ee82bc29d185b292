"""Planted lesions: known lesions painted into real, healthy images, to measure localisation on one's own data.

Nobody has to outline anything: the lesions of :mod:`radtag.data.lesions` are painted into half of the healthy images
of a data set, inside its lung masks, or, where it has none, inside lungs that a run finds, or else that are estimated
from the image (a simple estimate, see :func:`radtag.anatomy.estimate_lungs`, which misses what is narrow or pale: an
effusion then ends above the diaphragm, and a pneumothorax beside the wall). Ill and healthy images then come from the
same source, so that nothing but the lesion tells them apart, and the masks and boxes are exact to the pixel.

What this measures is the finding of painted lesions. Real ones look otherwise; say so beside the number.

What is the same in both halves: images are decoded, and stored as PNG at their own size and depth, in the same way. An
image that is not planted keeps every pixel; a planted one differs inside its masks alone.

Numpy, scipy and Pillow only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image as Pillow

from radtag.anatomy import estimate_lungs
from radtag.data import lesions, splits
from radtag.data.files import new_folder, plain_names
from radtag.data.healthy import healthy, healthy_findings
from radtag.data.lesions import KINDS, LOOKS, Anatomy, FloatImage, Look, Mask, boxes_of
from radtag.data.phantom import progress_bar, write_tables
from radtag.data.prepare import LungFinder
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting, UnreadableImage
from radtag.geometry import stretch_mask
from radtag.images import Image, read, read_mask

VERSION = 2
"""Raised with every change that moves a pixel of a planted lesion."""

DEFAULT_KINDS = ("nodule", "consolidation", "effusion", "pneumothorax")
Into = Literal["healthy", "any"]
SECOND_KIND = 0.35
"""Share of planted images that get two kinds instead of one."""


@dataclass(frozen=True)
class _Outcome:
    """What became of one image."""

    row: dict[str, object] | None  # None: left out
    boxes: list[tuple[str, str, float, float, float, float]]
    cause: str  # why it was left out, or how its lungs were found
    painted: bool = False


def plant(
    dataset: Dataset,
    out: Path,
    *,
    share: float = 0.5,
    kinds: Sequence[str] = DEFAULT_KINDS,
    look: Look = "plain",
    into: Into = "healthy",
    names: Mapping[str, Sequence[str]] | None = None,
    unsure: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
    normal: str | None = None,
    limit: int | None = None,
    times: int = 1,
    find_lungs: LungFinder | None = None,
    workers: int = 2,
    progress: bool | None = None,
) -> Path:
    """Paints lesions into a share of the healthy images and writes them all in the ``csv`` layout.

    ``table.csv`` has a column per kind (1 / 0), ``patient`` and ``split``, ``lungs``, ``mask:KIND``, and as attributes
    the name of the original (``attr:original``) and whether its lungs were ``given``, ``found`` or ``estimated``
    (``attr:lungs``).
    Findings of the source that are not painted have no column: ``about.json`` names them (``dropped``).
    ``boxes.csv`` has a tight box around each 8-connected part of a mask. ``about.json`` says how it was made and what
    was left out. Images are PNG, at their own size, of 8 bits where the original's levels fit and of 16 where not.

    Splits: those the healthy images come with, if some are for scoring; a validation part is drawn from the training
    part where there is none, and images in no split are left out. Otherwise a fifth is held out as test, by patient
    (65 % train, 15 % val, 20 % test). The share is kept within each.

    Args:
        dataset: where from; only its healthy images are used (:func:`healthy`).
        out: a folder that does not exist yet, or is empty. It appears when all is written, not before.
        share: of the images of each split that get lesions, above 0, below 1.
        kinds: of lesion, in the order of their columns; each about as often as the others.
        look: how easily lesions are seen, see :mod:`radtag.data.lesions`.
        into: "healthy" images, to measure localisation and to train; or "any", to train on beside the images as they
            are. Their own findings then keep their labels, but for one that means healthy where a lesion is painted;
            and what is painted has no mask where it was there before, or may have been, since that is not outlined.
        names: kind -> the findings it counts as, in place of its own name; for a set that is trained on beside one
            whose findings are called otherwise (``{"consolidation": ["Pneumonia", "Infiltration"]}``).
        unsure: kind -> findings it may or may not be called by those who label; unknown where it is painted.
        seed: which images, which kinds, where and how.
        normal: the finding that means healthy.
        limit: use at most so many healthy images, drawn with the seed.
        times: rounds in which the training images are planted. Each further round draws the share anew and adds what
            it plants, so that one healthy image carries many lesions; val and test are the same whatever the rounds.
            The copies of an image are one patient.
        find_lungs: the lungs (row, col) of an image that comes without a mask of them, as by
            :class:`radtag.tag.Outliner`; called in the workers' threads. None: they are estimated.
        workers: threads that decode, paint and write; they do not change the result.
        progress: True to show a bar, False not to, None to show one on a terminal.

    Returns:
        Path to ``table.csv``.

    Raises:
        BadSetting: a share, kind, limit or folder that will not do.
        BadData: no healthy image, or most of them cannot be read or show no lungs.
    """
    out = Path(out)
    if not 0 < share < 1:
        raise BadSetting(f"plant: share {share} leaves no healthy or no ill image. Use a number between 0 and 1.")
    for kind in kinds:
        if kind not in KINDS:
            raise BadSetting(f"plant: no lesion {kind!r}. Use some of {', '.join(KINDS)}.")
    if into not in get_args(Into):
        raise BadSetting(f"plant: lesions are planted into {' or '.join(get_args(Into))} images, not {into!r}.")
    if look not in LOOKS:
        raise BadSetting(f"plant: lesions look {' or '.join(LOOKS)}, not {look!r}.")
    if not kinds or len(set(kinds)) != len(kinds):
        raise BadSetting(f"plant: kinds {list(kinds)} name none, or one twice. Use some of {', '.join(KINDS)}.")
    called = {kind: tuple((names or {}).get(kind, (kind,))) for kind in kinds}
    doubted = {kind: tuple((unsure or {}).get(kind, ())) for kind in kinds}
    for kind in (*(names or {}), *(unsure or {})):
        if kind not in kinds:
            raise BadSetting(f"plant: {kind!r} is named but not painted. Painted are {', '.join(kinds)}.")
    painted = dict.fromkeys(name for kind in kinds for name in (*called[kind], *doubted[kind]))
    findings = tuple(dict.fromkeys((*(dataset.findings if into == "any" else ()), *painted)))
    if limit is not None and limit < 2:
        raise BadSetting(f"plant: limit {limit} is too few to plant lesions in some. Use a number from 2.")
    if times < 1:
        raise BadSetting(f"plant: times {times} plants nothing. Use 1 or more.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadSetting(f"{out} exists and is not empty. Name a new folder, or empty that one.")
    chosen = healthy(dataset, normal=normal) if into == "healthy" else dataset
    ruled_out = healthy_findings(dataset, normal=normal)
    if limit is not None and limit < len(chosen):
        drawn = np.random.default_rng((seed, 1)).permutation(len(chosen))[:limit]
        chosen = replace(chosen, records=tuple(chosen.records[i] for i in sorted(drawn.tolist())))
    chosen = _with_splits(chosen, seed)
    plan = _plan(chosen, share, kinds, seed, times)
    names = plain_names(record.image for record in chosen.records)
    if times > 1:
        chosen = replace(chosen, records=tuple(replace(r, patient=r.patient or r.image) for r in chosen.records))
    jobs = [(record, turn) for turn in range(times) for record in chosen.records if (record.image, turn) in plan]

    with new_folder(out) as partial:
        for folder in ("images", "lungs", *(f"masks/{finding}" for finding in findings)):
            (partial / folder).mkdir(parents=True)
        outcomes = []
        with ThreadPoolExecutor(workers) as pool, progress_bar(len(jobs), "planting lesions", progress) as advance:
            painter = _Painter(look, called, doubted, ruled_out, find_lungs, partial)
            waiting = [
                pool.submit(
                    painter.plant,
                    record,
                    names[record.image] + (f"~{turn + 1}" if turn else ""),  # no plain name has a tilde
                    _labels_before(record, dataset.findings, findings, into),
                    plan[record.image, turn],
                    _lesion_seed(record.image, seed, turn),
                )
                for record, turn in jobs
            ]
            for job in waiting:
                outcomes.append(job.result())
                advance(1)
        rows = [outcome.row for outcome in outcomes if outcome.row is not None]
        left_out = [
            {"image": record.image, "cause": outcome.cause}
            for (record, turn), outcome in zip(jobs, outcomes, strict=True)
            if outcome.row is None and turn == 0
        ]
        if len(left_out) > len(chosen) / 2:
            into_what = "healthy images" if into == "healthy" else "images"
            first = left_out[0]
            raise BadData(
                f"{dataset.name}: {len(left_out)} of {len(chosen)} {into_what} cannot be planted; {first['image']}: "
                f"{first['cause']}. Give lung masks, or use upright frontal chest X-rays."
            )
        columns = ["image", "patient", "split", *findings, "lungs", *(f"mask:{finding}" for finding in findings)]
        write_tables(
            partial,
            [*columns, "attr:original", "attr:lungs"],
            rows,
            [box for outcome in outcomes for box in outcome.boxes],
        )
        about = {
            "made_by": "radtag data plant",
            "version": VERSION,
            "source": dataset.name,
            "seed": seed,
            "share": share,
            "times": times,
            "kinds": list(kinds),
            "look": look,
            "into": into,
            "names": {kind: list(called[kind]) for kind in kinds},
            "unsure": {kind: list(doubted[kind]) for kind in kinds if doubted[kind]},
            "dropped": [finding for finding in dataset.findings if finding not in findings],
            "healthy_images" if into == "healthy" else "images": len(chosen),
            "written": len(rows),
            "planted": sum(outcome.painted for outcome in outcomes),
            "images_with": {finding: sum(row[finding] == 1 for row in rows) for finding in findings},
            "splits": dict(Counter(str(row["split"]) for row in rows)),
            "lungs": dict(Counter(str(row["attr:lungs"]) for row in rows)),
            **({"lungs_found_by": find_lungs.name} if find_lungs is not None else {}),
            "left_out": left_out,
            "notes": list(chosen.notes),
        }
        (partial / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return out / "table.csv"


def _with_splits(dataset: Dataset, seed: int) -> Dataset:
    """The source's own splits if some images are for scoring, or all for training; else new ones. None is left out."""
    own = {record.split for record in dataset.records}
    if own == {"train"}:
        return dataset
    if "test" in own:
        dataset = replace(dataset, records=tuple(record for record in dataset.records if record.split))
    else:
        dataset = dataset.with_splits({}, "split: the source does not say which healthy images are for scoring")
    return splits.assign(dataset, seed)


def _plan(
    dataset: Dataset, share: float, kinds: Sequence[str], seed: int, times: int
) -> dict[tuple[str, int], tuple[str, ...]]:
    """(image, round) -> the kinds to paint; exactly the share of each split, and kinds dealt out in turn.

    Every image is in the first round, be it with no kind; the further rounds hold the training images they plant.
    """
    plan: dict[tuple[str, int], tuple[str, ...]] = {(record.image, 0): () for record in dataset.records}
    rounds = [(0, "train"), (0, "val"), (0, "test"), *((turn, "train") for turn in range(1, times))]
    for number, (at_round, split) in enumerate(rounds):
        rng = np.random.default_rng((seed, 2, number))
        images = sorted(record.image for record in dataset.records if record.split == split)
        order = rng.permutation(len(images))[: round(share * len(images))]
        start = int(rng.integers(len(kinds)))
        for turn, at in enumerate(order.tolist()):
            first = kinds[(start + turn) % len(kinds)]
            others = [kind for kind in kinds if kind != first]
            second = (others[int(rng.integers(len(others)))],) if others and rng.random() < SECOND_KIND else ()
            # Air first, solid things over it.
            plan[images[at], at_round] = tuple(kind for kind in _PAINTING_ORDER if kind in (first, *second))
    return plan


def _lesion_seed(image: str, seed: int, turn: int) -> tuple[int, ...]:
    """What draws an image's lesions: its name, the set's seed and, past the first, the round."""
    key = int.from_bytes(hashlib.blake2b(_bytes(image), digest_size=8).digest(), "big")
    return (seed, 3, key, turn) if turn else (seed, 3, key)


def _bytes(name: str) -> bytes:
    """A name as it is on the disk, UTF-8 or not."""
    return name.encode("utf-8", "surrogateescape")


def _labels_before(record: Record, known: Sequence[str], findings: Sequence[str], into: Into) -> dict[str, float]:
    """What an image has of the findings of the new table before anything is painted; NaN = unknown."""
    if into == "healthy":
        return dict.fromkeys(findings, 0.0)
    return dict.fromkeys(findings, math.nan) | dict(zip(known, record.labels, strict=True))


_PAINTING_ORDER = ("pneumothorax", "cardiomegaly", "effusion", "consolidation", "atelectasis", "mass", "nodule")


@dataclass(frozen=True)
class _Painter:
    """What is the same for all images of a set.

    Args:
        look: of the lesions.
        called: kind -> the findings it counts as.
        doubted: kind -> findings that are unknown where it is painted.
        ruled_out: findings that an image with a lesion does not have any more, as "healthy".
        find_lungs: finds them where there is no mask of them; None = a simple estimate.
        folder: of the new set, with its sub-folders.
    """

    look: Look
    called: Mapping[str, tuple[str, ...]]
    doubted: Mapping[str, tuple[str, ...]]
    ruled_out: frozenset[str]
    find_lungs: LungFinder | None
    folder: Path

    def plant(
        self, record: Record, name: str, before: Mapping[str, float], planned: tuple[str, ...], seed: tuple[int, ...]
    ) -> _Outcome:
        """Decodes, paints and writes one image; every image goes the same way, planned lesions or none."""
        try:
            image_read = read(record.path)
            given = read_mask(record.lungs) if record.lungs is not None else None
        except UnreadableImage as error:
            return _Outcome(None, [], str(error))
        pixels = image_read.pixels
        lungs, known_by = self._lungs(image_read, given)
        anatomy = Anatomy.of(pixels, lungs) if lungs is not None else None
        if lungs is None or anatomy is None:
            return _Outcome(None, [], "its lung mask is empty" if given is not None else "no lungs were found in it")
        painted, painted_masks = lesions.paint(np.random.default_rng(seed), pixels, anatomy, planned, look=self.look)
        masks: dict[str, Mask] = {}
        for kind, mask in painted_masks.items():
            for finding in self.called[kind]:
                masks[finding] = masks[finding] | mask if finding in masks else mask

        levels, depth = _depth(pixels)
        image = f"images/{name}.png"
        row: dict[str, object] = {"image": image, "patient": record.patient, "split": record.split}
        row |= {
            finding: "" if math.isnan(label) else int(label)
            for finding, label in self._labels(before, painted_masks, masks).items()
        }
        row |= {"lungs": f"lungs/{name}.png", "attr:original": record.image}
        row["attr:lungs"] = known_by
        Pillow.fromarray(np.rint(painted.astype(np.float64) * levels).astype(depth)).save(
            self.folder / image, compress_level=1
        )
        Pillow.fromarray(lungs).save(self.folder / str(row["lungs"]))
        boxes = []
        for finding, mask in masks.items():
            if before[finding] != 0:  # what was there, or may have been, is not in the mask
                continue
            row[f"mask:{finding}"] = f"masks/{finding}/{name}.png"
            Pillow.fromarray(mask).save(self.folder / f"masks/{finding}/{name}.png")
            boxes += [(image, finding, *box) for box in boxes_of(mask)]
        return _Outcome(row, boxes, "", painted=bool(painted_masks))

    def _lungs(self, image: Image, given: Mask | None) -> tuple[Mask | None, str]:
        """The lungs, None where there are none, and how they are known."""
        if given is not None:
            return stretch_mask(given, (image.pixels.shape[0], image.pixels.shape[1])), "given"
        if self.find_lungs is not None:
            return self.find_lungs(image), "found"
        return estimate_lungs(image.pixels), "estimated"

    def _labels(self, before: Mapping[str, float], kinds: Collection[str], findings: Iterable[str]) -> dict[str, float]:
        """Labels once these kinds are painted, which count as these findings; NaN = unknown."""
        in_doubt = {finding for kind in kinds for finding in self.doubted[kind]}
        ruled_out = self.ruled_out & before.keys() if kinds else ()  # an image with a lesion is not healthy
        return (
            dict(before)
            | dict.fromkeys(ruled_out, 0.0)
            | {finding: math.nan for finding in in_doubt if before[finding] == 0}
            | dict.fromkeys(findings, 1.0)
        )


def _depth(pixels: FloatImage) -> tuple[int, type[np.uint8] | type[np.uint16]]:
    """Levels of the PNG that keeps an image: 255 if its values are those of 8 bits, else 65535."""
    scaled = pixels.astype(np.float64) * 255
    return (255, np.uint8) if np.abs(scaled - np.rint(scaled)).max() < 1e-3 else (65535, np.uint16)
