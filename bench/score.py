"""How long `radtag score` takes for pointing and IoU alone, from maps on disk.

    python bench/score.py [--pairs 984] [--side 1024] [--folder DIR] [--rounds 3] [--whole]

Maps as `radtag tag` writes them (16-bit PNG, cells of 64 x 64 interpolated to the image), of two findings in every
image, each with a box and a mask (1-bit PNG). They are made once; with ``--folder`` they are kept and taken up again.

A round is the command itself, started anew: `radtag score MAPS csv:... --measure pointing --measure iou`, interpreter,
imports, tables and intervals included, with files that the operating system has in memory from having been written.
Said are its time by the clock, its processor time, how much of it is reading (the files decoded and nothing else, in
one thread), and how busy the machine was. ``--whole`` also takes the command without ``--measure``, which reads the
images, works out every measure and draws the report.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image

FINDINGS = ("nodule", "effusion")
CELLS = 64


def write(folder: Path, pairs: int, side: int) -> None:
    """Images, maps, masks and a table."""
    from radtag import draw
    from radtag.geometry import Frame, Grid
    from radtag.images import Image
    from radtag.tag import Layer, Prediction

    random = np.random.default_rng(0)
    cells = np.arange(CELLS) + 0.5
    grid, frame = Grid.tiles((CELLS, CELLS), (side, side)), Frame.identity((side, side))
    for part in ("images", *(f"{kind}/{name}" for kind in ("maps", "masks") for name in FINDINGS)):
        (folder / part).mkdir(parents=True)
    rows: list[list[object]] = []
    boxes: list[list[object]] = []
    pixel = np.arange(side) + 0.5
    for i in range(pairs // len(FINDINGS)):
        name = f"{i:04}.png"
        gray = np.add.outer(np.sin(pixel / 90 + i), np.cos(pixel / 70)) * 40 + 128
        PIL.Image.fromarray(gray.astype(np.uint8)).save(folder / "images" / name, compress_level=1)
        maps = np.empty((len(FINDINGS), CELLS, CELLS), dtype=np.float32)
        for at, finding in enumerate(FINDINGS):
            centre, radius = random.uniform(10, 54, 2), random.uniform(3, 9, 2)
            seen = centre + random.normal(0, 4, 2)
            row, col = (np.exp(-(((cells - c) / r) ** 2)) for c, r in zip(seen, radius * 1.2, strict=True))
            logits = 6 * np.outer(row, col) - 3.5 + random.normal(0, 0.4, (CELLS, CELLS))
            maps[at] = 1 / (1 + np.exp(-logits))
            (y1, x1), (y2, x2) = (centre - radius) * side / CELLS, (centre + radius) * side / CELLS
            boxes.append([f"images/{name}", finding, *(f"{v:.2f}" for v in (x1, y1, x2, y2))])
            inside = [((pixel * CELLS / side - c) / r) ** 2 for c, r in zip(centre, radius, strict=True)]
            (folder / "masks" / finding / name).write_bytes(draw.encode_mask(np.add.outer(*inside) < 1))
        image = Image(np.zeros((side, side), np.float32), source=name)
        prediction = Prediction(image, maps.max(axis=(1, 2)), (Layer(maps, (grid,) * len(FINDINGS), frame),))
        for at, finding in enumerate(FINDINGS):
            (folder / "maps" / finding / name).write_bytes(prediction.encoded(at))
        rows.append([f"images/{name}", f"patient {i // 2}", "test", 1, 1, *(f"masks/{one}/{name}" for one in FINDINGS)])
    for file, header, lines in (
        ("table.csv", ["image", "patient", "split", *FINDINGS, *(f"mask:{one}" for one in FINDINGS)], rows),
        ("boxes.csv", ["image", "finding", "x1", "y1", "x2", "y2"], boxes),
    ):
        with (folder / file).open("w", newline="") as stream:
            csv.writer(stream).writerows([header, *lines])


def decode(folder: Path) -> float:
    """Processor seconds to decode every map and mask, and nothing else."""
    from radtag.images import read_mask
    from radtag.mapfiles import read_levels

    files = [sorted((folder / kind).rglob("*.png")) for kind in ("maps", "masks")]
    start = time.process_time()
    for path in files[0]:
        read_levels(path)
    for path in files[1]:
        read_mask(path)
    return time.process_time() - start


def command(folder: Path, out: Path, *measures: str) -> tuple[float, float]:
    """Seconds by the clock and of the processor that the command takes, as a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    words = [sys.executable, "-m", "radtag", "score", str(folder / "maps"), f"csv:{folder}", "--out", str(out)]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}  # modules are compiled once, in the first round at most
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    words += [word for one in measures for word in ("--measure", one)]
    subprocess.run(words, check=True, capture_output=True, env=environment)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Makes what is scored, and times the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=984)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--folder", type=Path, help="keep what is scored here, and take it up again")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="time the whole evaluation as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "data"
        if not (folder / "boxes.csv").exists():
            write(folder, options.pairs, options.side)
        size = sum(path.stat().st_size for path in (folder / "maps").rglob("*.png")) / 1e6
        print(f"{options.pairs} maps of {options.side} x {options.side}: {size:.0f} MB")
        print(f"decoding alone, one thread: {decode(folder):.2f} s of processor time")
        out = Path(temporary) / "out"
        asked = [("pointing", "iou")] * options.rounds + ([()] if options.whole else [])
        for measures in asked:
            seconds, processor = command(folder, out, *measures)
            what = " and ".join(measures) or "all measures and the report"
            cores = len(os.sched_getaffinity(0))
            print(
                f"{what}: {seconds:.2f} s by the clock, {processor:.2f} s of processor time on {cores} cores,"
                f" load {os.getloadavg()[0]:.1f}"
            )


if __name__ == "__main__":
    main()
