"""The run folder: what is saved comes back, what is damaged is named, and nothing in it is executed."""

from __future__ import annotations

import builtins
import json
import math
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from radtag.calibration import Calibration
from radtag.errors import BadRun, BadSetting
from radtag.geometry import Grid
from radtag.images import Image
from radtag.models import build
from radtag.train.run import Run, card_page, normalise, write_text
from radtag.train.settings import PRESETS, TrainSettings, settings_from

SETTINGS = TrainSettings.model_validate(
    {
        "method": "pylon",
        "options": {"decoder_channels": 4},
        "backbone": {"name": "test_resnet", "weights": "none"},
        "size_px": 64,
        "fit": "letterbox",
    }
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    torch.manual_seed(0)
    made = Run(
        path=tmp_path / "run",
        settings=SETTINGS,
        findings=("Mass", "Übelkeit"),
        mean=0.4,
        sd=0.2,
        grids=(Grid((16, 16), (4.1, 3.9), (0.5, 2.5)), Grid((16, 16), (4.1, 3.9), (-3.0, 2.0))),
        calibration=Calibration.identity(2),
        card={"method": "pylon", "data": {"train_images": 3}, "limits": ["a", "b"], "auroc": math.nan},
    )

    model = build("pylon", 2, SETTINGS.backbone, SETTINGS.options)
    made.save(model.state_dict())
    return made


def test_what_is_saved_comes_back(run):
    loaded = Run.load(run.path)
    for name in ("settings", "findings", "mean", "sd", "grids", "calibration"):
        assert getattr(loaded, name) == getattr(run, name), name
    assert json.dumps(loaded.card) == json.dumps(run.card)  # as text, since NaN is no NaN's equal
    assert (loaded.size_px, loaded.channels, loaded.fit) == (64, 1, "letterbox")
    assert loaded.tile_grid == Grid((16, 16), (4.0, 4.0), (2.0, 2.0))
    assert sorted(file.name for file in run.path.iterdir()) == [
        "card.json",
        "card.md",
        "run.toml",
        "weights.safetensors",
    ]


def test_a_run_keeps_the_defaults_of_when_it_was_trained(run):
    """Its own settings are written whole, and what is written counts: as if a default had changed since."""
    assert "pool" not in run.settings.options
    assert Run.load(run.path).build_model().options.pool == "max"
    file = run.path / "run.toml"
    told = file.read_text(encoding="utf-8")
    assert told.count('pool = "max"') == 1
    file.write_text(told.replace('pool = "max"', 'pool = "avg"'), encoding="utf-8")
    assert Run.load(run.path).build_model().options.pool == "avg"


@pytest.mark.parametrize("method", ["taggan", "guided"])
def test_a_run_of_before_an_option_does_what_it_did(run, tmp_path, method):
    settings = settings_from(method=method, backbone={"name": "test_resnet", "weights": "none"}, size_px=64)
    made = replace(run, path=tmp_path / "game", settings=settings)
    made.save(build(method, 2, settings.backbone, settings.options).state_dict())
    file = made.path / "run.toml"
    told = file.read_text(encoding="utf-8")
    assert Run.load(made.path).build_model().generator.options.witness_spread == 0.5
    file.write_text(told.replace("witness_spread = 0.5\n", "").replace("whole = false\n", ""), encoding="utf-8")
    options = Run.load(made.path).build_model().generator.options
    assert options.witness_spread == 0
    assert options.whole is False


def test_the_network_comes_back_ready_to_use(run):
    first, second = run.build_model(), Run.load(run.path).build_model()
    assert not first.training
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(first(images).maps, second(images).maps)
    assert first.head.out_channels == 2


def test_an_image_is_prepared_and_normalised_as_in_training(run):
    square, frame = run.prepare(Image(np.ones((20, 40), np.float32), "here.png"))
    assert frame.placed_rc == (16, 0, 32, 64)  # the settings say letterbox
    batch = run.normalise(torch.from_numpy(square)[None])
    assert batch.shape == (1, 1, 64, 64)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch[0, 0, 32, 5].item() == pytest.approx((1 - 0.4) / 0.2)
    assert batch[0, 0, 0, 5].item() == pytest.approx((0 - 0.4) / 0.2)
    three = normalise(torch.tensor([[[0.4, 0.6]]]), 0.4, 0.2, channels=3)
    torch.testing.assert_close(three, torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2))


