"""The loop of two sides: batches, turns, what is written, what is refused, and that nothing depends on being killed."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from radtag.data.seen import SeenImages
from radtag.data.table import Dataset
from radtag.errors import BadData, BadRun, BadSetting
from radtag.images import Image
from radtag.models import GAMES, all_options
from radtag.models.guided import Guided
from radtag.models.taggan import TagGan
from radtag.tag import Tagger, tag_files
from radtag.train import adversarial, log, loop
from radtag.train.adversarial import Batches, collapse, decay, judge, train
from radtag.train.run import Run
from radtag.train.settings import AdversarialSettings, settings_from

NAN = math.nan
METHODS = list(GAMES)
OPTIONS: dict[str, dict[str, Any]] = {
    "taggan": {"warm_up": 4},
    "guided": {"warm_up": 4},
    "vagan": {"first_critic_steps": 2},
}
STILL = {"rotate_p": 0.0, "flip_p": 0.0, "area": (1.0, 1.0), "ratio": (1.0, 1.0), "tone_p": 0.0}


def settings(method: str = "taggan", *, options: dict[str, Any] | None = None, **changes: Any) -> AdversarialSettings:
    given: dict[str, Any] = {
        "backbone": {"name": "test_resnet", "weights": "none"},
        "size_px": 32,
        "batch_size": 4,
        "steps": 4,
        "look_every": 2,
        **changes,
    }
    found = settings_from("small", method=method, options={**OPTIONS[method], **(options or {})}, **given)
    assert isinstance(found, AdversarialSettings)
    return found


def quietly(dataset: Dataset, out: Path, method: str = "taggan", **changes: Any) -> Run:
    return train(settings(method, **changes), dataset, out, console=Console(quiet=True))


def history(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "minutes"} for row in rows]


@pytest.fixture(scope="module")
def runs(squares: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A tiny run of each method."""
    folder = tmp_path_factory.mktemp("runs")
    return {method: quietly(squares, folder / method, method) for method in METHODS}


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch):
    """They take longer than such small trainings; those of ``runs`` are drawn."""
    monkeypatch.setattr(log, "draw_adversarial_curves", lambda file, rows: None)


# The whole run --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_run_has_its_log_curves_strips_and_card(runs, squares, method):
    run = runs[method]
    files = {file.name for file in run.path.iterdir()} - {"tensorboard"}
    assert files == {
        *("run.toml", "weights.safetensors", "card.json", "card.md", "log.jsonl", "log.csv", "curves.png", "strips"),
        "seen.npz",
    }
    seen, sides = SeenImages.read(run.path), adversarial.two_sides(squares)
    assert seen is not None
    assert (len(seen.trained_on), len(seen.chosen_on)) == (len(sides.only("train")), len(sides.only("val")))
    rows = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    table = list(csv.DictReader(io.StringIO((run.path / "log.csv").read_text())))
    for row, line in zip(rows, table, strict=True):
        losses = [name for name in row if name.startswith(("critic ", "generator "))]
        assert len(losses) >= 4
        assert all(math.isfinite(row[name]) for name in losses)
        assert all(float(line[name]) == row[name] for name in (*losses, "map_of_ill", "map_of_healthy"))
        assert set(row["val_auroc_of"]) == {"left", "right"}
    with PIL.Image.open(run.path / "curves.png") as curves:
        assert curves.width > 3 * curves.height
    assert [file.name for file in sorted((run.path / "strips").iterdir())] == ["000002.png", "000004.png"]
    with PIL.Image.open(run.path / "strips" / "000004.png") as strip:
        assert strip.width >= 4 * 32
        assert strip.height >= 8 * 32
    card = run.card
    assert (card["method"], card["findings"], card["trained_on"]) == (method, ["left", "right"], "squares")
    assert card["validation"]["steps"] == 4
    assert card["validation"]["mean_map_of_ill"] == pytest.approx(rows[-1]["map_of_ill"], abs=1e-6)
    assert card["data"]["train_images"] == len(sides.only("train"))
    assert "on no side" in card["data"]["notes"][-1]
    assert f"- method: {method}" in (run.path / "card.md").read_text()


