"""A student's training: whose masks it takes, what moves a gradient, and that it can be gone on with."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from rich.console import Console

from radtag.data.masks import Masks, load_masks
from radtag.data.seen import screened
from radtag.data.table import PROPOSED, Dataset
from radtag.errors import BadData, BadRun, BadSetting
from radtag.geometry import Frame, mask_to_frame
from radtag.images import read
from radtag.models import BackboneOptions, build
from radtag.tag import Tagger
from radtag.train import loop
from radtag.train.outline import Outliner
from radtag.train.run import Run
from radtag.train.segment import label_loss, mask_losses, train
from radtag.train.settings import StudentSettings, settings_from

TINY = {
    "backbone": {"name": "test_resnet", "weights": "none"},
    "size_px": 64,
    "batch_size": 8,
    "epochs": 3,
    "lr": 5e-3,
    "augment": {"rotate_deg": 0, "flip_p": 0, "area": [0.9, 1.0], "brightness": 0, "contrast": 0},
}


def quietly(dataset: Dataset, out: Path, **changes) -> Run:
    settings = settings_from(method="student", **{**TINY, **changes})
    assert isinstance(settings, StudentSettings)
    return train(settings, dataset, out, console=Console(quiet=True))


@pytest.fixture(scope="module")
def masked(squares: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The squares with masks of them, as a run's proposals; one label of 1 has none."""
    folder = tmp_path_factory.mktemp("masks")
    records = []
    for number, record in enumerate(squares.records):
        pixels = np.asarray(PIL.Image.open(record.path))
        masks = {}
        for finding, label, half in zip(squares.findings, record.labels, (slice(0, 30), slice(42, None)), strict=True):
            if label == 1 and number != 1:
                mask = np.zeros(pixels.shape, bool)
                mask[:, half] = pixels[:, half] > 150
                masks[finding] = folder / f"{number}-{finding}.png"
                PIL.Image.fromarray(mask).save(masks[finding])
        records.append(replace(record, masks=masks, attributes={"masks": f"{PROPOSED} run (0123)"}))
    return replace(squares, records=tuple(records))


def test_losses_by_hand():
    logits = torch.zeros(2, 2, 1, 4)
    logits[0, 0, 0] = torch.tensor([2.0, -2.0, 0.0, 0.0])
    masks = torch.zeros(2, 2, 1, 4)
    masks[0, 0, 0, 0] = 1
    known = torch.tensor([[True, False], [True, False]])
    sums = mask_losses(logits, masks, known)
    assert (int(sums.known), int(sums.filled)) == (2, 1)
    easy = math.log1p(math.exp(-2))  # the first two pixels are right by a logit of 2
    assert sums.cross_entropy.item() == pytest.approx((2 * easy + 2 * math.log(2)) / 4 + math.log(2), rel=1e-6)
    p = 1 / (1 + math.exp(-2))
    assert sums.dice.item() == pytest.approx(1 - 2 * p / (p + (1 - p) + 1 + 1), rel=1e-6)  # the empty mask has none


def test_label_losses_by_hand():
    logits = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0], [math.nan, 1.0]])
    wrong = math.log1p(math.exp(2))
    assert label_loss(logits, labels).item() == pytest.approx((math.log(2) + wrong) / 2 + math.log(2) / 2, rel=1e-6)


def test_labels_teach_beside_masks(masked: Dataset, tmp_path: Path):
    """With labels, the scores tell ill from healthy earlier than with masks alone."""
    loss = {}
    for weight in (0.0, 3.0):
        run = quietly(masked, tmp_path / str(weight), labels=weight, epochs=8, ema=0.0)
        logits = run.build_model()(
            run.normalise(
                torch.stack([torch.from_numpy(run.prepare(read(record.path))[0]) for record in masked.records])
            )
        ).logits
        loss[weight] = label_loss(logits, torch.tensor([one.labels for one in masked.records])).item()
    assert loss[3.0] < 0.8 * loss[0.0]