def test_what_is_no_run_is_refused_to_the_letter(tmp_path):
    with pytest.raises(BadRun) as caught:
        Run.load(tmp_path / "none")
    assert str(caught.value) == (
        f"{tmp_path / 'none'} is not a run: it has no run.toml. Give the folder that train wrote with --out."
    )
    (tmp_path / "resume.pt").write_bytes(b"")
    with pytest.raises(BadRun) as caught:
        Run.load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: training has not ended. Run the same train command again to go on."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", r"format 2, this version reads 1\. Use the radtag that made it\.$"),
        ("format = 1", "", "the run is damaged .KeyError: 'format'"),
        ("format = 1", "format = = 1", "the run is damaged .TOMLDecodeError"),
        ("size_px = 64", "size_px = 65", r"the run is damaged .ValidationError(.|\n)*a multiple of 32, got 65"),
        ("size_px = 64", "sizepx = 64", r"the run is damaged .ValidationError(.|\n)*sizepx"),
        ("mean = 0.4\n", "", "the run is damaged .KeyError: 'mean'"),
        ("[grid]", "[grit]", "the run is damaged .KeyError: 'grid'"),
    ],
)
def test_a_damaged_run_toml_is_refused(run, old, new, message):
    file = run.path / "run.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(BadRun, match=message):
        Run.load(run.path)


def test_a_missing_or_damaged_card_is_refused(run):
    (run.path / "card.json").write_text("{")
    with pytest.raises(BadRun, match=r"the run is damaged .JSONDecodeError"):
        Run.load(run.path)
    (run.path / "card.json").unlink()
    with pytest.raises(BadRun, match=r"the run is damaged .FileNotFoundError"):
        Run.load(run.path)


