"""Phantoms: drawn chest radiographs whose lesions are known to the pixel.

A phantom stands in for data that cannot be shown or had: for trying the whole chain in minutes, for tests, and for
seeing what a localiser does when the truth is exact. It is a drawing, not a simulation: a score on phantoms says that a
method and its code work, and nothing about patients.

What is drawn, in the order in which it is laid over one another:

1. **Anatomy**, as how much each part dims the beam: body, lungs, heart, spine, ribs (posterior and anterior),
   clavicles, windpipe, diaphragm, stomach bubble, breasts, a tree of vessels. Pose (turn, shift, zoom, lean), build,
   exposure, size and aspect vary from image to image.
2. **Lesions**: what :mod:`radtag.data.lesions` paints (nodule, consolidation, effusion, pneumothorax), and
   cardiomegaly, which is a wider heart: healthy hearts take up 0.38-0.47 of the width of the chest, enlarged ones
   0.56-0.70, and its mask is the whole area of the heart.
3. **Distractors**, which are no findings: side letters, lines, electrodes, clips, a collimator's edge. They are
   drawn alike in healthy and ill images, so that no label can be read off them. Where one covers a lesion, the mask
   goes on underneath.
4. **Noise**, which depends on the brightness before lesions, then rounding to 8 bits.

Each phantom depends on (seed, index, side) alone, so phantom k is the same however many are made. Each of the four
steps draws from a generator of its own, so that ``render(k, findings=())`` is the same patient without lesions, and
outside the masks no pixel differs. (Cardiomegaly is another heart: there, what the wider heart displaces differs too.)

Numpy, scipy and Pillow only.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFilter, ImageFont

from radtag.data import lesions
from radtag.data.files import new_folder
from radtag.data.lesions import Anatomy, FloatImage, Mask, boxes_of
from radtag.errors import BadSetting

VERSION = 2
"""Raised with every change that moves a pixel of a phantom; part of the cache's key."""

FINDINGS = ("nodule", "consolidation", "effusion", "pneumothorax", "cardiomegaly")
"""What phantoms can show, in the order of their label columns."""

HEALTHY_SHARE = 0.30
"""Share of phantoms without any finding; the others have one (0.55), two (0.30) or three (0.15) kinds."""

SIDES_PX = (48, 2048)
"""Smallest and largest base side that can be drawn."""

_STREAMS = {"anatomy": 0, "findings": 1, "lesions": 2, "distractors": 3, "noise": 4}
_CELLS = 2048  # of the look-up tables along each axis
_REACH = 3.0  # the tables cover -3 to 3 half chest widths