def test_an_unknown_mask_moves_no_gradient():
    """The gradient of every weight is that of the known masks alone, whatever stands where one is unknown."""
    torch.manual_seed(0)
    model = build("student", 2, BackboneOptions(name="test_convnext", weights="none"), {}, 64)
    images, masks = torch.rand(2, 1, 64, 64), (torch.rand(2, 2, 64, 64) > 0.5).float()
    known = torch.tensor([[True, False], [False, True]])

    def gradients(masks: torch.Tensor, known: torch.Tensor) -> list[torch.Tensor]:
        sums = mask_losses(model(images).maps, masks, known)
        loss = sums.cross_entropy + sums.dice
        return [
            torch.zeros(()) if g is None else g
            for g in torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        ]

    other = torch.where(known[..., None, None], masks, 1 - masks)
    for one, two in zip(gradients(masks, known), gradients(other, known), strict=True):
        assert torch.equal(one, two)
    assert any(one.abs().max() > 1e-4 for one in gradients(masks, known))
    assert all(one.abs().max() == 0 for one in gradients(masks, torch.zeros(2, 2, dtype=torch.bool)))


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_labels_say_which_masks_are_known_and_masks_lie_as_their_images(masked: Dataset, fit):
    masks = load_masks(masked, masked.records, 32, fit)
    for row, record in enumerate(masked.records):
        for column, (finding, label) in enumerate(zip(masked.findings, record.labels, strict=True)):
            place = masks.place[row, column]
            if math.isnan(label) or (label == 1 and finding not in record.masks):
                assert place == Masks.UNKNOWN
            else:
                assert place == Masks.EMPTY if label == 0 else place >= 0
    row = next(i for i, one in enumerate(masked.records) if "left" in one.masks)
    taken = masks[np.array([row])]
    assert taken.shape == (1, 2, 32, 32)
    rows, cols = np.nonzero(taken[0, 0])
    # 16 x 16 pixels from column 8 of 64 x 72, in a square of 32: stretched, or at 4/9 with two empty rows on top.
    size = (8, 16 * 32 / 72) if fit == "stretch" else (16 * 4 / 9,) * 2
    assert abs(np.ptp(rows) + 1 - size[0]) <= 1
    assert abs(np.ptp(cols) + 1 - size[1]) <= 1
    assert abs(cols.min() - 8 * 32 / 72) <= 1


def test_masks_lie_as_the_parts_of_their_images_that_are_shown(masked: Dataset, tmp_path: Path):
    row = next(i for i, one in enumerate(masked.records) if "left" in one.masks)
    double = tmp_path / "double.png"  # of another size than its image
    PIL.Image.open(masked.records[row].masks["left"]).resize((144, 128), PIL.Image.Resampling.NEAREST).save(double)
    record = replace(masked.records[row], masks={**masked.records[row].masks, "left": double})
    truth = np.asarray(PIL.Image.open(masked.records[row].masks["left"]))
    parts = [Frame.stretch((32, 24), (32, 32)).of_whole((64, 72), (first, 4)) for first in (8, 24)]
    masks = load_masks(masked, [record, record], 32, "letterbox", frames=parts)
    for at, first in enumerate((8, 24)):
        expected = mask_to_frame(truth[first : first + 32, 4:28], Frame.stretch((32, 24), (32, 32)))
        assert expected.any()
        np.testing.assert_array_equal(masks[np.array([at])][0, 0], expected)


def test_a_mask_that_cannot_be_read_is_unknown_and_told(masked: Dataset, tmp_path: Path):
    row = next(i for i, one in enumerate(masked.records) if "left" in one.masks)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no mask")
    record = replace(masked.records[row], masks={**masked.records[row].masks, "left": damaged})
    masks = load_masks(masked, (*masked.records[:row], record, *masked.records[row + 1 :]), 32, "stretch")
    whole = load_masks(masked, masked.records, 32, "stretch")
    assert masks.place[row, 0] == Masks.UNKNOWN
    assert (masks.known != whole.known).sum() == 1
    ((image, cause),) = masks.failures
    assert image == record.image
    assert cause.startswith("its mask: ")
    assert "damaged.png" in cause
    assert whole.failures == ()


def test_masks_that_take_too_much_memory_are_refused(masked: Dataset, monkeypatch):
    monkeypatch.setattr("radtag.data.masks.MOST_BYTES", 1000)
    with pytest.raises(BadSetting, match=r"masks at 64 px take .* GB of memory"):
        load_masks(masked, masked.records, 64, "stretch")


