"""Cells are done once, by whoever comes first; what fails is said, and the others go on."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from rich.console import Console

from radtag.benchmark import benchmark, chosen, read_plan, states, work
from radtag.cli import main
from radtag.data import phantom
from radtag.images import Image
from radtag.train.run import Run

FILE = """
out = "{out}"
metrics = ["pointing", "auroc"]
bootstraps = 20
[settings]
preset = "small"
size_px = 64
batch_size = 8
epochs = {epochs}
backbone = {{ name = "test_resnet", weights = "none" }}
[[source]]
name = "squares"
spec = "csv:{data}"
[[method]]
name = "CAM"
method = "cam"
[[method]]
name = "CAM, mirrored"
runs_of = "CAM"
tta = "flip"
[[method]]
name = "gone"
run = "{out}/nothing"
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RADTAG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty images of noise with a bright square where the finding is, and its box."""
    random = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    rows, boxes = [], []
    for i in range(20):
        pixels = random.integers(60, 100, (64, 72))
        if i % 2:
            pixels[8:24, 10:26] += 120
            boxes.append([f"{i}.png", "square", 10, 8, 26, 24])
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        sex = "FM"[i % 4 > 1]
        rows.append([f"{i}.png", i, "train" if i < 8 else "val" if i < 12 else "test", i % 2, sex])
    for name, head, lines in (
        ("table.csv", ["image", "patient", "split", "square", "attr:sex"], rows),
        ("boxes.csv", ["image", "finding", "x1", "y1", "x2", "y2"], boxes),
    ):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([head, *lines])
    return folder


def write(tmp_path: Path, data: Path, *, epochs: int = 1, less: str = "") -> Path:
    file = tmp_path / "b.toml"
    text = FILE.format(out=tmp_path / "out", data=data, epochs=epochs)
    file.write_text(text.split(less)[0] if less else text)
    return file


def test_one_failure_is_said_and_the_others_go_on(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]):
    file = write(tmp_path, data)
    with pytest.raises(SystemExit) as end:
        main(["benchmark", str(file)])
    assert end.value.code == 1
    told = capsys.readouterr()
    assert "2 of 3 cells done" in told.out
    assert f"failed: squares, gone, seed 0: {tmp_path}/out/nothing is not a run" in told.out
    for name in ("benchmark.html", "benchmark.json", "benchmark.csv", "benchmark.md", "benchmark.tex"):
        assert (tmp_path / "out" / name).is_file(), name
    value = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert list(value["sources"]["squares"]["methods"]) == ["CAM", "CAM, mirrored"]
    assert value["sources"]["squares"]["missing"] == {"gone": "1 of 1 cells are not done"}
    assert value["sources"]["squares"]["images"] == 8

    # A second call does nothing that is done, and tries again what failed.
    run = tmp_path / "out/cells/squares/CAM/seed0/run/weights.safetensors"
    before = run.stat().st_mtime_ns
    with pytest.raises(SystemExit):
        main(["benchmark", str(file), "--json"])
    again = capsys.readouterr()
    assert run.stat().st_mtime_ns == before
    assert [cell["state"] for cell in json.loads(again.out)["cells"]] == ["done", "done", "failed"]
    assert "squares, CAM" not in again.err
    assert "squares, gone, seed 0: evaluating" in again.err

    with pytest.raises(SystemExit) as end:
        main(["benchmark", str(file), "--list", "--method", "gone"])
    assert not end.value.code
    assert re.fullmatch(r"failed   squares, gone, seed 0: .*nothing is not a run.*\n", capsys.readouterr().out)

    # What was made by other settings is not taken up.
    plan = read_plan(write(tmp_path, data, epochs=2))
    outcome = benchmark(plan, chosen(plan, methods=["CAM"]), console=Console(quiet=True))
    assert not outcome.ok
    assert "was made otherwise: settings.epochs was 1, now 2. Give another out, or remove" in outcome.states[0].note


STUDENT = """
out = "{out}"
bootstraps = 20
metrics = ["auroc", "pointing"]
[settings]
preset = "small"
size_px = 32
epochs = 1
batch_size = 4
backbone = {{ name = "test_resnet", weights = "none" }}
[[prepare]]
name = "teacher"
act = "train"
method = "cam"
source = "csv:{data}"
seed = "{{seed}}"
settings = {{ size_px = 32, epochs = 1, batch_size = 4, backbone = {{ name = "test_resnet", weights = "none" }} }}
[[prepare]]
name = "proposed"
act = "tag"
run = "{{teacher}}"
source = "csv:{data}"
mask = 0.01
[[source]]
name = "squares"
spec = "csv:{data}"
[[method]]
name = "teacher"
run = "{{teacher}}"
[[method]]
name = "student"
method = "student"
trained_on = "csv:{{proposed}}"
"""


def test_a_student_is_a_method(tmp_path: Path, data: Path):
    file = tmp_path / "b.toml"
    file.write_text(STUDENT.format(out=tmp_path / "out", data=data))
    plan = read_plan(file)
    outcome = benchmark(plan, console=Console(quiet=True))
    assert outcome.ok, outcome.lines()
    assert list(outcome.value["sources"]["squares"]["methods"]) == ["teacher", "student"]
    proposed = list(csv.DictReader((tmp_path / "out/prepared/proposed-seed0/table.csv").open(newline="")))
    assert [bool(row["mask:square"]) for row in proposed] == [bool(i % 2) for i in range(20)]
    cell = tmp_path / "out/cells/squares/student/seed0"
    assert "proposed by teacher-seed0" in (cell / "run" / "card.md").read_text(encoding="utf-8")
    # Scored on the source's own boxes, and not on the masks it learned from.
    about = json.loads((cell / "evaluation" / "metrics.json").read_text())["about"]
    assert (about["data"], about["counts"]["square"]["located"]) == ("data", 4)
    assert about["counts"]["square"]["outlined"] == 0


def test_images_that_runs_have_seen_are_refused_or_counted(tmp_path: Path, data: Path):
    given = FILE[: FILE.index('[[method]]\nname = "CAM, mirrored')].format(out=tmp_path / "out", data=data, epochs=1)
    file = tmp_path / "benchmark.toml"

    def done(source: str) -> tuple[str, str]:
        file.write_text(given.replace("[[method]]", f"{source}\n[[method]]"))
        outcome = benchmark(read_plan(file), console=Console(quiet=True))
        return outcome.states[0].state, outcome.states[0].note

    state, cause = done('only = ["val"]')
    assert state == "failed"
    assert "had its thresholds set on" in cause
    assert done('only = ["val"]\nseen = "count"') == ("done", "")
    cell = next((tmp_path / "out" / "cells").rglob("cell.json"))
    assert json.loads(cell.read_text())["source"]["seen"] == "count"
    about = json.loads((cell.parent / "evaluation" / "metrics.json").read_text())["about"]
    assert about["seen"]["thresholds_set_on"] == about["images"]


def test_splits_may_be_of_further_data_alone(tmp_path: Path, data: Path):
    further = tmp_path / "further"
    further.mkdir()
    names = [f"{letter}.png" for letter in "abcd"]
    for number, name in enumerate(names):  # unlike any of the others
        PIL.Image.fromarray(np.full((64, 72), 30 + number, dtype=np.uint8)).save(further / name)
    for file, head, rows in (
        (further / "table.csv", ["image", "patient", "square"], [[name, name, 0] for name in names]),
        (tmp_path / "splits.csv", ["image", "split"], [["a.png", "train"], ["b.png", "val"], ["c.png", "test"]]),
    ):
        with file.open("w", newline="") as out:
            csv.writer(out).writerows([head, *rows])
    file = write(tmp_path, data, less='[[method]]\nname = "CAM, mirrored')
    more = f'also = ["csv:{further}"]\nsplits = "{tmp_path}/splits.csv"\n'
    file.write_text(file.read_text().replace("[[method]]", f"{more}[[method]]"))
    outcome = benchmark(read_plan(file), console=Console(quiet=True))
    assert outcome.ok, outcome.lines()
    cell = tmp_path / "out/cells/squares/CAM/seed0"
    card = json.loads((cell / "evaluation" / "metrics.json").read_text())["about"]["card"]
    assert (card["data"]["train_images"], card["data"]["val_images"]) == (9, 5)  # of the file, a and b
    rows = list(csv.DictReader((cell / "evaluation" / "pairs.csv").open(newline="")))
    assert [row["image"] for row in rows] == [f"{i}.png" for i in range(12, 20)]

    # One that names no image of either is refused, as in training.
    (tmp_path / "splits.csv").write_text("image,split\nz.png,train\n")
    (cell / "evaluation" / "report.html").unlink()
    outcome = benchmark(read_plan(file), console=Console(quiet=True))
    assert "splits.csv names no image of data or further" in outcome.states[0].note


FOLDS = """
folds = [0, 1]
splits = "{folder}/splits{{fold}}.csv"
"""


def folded(tmp_path: Path, data: Path, *, top: str = "", source: str = "") -> Path:
    """The file of two methods on two folds: images 12 to 19 are scored in the first, 0 to 7 in the second."""
    for fold, (train, val) in enumerate([(range(8), range(8, 12)), (range(12, 20), range(8, 12))]):
        rows = [[f"{i}.png", "train" if i in train else "val" if i in val else "test"] for i in range(20)]
        with (tmp_path / f"splits{fold}.csv").open("w", newline="") as out:
            csv.writer(out).writerows([["image", "split"], *rows])
    file = write(tmp_path, data, less='[[method]]\nname = "gone"')
    text = file.read_text().replace("[settings]", f"{top}\n[settings]", 1)
    file.write_text(text.replace("[[method]]", f"{FOLDS.format(folder=tmp_path)}\n{source}\n[[method]]", 1))
    return file


def test_insertion_and_deletion_of_folds_are_pooled(tmp_path: Path, data: Path):
    file = folded(tmp_path, data, top="faithfulness = 2")
    outcome = benchmark(read_plan(file), console=Console(quiet=True))
    assert outcome.ok, outcome.lines()
    value = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert value["metrics"] == ["pointing", "auroc", "insertion", "deletion"]
    for name, folder in (("CAM", "CAM"), ("CAM, mirrored", "CAM_mirrored")):
        pooled = json.loads((tmp_path / "out/pooled/squares" / folder / "seed0" / "metrics.json").read_text())
        numbers = value["sources"]["squares"]["methods"][name]["total"]
        for key in ("insertion", "deletion"):
            told = pooled["faithfulness"]["micro"][key]
            assert (numbers[key]["value"], numbers[key]["n"]) == (pytest.approx(told["value"]), 4)  # two of each fold
            assert told["n"] == 4
    rows = list(csv.DictReader((tmp_path / "out" / "benchmark.csv").open(newline="")))
    assert {row["metric"] for row in rows} == set(value["metrics"])
    cell = tmp_path / "out/cells/squares/CAM/fold0-seed0"
    assert json.loads((cell / "cell.json").read_text())["faithfulness"] == 2

    # Folds are pooled again where those in the folder were pooled without it.
    file = tmp_path / "out/pooled/squares/CAM/seed0/metrics.json"
    before = json.loads(file.read_text())
    before["about"].pop("faithfulness")
    file.write_text(json.dumps(before))
    assert benchmark(read_plan(tmp_path / "b.toml"), console=Console(quiet=True)).ok
    assert json.loads(file.read_text())["about"]["faithfulness"] == 2


def test_of_a_limited_source_some_outlined_images_are_scored(tmp_path: Path, data: Path):
    file = folded(tmp_path, data, source="limit = 3")
    outcome = benchmark(read_plan(file), console=Console(quiet=True))
    assert outcome.ok, outcome.lines()
    source = json.loads((tmp_path / "out" / "benchmark.json").read_text())["sources"]["squares"]
    assert source["images"] == 6  # three of each fold, of four that have a square
    assert source["methods"]["CAM"]["total"]["pointing"]["n"] == 6
    cell = tmp_path / "out/cells/squares/CAM/fold0-seed0"
    assert json.loads((cell / "cell.json").read_text())["source"]["limit"] == 3
    assert "3 of 4 images where a finding is outlined" in (cell / "evaluation" / "metrics.json").read_text()

    file.write_text(file.read_text().replace("limit = 3", "limit = 2"))
    again = benchmark(read_plan(file), console=Console(quiet=True))
    assert "limit" in again.states[0].note  # what was scored on three is not taken for what two would give
    assert not again.ok


def test_groups_of_folds_are_pooled(tmp_path: Path, data: Path):
    file = folded(tmp_path, data, source='by = ["sex", "size"]')
    outcome = benchmark(read_plan(file), console=Console(quiet=True))
    assert outcome.ok, outcome.lines()
    source = json.loads((tmp_path / "out" / "benchmark.json").read_text())["sources"]["squares"]
    assert list(source["groups"]) == ["sex", "size"]
    assert source["groups"]["sex"]["parts"] == {name: {"images": 8, "patients": 8} for name in "FM"}
    pooled = tmp_path / "out/pooled/squares/CAM_mirrored/seed0"
    told = json.loads((pooled / "metrics.json").read_text())["groups"]["sex"]
    mine = source["methods"]["CAM, mirrored"]["groups"]["sex"]
    for key in ("auroc", "pointing"):
        assert mine["M"]["total"][key]["value"] == pytest.approx(told["parts"]["M"]["micro"][key]["value"])
        assert mine["M"]["gap"]["total"][key]["value"] == pytest.approx(told["gaps"]["M"]["micro"][key]["value"])
    rows = list(csv.DictReader((tmp_path / "out" / "by_group.csv").open(newline="")))
    assert {(row["by"], row["group"]) for row in rows if row["by"] == "sex"} == {("sex", "F"), ("sex", "M")}
    assert "<h3>By sex</h3>" in (tmp_path / "out" / "benchmark.html").read_text(encoding="utf-8")

    # Folds are pooled again where those in the folder have other values of their images.
    (pooled / "groups.csv").write_text("image,sex\n")
    assert benchmark(read_plan(file), console=Console(quiet=True)).ok
    assert len((pooled / "groups.csv").read_text().splitlines()) == 17

    # A cell whose pairs or groups were deleted is evaluated again.
    cell = tmp_path / "out/cells/squares/CAM_mirrored/fold0-seed0/evaluation"
    for name in ("groups.csv", "pairs.csv"):
        text = (cell / name).read_text()
        (cell / name).unlink()
        assert states(read_plan(file))[2].state == "trained"
        assert benchmark(read_plan(file), console=Console(quiet=True)).ok
        assert (cell / name).read_text() == text

    # Asked for no more, the cells were made otherwise.
    file.write_text(file.read_text().replace('by = ["sex", "size"]', ""))
    assert (
        "source.by was sex, size, now not given"
        in benchmark(read_plan(file), console=Console(quiet=True)).states[0].note
    )


def test_a_column_that_is_not_there_is_said_before_anything_is_trained(tmp_path: Path, data: Path):
    file = folded(tmp_path, data, source='by = ["ward"]')
    outcome = benchmark(read_plan(file), console=Console(quiet=True))
    assert [one.state for one in outcome.states] == ["failed"] * 4
    assert "--by ward: data has no such column; it has sex. 'size' groups by" in outcome.states[0].note
    assert not list((tmp_path / "out").rglob("log.jsonl"))


def test_lesions_are_planted_in_lungs_that_a_step_learned_to_outline(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn = phantom.write(tmp_path / "phantoms", 60, side=64, progress=False)
    with drawn.open() as table:
        rows = [dict(row) for row in csv.DictReader(table)]
    lungs = {(drawn.parent / row["image"]).resolve(): drawn.parent / row.pop("lungs") for row in rows}
    with (drawn.parent / "bare.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    file = write(tmp_path, data, less="[[source]]")
    steps = f"""