@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_loaded_and_tags(runs, squares, tmp_path, method):
    run = Run.load(runs[method].path)
    assert isinstance(run.settings, AdversarialSettings)
    assert run.settings == runs[method].settings
    assert run.calibration.scale == "amount"
    assert run.grids[0] == run.tile_grid
    assert run.tile_grid.size_rc == (32, 32)
    assert all(value.isfinite().all() for value in run.build_model().state_dict().values())
    tagger = Tagger(run, device="cpu")
    pixels = np.random.default_rng(0).random((64, 100), dtype=np.float32)
    left, right = tagger.tag([Image(pixels, "a.png")])
    assert left.map.shape == right.counterpart.shape == (64, 100)
    assert (left.finding, right.finding) == ("left", "right")
    assert 0 <= left.score <= 1
    assert left.map.min() >= 0
    both = left.prediction.counterpart([0, 1])
    taken = left.prediction.change(0) + (0 if method == "vagan" else right.prediction.change(1))  # VA-GAN's is one
    np.testing.assert_allclose(both, np.clip(pixels - taken, 0, 1), atol=1e-6)
    summary = tag_files(tagger, [squares.records[0].path], tmp_path / "tags", save_for="all")
    assert summary.ok
    with PIL.Image.open(tmp_path / "tags" / "counterparts" / "00.png") as counterpart:
        assert counterpart.size == (72, 64)
        assert counterpart.mode.startswith("I;16")


def test_validation_images_move_no_weight(runs, squares, tmp_path):
    """They are looked at, scored and drawn, and train nothing: not even BatchNorm's statistics."""
    records = []
    for i, one in enumerate(squares.records):
        path = one.path
        if one.split == "val":
            path = tmp_path / path.name
            noise = np.random.default_rng(i).integers(0, 256, (64, 72))
            PIL.Image.fromarray(noise.astype(np.uint8)).save(path)
        records.append(replace(one, path=path))
    for method in ("taggan", "vagan"):
        other = quietly(replace(squares, records=tuple(records)), tmp_path / method, method)
        assert (other.path / "weights.safetensors").read_bytes() == (
            runs[method].path / "weights.safetensors"
        ).read_bytes()
        assert history(other.path) != history(runs[method].path)


def test_the_kept_weights_are_the_running_average(squares, tmp_path, monkeypatch):
    """Of what tags, after every step; by hand from the weights after each."""
    after: list[dict[str, torch.Tensor]] = []
    play = adversarial.play

    def noted(game, *given):
        if not after:
            after.append({name: value.clone() for name, value in game.localiser.state_dict().items()})
        play(game, *given)
        after.append({name: value.clone() for name, value in game.localiser.state_dict().items()})

    monkeypatch.setattr(adversarial, "play", noted)
    kept = load_file(quietly(squares, tmp_path / "run", ema=0.3).path / "weights.safetensors")
    assert len(after) == 5
    by_hand = after[0]
    for step, now in enumerate(after[1:]):
        decay_ = min(0.3, (1 + step) / (10 + step))  # a young average forgets faster
        by_hand = {name: decay_ * by_hand[name].float() + (1 - decay_) * now[name].float() for name in now}
    assert kept.keys() == by_hand.keys()
    for name, value in kept.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, by_hand[name], rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(value, after[-1][name]) for name, value in kept.items())


def test_findings_can_be_chosen(squares, tmp_path):
    run = train(settings(), squares, tmp_path / "run", findings=["right"], console=Console(quiet=True))
    assert run.findings == ("right",)
    # Those with the other finding alone are on no side: they are not healthy.
    healthy = sum(one.labels == (0.0, 0.0) for one in squares.only("train").records)
    assert run.card["data"]["train_images"] == healthy + run.card["data"]["train_positives"]["right"]