@dataclass(frozen=True)
class Phantom:
    """One drawn radiograph.

    Args:
        pixels: (row, col) uint8, bright = dense.
        masks: per finding that is present, its (row, col) mask, which has a pixel at least.
        lungs: (row, col) both lungs, without the heart.
        heart: (row, col) the heart.
        distractors: names of what was laid over the image.
        attributes: what a report may group by: sex.
    """

    pixels: NDArray[np.uint8]
    masks: dict[str, Mask]
    lungs: Mask
    heart: Mask
    distractors: tuple[str, ...]
    attributes: dict[str, str]

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings that are present, in the order of :data:`FINDINGS`."""
        return tuple(finding for finding in FINDINGS if finding in self.masks)


def draw_findings(index: int, *, seed: int = 0) -> tuple[str, ...]:
    """The findings phantom ``index`` is meant to have, in the order in which they are painted."""
    rng = _stream(seed, index, "findings")
    if rng.random() < HEALTHY_SHARE:
        return ()
    count = int(rng.choice([1, 2, 3], p=[0.55, 0.30, 0.15]))
    chosen = set(rng.permutation(len(FINDINGS))[:count].tolist())
    # Air first and solid things over it; a heart's size is settled before anything is painted.
    order = ("cardiomegaly", "pneumothorax", "effusion", "consolidation", "nodule")
    return tuple(name for name in order if FINDINGS.index(name) in chosen)


def split_of(index: int) -> str:
    """The split of phantom ``index``: 60 % train, 15 % val, 25 % test, by the golden-ratio sequence.

    The sequence spreads evenly, so that any number of phantoms in a row is divided nearly in these shares, and the
    split of phantom k does not depend on how many there are.
    """
    place = (index + 0.5) * 0.6180339887498949 % 1
    return "train" if place < 0.60 else "val" if place < 0.75 else "test"


def render(index: int, *, seed: int = 0, side: int = 256, findings: Sequence[str] | None = None) -> Phantom:
    """Draws phantom ``index``.

    Args:
        index: which one, from 0.
        seed: which endless series of phantoms.
        side: base side in pixels; rows and columns vary around it.
        findings: draw these instead of those the phantom would have (the same patient, another illness).

    Raises:
        BadSetting: a side that cannot be drawn, a negative index, or a finding that phantoms do not have.
    """
    if not SIDES_PX[0] <= side <= SIDES_PX[1]:
        raise BadSetting(f"phantom: side {side} cannot be drawn. Use {SIDES_PX[0]} to {SIDES_PX[1]} pixels.")
    if index < 0 or seed < 0:
        raise BadSetting(f"phantom: index {index} and seed {seed} are counted from 0. Use whole numbers from 0.")
    chosen = tuple(draw_findings(index, seed=seed) if findings is None else findings)
    for name in chosen:
        if name not in FINDINGS:
            raise BadSetting(f"phantom: no finding {name!r}. Use some of {', '.join(FINDINGS)}.")
    scene = _draw_anatomy(_stream(seed, index, "anatomy"), side, enlarged="cardiomegaly" in chosen)
    image, masks = scene.image, {}
    if "cardiomegaly" in chosen:
        masks["cardiomegaly"] = scene.heart
    painter = _stream(seed, index, "lesions")
    anatomy = Anatomy.of(image, scene.lungs, scene.markings)
    if anatomy is not None:
        kinds = [name for name in chosen if name != "cardiomegaly"]
        image, painted = lesions.paint(painter, image, anatomy, kinds)
        masks.update(painted)
    image, distractors = _draw_distractors(_stream(seed, index, "distractors"), image, scene)
    image = image + _noise(_stream(seed, index, "noise"), scene)
    pixels = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    ordered = {finding: masks[finding] for finding in FINDINGS if finding in masks}
    return Phantom(pixels, ordered, scene.lungs, scene.heart, distractors, {"sex": scene.sex})


def phantoms(count: int, *, seed: int = 0, side: int = 256) -> Iterator[Phantom]:
    """Phantoms 0 to ``count`` - 1."""
    for index in range(count):
        yield render(index, seed=seed, side=side)


def write(out: Path, count: int, *, seed: int = 0, side: int = 256, progress: bool | None = None) -> Path:
    """Writes phantoms in the ``csv`` layout: ``table.csv``, ``boxes.csv``, ``images/``, ``masks/FINDING/``, ``lungs/``.

    The table has a column per finding (1 / 0), ``split``, ``patient`` (each phantom is its own), ``lungs``,
    ``mask:FINDING``, ``attr:sex`` and ``attr:distractors``. Boxes are tight around each 8-connected part of a mask.

    Args:
        out: a folder that does not exist yet, or is empty. It appears when all is written, not before.
        count: how many.
        seed: which series.
        side: base side in pixels.
        progress: True to show a bar, False not to, None to show one on a terminal.

    Returns:
        Path to ``table.csv``.

    Raises:
        BadSetting: a count below 1, a side that cannot be drawn, or a folder that holds something.
    """
    out = Path(out)
    if count < 1:
        raise BadSetting(f"phantom: cannot draw {count} images. Use a number from 1.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadSetting(f"{out} exists and is not empty. Name a new folder, or empty that one.")
    render(0, seed=seed, side=side)  # refuses a bad side or seed before anything is written
    with new_folder(out) as partial:
        for folder in ("images", "lungs", *(f"masks/{finding}" for finding in FINDINGS)):
            (partial / folder).mkdir(parents=True)
        digits = max(len(str(count - 1)), 5)
        rows: list[dict[str, object]] = []
        boxes: list[tuple[str, str, float, float, float, float]] = []
        # Compressing releases the interpreter's lock, so one thread writes while this one draws.
        with ThreadPoolExecutor(1) as writer, progress_bar(count, "drawing phantoms", progress) as advance:
            pending = []
            for index in range(count):
                phantom = render(index, seed=seed, side=side)
                name = f"{index:0{digits}d}"
                image = f"images/{name}.png"
                row: dict[str, object] = {
                    "image": image,
                    "patient": f"phantom-{name}",
                    "split": split_of(index),
                }
                row |= {finding: int(finding in phantom.masks) for finding in FINDINGS}
                row["lungs"] = f"lungs/{name}.png"
                for finding, mask in phantom.masks.items():
                    row[f"mask:{finding}"] = f"masks/{finding}/{name}.png"
                    boxes += [(image, finding, *box) for box in boxes_of(mask)]
                row["attr:sex"] = phantom.attributes["sex"]
                row["attr:distractors"] = "some" if phantom.distractors else "none"
                rows.append(row)
                pending.append(writer.submit(_save, partial, row, phantom))
                if len(pending) > 64:  # keeps memory flat should the disk be slower than the drawing
                    pending.pop(0).result()
                advance(1)
            for job in pending:
                job.result()
        columns = ["image", "patient", "split", *FINDINGS, "lungs", *(f"mask:{f}" for f in FINDINGS), "attr:sex"]
        columns += ["attr:distractors"]
        write_tables(partial, columns, rows, boxes)
        about = {
            "made_by": "radtag phantom",
            "version": VERSION,
            "count": count,
            "seed": seed,
            "side_px": side,
            "splits": "60 % train, 15 % val, 25 % test by the golden-ratio sequence over the index",
        }
        (partial / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return out / "table.csv"


def write_tables(
    folder: Path,
    columns: Sequence[str],
    rows: Sequence[dict[str, object]],
    boxes: Sequence[tuple[str, str, float, float, float, float]],
) -> None:
    """Writes ``table.csv`` and ``boxes.csv`` of the ``csv`` layout; cells a row does not have stay blank.

    Args:
        folder: where to.
        columns: of the table, in order.
        rows: one per image.
        boxes: (image, finding, x1, y1, x2, y2), half-open, original pixels.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    # Of an original file's name that is not UTF-8 the odd bytes are spelled out.
    (folder / "table.csv").write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["image", "finding", "x1", "y1", "x2", "y2"])
    lines.writerows(boxes)
    (folder / "boxes.csv").write_text(text.getvalue(), encoding="utf-8")


