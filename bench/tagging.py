"""What tagging costs beyond what it cannot do without: decoding the files, and the network.

    OMP_WAIT_POLICY=PASSIVE python bench/tagging.py [--images 200] [--side 1024] [--rounds 3] [--save masks] \\
        [--run RUN] [--files DIR]

(The command line sets that variable itself; it has to be set before torch is imported.)

An untrained PYLON (EfficientNet-Lite0, 14 findings, 256 px) tags 8-bit gray PNGs. Its thresholds are set so that every
finding is positive in one image of 14: an image has one positive finding on average, whose pictures are written. With
``--run`` and ``--files`` a trained run tags real images, taken again and again until there are as many as asked for,
by its own thresholds. In every round, one after another:

- decode: the files decoded by Pillow into bytes and nothing else, in as many threads as tagging uses. Tagging's own
  reader is faster in places, and is not what it is measured against;
- forward: prepared batches through the network as trained (tagging folds its own), as large as tagging's, with as many
  threads of torch; nothing else;
- whole: ``tag_files``, from the files to the finished folder.

Printed is the median ratio of the whole to the sum of the two parts, in seconds and in processor time (which other work
on the machine disturbs less).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from scipy import ndimage

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


def one_positive_an_image(run: Run, files: list[Path]) -> Run:
    """A calibration by which one image of 14 is positive for a finding, and one of 7 has a mask.

    As in a trained run, most of a map is close to 0: its median is 0.01, and its threshold 0.5.
    """
    plain = Tagger(run)
    predictions = list(plain.predict(image for file in files for image in read_all(file)))
    score = np.quantile([one.scores for one in predictions], 1 - 1 / len(FINDINGS), axis=0)
    values = np.clip([one.map_grid for one in predictions], 1e-6, 1 - 1e-6).astype(np.float64)
    cells = np.log(values / (1 - values))
    middle = np.median(cells, axis=(0, 2, 3))
    high = np.quantile(cells.max(axis=(2, 3)), 1 - 2 / len(FINDINGS), axis=0)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", nargs="*", default=["maps", "masks", "overlays"])
    parser.add_argument("--run", type=Path, help="a trained run")
    parser.add_argument("--files", type=Path, help="a folder of PNGs to tag")
    options = parser.parse_args()
    threads = min(8, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as scratch:
        if options.files is None:
            files = write_images(Path(scratch), options.images, options.side)
        else:
            files = copies(sorted(options.files.glob("*.png")), Path(scratch), options.images)
        size = sum(file.stat().st_size for file in files) / len(files)
        if options.run is None:
            run = one_positive_an_image(make_run(Path(scratch) / "run", files), files)
        else:
            run = Run.load(options.run)
        tagger = Tagger(run)
        model = run.build_model()
        prepared = [tagger.prepare(image) for file in files[:16] for image in read_all(file)]
        ratios: list[list[float]] = []
        what = "PNGs" if options.files else f"PNGs of {options.side} x {options.side}"
        print(f"{len(files)} {what}, {size / 1e3:.0f} kB each; {threads} threads,")
        saved = " ".join(options.save) or "no pictures"
        print(f"torch {torch.get_num_threads()}; batches of {tagger.batch_size}; {saved}")
        print("          decode  forward  whole  ratio  positive findings an image")
        for _ in range(options.rounds):
            marks = [(time.perf_counter(), time.process_time())]
            for _ in read_ahead(files, decode, threads=threads, ahead=tagger.batch_size + threads):
                pass
            marks.append((time.perf_counter(), time.process_time()))
            left = iter(range(len(files)))
            with torch.inference_mode():
                while batch := list(islice(left, tagger.batch_size)):
                    pixels = np.stack([prepared[i % len(prepared)].inputs[0][0] for i in batch])
                    model(run.normalise(torch.from_numpy(pixels)))
            marks.append((time.perf_counter(), time.process_time()))
            out = Path(scratch) / "out"
            summary = tag_files(tagger, files, out, save=options.save, threads=threads)
            marks.append((time.perf_counter(), time.process_time()))
            shutil.rmtree(out)
            positive = sum(summary.positives.values()) / summary.images
            ratios.append([])
            for name, at in (("seconds", 0), ("cpu", 1)):
                parts = [later[at] - earlier[at] for earlier, later in pairwise(marks)]
                ratios[-1].append(parts[2] / (parts[0] + parts[1]))
                print(f"{name:8}" + "".join(f"{part:8.2f}" for part in parts), f"{ratios[-1][-1]:6.2f} {positive:6.2f}")
        wall, cpu = np.median(ratios, axis=0)
        print(f"ratio {wall:.2f}; of processor time {cpu:.2f}")


if __name__ == "__main__":
    main()
