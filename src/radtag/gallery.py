"""The pictures of a report: which cases to show, and how they are drawn.

Three ways to choose, each said on the page: the best, the median and the worst of a finding; the false alarms with the
highest peaks; and, for comparing runs, cases chosen by their truth alone, which are the same for every run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from scipy import ndimage

from radtag import draw
from radtag.data.table import Dataset
from radtag.geometry import Frame, stretch_mask
from radtag.images import Image
from radtag.pairs import PairTable
from radtag.predictions import Predictor, predictions
from radtag.report.definitions import BY_KEY
from radtag.report.page import Case, Colours, Gallery, Picture, replace_text
from radtag.tag import Tag
from radtag.truth import Mask, Truth, truth_of

DARK_CASES = 4
ALARM_CASES = 6
LINE_PX = 2
"""Pages show pictures smaller than they are: a thinner line would be lost in its dark rim."""
MOST_FINDINGS = 20
"""Findings with pictures in a report; the numbers are of all."""
PICTURES_BYTES = 3_400_000
"""Of all pictures of a report together, which is a third more in the page: pages under 5 MB can be sent by mail."""
BY_SIZE = {"Small": 0.15, "Middle": 0.5, "Large": 0.85}
"""Lesions kept for comparisons: at these shares of a finding's lesions, sorted by size."""


