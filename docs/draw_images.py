"""Draws docs/images from a finished demonstration: `radtag demo --out demo`, then `python docs/draw_images.py demo`.

With a second folder, that of runs/phantoms.sh, its sheet as well: `python docs/draw_images.py demo runs/out/phantoms`.
With a third, a game's run of `SIGNS=yes runs/taggan.sh phantoms`, what it takes away:
`python docs/draw_images.py demo runs/out/phantoms runs/out/taggan/phantoms/guided`.

The images are drawn radiographs. They are the first held-out ones of each finding, whatever the maps show on them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import radtag
from radtag import draw
from radtag.data import lesions, phantom
from radtag.data.sources import open_source
from radtag.data.table import Dataset, Record
from radtag.images import read_mask
from radtag.tag import FULL_CHANGE, Tagger

SHOWN = ("nodule", "consolidation", "pneumothorax", "cardiomegaly")
METHODS = ("cam", "pylon")
SCALE = 2
HEALTHY = 4


def main(demo: Path) -> None:
    """Two sheets: a row per finding, and healthy images."""
    data = next(demo.glob("phantoms-*"))
    dataset = open_source(f"csv:{data}", only=["test"])
    taggers = {method: radtag.load(demo / "runs" / method, device="cpu") for method in METHODS}
    images = Path(__file__).parent / "images"
    images.mkdir(exist_ok=True)
    chosen = [(first(dataset, finding), finding) for finding in SHOWN]
    write(images / "cam_and_pylon.png", chosen, taggers)
    healthy = [record for record in dataset.records if not any(record.labels)][:2]
    write(images / "healthy.png", [(record, "consolidation") for record in healthy], taggers)


def draw_trained(runs: Path) -> None:
    """A sheet of networks trained from ImageNet weights at 256 px."""
    dataset = open_source("phantom:2000", only=["test"])
    taggers = {
        "CAM (max)": radtag.load(runs / "cam_max", device="cpu"),
        "PYLON": radtag.load(runs / "pylon", device="cpu"),
    }
    chosen = [(first(dataset, finding), finding) for finding in dataset.findings]
    write(Path(__file__).parent / "images" / "phantoms.png", chosen, taggers, scale=1)


def draw_counterparts(run: Path) -> None:
    """A sheet of what a game takes from phantoms of 128 px: truth, map with its mask, normal counterpart."""
    dataset = open_source("phantom:2000?side=128", only=["test"])
    tagger = radtag.load(run, device="cpu")
    cells = []
    for finding in dataset.findings:
        record = first(dataset, finding)
        pixels, truth = radtag.read(record.path).pixels, large(read_mask(record.masks[finding]), SCALE)
        tag = next(tag for tag in tagger.tag(record.path) if tag.finding == finding)
        over = large(draw.overlay(pixels, np.minimum(tag.map / FULL_CHANGE, 1)), SCALE)
        over = draw.outline(draw.outline(over, large(tag.mask, SCALE)), truth, colour=draw.TRUE)
        shown = draw.outline(draw.gray(large(pixels, SCALE)), truth, colour=draw.TRUE)
        normal = draw.gray(large(tag.counterpart, SCALE))
        captions = f"truth: {finding}", "map and mask", "counterpart"
        cells += [draw.labelled(cell, [of]) for cell, of in zip((shown, over, normal), captions, strict=True)]
    draw.write_picture(Path(__file__).parent / "images" / "counterparts.png", draw.sheet(cells, columns=6))


def draw_looks() -> None:
    """A sheet of every kind of planted lesion, plain and subtle, in the same healthy phantom."""
    healthy = phantom.render(HEALTHY, side=192, findings=())
    image = healthy.pixels.astype(np.float32) / 255
    anatomy = lesions.Anatomy.of(image, healthy.lungs)
    assert anatomy is not None
    cells = []
    for kind in lesions.KINDS:
        for look in lesions.LOOKS:
            painted, mask = lesions.LOOKS[look][kind](np.random.default_rng(3), image, anatomy)
            cells.append(draw.labelled(draw.gray(painted), [f"{look}: {kind}"]))
            outlined = draw.outline(draw.gray(painted), mask, colour=draw.TRUE)
            cells.append(draw.labelled(outlined, ["its mask"]))
    draw.write_picture(Path(__file__).parent / "images" / "planted.jpg", draw.sheet(cells, columns=4))


def first(dataset: Dataset, finding: str) -> Record:
    """The first image that has this finding and no other."""
    at = dataset.findings.index(finding)
    return next(record for record in dataset.records if record.labels[at] == 1 and sum(record.labels) == 1)


def write(path: Path, chosen: list[tuple[Record, str]], taggers: dict[str, Tagger], scale: int = SCALE) -> None:
    """The image with its true outline, then every method's map with its mask, boxes and peak."""
    cells = []
    for record, finding in chosen:
        pixels = radtag.read(record.path).pixels
        truth = read_mask(record.masks[finding]) if finding in record.masks else np.zeros(pixels.shape, dtype=bool)
        shown = draw.outline(large(draw.gray(pixels), scale), large(truth, scale), colour=draw.TRUE)
        cells.append(draw.labelled(shown, [f"truth: {finding}" if truth.any() else "truth: healthy"]))
        for method, tagger in taggers.items():
            tag = next(tag for tag in tagger.tag(record.path) if tag.finding == finding)
            over = large(draw.overlay(pixels, tag.map), scale)
            over = draw.outline(over, large(tag.mask, scale))
            over = draw.outline(over, large(truth, scale), colour=draw.TRUE)
            peak = (tag.peak_xy[0] * scale, tag.peak_xy[1] * scale)
            over = draw.boxes(over, peak_xy=peak) if tag.positive else over
            cells.append(draw.labelled(over, [f"{method.upper()}: {finding} {tag.score:.2f}"]))
    draw.write_picture(path, draw.sheet(cells, columns=1 + len(taggers)))


def large(array: np.ndarray, scale: int) -> np.ndarray:
    """Every pixel as a square of pixels."""
    return np.repeat(np.repeat(array, scale, axis=0), scale, axis=1)


if __name__ == "__main__":
    draw_looks()
    main(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        draw_trained(Path(sys.argv[2]))
    if len(sys.argv) > 3:
        draw_counterparts(Path(sys.argv[3]))
