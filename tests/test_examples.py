"""The scripts in examples/, each run as a newcomer would: in a folder of its own, with nothing but its name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Gives a command in a fresh copy of the folder; what it prints."""
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("out", "__pycache__"))
    # The programs of the environment that the tests run in, and no data or settings of the machine's owner.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "RADTAG_CACHE": str(tmp_path / "cache")}

    def given(*words: str) -> str:
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return given


def test_train_tag_and_evaluate(run: Run, tmp_path: Path):
    said = run("python", "train_tag_evaluate.py")
    assert len(re.findall(r"\.png: (?:effusion|cardiomegaly) +0\.\d\d (?:positive|negative), ", said)) == 6
    found = re.search(r"^auroc: (\S+) \(95 % interval (\S+) to (\S+)\)$", said, re.MULTILINE)
    assert found is not None
    value, low, high = map(float, found.groups())
    assert value > 0.7
    assert low < value < high
    report = tmp_path / "examples" / said.splitlines()[-1].removeprefix("-> ")
    assert "Research use only" in report.read_text(encoding="utf-8")


def test_a_table_of_ones_own(run: Run):
    said = run("python", "own_table.py")
    assert "mine: 60 images of 30 patients" in said
    assert "0 errors" in said
    assert "{'train': 40, 'val': 8, 'test': 12} images of each split" in said
    assert "label of the first image: 1.0 - of the eighth: nan" in said


def test_any_model_is_explained(run: Run, tmp_path: Path):
    said = run("python", "explain_any_model.py")
    found = re.search(r"of (\d+) squares and rings, (\d+) maps point at theirs", said)
    assert found is not None
    there, hit = map(int, found.groups())
    assert hit >= there - 1 >= 4
    assert float(said.split("insertion of the first: ")[1].split()[0]) > 0.7
    assert Image.open(tmp_path / "examples" / "out" / "explained.png").width > 64


def test_numbers_from_numpy(run: Run):
    said = run("python", "metrics_from_numpy.py")
    gap = re.search(r"^pointing .* difference \+(\S+) \(\+(\S+) to \+(\S+)\)$", said, re.MULTILINE)
    assert gap is not None, said  # the maps that lie closer are better, and the interval leaves 0 out
    assert "boxes: ((51.0, 31.0, 70.0, 50.0), (16.0, 66.0, 25.0, 75.0)) - pixels: 346" in said
    assert run("python", "-c", "import metrics_from_numpy, sys; print('torch' in sys.modules)").endswith("False\n")


def test_maps_of_somebody_else_are_scored(run: Run, tmp_path: Path):
    said = run("bash", "score_maps.sh")
    assert "-> near/report.html" in said
    scored = tmp_path / "examples" / "out" / "scored"
    near, far = (json.loads((scored / name / "metrics.json").read_text()) for name in ("near", "far"))
    assert near["macro"]["dice"]["value"] > far["macro"]["dice"]["value"] + 0.1
    assert "near - far" in said
    assert (scored / "comparison" / "comparison.html").is_file()


def test_a_benchmark_of_two_methods(run: Run, tmp_path: Path):
    said = run("radtag", "benchmark", "two_methods.toml")
    assert "3 of 3 cells done" in said
    rows = (tmp_path / "examples" / "out" / "benchmark" / "benchmark.csv").read_text(encoding="utf-8")
    assert all(f",{name}," in rows.replace('"', "") for name in ("CAM", "CAM, Grad-CAM++", "PYLON"))


def test_every_example_is_named_in_the_documentation_and_tested():
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    for file in EXAMPLES.iterdir():
        if file.suffix in (".py", ".sh", ".toml"):
            assert f"(../examples/{file.name})" in page, file.name
            assert f'"{file.name}"' in tests, file.name