def test_signs_given_by_name_are_the_runs_own(squares, tmp_path):
    named = quietly(squares, tmp_path / "run", options={"sign": {"right": "removes"}, "whole": {"left": True}})
    assert named.resolved_options["sign"] == ["either", "removes"]
    assert named.resolved_options["whole"] == [True, False]
    image = Image(np.random.default_rng(0).random((32, 32)).astype(np.float32), "a.png")
    (prediction,) = Tagger(named, device="cpu").predict([image])
    left, right = prediction.layers[0].changes
    assert left.max() > 0
    assert right.min() < 0
    assert right.max() <= 0
    spelled = {"sign": ["either", "removes"], "whole": [True, False]}
    again = quietly(squares, tmp_path / "run", options=spelled)  # the same, spelled out
    assert again.card == named.card
    with pytest.raises(BadSetting, match=r"options\.sign names 'middle'; the findings are left, right"):
        quietly(squares, tmp_path / "other", options={"sign": {"middle": "adds"}})


@pytest.mark.parametrize("method", METHODS)
def test_bf16_stays_finite_on_a_cpu(runs, squares, tmp_path, method):
    run = quietly(squares, tmp_path / "run", method, mixed_precision="bf16")
    losses, full = (
        [{name: value for name, value in row.items() if " " in name} for row in history(one.path)]
        for one in (run, runs[method])
    )
    assert all(math.isfinite(value) for row in losses for value in row.values())
    assert losses != full  # bf16 was in force
    # A Wasserstein critic is free to add a constant to all it says: the mean of one side means nothing by itself.
    free = {"generator normal"} if method == "vagan" else set()
    first, first_full = ({name: row[0][name] for name in row[0] if name not in free} for row in (losses, full))
    assert first == pytest.approx(first_full, rel=0.3, abs=0.1)
    weights = load_file(run.path / "weights.safetensors")
    assert all(value.isfinite().all() and value.dtype != torch.bfloat16 for value in weights.values())