def _save(folder: Path, row: dict[str, object], phantom: Phantom) -> None:
    # Level 1: noise hardly compresses, and higher levels take longer than the drawing.
    Pillow.fromarray(phantom.pixels).save(folder / str(row["image"]), compress_level=1)
    Pillow.fromarray(phantom.lungs).save(folder / str(row["lungs"]))
    for finding, mask in phantom.masks.items():
        Pillow.fromarray(mask).save(folder / str(row[f"mask:{finding}"]))


class progress_bar:
    """A progress bar on standard error; a with-statement that gives a function to advance it."""

    def __init__(self, total: int, what: str, shown: bool | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        hidden = not (console.is_terminal if shown is None else shown)
        self._progress = Progress(*columns, console=console, disable=hidden, transient=True)
        self._task = self._progress.add_task(what, total=total)

    def __enter__(self):
        self._progress.start()
        return lambda steps: self._progress.advance(self._task, steps)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


# ---------------------------------------------------------------------------------------------------------------------
# Drawing. Coordinates: x to the right and y down, in half widths of the chest; (0, 0) is the middle of the chest. The
# patient's left is at the image's right, as on every film. Functions of one coordinate are look-up tables.
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scene:
    image: FloatImage  # (row, col) 0-1, after the tone curve, without lesions
    lungs: Mask
    heart: Mask
    markings: FloatImage  # what vessels add to the image
    x: FloatImage
    y: FloatImage
    scale_px: float  # half a chest's width
    sex: str
    noise: float


def _stream(seed: int, index: int, step: str) -> np.random.Generator:
    return np.random.default_rng((seed, index, _STREAMS[step]))


def _draw_anatomy(rng: np.random.Generator, side: int, *, enlarged: bool) -> _Scene:
    rows, cols = _size(rng, side)
    scale_px = rng.uniform(0.345, 0.42) * min(cols, 1.02 * rows)
    turn, lean = np.deg2rad(rng.uniform(-4, 4)), rng.uniform(-0.05, 0.05)
    middle = (rows * rng.uniform(0.49, 0.55), cols * rng.uniform(0.47, 0.53))
    tall = rng.uniform(0.92, 1.12)
    down = (np.arange(rows, dtype=np.float32)[:, None] + 0.5 - middle[0]) / scale_px
    across = (np.arange(cols, dtype=np.float32)[None] + 0.5 - middle[1]) / scale_px
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    y = (down * cos + across * sin) / tall
    x = across * cos - down * sin + lean * y
    # The spine bends a little; everything hangs on it.
    t = _table_axis()
    bend = rng.uniform(-0.03, 0.03) * np.sin(t * rng.uniform(0.8, 1.6) + rng.uniform(0, 6))
    iy = _cells(y)
    x = x - bend.astype(np.float32)[iy]
    ix = _cells(x)
    ax = np.abs(x)
    iax = _cells(ax)

    sex = "F" if rng.random() < 0.5 else "M"
    stout = rng.uniform(0.0, 1.0)

    # Outlines, as tables.
    apex, foot = rng.uniform(-1.08, -0.96), 0.95
    rise = np.clip((foot - 0.1 - t) / (foot - 0.1 - apex), 0, 1)
    lateral = np.where(t > apex, np.clip(1 - rise ** rng.uniform(2.6, 3.4), 0, 1) ** 0.50, 0.0)
    lateral = lateral * (1 + 0.03 * np.clip(t, -1, 1))
    medial = 0.15 + 0.05 * np.exp(-(((t - apex) / 0.25) ** 2)) + 0.03 * np.clip(t, 0, 1)
    dome = rng.uniform(0.62, 0.74), rng.uniform(0.66, 0.80)  # image left (patient's right, higher), image right
    dome = (min(dome), max(dome)) if rng.random() < 0.9 else (max(dome), min(dome))
    arch = rng.uniform(0.75, 1.1)
    floor = (
        dome[0]
        + (dome[1] - dome[0]) * _step(t, 0.05, 0.25)
        + arch * 0.42 * np.clip(np.abs(np.abs(t) - 0.42), 0, 2) ** 2.0
    )
    floor = floor + 0.30 * np.clip(np.abs(t) - 0.72, 0, 1) ** 1.2

    wall = lateral.astype(np.float32)[iy] - ax  # > 0 inside the ribs
    under = y - floor.astype(np.float32)[ix]  # > 0 below the diaphragm
    beside = ax - medial.astype(np.float32)[iy]  # > 0 outside the mediastinum
    lung_field = np.minimum(np.minimum(wall, beside), -under)

    # Heart and great vessels: fields > 0 inside.
    heart_field = _heart(rng, x, y, dome[1], enlarged)
    knob = 1 - ((x - 0.15) / rng.uniform(0.11, 0.15)) ** 2 - ((y + 0.43) / 0.16) ** 2
    trunk = 1 - ((x - 0.17 - 0.25 * (y + 0.15)) / 0.14) ** 2 - ((y + 0.14) / 0.26) ** 2
    vein = 0.6 - 0.6 * ((x + 0.13) / 0.09) ** 2 - 0.6 * ((y + 0.33) / 0.42) ** 2
    hilum_y = rng.uniform(-0.16, -0.02)
    solid = _join(_join(heart_field, trunk, 0.35), _join(knob, vein, 0.1), 0.15)
    lungs = (lung_field > 0) & (solid <= 0)
    heart = (heart_field > 0) & (under < 0.06)

    # Thin at the wall, where the chest curves away; sharp where the beam grazes the diaphragm.
    air = np.minimum(np.minimum(wall / rng.uniform(0.18, 0.28), beside / 0.14), -under / 0.09)
    air = np.clip(air, 0, 1)
    air = air * (2 - air)  # rounded, as the chest is
    dense = np.clip((solid + 0.12) / 0.36, 0, 1)
    shadow = dense * dense * (3 - 2 * dense)
    air_seen = air * (1 - 0.88 * shadow)

    # Body.
    shoulder = rng.uniform(-0.98, -0.84)
    torso = 1.12 + 0.22 * stout + 0.05 * t + 0.55 * _step(-t, -shoulder - 0.12, 0.30)
    neck = 0.40 + 0.06 * stout
    outline = (torso - (torso - neck) * _step(-t, -shoulder + 0.28, 0.22)).astype(np.float32)
    body = np.clip(1 - (ax / outline[iy]) ** 2, 0, 1)
    image = 0.60 * np.sqrt(body) ** 0.7
    image = image + (0.05 + 0.10 * stout) * np.clip(1 - wall / -0.35, 0, 1) * np.clip(-wall / 0.05, 0, 1) * (body > 0)
    abdomen = np.clip(under / 0.08 + 0.5, 0, 1)
    image += (0.17 * abdomen + 0.05 * np.clip(under / 0.6, 0, 1)) * (body > 0) * np.clip((wall + 0.10) / 0.10, 0, 1)
    image -= rng.uniform(0.30, 0.37) * air_seen
    image += 0.09 * shadow * np.clip(-under / 0.12, 0, 1)
    root = ((ax - 0.27) / 0.13) ** 2 + ((y - hilum_y - 0.03) / 0.22) ** 2
    image += 0.055 * np.clip(1 - root, 0, 1) * air
    mediastinum = np.clip(-beside / 0.10, 0, 1) * _step_at(y, -0.95, 0.25)
    image += 0.06 * mediastinum
    # Stomach bubble under the left dome.
    if rng.random() < 0.55:
        width, height = rng.uniform(0.10, 0.22), rng.uniform(0.05, 0.11)
        bubble = 1 - ((x - rng.uniform(0.36, 0.55)) / width) ** 2 - ((y - dome[1] - height - 0.09) / height) ** 2
        image -= rng.uniform(0.10, 0.20) * np.clip(bubble / 0.6, 0, 1) * abdomen
    if sex == "F":
        image += _breasts(rng, ax, y) * (body > 0)
    image += _bones(rng, t, ax, iax, iy, x, y, wall, under, body)
    image -= _windpipe(rng, t, x, ax, y, iy)

    vessels = _vessels(rng, (rows, cols), scale_px, middle, (cos, sin), tall, hilum_y)
    markings = vessels * air * (1 - 0.8 * shadow)
    image += markings
    # Uneven tissue, large and small.
    image += lesions.clouds(rng, (rows, cols), 0.45 * scale_px) * 0.016 * (body > 0)
    image += lesions.clouds(rng, (rows, cols), 0.05 * scale_px) * 0.010 * np.sqrt(body)

    # Exposure and the film's tone curve.
    gain, offset, gamma = rng.uniform(0.82, 1.08), rng.uniform(-0.03, 0.05), rng.uniform(0.85, 1.35)
    image = np.clip(image * gain, 0.0, 1.1)
    toned = image**gamma
    toned = toned / (1 + 0.16 * toned) * 1.04 + offset * (body > 0)
    toned = np.clip(toned, 0.012, 0.93)
    slope = gain * gamma * np.clip(image, 0.05, 1) ** (gamma - 1)
    blur = rng.uniform(0.0, 0.9) * side / 256
    if blur > 0.3:
        toned = _blur(toned, blur)
    return _Scene(
        image=toned.astype(np.float32),
        lungs=lungs,
        heart=heart,
        markings=(markings * slope).astype(np.float32),
        x=x,
        y=y,
        scale_px=float(scale_px),
        sex=sex,
        noise=float(rng.uniform(0.008, 0.022)),
    )


def _size(rng: np.random.Generator, side: int) -> tuple[int, int]:
    """Rows and columns: two in five square, the others wider or taller by up to a quarter."""
    length = side * rng.uniform(0.90, 1.12)
    aspect = rng.uniform(0.80, 1.25)
    if rng.random() < 0.4:
        aspect = 1.0
    return max(round(length * aspect**0.5), 32), max(round(length / aspect**0.5), 32)


def _heart(rng: np.random.Generator, x: FloatImage, y: FloatImage, left_dome: float, enlarged: bool) -> FloatImage:
    """A field that is positive within the heart, 1 in its middle."""
    share = rng.random()
    normal, large = 0.38 + 0.09 * share, 0.56 + 0.14 * share  # of the chest's inner width, which is 2
    width = 2 * (large if enlarged else normal)
    to_left = rng.uniform(0.62, 0.68)  # of it lies to the image's right of the spine
    reach_right, reach_left = (1 - to_left) * width, to_left * width
    bottom = left_dome + rng.uniform(0.18, 0.26)
    tall = rng.uniform(0.58, 0.66) + (0.16 * (width - 0.85) if enlarged else 0.0)
    middle = (reach_left - reach_right) / 2, bottom - 0.92 * tall
    tilt = rng.uniform(0.30, 0.55)
    across, down = x - middle[0], y - middle[1]
    half = width / 2
    # Slanted down to the image's right, as hearts lie; rounder above, flatter on the diaphragm.
    down = down - tilt * across * 0.55
    up = np.where(down < 0, tall * 1.12, tall * 0.82)
    return (1 - np.abs(across / half) ** 2.3 - np.abs(down / up) ** 2.1).astype(np.float32)


def _breasts(rng: np.random.Generator, ax: FloatImage, y: FloatImage) -> FloatImage:
    size = rng.uniform(0.34, 0.50)
    reach = ((ax - rng.uniform(0.52, 0.62)) / size) ** 2 + ((y - rng.uniform(0.30, 0.45)) / (0.95 * size)) ** 2
    lower = np.clip((y + 0.15) / 0.5, 0, 1)  # no edge above: skin is only grazed below
    return rng.uniform(0.03, 0.075) * np.clip((1 - reach) / 0.18, 0, 1) * lower


def _bones(
    rng: np.random.Generator,
    t: NDArray[np.float64],
    ax: FloatImage,
    iax: NDArray[np.int16],
    iy: NDArray[np.int16],
    x: FloatImage,
    y: FloatImage,
    wall: FloatImage,
    under: FloatImage,
    body: FloatImage,
) -> FloatImage:
    strength = rng.uniform(0.75, 1.25)
    gap = rng.uniform(0.185, 0.215)
    outer = np.clip(t - 0.50, 0, 2)
    posterior = 0.10 * np.clip(t, 0, 2) - 0.20 * np.exp(-((t / 0.22) ** 2)) + 0.95 * outer**2
    anterior = -0.72 * np.clip(t, 0, 2) + 0.45 * np.clip(t - 0.6, 0, 2) ** 2
    inside = np.clip((wall + 0.05) / 0.03, 0, 1)
    above = 1 - 0.65 * np.clip(under / 0.10, 0, 1)
    # Posterior ribs, spine to wall, and anterior ones, wall to cartilage: each a tube whose shell is seen at its edges.
    back = _tubes(rng, y - posterior.astype(np.float32)[iax], -1.12, gap, 12, 0.36)
    window = np.clip((ax - 0.10) / 0.06, 0, 1)
    bones = 0.115 * strength * back * window * inside * above
    front = _tubes(rng, y - anterior.astype(np.float32)[iax], -0.55, gap * 1.12, 8, 0.42)
    window = np.clip((ax - rng.uniform(0.42, 0.52)) / 0.12, 0, 1)
    bones += 0.085 * strength * front * window * inside * above
    # Where ribs turn around the side they are seen along their length.
    rim = np.clip(1 - np.abs(wall + 0.015) / 0.045, 0, 1)
    bones += 0.07 * strength * rim * np.clip((y + 0.95) / 0.2, 0, 1) * (body > 0)
    # Spine: bodies and discs.
    pitch, width = rng.uniform(0.185, 0.215), rng.uniform(0.125, 0.150)
    beat = np.cos(2 * np.pi * (t + rng.uniform(0, 1)) / pitch)
    column = (0.105 + 0.022 * np.tanh(2.5 * beat) + 0.03 * np.clip(t - 0.4, 0, 1)).astype(np.float32)
    swell = (width * (1 + 0.05 * np.tanh(2 * beat))).astype(np.float32)
    bones += column[iy] * strength * np.clip((swell[iy] - ax) / 0.03, 0, 1)
    spinous = np.clip(1 - (x / 0.03) ** 2, 0, 1) * (0.5 + 0.5 * beat).astype(np.float32)[iy]
    bones += 0.035 * strength * spinous
    # Clavicles and the heads of the upper arms.
    slope, lift = rng.uniform(0.10, 0.34), rng.uniform(-0.90, -0.76)
    course = lift - slope * t + 0.05 * np.sin(4.5 * t)
    thick = 0.044 * (1 + 0.25 * np.clip(t - 0.5, 0, 1) + 0.5 * np.exp(-(((t - 0.15) / 0.12) ** 2)))
    u = (y - course.astype(np.float32)[iax]) / thick.astype(np.float32)[iax]
    collar = _shell(u)
    bones += 0.13 * strength * collar * np.clip((ax - 0.12) / 0.05, 0, 1) * np.clip((1.22 - ax) / 0.10, 0, 1)
    shoulder = 1 - ((ax - 1.52) / 0.22) ** 2 - ((y + 1.02) / 0.24) ** 2
    bones += 0.14 * strength * np.clip(shoulder / 0.25, 0, 1)
    # Shoulder blade: a long edge outside the ribs.
    blade = (ax - 1.06 - 0.16 * (y + 0.3)) / 0.035
    bones += 0.045 * strength * np.clip(1 - blade**2, 0, 1) * np.clip((y + 0.95) / 0.1, 0, 1) * np.clip(-y / 0.25, 0, 1)
    return bones * np.clip(body / 0.06, 0, 1)


def _tubes(
    rng: np.random.Generator, phase: FloatImage, first: float, gap: float, count: int, fill: float
) -> FloatImage:
    """Tubes side by side along a coordinate, each of its own width, place and brightness: one table, read once."""
    cells = 64
    middle = 0.5 + rng.uniform(-0.05, 0.05, size=(count, 1))
    half = 0.5 * fill * rng.uniform(0.9, 1.1, size=(count, 1))
    u = (np.arange(cells)[None] / cells - middle) / half
    table = _shell(u) * rng.uniform(0.85, 1.15, size=(count, 1))
    table = np.concatenate([[0.0], table.ravel(), [0.0]]).astype(np.float32)
    at = np.clip((phase - first) * (cells / gap) + 1, 0, len(table) - 1).astype(np.int16)
    return table[at]


def _shell(u: NDArray[np.floating]) -> NDArray[np.floating]:
    """How much of a hollow tube a ray crosses at ``u`` radii from its axis: most near the edges."""
    outer = np.sqrt(np.clip(1 - u**2, 0, 1))
    return 1.35 * outer - 1.02 * np.sqrt(np.clip(0.66 - u**2, 0, 1))


def _windpipe(
    rng: np.random.Generator,
    t: NDArray[np.float64],
    x: FloatImage,
    ax: FloatImage,
    y: FloatImage,
    iy: NDArray[np.int16],
) -> FloatImage:
    fork = rng.uniform(-0.40, -0.30)
    width = rng.uniform(0.055, 0.075)
    course = (0.02 * np.sin(3 * t)).astype(np.float32)
    pipe = np.clip(1 - ((x - course[iy]) / width) ** 2, 0, 1) * np.clip((fork - y) / 0.04, 0, 1)
    below = y - fork
    branch = np.clip(1 - ((ax - 0.62 * below) / 0.045) ** 2, 0, 1) * ((below > 0) & (below < 0.26))
    return 0.085 * np.maximum(np.sqrt(pipe), 0.7 * branch)


def _vessels(
    rng: np.random.Generator,
    size_rc: tuple[int, int],
    scale_px: float,
    middle_rc: tuple[float, float],
    turn: tuple[float, float],
    tall: float,
    hilum_y: float,
) -> FloatImage:
    """Trees of vessels from each root of the lung, thinner and fainter with every fork."""
    rows, cols = size_rc
    zoom = 2  # drawn large and shrunk: Pillow's lines have hard edges
    canvas = Pillow.new("L", (cols * zoom, rows * zoom), 0)
    pen = ImageDraw.Draw(canvas)
    cos, sin = turn

    def place(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        y = y * tall
        return (middle_rc[1] + scale_px * (x * cos + y * sin)) * zoom, (
            middle_rc[0] + scale_px * (y * cos - x * sin)
        ) * zoom

    lines = []
    for way in (-1.0, 1.0):
        stems = int(rng.integers(9, 12))
        x = np.full(stems, way * 0.21) + rng.uniform(-0.03, 0.03, stems)
        y = hilum_y + rng.uniform(-0.10, 0.22, stems)
        angle = np.linspace(-1.35, 1.25, stems) + rng.uniform(-0.12, 0.12, stems)  # 0 is outwards, positive is down
        width = rng.uniform(0.016, 0.032, stems)
        for depth in range(5):
            length = rng.uniform(0.13, 0.22, len(x)) * (0.92**depth)
            to_x, to_y = x + way * np.cos(angle) * length, y + np.sin(angle) * length
            (px, py), (qx, qy) = place(x, y), place(to_x, to_y)
            thick = np.maximum(width * scale_px * zoom, 1)
            shade = np.clip(255 * width / 0.036, 45, 255)
            lines += list(
                zip(shade.tolist(), thick.tolist(), px.tolist(), py.tolist(), qx.tolist(), qy.tolist(), strict=True)
            )
            spread = rng.uniform(0.15, 0.45, len(x))
            x, y = np.repeat(to_x, 2), np.repeat(to_y, 2)
            angle = np.stack([angle + spread, angle - spread], axis=1).ravel() * 0.97
            width = np.repeat(width, 2) * rng.uniform(0.55, 0.85, 2 * len(to_x))
            keep = (width > 0.004) & (rng.random(len(x)) < (1.0 if depth < 1 else 0.72))
            x, y, angle, width = x[keep], y[keep], angle[keep], width[keep]
    for shade_, thick_, x1, y1, x2, y2 in sorted(lines):
        pen.line((x1, y1, x2, y2), fill=int(shade_), width=max(round(thick_), 1))
    small = canvas.resize((cols, rows), Pillow.Resampling.BOX)
    small = small.filter(ImageFilter.GaussianBlur(0.010 * scale_px))
    return np.asarray(small, dtype=np.float32) * (0.20 / 255)


def _draw_distractors(rng: np.random.Generator, image: FloatImage, scene: _Scene) -> tuple[FloatImage, tuple[str, ...]]:
    """What lies on or in a patient and is no finding; the same odds whatever the findings."""
    rows, cols = image.shape
    zoom = 2
    canvas = Pillow.new("L", (cols * zoom, rows * zoom), 0)
    pen = ImageDraw.Draw(canvas)
    names = []
    unit = scene.scale_px * zoom  # half a chest's width
    if rng.random() < 0.70:
        names.append("letter")
        on_left = rng.random() < 0.75
        text = str(rng.choice(["R", "R", "AP", "PA"])) if on_left else "L"
        left = rng.uniform(0.02, 0.06) if on_left else rng.uniform(0.88, 0.93)
        at = (left * cols * zoom, rng.uniform(0.03, 0.22) * rows * zoom)
        pen.text(at, text, fill=int(rng.integers(190, 256)), font=_font(max(round(unit * rng.uniform(0.14, 0.22)), 8)))
    if rng.random() < 0.35:
        names.append("line")
        for _ in range(int(rng.integers(1, 4))):
            knots = np.cumsum(rng.normal(0, [0.22, 0.30], size=(5, 2)), axis=0) + [rng.uniform(-0.5, 0.5), -1.2]
            knots[:, 1] = np.sort(knots[:, 1]) + np.linspace(-0.3, rng.uniform(0.4, 1.6), 5)
            _curve(pen, _to_pixels(knots, image.shape, unit), int(rng.integers(70, 170)), max(round(0.016 * unit), 1))
    if rng.random() < 0.25:
        names.append("electrode")
        for _ in range(int(rng.integers(1, 4))):
            spot = _to_pixels(np.array([[rng.uniform(-0.95, 0.95), rng.uniform(-0.85, 0.75)]]), image.shape, unit)[0]
            radius = rng.uniform(0.025, 0.04) * unit
            pen.ellipse((*(spot - radius), *(spot + radius)), outline=170, width=max(round(0.3 * radius), 1))
            pen.ellipse((*(spot - 0.35 * radius), *(spot + 0.35 * radius)), fill=220)
            end = spot + rng.normal(0, 0.5 * unit, 2) + [0, 0.8 * unit]
            _curve(
                pen,
                np.array([spot, (spot + end) / 2 + rng.normal(0, 0.15 * unit, 2), end]),
                120,
                max(round(0.012 * unit), 1),
            )
    if rng.random() < 0.25:
        names.append("clip")
        spot = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.7, 0.7)])
        for _ in range(int(rng.integers(2, 7))):
            start = _to_pixels((spot + rng.normal(0, 0.10, 2))[None], image.shape, unit)[0]
            along = rng.normal(0, 1, 2)
            end = start + along / np.linalg.norm(along) * rng.uniform(0.03, 0.06) * unit
            pen.line((*start, *end), fill=235, width=max(round(0.016 * unit), 2))
    cover = np.asarray(canvas.resize((cols, rows), Pillow.Resampling.BOX), dtype=np.float32) / 255
    image = image + cover * 0.85 * np.clip(1.02 - image, 0, 1)
    if rng.random() < 0.15:
        names.append("collimator")
        frame = np.zeros((rows, cols), dtype=np.float32)
        top, bottom, left, right = rng.uniform(0.0, 0.05, 4)
        frame[round(top * rows) : round((1 - bottom) * rows), round(left * cols) : round((1 - right) * cols)] = 1
        image = image * (0.06 + 0.94 * frame)
    return image.astype(np.float32), tuple(names)


