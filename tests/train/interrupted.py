"""Trainings in processes of their own, for test_resume.py: left alone, killed again and again, or shared by two.

    python interrupted.py JOB.json

A job names a data set (images and labels of records), settings by name, and what is to be done. One process imports
torch and forks all the others, which is much faster than to start each anew.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from pathlib import Path

from accelerate import debug_launcher
from rich.console import Console

from radtag.data.table import Dataset, Record
from radtag.train.classify import train
from radtag.train.settings import TrainSettings


def train_quietly(settings: TrainSettings, dataset: Dataset, out: str) -> None:
    train(settings, dataset, out, console=Console(quiet=True))


def alone(settings: TrainSettings, dataset: Dataset, out: str) -> float:
    """One uninterrupted training; seconds it took."""
    started = time.monotonic()
    process = multiprocessing.get_context("fork").Process(target=train_quietly, args=(settings, dataset, out))
    process.start()
    process.join()
    assert process.exitcode == 0, process.exitcode
    return time.monotonic() - started


def killed(settings: TrainSettings, dataset: Dataset, out: str, seconds: float, seed: int) -> list[int]:
    """The same, killed (SIGKILL) at a random moment of every epoch, then left to end; epochs done at each kill."""
    moments = random.Random(seed)
    epochs: list[int] = []
    for wanted in range(settings.epochs):
        process = multiprocessing.get_context("fork").Process(target=train_quietly, args=(settings, dataset, out))
        process.start()
        while process.is_alive() and epochs_done(out) < wanted:
            time.sleep(0.005)
        process.join(moments.uniform(0, 0.8) * seconds / settings.epochs)
        process.kill()
        process.join()
        epochs.append(epochs_done(out))
    alone(settings, dataset, out)
    return epochs


def epochs_done(out: str) -> int:
    log = Path(out) / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    records = tuple(
        Record(one["image"], Path(one["path"]), tuple(one["labels"]), split=one["split"]) for one in job["records"]
    )
    dataset = Dataset("squares", tuple(job["findings"]), records)
    settings = {name: TrainSettings.model_validate(values) for name, values in job["settings"].items()}
    out = Path(job["out"])
    answers: dict[str, object] = {}
    for name in job["killed"]:
        seconds = alone(settings[name], dataset, str(out / f"{name}-whole"))
        answers[name] = killed(settings[name], dataset, str(out / f"{name}-killed"), seconds, seed=1)
    for name in job["shared"]:
        alone(settings[name], dataset, str(out / f"{name}-one"))
        debug_launcher(train_quietly, args=(settings[name], dataset, str(out / f"{name}-two")), num_processes=2)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
