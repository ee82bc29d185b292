"""Games trained in processes of their own, for test_adversarial.py: left alone, killed at a turn, or shared by two.

    python interrupted_games.py JOB.json

One process imports torch and forks all the others, which is much faster than to start each anew.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import debug_launcher
from rich.console import Console

from radtag.data.table import Dataset, Record
from radtag.train import adversarial, log
from radtag.train.settings import AdversarialSettings


def train_quietly(values: dict[str, Any], dataset: Dataset, out: str) -> None:
    log.draw_adversarial_curves = lambda file, rows: None  # takes longer than the training
    adversarial.train(AdversarialSettings.model_validate(values), dataset, out, console=Console(quiet=True))


def train_without_noise(values: dict[str, Any], dataset: Dataset, out: str) -> None:
    """Noise inside a game is each process's own; without it, several have to do what one does."""
    torch.randn = lambda *shape, **like: torch.zeros(*shape, **like)
    torch.randn_like = torch.zeros_like
    train_quietly(values, dataset, out)


def train_until(turn: int, values: dict[str, Any], dataset: Dataset, out: str) -> None:
    """Killed (SIGKILL) in the middle of the training's so-manieth turn."""
    taken, whole = [0], adversarial.turn

    def counted(*arguments: Any) -> Any:
        terms = whole(*arguments)
        taken[0] += 1
        if taken[0] == turn:
            os.kill(os.getpid(), signal.SIGKILL)
        return terms

    adversarial.turn = counted
    train_quietly(values, dataset, out)


def forked(*arguments: Any) -> int | None:
    target, *given = arguments
    process = multiprocessing.get_context("fork").Process(target=target, args=tuple(given))
    process.start()
    process.join()
    return process.exitcode


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    records = tuple(
        Record(one["image"], Path(one["path"]), tuple(one["labels"]), split=one["split"]) for one in job["records"]
    )
    dataset = Dataset("squares", tuple(job["findings"]), records)
    out = Path(job["out"])
    codes: dict[str, list[int | None]] = {}
    for name, (values, turns) in job["killed"].items():
        codes[name] = [forked(train_until, turn, values, dataset, str(out / f"{name}-killed")) for turn in turns]
        codes[name].append(forked(train_quietly, values, dataset, str(out / f"{name}-killed")))
        codes[name].append(forked(train_quietly, values, dataset, str(out / f"{name}-whole")))
    for name, values in job["shared"].items():
        codes[name] = [forked(train_without_noise, values, dataset, str(out / f"{name}-one"))]
        debug_launcher(train_without_noise, args=(values, dataset, str(out / f"{name}-two")), num_processes=2)
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