def _css(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def colours() -> Colours:
    """What the pictures are drawn in; the scale as it looks over mid-gray."""
    gray = np.full((1, 9), 0.35, dtype=np.float32)
    ramp = draw.overlay(gray, np.linspace(0, 1, 9, dtype=np.float32)[None])[0]
    return Colours(_css(draw.TRUE), _css(draw.OUTLINE), tuple(_css(tuple(colour)) for colour in ramp.tolist()))


@dataclass(frozen=True)
class FixedCase:
    """A case chosen by its truth alone, the same for every run, with its picture in a file of its own.

    Args:
        image: name.
        finding: name.
        rank: "Small", "Middle", "Large" or "Healthy".
        caption: this run's numbers.
        plain: the image with its truth.
        shown: this run's map over it.
    """

    image: str
    finding: str
    rank: str
    caption: str
    plain: Picture = field(repr=False)
    shown: Picture = field(repr=False)

    def case(self) -> Case:
        """For a gallery."""
        rank = {"Healthy": ""}.get(self.rank, f"{self.rank} lesion" if self.rank else "")
        return Case(self.finding, self.image, rank, self.caption, (self.plain, self.shown))


def read_fixed(folder: Path) -> list[FixedCase]:
    """What an evaluation keeps for comparisons; none where it keeps nothing."""
    file = folder / "pictures.json"
    if not file.is_file():
        return []
    cases = []
    for one in json.loads(file.read_text(encoding="utf-8")):
        pictures = [
            Picture(
                (folder / "pictures" / one[kind]["file"]).read_bytes(),
                one[kind]["width"],
                one[kind]["height"],
                one[kind]["alt"],
            )
            for kind in ("plain", "shown")
        ]
        cases.append(FixedCase(one["image"], one["finding"], one["rank"], one["caption"], *pictures))
    return cases


def write_fixed(folder: Path, cases: Sequence[FixedCase]) -> None:
    names = set()
    rows = []
    for i, case in enumerate(cases):
        row: dict[str, Any] = {name: getattr(case, name) for name in ("image", "finding", "rank", "caption")}
        for kind in ("plain", "shown"):
            picture: Picture = getattr(case, kind)
            file = f"{i:03d}_{kind}.jpg"
            draw.write_bytes(folder / "pictures" / file, picture.data)
            names.add(file)
            row[kind] = {"file": file, "width": picture.width, "height": picture.height, "alt": picture.alt}
        rows.append(row)
    for old in (folder / "pictures").glob("[0-9]*_*.jpg"):  # of an earlier evaluation
        if old.name not in names:
            old.unlink()
    replace_text(folder / "pictures.json", json.dumps(rows, indent=1) + "\n")


def _rank_by(table: PairTable) -> str:
    """The column by which the cases of a gallery are ranked: the strictest the data allows."""
    for name in ("poi_matched", "iobb"):
        if np.isfinite(table[name]).any():
            return name
    return "pointing"


_RANKED = {
    "poi_matched": "PoI at matched area",
    "iobb": "the share of the map’s bright part that lies in a true box (IoBB)",
    "pointing": "whether the peak lies in the lesion",
}


def choose_and_draw(tagger: Predictor, dataset: Dataset, table: PairTable) -> tuple[Gallery, list[FixedCase]]:
    """Chooses the cases worth showing, tags their images once more, and draws them."""
    column = _rank_by(table)
    findings = table.findings
    shown = [name for name in findings if ((table["finding"] == name) & (table["located"] == 1)).any()][:MOST_FINDINGS]
    side = 320 if len(shown) <= 6 else 256
    wanted: dict[str, list[tuple[str, int, str]]] = {}  # image -> (where, pair, rank)

    def want(where: str, pair: int, rank: str) -> None:
        wanted.setdefault(str(table["image"][pair]), []).append((where, pair, rank))

    name_of = table["image"]
    boxes: Mapping[str, Mapping[str, Any]] = {record.image: record.boxes_xyxy for record in dataset.records}
    for finding in shown:
        at = np.flatnonzero((table["finding"] == finding) & (table["located"] == 1))
        worth = np.nan_to_num(table[column][at], nan=-1.0)
        order = at[np.lexsort((name_of[at], -table["map_max"][at], -worth))]
        ranks = {"Best": 0, "Median": (len(order) - 1) // 2, "Worst": len(order) - 1}
        taken: set[int] = set()
        for rank, i in ranks.items():
            if i not in taken:
                taken.add(i)
                want("located", int(order[i]), rank if len(order) > 1 else "Only case")
        # By the truth alone: what is chosen is the same for every run.
        size = np.array([_true_size(table, i, boxes[str(name_of[i])].get(finding, ())) for i in at.tolist()])
        by_size = at[np.lexsort((name_of[at], size))]
        picks = BY_SIZE if len(shown) <= 5 else {"Middle": BY_SIZE["Middle"]}
        taken = set()
        for rank, share in picks.items():
            i = int(share * (len(by_size) - 1) + 0.5)
            if i not in taken:
                taken.add(i)
                want("fixed", int(by_size[i]), rank)

    label = table["label"].reshape(-1, len(findings))
    healthy = np.flatnonzero((label == 0).any(axis=1) & ~(label == 1).any(axis=1))
    negative = np.flatnonzero(table["label"] == 0)
    if len(healthy):
        of_healthy = np.isin(negative // len(findings), healthy)
        negative = negative[of_healthy]
    negative = negative[table["marked"][negative] > 0]  # where nothing is marked, nobody is alarmed
    seen: set[int] = set()
    for pair in negative[np.argsort(-table["map_max"][negative], kind="stable")]:
        if len(seen) == ALARM_CASES:
            break
        if int(pair) // len(findings) not in seen:
            seen.add(int(pair) // len(findings))
            want("alarms", int(pair), "")
    # Without choosing: by a hash of the name, which knows neither image nor map.
    names = [str(name).encode("utf-8", "surrogateescape") for name in name_of[:: len(findings)]]
    drawn = sorted(healthy.tolist(), key=lambda i: hashlib.sha256(names[i]).digest())
    for i in drawn[:DARK_CASES]:
        highest = int(np.argmax(np.where(label[i] == 0, table["map_max"].reshape(label.shape)[i], -1)))
        want("dark", i * len(findings) + highest, "Healthy")

    chosen = [i for i, record in enumerate(dataset.records) if record.image in wanted]
    on_page = sum(where != "fixed" for places in wanted.values() for where, _, _ in places)
    most_bytes = PICTURES_BYTES // max(2 * on_page, 60)
    made: dict[tuple[str, int], tuple[str, tuple[Picture, ...], str]] = {}
    full = 1.0
    for record, _, prediction in predictions(tagger, dataset, {}, only=chosen):
        tags = tagger.tags(prediction, record.image)
        for where, pair, rank in wanted[record.image]:
            finding = str(table["finding"][pair])
            tag = tags[tagger.findings.index(finding)]
            truth = None
            if table["located"][pair] == 1:
                truth = truth_of(record, finding, prediction.image.size_rc)
            pictures = _draw(prediction.image, tag, truth, side, most_bytes)
            made[where, pair] = (rank, pictures, _caption(table, pair, column))
            full = prediction.full

    def cases(where: str) -> list[tuple[int, Case]]:
        return [
            (pair, Case(str(table["finding"][pair]), str(name_of[pair]), rank, caption, pictures))
            for image in wanted.values()
            for place, pair, _ in image
            if place == where and (where, pair) in made
            for rank, pictures, caption in [made[where, pair]]
        ]

    located: dict[str, list[Case]] = {name: [] for name in shown}
    for _, case in cases("located"):
        located[case.finding].append(case)
    order_of = ["Best", "Median", "Worst", "Only case"]
    for found in located.values():
        found.sort(key=lambda case: order_of.index(case.rank))
    alarms = sorted(cases("alarms"), key=lambda one: -table["map_max"][one[0]])
    dark = cases("dark")
    sizes = [*BY_SIZE, "Healthy"]
    fixed = [
        FixedCase(case.image, case.finding, case.rank, case.caption, *case.pictures[:2])
        for _, case in [*cases("fixed"), *dark]
    ]
    fixed.sort(key=lambda case: (case.rank == "Healthy", findings.index(case.finding), sizes.index(case.rank)))
    gallery = Gallery(
        colours(),
        full=full,
        located={name: found for name, found in located.items() if found},
        alarms=[case for _, case in alarms],
        dark=[Case(case.finding, case.image, "", case.caption, case.pictures) for _, case in dark],
        ranked_by=_RANKED[column],
    )
    return gallery, fixed


def _true_size(table: PairTable, pair: int, boxes_xyxy: Sequence[tuple[float, float, float, float]]) -> float:
    """How large the lesion is: its outline's share of the image, or the area of its boxes."""
    if np.isfinite(table["mask_share"][pair]):
        return float(table["mask_share"][pair])
    return float(sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes_xyxy))


def _caption(table: PairTable, pair: int, column: str) -> str:
    words = []
    if table["located"][pair] == 1:
        if column != "pointing" and np.isfinite(table[column][pair]):
            words.append(f"{BY_KEY[column].title if column in BY_KEY else 'IoBB'} {table[column][pair]:.2f}")
        words.append("peak inside" if table["pointing"][pair] == 1 else "peak outside")
        words.append(f"score {table['score'][pair]:.2f}")
    else:
        words.append(f"{table['finding'][pair]}: peak {table['map_max'][pair]:.2f}")
        words.append(f"score {table['score'][pair]:.2f}")
    return " · ".join(words)


def pooled_gallery(fixed: Sequence[FixedCase]) -> Gallery:
    """A gallery of what several evaluations keep: cases that were chosen by their truth alone."""
    located: dict[str, list[Case]] = {}
    for case in fixed:
        if case.rank != "Healthy":
            located.setdefault(case.finding, []).append(case.case())
    return Gallery(
        colours(),
        located=dict(list(located.items())[:MOST_FINDINGS]),
        dark=[case.case() for case in fixed if case.rank == "Healthy"][: 2 * DARK_CASES],
    )


def _draw(image: Image, tag: Tag, truth: Truth | None, side: int, most_bytes: int) -> tuple[Picture, ...]:
    """The image as it came, the map over it with the proposed mask's outline and the truth, and any counterpart."""
    rows, cols = image.size_rc
    factor = side / max(rows, cols)
    size_rc = (max(1, round(rows * factor)), max(1, round(cols * factor)))
    pixels = np.clip(_resampled(image.pixels, size_rc), 0, 1)
    over = draw.overlay(pixels, np.clip(_resampled(tag.map, size_rc) / np.float32(tag.prediction.full), 0, 1))
    over = _outlined(over, tag.mask, draw.OUTLINE)
    # The outline says more than the boxes around it.
    if truth is not None and truth.mask is not None:
        over = _outlined(over, truth.mask, draw.TRUE)
    elif truth is not None:
        true = Frame.stretch(image.size_rc, size_rc).boxes_to_frame(truth.boxes_xyxy)
        over = draw.boxes(over, true_xyxy=true, width_px=LINE_PX)
    known = "" if truth is None else ", with the true place"
    name = f"{tag.finding}, {tag.image}"
    pictures = (
        _encoded(draw.gray(pixels), most_bytes, f"{name}: the image as it came"),
        _encoded(over, most_bytes, f"{name}: the map over the image{known}"),
    )
    if tag.prediction.layers[0].changes is None:
        return pictures
    without = np.clip(_resampled(tag.counterpart, size_rc), 0, 1)
    return (*pictures, _encoded(draw.gray(without), most_bytes, f"{name}: the normal counterpart"))


def _encoded(picture: NDArray[np.uint8], most_bytes: int, alt: str) -> Picture:
    """As JPEG, made smaller until it is small enough: noise takes far more bytes than a radiograph."""
    data = draw.encode_picture(picture)
    while len(data) > most_bytes and max(picture.shape[:2]) > 96:
        picture = draw.reduced(picture, int(0.85 * max(picture.shape[:2])))
        data = draw.encode_picture(picture)
    return Picture(data, picture.shape[1], picture.shape[0], alt)


def _resampled(values: NDArray[np.float32], size_rc: tuple[int, int]) -> NDArray[np.float32]:
    """To a picture's size: averaged when it shrinks, smooth when it grows."""
    image = PIL.Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize((size_rc[1], size_rc[0]), PIL.Image.Resampling.BICUBIC), dtype=np.float32)


def _outlined(picture: NDArray[np.uint8], mask: Mask, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A mask's outline on a picture of another size, :data:`LINE_PX` wide."""
    inside = _resampled(mask.astype(np.float32), (picture.shape[0], picture.shape[1])) > 0.5
    if mask.any() and not inside.any():  # a lesion smaller than a pixel of the picture
        inside = stretch_mask(mask, (picture.shape[0], picture.shape[1]))
    once = draw.outline(picture, inside, colour=colour)
    return draw.outline(once, ndimage.binary_erosion(inside), colour=colour)