def test_weights_that_do_not_belong_are_refused(run):
    file = run.path / "weights.safetensors"
    content = file.read_bytes()
    for damaged in (content[:100], b"", content[: len(content) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(BadRun, match=r"weights\.safetensors: .*\. Restore the file, or train again\.$"):
            Run.load(run.path).build_model()
    file.unlink()
    with pytest.raises(BadRun, match=r"weights\.safetensors"):
        Run.load(run.path).build_model()
    file.write_bytes(content)
    toml = run.path / "run.toml"
    toml.write_text(toml.read_text().replace("decoder_channels = 4", "decoder_channels = 8"))
    with pytest.raises(BadRun, match=r"Error.s. in loading state_dict"):
        Run.load(run.path).build_model()


class Malicious:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_loading_a_run_executes_nothing_from_it(run, tmp_path, monkeypatch):
    """Pickles in place of the weights and beside them, modules, and code in every text: all stay unexecuted."""
    victim = tmp_path / "victim"
    evil = pickle.dumps(Malicious(victim))
    code = f"open({str(victim)!r}, 'w')"
    for name in ("resume.pt", "weights.pt", "model.pkl", "best.pth"):
        (run.path / name).write_bytes(evil)
    for name in ("__init__.py", "run.py", "conftest.py", "sitecustomize.py"):
        (run.path / name).write_text(code)
    (run.path / "card.json").write_text(json.dumps({"method": f"__import__('os').system('touch {victim}')", "x": code}))

    def forbidden(*args, **kwargs):
        raise AssertionError("a run was about to be executed")

    monkeypatch.chdir(run.path)
    with monkeypatch.context() as patch:
        for owner, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (os, "system"), (builtins, "eval")):
            patch.setattr(owner, name, forbidden)
        Run.load(run.path).build_model()
        (run.path / "weights.safetensors").write_bytes(evil)
        with pytest.raises(BadRun, match=r"weights\.safetensors"):
            Run.load(run.path).build_model()
    assert not victim.exists()
    pickle.loads(evil)
    assert victim.exists()  # it would have


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "card.md"
    write_text(file, "old")

    def full(self, text, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            write_text(file, "new")
    assert file.read_text() == "old"


def test_run_toml_is_written_last(run, monkeypatch):
    """A save that fails on the way leaves no folder that passes for a run."""
    (run.path / "run.toml").unlink()
    written = []

    def note(file, text):
        written.append(file.name)

    monkeypatch.setattr("radtag.train.run.write_text", note)
    run.save({"x": torch.zeros(1)})
    assert written[-1] == "run.toml"
    assert (run.path / "weights.safetensors").exists()


def test_a_card_reads_as_markdown():
    page = card_page({"method": "cam", "data": {"train_images": 3, "limits": ("a", "b")}, "date": "today"})
    assert page == "# Run card\n\n- method: cam\n- date: today\n\n## Data\n\n- train images: 3\n- limits: a, b\n"


# Settings -------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_papers_recipe():
    """PYLON's text and code (data/transform.py, train.py)."""
    paper = settings_from("paper")
    assert paper == TrainSettings()
    assert (paper.method, paper.backbone.name, paper.backbone.channels, paper.size_px) == ("pylon", "resnet50", 1, 256)
    assert (paper.epochs, paper.batch_size, paper.optimiser, paper.lr, paper.weight_decay) == (40, 64, "adam", 1e-4, 0)
    assert (paper.schedule, paper.plateau_patience, paper.plateau_factor, paper.min_lr) == ("plateau", 1, 0.2, 1e-6)
    assert (paper.keep, paper.ema, paper.class_weights, paper.sampling) == ("loss", 0, "none", "uniform")
    turn = paper.augment
    assert (turn.rotate_deg, turn.rotate_p, turn.area, turn.ratio) == (90, 0.5, (0.7, 1.0), (3 / 4, 4 / 3))
    assert (turn.flip_p, turn.brightness, turn.contrast, turn.tone_p) == (0.5, 0.5, 0.5, 0.5)
    assert turn.interpolation == "bicubic"


def test_changes_go_on_top_of_a_preset():
    preset = PRESETS["small"]["augment"]
    changed = settings_from("small", lr=0.5, augment={"flip_p": 0.25})
    assert changed.lr == 0.5
    assert changed.epochs == PRESETS["small"]["epochs"]
    assert changed.augment.flip_p == 0.25
    assert changed.augment.rotate_deg == preset["rotate_deg"]  # nested settings are merged
    assert settings_from("small").augment.flip_p == PRESETS["small"]["augment"].get("flip_p", 0.5)
    assert settings_from("paper", augment={"flip_p": 0}).augment.rotate_deg == 90


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("big", {}, r"^unknown preset 'big'; use one of paper, small"),
        (
            "paper",
            {"learning_rate": 1},
            r"^there is no setting learning_rate\. Known settings: method, options, size_px, .* augment\.flip_p",
        ),
        ("paper", {"epoch": 1}, r"^there is no setting epoch\. Did you mean epochs\?$"),
        ("paper", {"flip_p": 1}, r"^there is no setting flip_p\. Did you mean augment\.flip_p\?$"),
        ("paper", {"backbone": {"nam": "x"}}, r"^there is no setting backbone\.nam\. Did you mean backbone\.name\?$"),
        ("paper", {"lr": 0}, r"^setting lr = 0: Input should be greater than 0\.$"),
        ("paper", {"augment": {"flip_p": 2}}, r"^setting augment\.flip_p = 2: Input should be less than or equal to 1"),
        (
            "paper",
            {"size_px": 100},
            r"^setting size_px = 100: (?!Value error).*multiple of 32, got 100; near it are 96 and 128\.$",
        ),
        (
            "paper",
            {"mixed_precision": "fp8"},
            r"^setting mixed_precision = 'fp8': Input should be 'no', 'bf16' or 'fp16'",
        ),
        ("paper", {"backbone": {"channels": 2}}, r"^setting backbone\.channels = 2: Input should be 1 or 3\.$"),
    ],
)
def test_a_setting_out_of_range_is_named(preset, changes, message):
    with pytest.raises(BadSetting, match=message):
        settings_from(preset, **changes)
