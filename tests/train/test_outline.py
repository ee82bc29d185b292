"""Runs that are shown the lungs alone, which another run outlines: trained, stopped, moved and tagged with."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from rich.console import Console
from torch import nn

from radtag.data.cache import ReadablePixels
from radtag.data.prepare import lung_field, prepare
from radtag.data.table import PROPOSED, Dataset, Record
from radtag.errors import BadRun, BadSetting
from radtag.geometry import Frame
from radtag.images import read
from radtag.models import Output
from radtag.tag import Tagger
from radtag.train import adversarial, classify, log, loop, segment
from radtag.train.outline import Outliner, keep_lungs, lungs_of, run_digest
from radtag.train.run import Run
from radtag.train.settings import AdversarialSettings, Settings, StudentSettings, TrainSettings, settings_from

STILL = {"rotate_deg": 0, "flip_p": 0, "area": [0.9, 1.0], "brightness": 0, "contrast": 0}
TINY: dict[str, dict[str, Any]] = {
    "cam": {"size_px": 64, "batch_size": 8, "epochs": 1, "lr": 1e-3},
    "taggan": {"size_px": 32, "batch_size": 4, "steps": 2, "look_every": 2, "options": {"warm_up": 1}},
    "student": {"size_px": 64, "batch_size": 8, "epochs": 1, "lr": 5e-3, "augment": STILL},
}


def settings(method: str, **changes: Any) -> Settings:
    given = {"backbone": {"name": "test_resnet", "weights": "none"}, **TINY[method], **changes}
    return settings_from("small" if method == "taggan" else None, method=method, **given)


def quietly(dataset: Dataset, out: Path, method: str = "cam", **changes: Any) -> Run:
    asked, console = settings(method, **changes), Console(quiet=True)
    if isinstance(asked, AdversarialSettings):
        return adversarial.train(asked, dataset, out, console=console)
    if isinstance(asked, StudentSettings):
        return segment.train(asked, dataset, out, console=console)
    assert isinstance(asked, TrainSettings)
    return classify.train(asked, dataset, out, console=console)


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """24 training and 12 validation images of 64 x 72 pixels: two dark lungs, a spot in one, and its letter beside."""
    folder, random, records = tmp_path_factory.mktemp("chests"), np.random.default_rng(0), []
    for i in range(36):
        pixels = random.integers(150, 180, (64, 72))
        lungs = np.zeros(pixels.shape, bool)
        row, col = (int(value) for value in random.integers(-3, 4, 2))
        for first in (12, 40):
            lungs[16 + row : 52 + row, first + col : first + 20 + col] = True
        pixels[lungs] -= 130
        spot = np.zeros(pixels.shape, bool)
        if i % 2:
            down, across = (int(value) for value in random.integers(0, 8, 2))
            spot[20 + row + down : 34 + row + down, 14 + col + across // 2 : 26 + col + across // 2] = True
            pixels[spot] += 100
            pixels[2:8, 2:10] = 255
        files = {name: folder / f"{i:02}{name}.png" for name in ("", "-lungs", "-spot")}
        for array, file in zip((pixels.astype(np.uint8), lungs, spot), files.values(), strict=True):
            PIL.Image.fromarray(array).save(file)
        records.append(
            Record(
                f"{i:02}.png", files[""], (float(i % 2),), split="train" if i < 24 else "val",
                lungs=files["-lungs"], masks={"spot": files["-spot"]} if i % 2 else {},
                attributes={"masks": f"{PROPOSED} run (0123)"},
            )
        )  # fmt: skip
    return Dataset("chests", ("spot",), tuple(records))


@pytest.fixture(scope="module")
def outlining(chests: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned to outline the lungs of these images."""
    out = tmp_path_factory.mktemp("outlining") / "outlining"
    run = quietly(chests.with_findings(["lungs"]), out, "student", epochs=8, ema=0.8)
    record = chests.records[-1]
    assert record.lungs is not None
    found, truth = Outliner(run, "lungs")(read(record.path)), np.asarray(PIL.Image.open(record.lungs))
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.85
    return out


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch):
    """They take longer than such small trainings."""
    for name in ("draw_adversarial_curves", "draw_curves"):
        monkeypatch.setattr(log, name, lambda *_: None)


def copied(run: Path, place: Path) -> Path:
    return Path(shutil.copytree(run, place))


def other_than(run: Path, place: Path) -> Path:
    """A run of other contents."""
    file = copied(run, place) / "run.toml"
    text = file.read_text()
    file.write_text(text.replace("seed = 0", "seed = 1"))
    assert file.read_text() != text
    return place


# What outlines -------------------------------------------------------------------------------------------------------


