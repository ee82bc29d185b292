"""The whole chain on drawn radiographs: phantoms -> train CAM and PYLON -> tag -> evaluate -> one report.

Both methods get the same images, the same small encoder from random numbers, and the same recipe; they differ in what
the method is. CAM pools by the mean, as published, and PYLON by a soft maximum. Nothing is downloaded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from radtag.compare import comparison
from radtag.data import phantom
from radtag.data.sources import open_source
from radtag.evaluate import evaluate
from radtag.report.terminal import comparison_table
from radtag.tag import tag_files
from radtag.train.classify import train
from radtag.train.settings import TrainSettings, settings_from

METHODS = ("cam", "pylon")
OPTIONS: dict[str, dict[str, Any]] = {"cam": {"pool": "avg"}, "pylon": {"pool": "lse", "sharpness": 5}}
SIDE_PX = 128
TAGGED = 24
"""Held-out phantoms that are tagged into files; all of them are scored."""


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration found.

    Args:
        out: its folder.
        value: the comparison, as ``radtag compare --json`` prints it.
        seconds: it took.
    """

    out: Path
    value: dict[str, Any]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"out": str(self.out), "seconds": round(self.seconds, 1), **self.value}

    def table(self) -> Table:
        """The numbers of both methods, and PYLON's distance from CAM."""
        return comparison_table(self.value)

    def lines(self) -> list[str]:
        """Where to look."""
        return [
            f"maps, masks and overlays of {TAGGED} held-out phantoms: {self.out / 'tags'}",
            f"-> {self.out / 'report.html'} ({self.seconds / 60:.1f} minutes)",
        ]


def settings(method: str, *, epochs: int, seed: int) -> TrainSettings:
    """The recipe: a small encoder from random numbers, a high learning rate, little augmentation.

    PYLON's published maximum may settle, in a small network from random numbers, on any one cell that happens to tell.
    """
    chosen = settings_from(
        "small",
        method=method,
        options=OPTIONS[method],
        backbone={"name": "test_resnet", "weights": "none"},
        size_px=SIDE_PX,
        epochs=epochs,
        batch_size=32,
        lr=3e-3,
        augment={"rotate_deg": 10, "area": (0.8, 1.0)},
        seed=seed,
    )
    assert isinstance(chosen, TrainSettings)
    return chosen


def demo(out: Path | str, *, count: int = 1600, epochs: int = 14, seed: int = 0, console: Console) -> DemoResult:
    """Run it; a folder of an earlier call is gone on with.

    Args:
        out: the folder for data, runs, tags, evaluations and report.html.
        count: phantoms to draw: 60 % for training, 15 % for validation, 25 % for scoring.
        epochs: passes over the training phantoms, for each method.
        seed: of phantoms and training.
        console: where progress is shown.

    Raises:
        BadRun: the folder holds a demonstration with other settings.
    """
    started = time.monotonic()
    out = Path(out)
    data = out / f"phantoms-{count}-{seed}"
    if not (data / "table.csv").exists():
        phantom.write(data, count, seed=seed, side=SIDE_PX)
    dataset = open_source(f"csv:{data}")
    held_out = dataset.only("test")
    for method in METHODS:
        run = train(settings(method, epochs=epochs, seed=seed), dataset, out / "runs" / method, console=console)
        files = [record.path for record in held_out.records[:TAGGED]]
        with _bar(console, f"{method}: tagging") as advance:
            tag_files(run, files, out / "tags" / method, progress=advance)
        with _bar(console, f"{method}: evaluating") as advance:
            evaluate(run, held_out, out / "evaluation" / method, progress=advance)
    with console.status("comparing"):
        folders = [out / "evaluation" / method for method in METHODS]
        value = comparison(folders, out, names=[method.upper() for method in METHODS])
    os.replace(out / "comparison.html", out / "report.html")
    return DemoResult(out, value, time.monotonic() - started)


@contextmanager
def _bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar moved by a function of (done, of all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