# Killed, and shared by two processes ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(squares: Dataset, tmp_path_factory: pytest.TempPathFactory):
    """The folder of the runs, and how each process ended."""
    out = tmp_path_factory.mktemp("interrupted")

    def dumped(*arguments: Any, **changes: Any) -> dict[str, Any]:
        return settings(*arguments, **changes).model_dump(mode="json")

    job = {
        "records": [
            {"image": one.image, "path": str(one.path), "labels": list(one.labels), "split": one.split}
            for one in squares.records
        ],
        "findings": squares.findings,
        "out": str(out),
        # A look, which is a place to go on from, is every second step. Guided: 4 turns of warm-up, then 2 a step, of
        # which the third and the seventh have no look behind them.
        "killed": {
            "guided": [dumped("guided", options={"pool": 6}), [1, 3, 4, 3]],
            "vagan": [dumped("vagan", look_every=1, options={"first_critic_steps": 1}), [3, 2]],
        },
        # Of the hinge, the gradients of the critic's last bias cancel out, and Adam takes their rounding for a sign.
        "shared": {"taggan": dumped("taggan", options={"rule": "lsgan"})},
    }
    (out / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interrupted_games.py")), str(out / "job.json")],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("method", ["guided", "vagan"])
def test_killed_in_warm_up_and_game_it_ends_with_the_same_bits(interrupted, method):
    out, codes = interrupted
    *kills, gone_on, whole = codes[method]
    assert kills == [-signal.SIGKILL] * len(kills)
    assert (gone_on, whole) == (0, 0)
    killed, one = out / f"{method}-killed", out / f"{method}-whole"
    assert (killed / "weights.safetensors").read_bytes() == (one / "weights.safetensors").read_bytes()
    assert (killed / "run.toml").read_text() == (one / "run.toml").read_text()
    assert history(killed) == history(one)
    strips = sorted(file.name for file in (one / "strips").iterdir())
    assert sorted(file.name for file in (killed / "strips").iterdir()) == strips
    for name in strips:
        assert (killed / "strips" / name).read_bytes() == (one / "strips" / name).read_bytes()
    assert not (killed / "resume.pt").exists()
    assert not list(killed.rglob("*.tmp"))


def test_two_processes_follow_one(interrupted):
    """The same losses, where noise is left out (see interrupted_games.py)."""
    out, _ = interrupted
    one, two = history(out / "taggan-one"), history(out / "taggan-two")
    assert [row["step"] for row in two] == [2, 4]
    for row, other in zip(one, two, strict=True):
        assert row.keys() == other.keys()
        for name in (name for name in row if " " in name):
            assert row[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), name
    assert json.loads((out / "taggan-two" / "card.json").read_text())["hardware"].startswith("2 process")
    first, second = (load_file(out / f"taggan-{name}" / "weights.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-2, atol=1e-3)


def test_several_data_sets_make_one_model(squares, tmp_path):
    """A set with a finding called normal, one whose every finding is 0, and an image that cannot be read."""
    broken = tmp_path / "broken.png"
    broken.write_text("not a picture")
    left = replace(squares, name="left", findings=("left", "other")).only("train", "val")
    copies = [tmp_path / one.image for one in squares.records]
    for one, copy in zip(squares.records, copies, strict=True):
        shutil.copyfile(one.path, copy)
    records = [
        replace(one, path=path, labels=(float(one.labels[1] == 1), float(one.labels == (0.0, 0.0))))
        for one, path in zip(squares.records, copies, strict=True)
    ]
    records[0] = replace(records[0], path=broken)
    right = Dataset("right", ("right", "Normal"), tuple(records))
    names = ["right", "left"]
    run = train(settings(), left, tmp_path / "run", also=[right], findings=names, console=Console(quiet=True))
    assert run.findings == ("right", "left")
    assert run.card["trained_on"] == "left + right"
    assert any(note.startswith("training images: left, ") for note in run.card["data"]["notes"])
    assert len(run.card["data"]["unreadable"]) == 1
    assert set(run.card["validation"]["auroc"]) == {"left", "right"}
    again = train(settings(), left, tmp_path / "run", also=[right], findings=names, console=Console(quiet=True))
    assert again == run
    with pytest.raises(BadRun, match=r"holds a finished run with other data"):
        train(settings(), right, tmp_path / "run", also=[left], findings=names, console=Console(quiet=True))


# Going on, and refusing to --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [1, 3])
def test_an_unfinished_run_goes_on_with_its_own_settings_and_data_alone(squares, runs, tmp_path, stopped, looks):
    out = tmp_path / "run"
    with stopped(looks, adversarial):
        quietly(squares, out)
    with pytest.raises(BadRun, match=r"training has not ended\. Run the same train command again to go on\.$"):
        Run.load(out)
    with pytest.raises(BadRun, match=r"was begun with other settings \(steps was 4, now 5\)\. Give another --out, or"):
        quietly(squares, out, steps=5)
    with pytest.raises(BadRun, match=r"other settings \(options\.warm_up was 4, now 6\)"):
        quietly(squares, out, options={"warm_up": 6})
    fewer = replace(squares, records=squares.records[1:])
    with pytest.raises(BadRun, match=r"was begun with other data \(images, labels, findings or splits\)"):
        quietly(fewer, out)
    said = io.StringIO()
    run = train(settings(), squares, out, console=Console(file=said, width=200))
    assert f"going on after step {0 if looks == 1 else 2} of 4" in said.getvalue()
    assert (run.path / "weights.safetensors").read_bytes() == (runs["taggan"].path / "weights.safetensors").read_bytes()


def test_a_finished_run_is_returned_untouched_and_no_other(runs, squares):
    run = runs["vagan"]
    before = {file.name: file.stat().st_mtime_ns for file in run.path.iterdir()}
    assert quietly(squares, run.path, "vagan") == run
    assert {file.name: file.stat().st_mtime_ns for file in run.path.iterdir()} == before
    with pytest.raises(BadRun, match=r"holds a finished run with other settings \(seed was 0, now 1\)\. Give another"):
        quietly(squares, run.path, "vagan", seed=1)
    with pytest.raises(BadRun, match=r"holds a finished run with other settings \(.*method was vagan, now taggan"):
        quietly(squares, run.path, "taggan")


def test_validation_images_are_looked_at_once_a_look_and_losses_are_read_rarely(
    squares, tmp_path, monkeypatch, stopped
):
    looks, told = [], []
    predict, describe = adversarial.predict_maps, adversarial.State.described
    monkeypatch.setattr(adversarial, "predict_maps", lambda *given: looks.append(1) or predict(*given))
    monkeypatch.setattr(adversarial.State, "described", lambda self: told.append(self.step) or describe(self))
    monkeypatch.setattr(adversarial, "DESCRIBED_EVERY", 3)
    quietly(squares, tmp_path / "whole")
    assert len(looks) == 2  # after steps 2 and 4, and not again at the end
    assert told == [3]
    with stopped(3, adversarial):
        quietly(squares, tmp_path / "stopped")
    looks.clear()
    quietly(squares, tmp_path / "stopped")
    assert len(looks) == 1  # of the last look there is nothing left


def test_of_maps_that_do_not_fit_into_memory_some_are_kept(runs, squares, tmp_path, monkeypatch):
    a_map = 2 * 32 * 32 * 2  # of two findings, float16
    monkeypatch.setattr(loop, "MOST_MAP_BYTES", 3 * a_map)
    held = []
    predict = adversarial.predict_maps
    monkeypatch.setattr(adversarial, "predict_maps", lambda *given: held.append(predict(*given)) or held[-1])
    run = quietly(squares, tmp_path / "run")
    assert [one.maps.shape for one in held] == [(3, 2, 32, 32)] * 2
    assert history(run.path) == history(runs["taggan"].path)  # looks are at all images
    for name in ("score_slope", "score_bias", "score_threshold"):
        assert getattr(run.calibration, name) == getattr(runs["taggan"].calibration, name)
    assert any("as many as fit into memory" in limit for limit in run.card["limits"])


@pytest.mark.parametrize(("method", "kind", "warm_up"), [("taggan", TagGan, 0), ("guided", Guided, 2)])
def test_a_game_begins_once(squares, tmp_path, monkeypatch, stopped, method, kind, warm_up):
    """With a warm-up or without; the guide is the critic as it is then."""
    begun = []
    begin = kind.begin

    def counted(self):
        begin(self)
        begun.append({name: value.clone() for name, value in self.critic.state_dict().items()})

    monkeypatch.setattr(kind, "begin", counted)
    with stopped(2, adversarial):
        quietly(squares, tmp_path / "run", method, options={"warm_up": warm_up})
    run = quietly(squares, tmp_path / "run", method, options={"warm_up": warm_up})
    assert len(begun) == 1
    weights = load_file(run.path / "weights.safetensors")
    guide = {name.split("guide.", 1)[1]: value for name, value in weights.items() if "guide." in name}
    assert guide.keys() == (begun[0].keys() if method == "guided" else set())
    assert all(torch.equal(value, begun[0][name]) for name, value in guide.items())


def test_data_that_cannot_be_trained_on_is_refused(squares, tmp_path):
    ill = replace(squares, records=tuple(one for one in squares.records if 1.0 in one.labels))
    with pytest.raises(BadData, match=r"none of its \d+ images is known to be healthy"):
        quietly(ill, tmp_path / "a")
    of_val = tuple(one for one in squares.records if one.split == "train" or 1.0 in one.labels)
    with pytest.raises(BadData, match=r"no healthy image is in the val split\. Add some, or give --splits\.$"):
        quietly(replace(squares, records=of_val), tmp_path / "b")
    never = tuple(one for one in squares.records if one.split == "val" or one.labels[1] != 1)
    with pytest.raises(BadData, match=r"no training image has 'right'\. Leave it out with --finding\.$"):
        quietly(replace(squares, records=never), tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_a_side_that_cannot_be_read_is_refused(squares, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("not a picture")

    def without(split: str, unreadable) -> Dataset:
        records = tuple(
            replace(one, path=broken) if one.split == split and unreadable(one.labels) else one
            for one in squares.records
        )
        return replace(squares, records=records)

    advice = r"can be read\. Restore the files; radtag data check names them\.$"
    with pytest.raises(BadData, match=rf"no healthy image of the val split {advice}"):
        quietly(without("val", lambda labels: 1.0 not in labels), tmp_path / "a")
    with pytest.raises(BadData, match=rf"no ill image of the val split {advice}"):
        quietly(without("val", lambda labels: 1.0 in labels), tmp_path / "b")
    with pytest.raises(BadData, match=rf"no training image that has 'right' {advice}"):
        quietly(without("train", lambda labels: labels[1] == 1), tmp_path / "c")
    # One unreadable image is left out and named.
    first = next(one.image for one in squares.records if one.labels == (1.0, 1.0))
    records = tuple(replace(one, path=broken) if one.image == first else one for one in squares.records)
    run = quietly(replace(squares, records=records), tmp_path / "d")
    assert len(run.card["data"]["unreadable"]) == 1


def test_a_finding_may_be_missing_in_validation(squares, tmp_path):
    records = tuple(one for one in squares.records if one.split == "train" or one.labels[1] != 1)
    run = quietly(replace(squares, records=records), tmp_path / "run")
    assert run.card["validation"]["auroc"]["right"] is None
    assert any(note.startswith("right: 0 positive") for note in run.calibration.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lr": 1e30},
            r"^the loss '(critic|generator) .*' is (nan|inf|-inf) by step 2\. Lower lr \(now 1e\+30\), or set",
        ),
        ({"warm_up_lr": 1e30}, r"^the loss 'warm-up labels' is (nan|inf) by step 2\. Lower warm_up_lr \(now 1e\+30\)"),
        (
            {"lr": 1e30, "look_every": 1},
            r"^(a map is not finite|the loss .* is \S+) by step \d\. Lower lr \(now 1e\+30\)",
        ),
    ],
)
def test_a_loss_that_is_not_finite_stops_with_advice(squares, tmp_path, changes, message):
    with pytest.raises(BadSetting, match=message):
        quietly(squares, tmp_path / "run", **changes)
    assert not (tmp_path / "run" / "run.toml").exists()


def test_a_batch_is_divided_among_processes_or_refused(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(adversarial.Accelerator, "num_processes", property(lambda self: 3))
    with pytest.raises(BadSetting, match=r"^batch_size = 4 does not divide among 3 processes\. Choose a multiple\.$"):
        quietly(squares, tmp_path / "run")
    with pytest.raises(BadSetting, match=r"^warm_up_batch_size = 16 does not divide among 3 processes\."):
        quietly(squares, tmp_path / "run", batch_size=6)


# Batches --------------------------------------------------------------------------------------------------------------


def some_batches(rank: int = 0, world: int = 1, **changes: Any) -> tuple[Batches, torch.Tensor]:
    """Of 100 images, each of one gray value, its number: 60 have "a", 3 have "b", 1 both, of 6 "b" is unknown."""
    labels = torch.zeros(100, 2)
    labels[:60, 0] = 1
    labels[59:63, 1] = 1
    labels[10:16, 1] = NAN
    pixels = np.arange(100, dtype=np.uint8)[:, None, None].repeat(32, 1).repeat(32, 2)
    given = {"batch_size": 8, "augment": STILL, **changes}
    return Batches(pixels, labels, settings(**given), rank, world, torch.device("cpu")), labels


def numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 16, 16] * 255).round().int().tolist()


def test_images_are_drawn_by_finding():
    batches, labels = some_batches()
    ill, healthy, asked, had = [], [], [], []
    for step in range(100):
        batch = batches.draw(step, turn=0)
        assert batch.ill.shape == batch.healthy.shape == (8, 32, 32)
        ill += numbers(batch.ill)
        healthy += numbers(batch.healthy)
        assert torch.equal(batch.labels, (labels[numbers(batch.ill)] == 1).float())
        assert sorted(batch.asked.tolist()) == sorted(batch.labels.tolist())
        asked.append(batch.asked)
        had.append(batch.labels)
    assert set(healthy) == set(range(63, 100))
    counts = np.bincount(ill, minlength=100)
    assert counts[63:].sum() == 0
    # Half of the draws are for "b", each of whose 4 images comes as often; one of them has "a" too.
    assert counts[60:63].sum() == pytest.approx(800 * 3 / 8, rel=0.15)
    assert counts[59] == pytest.approx(800 * (1 / 8 + 1 / 120), rel=0.25)
    assert len(np.unique(ill)) > 60
    assert not torch.equal(torch.cat(asked), torch.cat(had))  # what is painted does not follow the image beside it


def from_three_sources(**changes: Any) -> Batches:
    """The same images: of every ten, 7 from one source; the fourth part of "b" is from one without healthy images."""
    _, labels = some_batches()
    labels[:, 1] = labels[:, 1].where(torch.arange(100) < 63, NAN)
    sources = ["c" if i in (60, 61) else "a" if i % 10 < 7 else "b" for i in range(100)]
    pixels = np.arange(100, dtype=np.uint8)[:, None, None].repeat(32, 1).repeat(32, 2)
    given = settings(batch_size=8, augment=STILL, **changes)
    return Batches(pixels, labels, given, 0, 1, torch.device("cpu"), sources)


def test_healthy_images_are_of_the_sources_of_the_ill_ones():
    batches = from_three_sources()

    def source(number: int) -> str:
        return "c" if number in (60, 61) else "a" if number % 10 < 7 else "b"

    beside_c, of_a = [], 0
    for step in range(100):
        batch = batches.draw(step, turn=0)
        for at, (ill, healthy) in enumerate(zip(numbers(batch.ill), numbers(batch.healthy), strict=True)):
            if source(ill) == "c":
                beside_c.append(source(healthy))
            else:
                assert source(healthy) == source(ill), at
            of_a += source(ill) == "a"
        for one in "abc":  # the findings that are asked for are those of the same source
            at = torch.tensor([source(number) == one for number in numbers(batch.ill)])
            assert sorted(batch.asked[at].tolist()) == sorted(batch.labels[at].tolist())
    assert set(beside_c) == {"a", "b"}  # which has no healthy ones
    # "a" by itself: 43 of the 60 with the first finding, 1 (number 62) of the 4 with the second.
    assert of_a == pytest.approx(800 * (42 / 60 + 1 / 4) / 2, rel=0.15)


def test_what_a_source_does_not_name_is_absent_in_its_ill_images_and_what_it_does_is_unknown():
    labels = torch.tensor([[1.0, NAN], [1.0, NAN], [1.0, NAN], [1.0, 1.0], [0.0, 0.0]])
    pixels = np.zeros((5, 32, 32), np.uint8)
    pixels += np.arange(5, dtype=np.uint8)[:, None, None]
    batches = Batches(pixels, labels, settings(augment=STILL), 0, 1, torch.device("cpu"), ["a", "a", "b", "b", "b"])
    seen = {}
    for step in range(20):
        batch = batches.draw(step, turn=0)
        seen |= dict(zip(numbers(batch.ill), batch.known.tolist(), strict=True))
    assert seen == {0: [1, 1], 1: [1, 1], 2: [1, 0], 3: [1, 1]}


def test_a_draw_is_the_same_whenever_and_by_however_many_processes():
    augmented = {"augment": {"rotate_p": 1.0, "tone_p": 1.0}}
    whole, _ = some_batches(**augmented)
    first = whole.draw(7, turn=2)
    whole.draw(8, turn=0)
    again = whole.draw(7, turn=2)
    shares = [some_batches(rank, 2, **augmented)[0].draw(7, turn=2) for rank in range(2)]
    for name, value in first._asdict().items():
        assert torch.equal(getattr(again, name), value)
        torch.testing.assert_close(torch.cat([getattr(one, name) for one in shares]), value)
    assert shares[0].ill.shape == (4, 32, 32)
    for other in (whole.draw(7, turn=1), whole.draw(6, turn=2), some_batches(**augmented, seed=1)[0].draw(7, turn=2)):
        assert not torch.equal(other.ill, first.ill)


def test_noise_is_each_process_own_and_of_the_step_alone():
    def noise(rank: int, step: int) -> list[float]:
        some_batches(rank, 2)[0].draw(step, turn=0)
        return torch.randn(3).tolist()

    assert noise(0, 5) == noise(0, 5)
    assert noise(0, 5) != noise(1, 5)
    assert noise(0, 5) != noise(0, 6)


def test_validation_images_are_shown_as_they_are_each_finding_in_turn():
    batches, labels = some_batches(augment={"rotate_p": 1.0})
    pixels = np.arange(100, dtype=np.uint8)[:, None, None].repeat(32, 1).repeat(32, 2)
    batch = batches.of_validation(pixels, labels, count=6)
    assert numbers(batch.ill) == [0, 59, 1, 60, 2, 61]
    assert numbers(batch.healthy) == [63, 64, 65, 66, 67, 68]
    assert torch.equal(batch.labels, (labels[numbers(batch.ill)] == 1).float())
    assert (batch.ill[1] == 59 / 255).all()
    only_b = labels[60:64]  # three of "b" and a healthy one
    batch = batches.of_validation(pixels[60:64], only_b, count=5)
    assert numbers(batch.ill) == [60, 61, 62, 60, 61]
    assert numbers(batch.healthy) == [63] * 5


# What is said of a run ------------------------------------------------------------------------------------------------


def test_what_validation_images_say_by_hand():
    labels = torch.tensor([[1.0, NAN], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    logits = np.array([[2.0, 0.0], [-1.0, 5.0], [0.0, 1.0], [-2.0, 2.0]], np.float32)
    maps = np.zeros((4, 2, 2, 3), np.float16)
    maps[0, 0], maps[0, 1], maps[1, 0, 0, 0], maps[1, 1], maps[2, 0], maps[3, 1] = 0.5, 0.9, 0.75, 0.25, 0.125, 0.0625
    row = judge(logits, maps.mean(axis=(2, 3), dtype=np.float32), labels, ("a", "b"))
    assert row["val_auroc_of"] == {"a": 0.75, "b": 1.0}
    assert row["val_auroc"] == 0.875
    assert row["map_of_ill"] == pytest.approx((0.5 + 0.75 / 6 + 0.25) / 3, abs=1e-4)
    assert row["map_of_healthy"] == pytest.approx((0.125 + 0 + 0 + 0.0625) / 4, abs=1e-4)


def test_maps_that_say_nothing_are_told():
    of_taggan, of_vagan = (all_options(method, {}) for method in ("taggan", "vagan"))
    assert collapse({"map_of_ill": 0.02, "map_of_healthy": 0.002}, of_taggan) == ""
    empty, everywhere = {"map_of_ill": 0.00005, "map_of_healthy": 0.0}, {"map_of_ill": 0.02, "map_of_healthy": 0.019}
    start = "the map is empty (mean |map| of ill images 5.0e-05). Lower options.sparsity"
    assert collapse(empty, of_taggan) == (f"{start} or options.identity, or lengthen options.ramp or options.warm_up.")
    assert collapse(empty, of_vagan) == f"{start}."  # it has no more of these
    start = "the map is as strong on healthy images as on ill ones (mean |map| 1.9e-02 and 2.0e-02). Train on"
    assert collapse(everywhere, of_taggan) == f"{start}, or raise options.identity or options.warm_up."
    assert collapse(everywhere, of_vagan) == f"{start}."


def test_what_is_wrong_with_the_maps_is_said_at_looks_at_the_end_and_in_the_card(squares, tmp_path):
    said = io.StringIO()
    # Gates that are shut: nothing is taken.
    run = train(
        settings(options={"gate_bias": -40.0}), squares, tmp_path / "run", console=Console(file=said, width=400)
    )
    assert "step 2: the map is empty (mean |map| of ill images" in said.getvalue()
    assert "warning: the map is empty" in said.getvalue()
    assert any(one.startswith("the map is empty") for one in run.card["warnings"])


def test_the_rate_falls_in_a_line_from_its_share():
    assert [decay(done, 0.5) for done in (0.0, 0.49, 0.5, 0.75, 1.0)] == pytest.approx([1, 1, 1, 0.5, 0])
    assert [decay(done, 1.0) for done in (0.0, 0.99)] == [1, 1]
    assert [decay(done, 0.0) for done in (0.0, 0.25)] == [1, 0.75]


def test_images_replaced_by_others_of_their_names_are_noticed(squares, tmp_path, stopped):
    first, *rest = squares.records
    path = tmp_path / "first.png"
    shutil.copyfile(first.path, path)
    own = replace(squares, records=(replace(first, path=path), *rest))
    with stopped(1, adversarial):
        quietly(own, tmp_path / "run")
    path.write_bytes(rest[0].path.read_bytes())
    with pytest.raises(BadRun, match=r"begun with other images: files of the same names have changed since\. Give"):
        quietly(own, tmp_path / "run")