def test_masks_that_no_run_proposed_are_refused_unless_trusted(masked: Dataset, tmp_path: Path):
    plain = replace(masked, records=tuple(replace(one, attributes={}) for one in masked.records))
    with pytest.raises(BadSetting, match=r"not marked as a run's proposals.*--set trust_masks=true"):
        quietly(plain, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = quietly(plain, tmp_path / "run", trust_masks=True, epochs=1)
    assert run.card["masks"]["origin"] == ["the data set's own (trust_masks)"]


def test_masks_of_lungs_are_nothing_that_is_scored(squares: Dataset, tmp_path: Path):
    records = []
    for number, record in enumerate(squares.records):
        lungs = tmp_path / f"{number}.png"
        PIL.Image.fromarray(np.asarray(PIL.Image.open(record.path)) > 150).save(lungs)
        records.append(replace(record, lungs=lungs))
    asked = replace(squares, records=tuple(records)).with_findings(["lungs"])
    run = quietly(asked, tmp_path / "run", epochs=1)
    assert run.card["masks"]["origin"] == ["the data set's own masks of lungs"]
    assert Outliner(run, "lungs")(read(records[0].path)).shape == np.asarray(PIL.Image.open(records[0].path)).shape


def test_without_a_mask_there_is_nothing_to_learn(masked: Dataset, tmp_path: Path):
    bare = replace(masked, records=tuple(replace(one, masks={}) for one in masked.records))
    with pytest.raises(BadData, match="no training image with left has a mask of it"):
        quietly(bare, tmp_path / "run")


def test_a_preset_is_refused():
    with pytest.raises(BadSetting, match="preset 'small': student has its defaults alone"):
        settings_from("small", method="student")


def test_it_learns_tags_and_says_where_its_masks_came_from(masked: Dataset, tmp_path: Path):
    run = quietly(masked, tmp_path / "run", epochs=12, ema=0.8)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["val_loss"] < rows[0]["val_loss"] / 2
    assert rows[-1]["val_dice"] > 0.6
    assert run.settings.method == "student"
    _, seen = screened(masked, [run.path], "count")
    assert (seen["trained_on"], seen["thresholds_set_on"]) == (32, 12)
    assert run.card["masks"]["origin"] == [f"{PROPOSED} run (0123)"]
    limits = " ".join(run.card["limits"])
    outlined = sum(bool(one.masks) for one in masked.records)
    assert f"Learned from masks, which are {PROPOSED} run (0123), of {outlined} images" in limits
    assert "no outline of a finding was seen" not in limits
    record = next(one for one in masked.records if one.split == "val" and "left" in one.masks)
    tag = next(one for one in Tagger(run, device="cpu").tag(record.path) if one.finding == "left")
    truth = np.asarray(PIL.Image.open(record.masks["left"]))
    assert tag.mask.shape == truth.shape == (64, 72)
    assert 2 * (tag.mask & truth).sum() / (tag.mask.sum() + truth.sum()) > 0.6


def test_stopped_and_gone_on_with_it_ends_with_the_same_bits(masked: Dataset, tmp_path: Path, monkeypatch, stopped):
    quietly(masked, tmp_path / "whole")
    with stopped(2):
        quietly(masked, tmp_path / "stopped")
    with pytest.raises(BadRun, match="lr was"):
        quietly(masked, tmp_path / "stopped", lr=1e-3)
    write, written = loop.write_resume, []
    monkeypatch.setattr(loop, "write_resume", lambda file, state: (written.append(file), write(file, state)))
    quietly(masked, tmp_path / "stopped")
    assert len(written) == 1  # the last epoch alone was done again
    whole, stopped_ = (
        [{**json.loads(line), "minutes": 0} for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "stopped")
    )
    assert stopped_ == whole  # the epoch that is kept may be one before the stop
    for name in ("weights.safetensors", "run.toml"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_of_maps_that_do_not_fit_into_memory_some_are_kept(masked: Dataset, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(loop, "MOST_MAP_BYTES", 5 * 2 * 64 * 64 * 2)  # of two findings, float16
    run = quietly(masked, tmp_path / "run", epochs=1)
    note = "Mask thresholds are from the maps of 5 of 12 validation images, as many as fit into memory."
    assert note in run.card["limits"]


def test_a_changed_mask_is_another_training(masked: Dataset, tmp_path: Path):
    quietly(masked, tmp_path / "run", epochs=1)
    at = next(i for i, one in enumerate(masked.records) if one.split == "train" and "left" in one.masks)
    other = tmp_path / "other.png"
    PIL.Image.fromarray(np.ones((64, 72), bool)).save(other)
    records = list(masked.records)
    records[at] = replace(records[at], masks={**records[at].masks, "left": other})
    with pytest.raises(BadRun, match="other data"):
        quietly(replace(masked, records=tuple(records)), tmp_path / "run", epochs=1)
