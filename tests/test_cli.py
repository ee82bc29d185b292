"""The command line: what it prints, where, and with which status. What the commands do is tested with their parts."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import typer
from filelock import FileLock
from PIL import Image as Pillow

import radtag
from radtag import cli
from radtag.cli import app, main
from radtag.errors import BadData


class Result(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Calls radtag in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RADTAG_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> Result:
        status = 0
        try:
            main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        return Result(status, *capsys.readouterr())

    return run


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from leaves(child, (*path, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))
NAMES = [" ".join(path) for path in COMMANDS]


def test_commands_are_those_of_the_design():
    assert set(NAMES) >= {
        *("demo", "train", "tag", "evaluate", "pool", "compare"),
        *("data check", "data phantom", "data plant", "import pylon"),
    }


@pytest.mark.parametrize("path", COMMANDS, ids=NAMES)
def test_every_command_has_json_and_an_example_that_fits_it(path: tuple[str, ...], call):
    options = {name for param in COMMANDS[path].params for name in getattr(param, "opts", ())}
    assert "--json" in options
    shown = call(*path, "--help")
    assert shown.status == 0
    example = shlex.split(COMMANDS[path].help.split("Example: ")[1])
    assert tuple(example[1 : 1 + len(path)]) == path
    assert {word for word in example if word.startswith("--")} <= options
    assert "Example: radtag" in shown.out


@pytest.mark.parametrize("path", COMMANDS, ids=NAMES)
def test_every_option_has_a_help_text(path: tuple[str, ...]):
    assert [param.name for param in COMMANDS[path].params if not param.help] == []


def test_help_imports_nothing_heavy():
    script = "import sys, radtag.cli; radtag.cli.main(['--version'])"
    script = f"import sys\ntry:\n exec({script!r})\nfinally:\n print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"radtag {radtag.__version__}\n"
    for heavy in ("torch", "numpy", "scipy", "rich", "pydantic", "matplotlib", "PIL", "pydicom", "timm"):
        assert f"'{heavy}'" not in done.stderr


def test_help_answers_at_once():
    # Processor time, not the clock's: the machine may be busy with something else.
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "radtag", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.3


def test_without_arguments_it_shows_the_help(call):
    shown = call()
    assert "Usage: radtag [OPTIONS] COMMAND [ARGS]..." in shown.out + shown.err
    assert "Research use, not a medical device." in shown.out + shown.err


def test_an_error_is_one_message_and_status_1(call):
    done = call("data", "check", "csv:nowhere/table.csv")
    assert done.status == 1
    assert done.out.splitlines()[0].startswith("error")
    done = call("train", "pylon", "nope:x", "--out", "run")
    assert done.status == 1
    assert done.out == ""
    assert done.err.startswith("Error: unknown source 'nope' in 'nope:x'. Write NAME:PATH, where NAME is one of csv: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["data", "phantom", "--out", "x", "--side", "8"],
            "phantom: side 8 cannot be drawn. Use 48 to 2048 pixels.",
        ),
        (
            ["train", "pylon", "phantom:8", "--out", "x", "--set", "epochs"],
            "--set epochs: there is no KEY=VALUE in it. Write --set epochs=VALUE.",
        ),
        (
            ["train", "pylon", "phantom:8", "--out", "x", "--set", "seed.deep=1", "--seed", "3"],
            "--set seed.deep: seed was given a value of its own. Give it or its parts.",
        ),
        *(
            (
                ["train", "pylon", "phantom:8", "--out", "x", "--start-from", "runs/a", *weights],
                "--weights package and --start-from runs/a: all weights of the backbone come from the run."
                " Leave one of the two out.",
            )
            for weights in (["--weights", "package"], ["--set", "backbone.weights=package"])
        ),
        (
            ["tag", "nowhere", "x.png", "--out", "x", "--threshold", "nodule=high"],
            "--threshold nodule=high: 'high' is not a number. Write 0.4 or NAME=0.4.",
        ),
        (
            ["tag", "nowhere", "x.png", "--out", "x", "--threshold", "0.4", "--threshold", "nodule=0.2"],
            "--threshold 0.4: without a name it is for all findings, and stands alone.",
        ),
        (
            ["tag", "nowhere", "x.png", "--out", "x"],
            "nowhere is not a run: it has no run.toml. Give the folder that train wrote with --out.",
        ),
        (
            ["evaluate", "nowhere", "phantom:8?seed=x", "--out", "x"],
            "phantom: seed 'x' is not a whole number from 0 to 9223372036854775808. Write phantom:400 or "
            "phantom:400?seed=3&side=128.",
        ),
        (
            ["pool", "a", "b", "--out", "x"],
            "a/pairs.csv does not exist. Give the folder that radtag evaluate wrote with --out.",
        ),
    ],
)
def test_messages(call, arguments: list[str], message: str):
    assert call(*arguments) == Result(1, "", f"Error: {message}\n")


def test_an_unknown_method_and_setting_are_refused_before_anything_is_read(call):
    done = call("train", "pylon", "phantom:8", "--out", "x", "--set", "epocs=3")
    assert done == Result(1, "", "Error: there is no setting epocs. Did you mean epochs?\n")
    done = call("train", "taggan", "phantom:8", "--out", "x", "--set", "stepps=3")
    assert done == Result(1, "", "Error: there is no setting stepps. Did you mean steps?\n")
    assert not Path("cache").exists()
    done = call("train", "magic", "phantom:8", "--out", "x")
    assert done.status == 1
    known = "pylon, cam, li2018, unet, fpn, deeplabv3plus, pan, taggan, vagan, guided, student"
    assert done.err == f"Error: unknown method 'magic'; use one of {known}.\n"
    assert not Path("cache").exists()


def test_an_operating_system_error_has_its_file_and_no_traceback(call):
    Path("file").write_text("")
    done = call("data", "phantom", "--count", "1", "--out", "file/phantoms")
    assert done.status == 1
    assert done.err == "Error: File exists: file. A file is where a folder should be. Give another path.\n"


def test_debug_shows_the_traceback(call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RADTAG_DEBUG", "1")
    with pytest.raises(radtag.errors.BadSetting):
        call("train", "pylon", "nope:x", "--out", "run")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tga"], "No such command 'tga'."),
        (["train", "pylon"], "SOURCE"),
        (["train", "pylon", "phantom:8"], "--out"),
        (["demo", "--count", "many"], "--count"),
        (["train", "pylon", "phantom:8", "--out", "x", "--preset", "huge"], "huge"),
    ],
)
def test_wrong_usage_is_status_2(call, arguments: list[str], said: str):
    done = call(*arguments)
    assert done.status == 2
    assert said in done.err
    assert "Usage: radtag" in done.err
    assert "Traceback" not in done.err


def test_phantoms_and_their_check(call):
    made = call("data", "phantom", "--out", "phantoms", "--count", "24", "--side", "64")
    assert made == Result(0, "24 phantoms -> phantoms/table.csv\n", "")
    checked = call("data", "check", "csv:phantoms")
    assert checked.status == 0
    assert checked.out.splitlines()[-1].endswith("training can go on")
    report = json.loads(call("data", "check", "csv:phantoms", "--json").out)
    assert report["ok"] is True
    assert report["images"] == 24
    again = call("data", "phantom", "--out", "phantoms", "--count", "24")
    assert again == Result(1, "", "Error: phantoms exists and is not empty. Name a new folder, or empty that one.\n")


def test_a_data_set_with_errors_is_status_1(call):
    call("data", "phantom", "--out", "phantoms", "--count", "24", "--side", "64", "--json")
    (Path("phantoms") / "images" / "00003.png").write_text("not a picture")
    checked = call("data", "check", "csv:phantoms", "--json")
    assert checked.status == 1
    report = json.loads(checked.out)
    assert report["ok"] is False
    assert "00003.png" in report["errors"][0]


def test_planting(call):
    call("data", "phantom", "--out", "phantoms", "--count", "60", "--side", "128")
    done = call("data", "plant", "csv:phantoms", "--out", "planted", "--kind", "nodule", "--share", "0.5", "--json")
    assert done.status == 0
    about = json.loads(done.out)
    assert about["table"] == "planted/table.csv"
    assert about["kinds"] == ["nodule"]
    assert about["dropped"] == ["consolidation", "effusion", "pneumothorax", "cardiomegaly"]
    said = call("data", "plant", "csv:phantoms", "--out", "again", "--kind", "nodule", "--kind", "effusion").out
    assert said.splitlines()[1] == (
        "findings of phantoms that are not painted have no column: consolidation, pneumothorax, cardiomegaly"
    )
    assert 0 < about["planted"] < about["written"]


def tiny_table(normal: str) -> None:
    """24 images of noise: healthy, with a mass, with another disease."""
    import numpy as np
    import PIL.Image

    lines = [f"image,split,{normal},Mass,Other"]
    random = np.random.default_rng(0)
    for i in range(24):
        PIL.Image.fromarray(random.integers(0, 256, (40, 48)).astype(np.uint8)).save(f"{i:02}.png")
        cells = ["0", "0", "0"]
        cells[i % 3] = "1"
        lines.append(f"{i:02}.png,{'train' if i < 15 else 'val'},{','.join(cells)}")
    Path("table.csv").write_text("\n".join(lines) + "\n")


GAME = (
    *("--backbone", "test_resnet", "--weights", "none", "--size", "32", "--batch-size", "2", "--steps", "2"),
    *("--set", "look_every=2", "--set", "options.first_critic_steps=1"),
)


def test_a_game_is_trained_on_the_findings_that_are_wanted(call):
    tiny_table("Normal")
    arguments = ["train", "vagan", "csv:table.csv", "--out", "run", *GAME, "--finding", "Mass"]
    done = call(*arguments, "--json")
    assert done.status == 0, done.err
    card = json.loads(done.out)["card"]
    assert (card["method"], card["findings"]) == ("vagan", ["Mass"])
    # Five healthy, five with a mass; five with another disease are on neither side.
    assert (card["data"]["train_images"], card["data"]["train_positives"]) == (10, {"Mass": 5})
    assert card["validation"]["steps"] == 2
    again = call(*arguments)
    assert again.status == 0
    assert again.out.splitlines()[-1] == "-> run"
    tagged = call("tag", "run", "00.png", "--out", "tags", "--save", "counterparts", "--save-for", "all", "--json")
    assert json.loads(tagged.out)["ok"] is True
    assert Path("tags/counterparts/00.png").is_file()


def test_the_finding_that_means_healthy_can_be_named(call):
    tiny_table("fine")
    arguments = ["train", "vagan", "csv:table.csv", "--out", "run", *GAME]
    unnamed = call(*arguments)
    assert (unnamed.status, unnamed.out) == (1, "")
    assert unnamed.err.splitlines()[-1].endswith(
        "none of its 24 images is known to be healthy: none has every finding 0, or a finding called normal."
        " Name the finding that means healthy (--normal), or add healthy images."
    )
    done = call(*arguments, "--normal", "fine", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["card"]["findings"] == ["Mass", "Other"]
    assert call("train", "pylon", "csv:table.csv", "--out", "x", "--normal", "fine") == Result(
        1, "", "Error: --normal fine: pylon learns findings, and has no healthy side. Leave it out.\n"
    )
    assert not Path("x").exists()


def test_one_file_of_splits_is_for_all_sources_of_a_training(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for source in ("east", "west"):
        (tmp_path / source).mkdir()
        rows = [f"{name}.png,{i % 2}" for i, name in enumerate("abcd")]
        (tmp_path / source / "table.csv").write_text("\n".join(["image,ill", *rows]) + "\n")
        for name in "abcd":
            (tmp_path / source / f"{name}.png").write_text(source + name)
    rows = ["east:a.png,train", "east:b.png,val", "west:a.png,train", "west:b.png,val", "west:c.png,test"]
    (tmp_path / "mine.csv").write_text("\n".join(["image,split", *rows]) + "\n")
    seen = []

    def train(settings: Any, dataset: Any, out: Path, **_: Any) -> None:
        seen.append({f"{record.path.parent.name}/{record.path.name}": record.split for record in dataset.records})
        raise BadData("enough")

    monkeypatch.setattr("radtag.train.classify.train", train)
    both = ("train", "pylon", "csv:east", "--also", "csv:west", "--out", "run", "--weights", "none")
    assert call(*both, "--splits", "mine.csv").err.endswith("Error: enough\n")
    of_east = {"east/a.png": "train", "east/b.png": "val", "east/c.png": "", "east/d.png": ""}
    assert seen == [of_east | {"west/a.png": "train", "west/b.png": "val"}]
    (tmp_path / "mine.csv").write_text("image,split\na.png,train\n")
    assert call(*both, "--splits", "mine.csv").err == (
        "Error: mine.csv line 2: 'a.png' is in east and west. Write east:a.png, say.\n"
    )


def test_one_model_for_the_diseases_of_two_sources(call, tmp_path: Path):
    """Two folders, each with its own disease and its own normal images, are trained on and scored together."""
    random = np.random.default_rng(0)
    for source, disease, level in (("east", "blot", 60), ("west", "spot", 90)):
        for name, ill in (
            ((disease, True), ("normal", False), ("scar", True))
            if source == "east"
            else (
                (disease, True),
                ("Normal", False),
            )
        ):
            (tmp_path / source / name).mkdir(parents=True)
            for i in range(12):
                pixels = random.integers(level, level + 30, (40, 48), dtype=np.uint8)
                pixels[10:20, 10:20] += 100 if ill else 0
                Pillow.fromarray(pixels).save(tmp_path / source / name / f"{i}.png")
    both, counting = ["folder:east", "--also", "folder:west"], ["--seen", "count"]
    wanted = ["--finding", "spot", "--finding", "blot"]
    small = ["--backbone", "test_resnet", "--weights", "none", "--size", "32", "--batch-size", "4"]
    small += ["--steps", "2", "--set", "options.warm_up=2"]
    done = call("train", "guided", *both, "--out", "run", *wanted, *small, "--json")
    assert done.status == 0, done.err
    card = json.loads(done.out)["card"]
    assert card["findings"] == ["spot", "blot"]
    assert card["trained_on"] == "east + west"
    assert "note: east: 12 images with neither a wanted finding nor known to be healthy are on no side" in done.err
    assert call("train", "guided", *both, "--out", "other", *small, "--normal", "fine").err == (
        "Error: east + west has no finding 'fine'; it has blot, scar, spot.\n"
    )
    done = call("evaluate", "run", *both, "--out", "scored", "--only", "train", "--bootstraps", "50", "--json")
    assert done.status == 1
    assert "Error: of the 40 images of east + west, run was trained on 32 (east:blot/0.png, for one): " in done.err
    done = call(
        "evaluate", "run", *both, "--out", "scored", "--only", "train", "--bootstraps", "50", "--json", *counting
    )
    assert done.status == 0, done.err
    assert "note: Of 40 images the run was trained on 32: these are counted, and the numbers do not say" in done.err
    result = json.loads(done.out)
    counts = result["about"]["counts"]
    assert result["about"]["data"] == "east + west"
    ill, whole = counts["blot"]["positive"], result["about"]["images"]
    assert counts["blot"] == {
        "positive": ill,
        "negative": 2 * ill,
        "unknown": whole - 3 * ill,
        "located": 0,
        "outlined": 0,
    }
    apart = result["asked"]["findings"]["blot"]["spot"]["own_minus"]
    assert (apart["n"], apart["low"] <= apart["value"] <= apart["high"]) == (ill, True)
    assert result["asked"]["none"]["spot"]["map_mean"]["n"] == whole - ill - counts["spot"]["positive"]


def test_a_number_that_does_not_exist_is_called_undefined():
    assert cli._listed({"nodule": 0.7, "lungs": None}) == "nodule 0.7, lungs undefined"
    assert cli._listed(None) == "undefined"


def test_two_trainings_do_not_write_into_one_folder(call, tmp_path: Path):
    (tmp_path / "runs").mkdir()
    held = FileLock(tmp_path / "runs" / ".a.lock")
    with held:
        refused = call(
            "train", "pylon", "phantom:8", "--out", "runs/a", "--backbone", "test_resnet", "--weights", "none"
        )
    assert refused.status == 1
    assert "another process is training into runs/a. Wait for it, or give another --out." in refused.err
    assert not (tmp_path / "runs" / "a").exists()
    # Refused for another reason, it leaves nothing behind.
    refused = call("train", "pylon", "phantom:8", "--out", "runs/b", "--backbone", "nothing", "--weights", "none")
    assert refused.status == 1
    assert [one.name for one in (tmp_path / "runs").iterdir() if one.name != ".a.lock"] == []


def test_too_little_memory_on_a_gpu_is_told_with_what_to_do(call, monkeypatch: pytest.MonkeyPatch):
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of")

    monkeypatch.setattr(cli.process, "keep_memory", full)
    told = call("train", "pylon", "phantom:8", "--out", "run")
    assert told.status == 1
    assert told.err.startswith("Error: CUDA out of memory. Tried to allocate 2.00 GiB. Lower --batch-size or --size,")
    monkeypatch.setattr(cli.process, "keep_memory", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("train", "pylon", "phantom:8", "--out", "run")