[[prepare]]
name = "lungs"
act = "train"
method = "student"
source = "csv:{drawn}"
findings = ["lungs"]
settings = {{ size_px = 64, epochs = 1, batch_size = 8, backbone = {{ name = "test_resnet", weights = "none" }} }}
[[prepare]]
name = "planted"
act = "plant"
source = "csv:{drawn.parent / "bare.csv"}"
lungs = "{{lungs}}"
[[source]]
name = "planted"
spec = "csv:{{planted}}"
[[method]]
name = "CAM"
method = "cam"
"""
    file.write_text(file.read_text() + steps)
    asked = []

    class Knowing:
        def __init__(self, run: str, finding: str) -> None:
            asked.append(Path(run))
            self.name = finding

        def __call__(self, image: Image) -> np.ndarray:
            return np.asarray(PIL.Image.open(lungs[Path(image.source).resolve()]))

    monkeypatch.setattr(work, "Outliner", Knowing)
    outcome = benchmark(read_plan(file), console=Console(quiet=True))
    assert outcome.ok, outcome.lines()
    assert asked == [tmp_path / "out" / "prepared" / "lungs"]
    assert Run.load(asked[0]).findings == ("lungs",)
    about = json.loads((tmp_path / "out" / "prepared" / "planted" / "about.json").read_text())
    assert about["lungs"] == {"found": about["written"]}
    assert about["lungs_found_by"] == "lungs"


def test_the_order_of_keys_makes_no_other_cell(tmp_path: Path, data: Path):
    file = write(tmp_path, data, less='[[method]]\nname = "CAM, mirrored')
    assert benchmark(read_plan(file), console=Console(quiet=True)).ok
    cell = tmp_path / "out" / "cells" / "squares" / "CAM" / "seed0"
    for name in ("cell.json", "run.json"):
        asked = json.loads((cell / name).read_text())
        assert "lungs" not in asked.get("run", asked)["settings"]  # nor had those of before there was a choice
        (cell / name).write_text(json.dumps({key: asked[key] for key in reversed(asked)}))
    assert [one.state for one in states(read_plan(file))] == ["done"]
    (cell / "evaluation" / "report.html").unlink()
    outcome = benchmark(read_plan(file), console=Console(quiet=True))
    assert outcome.ok, outcome.lines()


def test_killed_in_the_middle_and_taken_up_by_two(tmp_path: Path, data: Path):
    file = write(tmp_path, data, epochs=3, less='[[method]]\nname = "gone"')
    answer = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("shared.py")), str(file)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found["seen"] == ["running", "begun"]
    assert found["after"] == ["begun", "begun"]  # its lock went with it
    assert found["ends"] == [0, 0]
    killed, *two = found["told"]
    assert "CAM, seed 0: training" in killed
    # Each thing was done by one of the two, and training went on where it had been.
    both = "".join(two)
    assert both.count("CAM, seed 0: training") == 1
    assert "going on after epoch" in both
    assert both.count(": evaluating") == 2
    assert [one.state for one in states(read_plan(file))] == ["done", "done"]


def test_the_example_of_the_documentation_runs(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch):
    text = re.findall(r"```toml\n(.*?)```", (root / "docs" / "benchmark.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    # Its sizes are for a reader; these are for a test.
    for old, new in {
        "phantom:1000?side=128": "phantom:60?side=64",
        "size_px = 128": "size_px = 64",
        "epochs = 20": "epochs = 1",
        "seeds = [0, 1]": "seeds = [0]\nbootstraps = 20",
    }.items():
        assert old in text
        text = text.replace(old, new)
    monkeypatch.chdir(tmp_path)
    Path("benchmark.toml").write_text(text)
    with pytest.raises(SystemExit) as end:
        main(["benchmark", "benchmark.toml"])
    assert not end.value.code
    value = json.loads(Path("benchmark/benchmark.json").read_text())
    assert list(value["sources"]["phantoms"]["methods"]) == ["CAM", "PYLON", "PYLON, mirrored", "CAM, Grad-CAM++"]
    assert value["sources"]["phantoms"]["metrics"] == ["pointing", "auroc", "dice"]