def test_a_finding_is_outlined_by_a_run_that_knows_it(outlining, chests):
    run, image = Run.load(outlining), read(chests.records[0].path)
    outline = Outliner(run, "lungs")
    (lungs,) = Tagger(run, device="cpu").tag(image)
    assert lungs.mask.any()
    np.testing.assert_array_equal(outline(image), lungs.mask)
    assert re.fullmatch(r"outlining \([0-9a-f]{12}\)", outline.name)
    assert outline.digest == run_digest(outlining)
    with pytest.raises(BadSetting) as caught:
        Outliner(outlining, "heart")
    assert str(caught.value) == f"{outlining} does not know the finding 'heart'; it knows lungs."


def test_a_run_is_another_with_other_lungs(outlining, tmp_path):
    run = copied(outlining, tmp_path / "run")
    alone = run_digest(run)
    (run / "lungs").mkdir()  # whatever somebody keeps there
    assert run_digest(run) == alone
    shutil.rmtree(run / "lungs")
    text = (run / "run.toml").read_text()
    (run / "run.toml").write_text(text.replace("seed = 0", 'seed = 0\nlungs = "outlining"'))
    copied(outlining, run / "lungs")
    confined = run_digest(run)
    shutil.rmtree(run / "lungs")
    other_than(outlining, run / "lungs")
    assert len({alone, confined, run_digest(run)}) == 3


def test_the_lungs_that_are_kept_are_those_trained_with(outlining, tmp_path):
    """Also where a training was stopped, with others, before there was anything to go on from."""
    out, other = tmp_path / "run", other_than(outlining, tmp_path / "other")
    for lungs in (other, outlining):
        keep_lungs(out, settings("cam", lungs=str(lungs)))
        assert run_digest(out / "lungs") == run_digest(lungs)
    (out / "lungs" / "notes.txt").write_text("mine")
    for lungs in (out / "lungs", outlining):  # that very folder, and the same run elsewhere
        keep_lungs(out, settings("cam", lungs=str(lungs)))
        assert (out / "lungs" / "notes.txt").read_text() == "mine"
    keep_lungs(tmp_path / "plain", settings("cam"))
    assert not (tmp_path / "plain").exists()
    assert [file.name for file in out.iterdir()] == ["lungs"]


class Everywhere(nn.Module):
    """Sees the finding wherever it looks; with ``changes``, it takes something away there."""

    def __init__(self, *, changes: bool = False, cells: int = 2) -> None:
        super().__init__()
        self.changes, self.cells = changes, cells

    def forward(self, images: torch.Tensor) -> Output:
        maps = torch.full((len(images), 1, self.cells, self.cells), 3.0)
        return Output(maps.amax(dim=(2, 3)), maps, maps if self.changes else None)


@pytest.mark.parametrize(("changes", "nothing"), [(False, -16.0), (True, 0.0)])
def test_validation_maps_say_nothing_where_all_is_black(changes, nothing):
    pixels = np.zeros((2, 8, 12), np.uint8)
    pixels[0, 1, 2] = 2
    whole = Frame.stretch((40, 60), (8, 12))
    frames = (Frame.stretch((20, 30), (8, 12)).of_whole((40, 60), (0, 0)), whole)  # no lungs were found in the second
    kept, accelerator = ReadablePixels(pixels, np.arange(2), frames), loop.start_accelerator("no")
    model, labels = Everywhere(changes=changes, cells=4), torch.tensor([[0.0], [1.0]])
    maps = loop.predict_maps(model, kept, labels, settings("cam", lungs="any"), 0.5, 0.5, accelerator).maps[:, 0]
    # A cell beside one that sees something may look there.
    assert maps[0].tolist() == [[3, 3, nothing, nothing]] * 2 + [[nothing] * 4] * 2
    assert (maps[1] == 3).all()
    unconfined = loop.predict_maps(model, pixels, labels, settings("cam"), 0.5, 0.5, accelerator)
    assert (unconfined.maps == 3).all()


# Trained and tagged with ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cam", "taggan", "student"])
def test_a_run_takes_its_lungs_along(outlining, chests, tmp_path, method):
    lungs = copied(outlining, tmp_path / "lungs")
    quietly(chests, tmp_path / "run", method, lungs=str(lungs))
    before = run_digest(tmp_path / "run")
    shutil.rmtree(lungs)
    (tmp_path / "elsewhere").mkdir()
    run = Run.load((tmp_path / "run").rename(tmp_path / "elsewhere" / "moved"))
    assert run_digest(run.path) == before
    outline = lungs_of(run, Tagger(run, device="cpu").device)
    assert outline is not None
    assert outline.digest == run_digest(outlining)
    record = chests.records[-1]
    image = read(record.path)
    field = lung_field(image, outline)
    assert field is not None
    assert not field.seen[:9, :11].any()  # the letter
    tagger = Tagger(run, device="cpu", min_area_px=0)
    ((square, frame),) = tagger.prepare(image).inputs
    shown, way = prepare(image, run.size_px, "stretch", field.seen)
    np.testing.assert_array_equal(square, shown)
    assert frame == way
    (spot,) = tagger.tag(image)
    assert (spot.map[~field.lungs] == 0).all()
    assert spot.map[field.lungs].any()
    assert not (spot.mask & ~field.lungs).any()
    if method == "taggan":
        np.testing.assert_array_equal(spot.counterpart[~field.lungs], image.pixels[~field.lungs])