def _to_pixels(points_xy: NDArray[np.float64], size_rc: tuple[int, ...], unit_px: float) -> NDArray[np.float64]:
    """Points in half chest widths about the image's middle -> (x, y) on a canvas twice its size."""
    return points_xy * unit_px + [size_rc[1], size_rc[0]]


def _curve(pen: ImageDraw.ImageDraw, knots_xy: NDArray[np.float64], shade: int, width: int) -> None:
    """A smooth curve through knots: Catmull-Rom, twelve chords a span."""
    padded = np.concatenate([2 * knots_xy[:1] - knots_xy[1:2], knots_xy, 2 * knots_xy[-1:] - knots_xy[-2:-1]])
    s = np.linspace(0, 1, 12, endpoint=False)[:, None]
    points = [
        0.5 * (2 * b + (c - a) * s + (2 * a - 5 * b + 4 * c - d) * s**2 + (3 * b - a - 3 * c + d) * s**3)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    pen.line(
        [tuple(p) for p in np.concatenate([*points, knots_xy[-1:]]).tolist()], fill=shade, width=width, joint="curve"
    )


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _noise(rng: np.random.Generator, scene: _Scene) -> FloatImage:
    """Grain of the detector: part of it sharp, part of it blurred, more of it where little light came through."""
    rows, cols = scene.image.shape
    sharp = rng.standard_normal((rows, cols), dtype=np.float32)
    soft = sharp.copy()
    soft[:, 1:] += sharp[:, :-1]
    soft[1:] += soft[:-1].copy()
    amount = scene.noise * (0.55 + 0.9 * scene.image)
    return amount * (0.5 * sharp + 0.35 * soft)


def _join(a: FloatImage, b: FloatImage, width: float) -> FloatImage:
    """The larger of two fields, with the corner between them filled over ``width``."""
    share = np.clip(0.5 + 0.5 * (a - b) / width, 0, 1)
    return share * a + (1 - share) * b + width * share * (1 - share)


def _table_axis() -> NDArray[np.float64]:
    return np.linspace(-_REACH, _REACH, _CELLS)


def _cells(values: FloatImage) -> NDArray[np.int16]:
    """Where coordinates are found in a table."""
    scaled = (values + np.float32(_REACH)) * np.float32((_CELLS - 1) / (2 * _REACH)) + np.float32(0.5)
    return np.clip(scaled, 0, _CELLS - 1).astype(np.int16)


def _step(t: NDArray[np.float64], at: float, width: float) -> NDArray[np.float64]:
    """0 below ``at - width``, 1 above ``at + width``, smooth between."""
    s = np.clip((t - at + width) / (2 * width), 0, 1)
    return s * s * (3 - 2 * s)


def _step_at(values: FloatImage, at: float, width: float) -> FloatImage:
    s = np.clip((values - (at - width)) / (2 * width), 0, 1)
    return s * s * (3 - 2 * s)


def _blur(image: FloatImage, sigma_px: float) -> FloatImage:
    from scipy import ndimage

    return ndimage.gaussian_filter(image, sigma_px, truncate=2.5)
