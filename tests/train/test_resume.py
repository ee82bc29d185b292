"""A training killed at any moment ends with the bits of one left alone; two processes follow one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from radtag.data.table import Dataset

# Everything with a history is on: plateau or cosine, a running average, dropout in the network, balanced sampling.
SETTINGS = {
    "pylon": {
        "method": "pylon",
        "options": {"decoder_channels": 8},
        "backbone": {"name": "test_resnet", "weights": "none"},
        "size_px": 64,
        "epochs": 4,
        "batch_size": 8,
        "lr": 1e-3,
        "plateau_patience": 0,
        "min_lr": 1e-9,
        "sampling": "balanced",
    },
    "cam": {
        "method": "cam",
        "backbone": {"name": "test_efficientnet", "weights": "none"},
        "size_px": 64,
        "epochs": 3,
        "batch_size": 8,
        "lr": 1e-3,
        "optimiser": "adamw",
        "schedule": "cosine",
        "ema": 0.9,
        "keep": "last",
        "head_start": "prior",
    },
    # LayerNorm only: on CPUs BatchNorm sees a process's own slice, so that with it two processes are another training.
    "shared": {
        "method": "cam",
        "backbone": {"name": "test_convnext", "weights": "none"},
        "size_px": 64,
        "epochs": 2,
        "batch_size": 8,
        "lr": 1e-3,
        "class_weights": "balanced",
        "clip_norm": 1.0,
    },
}


@pytest.fixture(scope="module")
def trained(squares: Dataset, tmp_path_factory: pytest.TempPathFactory):
    """The folder of all the runs, and how many epochs were done at each kill."""
    out = tmp_path_factory.mktemp("runs")
    records = [
        {"image": one.image, "path": str(one.path), "labels": list(one.labels), "split": one.split}
        for one in squares.records
    ]
    job = {
        "records": records,
        "findings": squares.findings,
        "settings": SETTINGS,
        "out": str(out),
        "killed": ["pylon", "cam"],
        "shared": ["shared"],
    }
    (out / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("interrupted.py")
    done = subprocess.run(
        [sys.executable, str(script), str(out / "job.json")],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out, json.loads(done.stdout.splitlines()[-1])


def history(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "minutes"} for row in rows]


@pytest.mark.parametrize("name", ["pylon", "cam"])
def test_killed_at_random_moments_it_ends_with_the_same_bits(trained, name):
    out, kills = trained
    whole, killed = out / f"{name}-whole", out / f"{name}-killed"
    assert len(kills[name]) == SETTINGS[name]["epochs"]
    assert any(0 < done < SETTINGS[name]["epochs"] for done in kills[name]), kills  # or nothing was gone on with
    assert (killed / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert history(killed) == history(whole)
    assert len(history(whole)) == SETTINGS[name]["epochs"]
    for file in ("run.toml", "card.json"):
        one, other = ((run / file).read_text() for run in (whole, killed))
        if file == "card.json":
            one, other = ({**json.loads(text), "minutes": 0} for text in (one, other))
        assert one == other
    assert not list(killed.glob("*.tmp"))
    assert not (killed / "resume.pt").exists()


def test_two_processes_follow_one(trained):
    """The same losses to 1e-5, with a network without BatchNorm (see SETTINGS), unknown labels and weighted classes."""
    out, _ = trained
    one, two = history(out / "shared-one"), history(out / "shared-two")
    assert len(one) == len(two) == 2
    for row, other in zip(one, two, strict=True):
        for key in ("train_loss", "val_loss"):
            assert math.isclose(row[key], other[key], rel_tol=1e-5), (key, row, other)
    assert json.loads((out / "shared-two" / "card.json").read_text())["hardware"].startswith("2 process")
    first, second = (load_file(out / f"shared-{name}" / "weights.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-4)
