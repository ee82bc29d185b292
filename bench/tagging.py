"""What tagging costs beyond what it cannot do without: decoding the files, and the network.

    python bench/tagging.py [--images 200] [--side 1024] [--rounds 3] [--positive 1] [--save masks]
                            [--run RUN --files DIR]

An untrained PYLON (EfficientNet-Lite0, 14 findings, 256 px) tags 8-bit gray PNGs. Its thresholds are set so that an
image has one positive finding on average, or as many as ``--positive`` says, whose pictures are written. With
``--run`` and ``--files`` a trained run tags real images, taken again and again until there are as many as asked for,
by its own thresholds. In every round, one after another:

- decode: the files decoded by Pillow into bytes and nothing else, in a thread for each core. Tagging's own reader is
  faster in places, and is not what it is measured against;
- forward: prepared batches through the network as trained (tagging folds its own), as large as tagging's, each in as
  many threads of torch as there are cores (tagging has batches side by side); nothing else;
- whole: ``tag_files``, from the files to the finished folder.

The command line tells the C library to keep freed memory (``radtag.process``), which makes any network faster. So the
whole is held against two: a process that was told so too ("told"), and one that was not ("plain"), as a script has it
that uses Pillow and PyTorch alone. Every round has a process of its own for each of the three, in turns. Printed are
medians of the ratios, in seconds and in processor time (which other work on the machine disturbs less).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from scipy import ndimage

from radtag import process
from radtag.ahead import read_ahead
from radtag.calibration import Calibration
from radtag.geometry import Grid
from radtag.images import read_all
from radtag.models import build
from radtag.tag import Tagger, tag_files
from radtag.train.run import Run
from radtag.train.settings import TrainSettings

FINDINGS = tuple(f"finding {i:02}" for i in range(14))


def write_images(folder: Path, count: int, side: int) -> list[Path]:
    """Gray PNGs with the spatial frequencies, and the size on disk, of radiographs."""
    random = np.random.default_rng(0)
    files = []
    for i in range(count):
        coarse = ndimage.zoom(random.random((12, 12)), side / 12, order=3)[:side, :side]
        fine = ndimage.gaussian_filter(random.normal(size=(side, side)), 2)
        image = 120 * coarse + 40 * fine + random.normal(0, 1.5, (side, side)) + 40
        files.append(folder / f"{i:04}.png")
        PIL.Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(files[-1])
    return files


def copies(files: list[Path], folder: Path, count: int) -> list[Path]:
    """As many files as asked for, each under a name of its own."""
    named = [(folder / f"{i:04}.png", files[i % len(files)]) for i in range(count)]
    for copy, file in named:
        shutil.copyfile(file, copy)
    return [copy for copy, _ in named]


def make_run(folder: Path, files: list[Path]) -> Run:
    """An untrained network in a run folder."""
    torch.manual_seed(0)
    settings = TrainSettings.model_validate(
        {
            "method": "pylon",
            "size_px": 256,
            "backbone": {"name": "tf_efficientnet_lite0", "weights": "none", "channels": 1},
        }
    )
    model = build(settings.method, len(FINDINGS), settings.backbone, settings.options)
    with torch.no_grad():  # or what an untrained network says would be much the same of every image
        pixels = np.stack([np.asarray(PIL.Image.open(file).resize((256, 256))) for file in files[:8]])
        model.train()(torch.from_numpy(pixels)[:, None].float() / 64 - 2)
    grids = (Grid.tiles((64, 64), (256, 256)),) * len(FINDINGS)
    run = Run(folder, settings, FINDINGS, 0.5, 0.25, grids, Calibration.identity(len(FINDINGS)), {})
    run.save(model.state_dict())
    return run


def with_positives(run: Run, files: list[Path], positive: float) -> Run:
    """A calibration by which an image has so many positive findings on average, and up to twice as many masks.

    As in a trained run, most of a map is close to 0: its median is 0.01, and its threshold 0.5.
    """
    if not 0 < positive <= len(FINDINGS):
        raise SystemExit(f"--positive {positive} of {len(FINDINGS)} findings cannot be. Give more than 0, at most all.")
    share = positive / len(FINDINGS)
    plain = Tagger(run)
    predictions = list(plain.predict(image for file in files for image in read_all(file)))
    score = np.quantile([one.scores for one in predictions], 1 - share, axis=0)
    values = np.clip([one.map_grid for one in predictions], 1e-6, 1 - 1e-6).astype(np.float64)
    cells = np.log(values / (1 - values))
    middle = np.median(cells, axis=(0, 2, 3))
    high = np.quantile(cells.max(axis=(2, 3)), max(1 - 2 * share, 0), axis=0)
    slope = np.log(99) / (high - middle)
    fitted = {
        "score_threshold": score,
        "mask_threshold": 0 * score + 0.5,
        "map_slope": slope,
        "map_bias": -slope * high,
    }
    changed = {name: tuple(map(float, value)) for name, value in fitted.items()}
    return replace(run, calibration=Calibration.from_dict({**run.calibration.to_dict(), **changed}))


def decode(file: Path) -> Iterator[NDArray[np.uint8]]:
    """What nobody can do without who starts from a file, by the library that most would take."""
    with PIL.Image.open(file) as picture:
        picture.load()
        yield np.asarray(picture)


def positives(out: Path) -> float:
    """Positive findings an image."""
    with (out / "tags.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = {row["image"] for row in rows}
    return sum(float(row["score"]) >= float(row["threshold"]) for row in rows) / len(images)


def measure(what: str, run: Path, files: list[Path], out: Path, save: list[str]) -> list[tuple[float, float]]:
    """Seconds, and of processor time, of the steps, in this process; once on a few files before it counts."""
    if what != "plain":
        process.keep_memory()
    threads = min(8, os.cpu_count() or 1)
    tagger = Tagger(Run.load(run))
    model = tagger.runs[0].build_model()
    prepared = [tagger.prepare(image) for file in files[:16] for image in read_all(file)]

    def decoding(some: list[Path]) -> None:
        for _ in read_ahead(some, decode, threads=threads, ahead=tagger.batch_size + threads):
            pass

    def forward(some: list[Path]) -> None:
        left = iter(range(len(some)))
        with torch.inference_mode():
            while batch := list(islice(left, tagger.batch_size)):
                pixels = np.stack([prepared[i % len(prepared)].inputs[0][0] for i in batch])
                model(tagger.runs[0].normalise(torch.from_numpy(pixels)))

    def whole(some: list[Path]) -> None:
        tag_files(tagger, some, out, save=save)

    took = []
    for step in (whole,) if what == "whole" else (decoding, forward):
        step(files[:32])
        shutil.rmtree(out, ignore_errors=True)
        wall, cpu = time.perf_counter(), time.process_time()
        step(files)
        took.append((time.perf_counter() - wall, time.process_time() - cpu))
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--positive", type=float, default=1, help="positive findings an image, of the untrained run")
    parser.add_argument("--save", nargs="*", default=["maps", "masks", "overlays"])
    parser.add_argument("--run", type=Path, help="a trained run")
    parser.add_argument("--files", type=Path, help="a folder of PNGs to tag")
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.one is not None:
        what, folder = options.one[0], Path(options.one[1])
        print(json.dumps(measure(what, options.run, sorted(folder.glob("*.png")), folder / "out", options.save)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.files is None:
            files = write_images(folder, options.images, options.side)
        else:
            files = copies(sorted(options.files.glob("*.png")), folder, options.images)
        run = options.run
        if run is None:
            made = make_run(folder / "run", files)
            with_positives(made, files, options.positive).save(made.build_model().state_dict())
            run = made.path
        size = sum(file.stat().st_size for file in files) / len(files)
        saved = " ".join(options.save) or "no pictures"
        print(f"{len(files)} PNGs, {size / 1e3:.0f} kB each; {saved}; {os.cpu_count()} cores")
        print("          decode and forward, told   the same, plain            whole   ratios")
        ratios = []
        for _ in range(options.rounds):
            took = {}
            for what in ("told", "plain", "whole"):
                command = [sys.executable, __file__, "--one", what, scratch, "--run", str(run), "--save", *options.save]
                environment = os.environ if what == "plain" else os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                took[what] = np.array(json.loads(done.stdout))
            ratios.append([took["whole"].sum(axis=0) / took[what].sum(axis=0) for what in ("told", "plain")])
            for at, name in enumerate(("seconds", "cpu")):
                parts = [" + ".join(f"{one[at]:.2f}" for one in took[what]) for what in ("told", "plain", "whole")]
                told, plain = (ratio[at] for ratio in ratios[-1])
                print(f"{name:8}{parts[0]:>28}{parts[1]:>18}{parts[2]:>17}   {told:.2f}  {plain:.2f}", flush=True)
        wall, cpu = np.median(ratios, axis=0).T
        print(f"ratio {wall[0]:.2f} to told, {wall[1]:.2f} to plain; of processor time {cpu[0]:.2f}, {cpu[1]:.2f}")
        print(f"{positives(folder / 'out'):.2f} positive findings an image")


if __name__ == "__main__":
    main()