def test_a_student_learns_from_masks_where_its_lungs_are_shown(outlining, chests, tmp_path):
    run = quietly(chests, tmp_path / "run", "student", lungs=str(outlining), epochs=6, ema=0.8)
    overlaps = []
    for record in chests.records[-12:]:
        if record.masks:
            (tag,) = Tagger(run, device="cpu").tag(record.path)
            truth = np.asarray(PIL.Image.open(record.masks["spot"]))
            overlaps.append(2 * (tag.mask & truth).sum() / (tag.mask.sum() + truth.sum()))
    assert np.mean(overlaps) > 0.6


def test_a_run_without_its_lungs_is_refused(outlining, chests, tmp_path):
    run = quietly(chests, tmp_path / "run", lungs=str(outlining))
    shutil.rmtree(run.path / "lungs")
    with pytest.raises(BadRun, match=r"is shown the lungs alone, and its folder lacks lungs/.* \(it was .*outlining\)"):
        Tagger(run, device="cpu")


# Going on, and refusing to -------------------------------------------------------------------------------------------


def test_a_finished_run_is_the_same_wherever_its_lungs_lie_and_another_with_others(outlining, chests, tmp_path):
    out = tmp_path / "run"
    run = quietly(chests, out, lungs=str(outlining))
    before = (out / "run.toml").stat().st_mtime_ns
    assert quietly(chests, out, lungs=str(copied(outlining, tmp_path / "elsewhere"))) == run
    assert (out / "run.toml").stat().st_mtime_ns == before
    other = other_than(outlining, tmp_path / "other")
    was, now = run_digest(outlining), run_digest(other)
    with pytest.raises(BadRun) as caught:
        quietly(chests, out, lungs=str(other))
    assert str(caught.value) == (
        f"{out} holds a finished run with other settings (lungs was {was}, now {now}). Give another --out."
    )
    with pytest.raises(BadRun, match=rf"finished run with other settings \(lungs was {was}, now not given\)\. Give"):
        quietly(chests, out)
    plain = quietly(chests, tmp_path / "plain")
    with pytest.raises(BadRun, match=rf"finished run with other settings \(lungs was not given, now {now}\)\. Give"):
        quietly(chests, plain.path, lungs=str(other))


def test_an_unfinished_run_goes_on_with_its_own_lungs_alone(outlining, chests, tmp_path, stopped):
    out = tmp_path / "run"
    with stopped():
        quietly(chests, out, lungs=str(outlining), epochs=2)
    other = other_than(outlining, tmp_path / "other")
    with pytest.raises(BadRun, match=rf"begun with other settings \(lungs was {run_digest(outlining)}, now \w{{64}}\)"):
        quietly(chests, out, lungs=str(other), epochs=2)
    moved = copied(outlining, tmp_path / "moved")
    resumed = quietly(chests, out, lungs=str(moved), epochs=2)
    whole = quietly(chests, tmp_path / "whole", lungs=str(outlining), epochs=2)
    assert (resumed.path / "weights.safetensors").read_bytes() == (whole.path / "weights.safetensors").read_bytes()
    assert run_digest(resumed.path / "lungs") == run_digest(outlining)
    assert not list(out.glob("*.tmp"))


def test_a_run_of_before_there_were_lungs_is_the_same_still(chests, tmp_path):
    run = quietly(chests, tmp_path / "run")
    assert "lungs" not in (run.path / "run.toml").read_text()
    # As it was worked out then: from all settings, of which this was none.
    told = settings("cam").model_dump(mode="json")
    assert told.pop("lungs") is None
    data = log.fingerprint(chests.only("train"), chests.only("val"))
    assert run.card["identity"] == log.digest({"settings": told, "data": data})
    assert json.loads((run.path / "card.json").read_text())["identity"] == run.card["identity"]
    assert quietly(chests, tmp_path / "run") == run


@pytest.mark.parametrize("method", ["cam", "taggan", "student"])
def test_a_run_that_does_not_outline_lungs_is_refused(outlining, chests, tmp_path, method):
    out = tmp_path / "run"
    plain = quietly(chests, tmp_path / "plain")
    with pytest.raises(BadSetting) as caught:
        quietly(chests, out, method, lungs=str(plain.path))
    assert str(caught.value) == f"{plain.path} does not know the finding 'lungs'; it knows spot."
    confined = copied(outlining, tmp_path / "confined")
    told = (confined / "run.toml").read_text()
    (confined / "run.toml").write_text(told.replace("[settings]\n", '[settings]\nlungs = "some"\n'))
    with pytest.raises(BadSetting, match=r"confined is shown the lungs alone, and outlines nothing in a whole image\."):
        quietly(chests, out, method, lungs=str(confined))
    with pytest.raises(BadRun, match=r"nowhere is not a run"):
        quietly(chests, out, method, lungs=str(tmp_path / "nowhere"))
    assert not out.exists()
