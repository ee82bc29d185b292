"""The training loop: what moves a gradient, when the rate falls, what is kept, what is written."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from rich.console import Console

from radtag.calibration import Calibration
from radtag.data.cache import PixelCache, open_cache
from radtag.data.seen import screened
from radtag.data.table import Dataset
from radtag.errors import BadData, BadRun, BadSetting
from radtag.evaluate import evaluate
from radtag.models import BackboneOptions, build
from radtag.train import classify, loop
from radtag.train.classify import Schedule, masked_bce, train
from radtag.train.run import Run
from radtag.train.settings import TrainSettings

NAN = math.nan
TINY = {
    "method": "cam",
    "backbone": {"name": "test_resnet", "weights": "none"},
    "size_px": 64,
    "batch_size": 8,
    "epochs": 3,
    "lr": 1e-3,
}


def settings(**changes) -> TrainSettings:
    return TrainSettings.model_validate({**TINY, **changes})


def quietly(dataset: Dataset, out: Path, **changes) -> Run:
    return train(settings(**changes), dataset, out, console=Console(quiet=True))


def history(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# The loss -------------------------------------------------------------------------------------------------------------


def test_the_loss_by_hand():
    logits = torch.tensor([[0.0, 2.0, -1.0], [1.0, -3.0, 0.5]])
    labels = torch.tensor([[1.0, 0.0, NAN], [NAN, 1.0, 0.0]])
    by_hand = [softplus(0), softplus(2), softplus(3), softplus(0.5)]  # a positive costs softplus(-logit)
    assert masked_bce(logits, labels, torch.ones(3)).item() == pytest.approx(sum(by_hand) / 4, rel=1e-6)
    weighted = [2 * softplus(0), softplus(2), 5 * softplus(3), softplus(0.5)]  # a weight is a positive's alone
    loss = masked_bce(logits, labels, torch.tensor([2.0, 5.0, 3.0]))
    assert loss.item() == pytest.approx(sum(weighted) / 4, rel=1e-6)


def test_label_smoothing_by_hand():
    loss = masked_bce(torch.tensor([[0.5]]), torch.tensor([[1.0]]), torch.ones(1), smoothing=0.2)
    assert loss.item() == pytest.approx(0.9 * softplus(-0.5) + 0.1 * softplus(0.5), rel=1e-6)


def test_the_loss_is_float32_whatever_the_logits():
    loss = masked_bce(torch.tensor([[0.5]], dtype=torch.bfloat16), torch.tensor([[1.0]]), torch.ones(1))
    assert loss.dtype == torch.float32


def test_an_unknown_label_moves_no_gradient():
    """The gradient of every weight is that of the known labels alone, whatever the unknown one's logit."""
    torch.manual_seed(0)
    model = build("cam", 2, BackboneOptions(name="test_convnext", weights="none"), {"pool": "max"})
    images = torch.rand(3, 1, 64, 64)
    labels = torch.tensor([[1.0, NAN], [NAN, NAN], [0.0, 1.0]])

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        return [g.clone() for g in torch.autograd.grad(loss, list(model.parameters()))]

    masked = gradients(masked_bce(model(images).logits, labels, torch.ones(2)))
    logits = model(images).logits
    known = torch.stack([logits[0, 0], logits[2, 0], logits[2, 1]])
    alone = gradients(torch.nn.functional.binary_cross_entropy_with_logits(known, torch.tensor([1.0, 0.0, 1.0])))
    for one, other in zip(masked, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert any(one.abs().max() > 1e-3 for one in masked)


def test_without_any_known_label_nothing_moves():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = masked_bce(logits, torch.tensor([[NAN, NAN]]), torch.ones(2))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[0, 0]]


def test_weights_of_classes_by_hand():
    labels = torch.tensor([[1.0, 0, 1, NAN]] + [[0.0, 0, 1, 0]] * 3 + [[NAN, 1, 1, 0]] + [[0.0, 0, 0, 0]] * 40)
    # negatives over positives: 43 / 1 (at most 20), 44 / 1 (20), 40 / 5, 44 / none (20)
    assert classify._positive_weight(labels, settings(class_weights="balanced")).tolist() == [20, 20, 8, 20]
    assert classify._positive_weight(labels, settings()).tolist() == [1, 1, 1, 1]


def test_balanced_sampling_by_hand():
    # Of 8 images: "a" in 4, "b" in 1, both unknown or 0 in 3. An image is drawn by its rarest finding.
    labels = torch.tensor([[1.0, 0]] * 3 + [[1.0, 1.0]] + [[0.0, 0], [NAN, 0], [0.0, NAN], [0.0, 0]])
    weights = classify._sampling(labels, settings(sampling="balanced"))
    by_hand = np.array([8 / 4] * 3 + [8 / 1] + [8 / 4] * 4)
    np.testing.assert_allclose(weights, by_hand / by_hand.sum())
    assert classify._sampling(labels, settings()) == 8


def test_an_epoch_takes_every_image_once_in_an_order_of_its_own():
    epochs = [np.concatenate(list(classify._epoch_order(20, settings(), epoch, 2))) for epoch in (0, 1, 0)]
    assert all(len(epoch) == 16 == len(set(epoch.tolist())) for epoch in epochs)  # two whole batches of 8
    assert epochs[0].tolist() == epochs[2].tolist() != epochs[1].tolist()
    other = np.concatenate(list(classify._epoch_order(20, settings(seed=1), 0, 2)))
    assert other.tolist() != epochs[0].tolist()


# The rate -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_the_plateau_is_torchs(patience):
    """torch.optim.lr_scheduler.ReduceLROnPlateau is the oracle, on random walks with ties and tiny improvements."""
    random = np.random.default_rng(patience)
    cuts = 0
    for _ in range(20):
        schedule = Schedule(settings(plateau_patience=patience, plateau_factor=0.5, min_lr=0.0, lr=0.1), steps=100)
        optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=patience)
        loss = 1.0
        for epoch in range(20):
            loss *= float(random.choice([1.0, 1 - 5e-5, 1 - 2e-4, 0.9, 1.1]))
            schedule.end_epoch(loss)
            oracle.step(loss)
            assert schedule.rate(epoch) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
        cuts += schedule.rate(0) < 0.1
    assert cuts >= 10


def test_the_cosine_by_hand():
    schedule = Schedule(settings(schedule="cosine", warmup=0.1, lr=0.5), steps=100)
    assert schedule.rate(0) == pytest.approx(0.05)  # a tenth of ten warm steps
    assert schedule.rate(9) == schedule.rate(10) == 0.5
    assert schedule.rate(55) == pytest.approx(0.25)  # half way down
    assert schedule.rate(99) == pytest.approx(0.25 * (1 + math.cos(math.pi * 89 / 90)))
    assert schedule.rate(100) == pytest.approx(0, abs=1e-15)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    schedule.end_epoch(1.0)
    schedule.end_epoch(2.0)
    assert schedule.rate(55) == pytest.approx(0.25)  # the loss is not its concern
    assert not schedule.finished
    assert Schedule(settings(schedule="cosine", warmup=0.0, lr=0.5), steps=1).rate(0) == 0.5


def test_a_schedule_is_remembered():
    first, second = (Schedule(settings(plateau_patience=0), steps=10) for _ in range(2))
    for loss in (1.0, 1.1):
        first.end_epoch(loss)
    second.load(json.loads(json.dumps(first.dump())))
    for loss in (0.99, 1.2):
        first.end_epoch(loss)
        second.end_epoch(loss)
        assert second.rate(0) == first.rate(0)
    assert first.rate(0) == pytest.approx(1e-3 * 0.2 * 0.2)


def test_training_stops_at_the_lowest_rate(squares, tmp_path):
    """With a rate of almost nothing no epoch is better by 1e-4, so the second one cuts the rate below the lowest."""
    still = {"backbone": {"name": "test_convnext", "weights": "none"}, "lr": 1e-9, "min_lr": 2e-10}
    quietly(squares, tmp_path / "run", epochs=9, plateau_patience=0, **still)
    assert [row["lr"] for row in history(tmp_path / "run")] == [1e-9, 1e-9]
    quietly(squares, tmp_path / "patient", epochs=9, plateau_patience=1, **still)
    assert len(history(tmp_path / "patient")) == 3


# What is kept and written ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(squares, tmp_path_factory) -> dict[str, Run]:
    """The same bouncing training, kept by each rule."""
    folder = tmp_path_factory.mktemp("kept")
    bouncing = {"lr": 0.02, "epochs": 4, "schedule": "cosine"}
    return {keep: quietly(squares, folder / keep, keep=keep, **bouncing) for keep in ("loss", "auroc", "last")}


def val_loss(run: Run, squares: Dataset) -> float:
    val = squares.only("val")
    pixels = open_cache([record.path for record in val.records], run.size_px, "stretch").pixels
    with torch.inference_mode():
        logits = run.build_model()(run.normalise(torch.from_numpy(np.array(pixels)))).logits
    return masked_bce(logits, torch.from_numpy(val.labels()), torch.ones(2)).item()


def test_the_epoch_asked_for_is_kept(runs, squares):
    rows = history(runs["loss"].path)
    losses = [row["val_loss"] for row in rows]
    wanted = {
        "loss": int(np.argmin(losses)),
        "auroc": int(np.argmax([row["val_auroc"] for row in rows])),
        "last": len(rows) - 1,
    }
    assert wanted["loss"] != wanted["last"]  # or nothing is shown here
    for keep, run in runs.items():
        assert [row["val_loss"] for row in history(run.path)] == losses
        assert run.card["validation"]["kept_epoch"] == wanted[keep] + 1
        assert val_loss(run, squares) == pytest.approx(losses[wanted[keep]], rel=1e-4)


def test_scores_are_calibrated_with_the_kept_weights_on_validation_images(runs, squares):
    val = squares.only("val")
    for keep in ("loss", "last"):
        run = runs[keep]
        pixels = open_cache([record.path for record in val.records], run.size_px, "stretch").pixels
        model, accelerator = run.build_model(), loop.start_accelerator("no")
        labels = torch.from_numpy(val.labels())
        said = loop.predict_maps(model, pixels, labels, run.settings, run.mean, run.sd, accelerator)
        share = run.settings.healthy_share
        again = Calibration.fit(said.logits, said.maps, val.labels(), healthy_share=share, findings=run.findings)
        for name in ("score_slope", "score_bias", "map_slope", "map_bias", "score_threshold", "mask_threshold"):
            assert getattr(run.calibration, name) == pytest.approx(getattr(again, name), rel=1e-3), (keep, name)
    assert runs["loss"].calibration != runs["last"].calibration


def test_log_table_curves_and_card_agree(runs, squares):
    run = runs["loss"]
    rows = history(run.path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert set(rows[0]) == {"epoch", "lr", "train_loss", "val_loss", "val_auroc", "val_auroc_of", "minutes"}
    assert rows[0]["val_auroc"] == pytest.approx(np.mean(list(rows[0]["val_auroc_of"].values())))
    with (run.path / "log.csv").open() as file:
        table = list(csv.DictReader(file))
    for line, row in zip(table, rows, strict=True):
        assert {key: float(value) for key, value in line.items()} == {
            k: v for k, v in row.items() if k != "val_auroc_of"
        }
    with PIL.Image.open(run.path / "curves.png") as curves:
        curves.verify()
        assert min(curves.size) > 300
    card = json.loads((run.path / "card.json").read_text())
    assert card == run.card
    kept = rows[card["validation"]["kept_epoch"] - 1]
    assert card["validation"]["epochs"] == 4
    assert card["validation"]["loss"] == round(kept["val_loss"], 5)
    assert card["validation"]["mean_auroc"] == round(kept["val_auroc"], 4)
    assert card["weights_from"] == "random"
    assert card["data"]["train_images"] == 32
    assert card["data"]["val_images"] == 12
    labels = squares.only("train").labels()
    assert card["data"]["train_positives"] == {
        "left": int((labels[:, 0] == 1).sum()),
        "right": int((labels[:, 1] == 1).sum()),
    }
    page = (run.path / "card.md").read_text()
    assert page.startswith("# Run card\n")
    assert "For research use; not a medical device." in page
    assert sorted(file.name for file in run.path.iterdir() if not file.is_dir()) == [
        "card.json",
        "card.md",
        "curves.png",
        "log.csv",
        "log.jsonl",
        "run.toml",
        "seen.npz",
        "weights.safetensors",
    ]


def test_the_same_seed_gives_the_same_run_and_another_another(squares, tmp_path):
    short = {"epochs": 1}
    one, two = (quietly(squares, tmp_path / name, **short) for name in ("one", "two"))
    weights = [(run.path / "weights.safetensors").read_bytes() for run in (one, two)]
    assert weights[0] == weights[1]
    other = quietly(squares, tmp_path / "other", seed=1, **short)
    assert (other.path / "weights.safetensors").read_bytes() != weights[0]


def test_boxes_and_masks_cannot_reach_the_training(squares, tmp_path):
    """The weights are the same bits with and without outlines."""
    boxed = tuple(replace(one, boxes_xyxy={"left": ((1.0, 2.0, 3.0, 4.0),)}) for one in squares.records)
    bare = quietly(squares, tmp_path / "bare", epochs=1)
    with_boxes = quietly(replace(squares, records=boxed), tmp_path / "boxed", epochs=1)
    assert (bare.path / "weights.safetensors").read_bytes() == (with_boxes.path / "weights.safetensors").read_bytes()


def test_images_that_say_nothing_or_cannot_be_read_are_left_out(squares, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    first, second, *rest = squares.records
    told = replace(first, labels=(NAN, NAN))
    run = quietly(replace(squares, records=(told, replace(second, path=broken), *rest)), tmp_path / "run", epochs=1)
    assert run.card["data"]["train_images"] == 31
    assert [text.partition(": ")[0] for text in run.card["data"]["unreadable"]] == [str(broken)]


def test_an_unreadable_image_brings_no_other_into_memory(squares, tmp_path, monkeypatch):
    train_set = squares.only("train")
    pixels = np.lib.format.open_memmap(tmp_path / "p.npy", mode="w+", dtype=np.uint8, shape=(32, 512, 512))
    pixels[31] = 7
    readable = np.arange(32) != 1
    monkeypatch.setattr(loop, "open_cache", lambda *_, **__: PixelCache(pixels, readable, (("01.png", "broken"),)))
    tracemalloc.start()
    try:
        kept, labels, patients, failures = loop.load_pixels(train_set, settings(), 512)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # of 8 MB
    finally:
        tracemalloc.stop()
    assert (len(kept), labels.shape, failures) == (31, (31, 2), (("01.png", "broken"),))
    assert patients == [one for i, one in enumerate(train_set.patients()) if i != 1]
    np.testing.assert_array_equal(kept[np.array([30])], pixels[31:])


def test_a_start_from_another_run(runs, squares, tmp_path):
    run = quietly(squares, tmp_path / "further", epochs=1, lr=1e-12, min_lr=0.0, start_from=str(runs["last"].path))
    assert run.card["weights_from"].startswith("run last (")
    given, taken = (one.build_model().state_dict() for one in (runs["last"], run))
    torch.testing.assert_close(taken["backbone.net.conv1.0.weight"], given["backbone.net.conv1.0.weight"])
    few = replace(squares, records=squares.records[16:33])
    again = quietly(few, tmp_path / "again", epochs=1, start_from=str(run.path))  # which began with another one itself
    assert screened(squares, [again.path], "count")[1]["trained_on"] == 32
    with pytest.raises(BadSetting, match=r"it is a test_resnet with 1\. Choose that backbone\.$"):
        quietly(
            squares,
            tmp_path / "other",
            backbone={"name": "test_efficientnet", "weights": "none"},
            start_from=str(runs["last"].path),
        )
    with pytest.raises(
        BadSetting, match=r"does not fit test_resnet with 3 channel\(s\) \(backbone\.net\.conv1\.0\.weight\)"
    ):
        quietly(
            squares,
            tmp_path / "colour",
            backbone={**TINY["backbone"], "channels": 3},
            start_from=str(runs["last"].path),
        )


def test_a_head_can_start_at_the_findings_frequencies():
    torch.manual_seed(0)
    model = build("pylon", 2, BackboneOptions(name="test_resnet", weights="none"), {})
    labels = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, NAN]] * 5)
    images = torch.randn(6, 1, 64, 64)
    classify._start_at_prior(model, images, labels, {"head": torch.tensor([True, True])})
    frequency = torch.tensor([3.5 / 9, 0.5 / 4])
    torch.testing.assert_close(model.train()(images).logits.mean(dim=0), frequency.logit(), atol=1e-5, rtol=0)
    kept = model.head.weight[0].clone(), model.head.bias[0].clone()
    classify._start_at_prior(model, images, labels, {"head": torch.tensor([False, True])})
    assert torch.equal(model.head.weight[0], kept[0]), "a finding whose head is not fresh is left alone"
    assert torch.equal(model.head.bias[0], kept[1])


def test_a_further_run_takes_the_head_of_each_finding_by_its_name(runs):
    source = runs["last"]
    given = source.build_model().state_dict()
    settings = source.settings.model_copy(update={"start_from": str(source.path)})
    findings = ("something new", source.findings[-1])
    model = build(settings.method, len(findings), settings.backbone, settings.options)
    drawn = model.head.weight[0].clone()
    _, fresh = classify._first_weights(model, settings, findings)
    assert {head: new.tolist() for head, new in fresh.items()} == {"head": [True, False]}
    assert torch.equal(model.head.weight[1], given["head.weight"][-1])
    assert torch.equal(model.head.bias[1], given["head.bias"][-1])
    assert torch.equal(model.head.weight[0], drawn)


def test_a_side_head_is_trained_beside_the_map(squares, tmp_path):
    """From a run without one, whose head it takes; a further run takes both heads, each finding's by its name."""
    first = quietly(squares, tmp_path / "first", method="pylon", options={}, epochs=1)
    more = {"start_from": str(first.path), "options": {"side_head": True}, "head_start": "prior"}
    run = quietly(squares, tmp_path / "side", method="pylon", epochs=1, **more)
    model = run.build_model().eval()
    images = torch.randn(2, run.settings.backbone.channels, 64, 64)
    output = model(images)
    from_map, beside = output.heads
    torch.testing.assert_close(from_map, model.image_logits(output.maps))
    torch.testing.assert_close(output.logits, (from_map + beside) / 2)
    drawn = build("pylon", len(run.findings), run.settings.backbone, run.settings.options)
    _, fresh = classify._first_weights(
        drawn, run.settings.model_copy(update={"start_from": str(run.path)}), run.findings[::-1]
    )
    assert not fresh["head"].any()
    assert not fresh["side_head"].any()
    torch.testing.assert_close(drawn.side_head.weight.flip(0), model.side_head.weight)
    before = first.build_model().eval()(images).maps
    assert not torch.equal(output.maps, before), "training moved the map too"


def test_both_heads_start_at_the_findings_frequencies():
    torch.manual_seed(0)
    model = build("pylon", 2, BackboneOptions(name="test_resnet", weights="none"), {"side_head": True})
    labels = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, NAN]] * 5)
    images = torch.randn(6, 1, 64, 64)
    everything = torch.tensor([True, True])
    classify._start_at_prior(model, images, labels, {"head": everything, "side_head": everything})
    for logits in model.train()(images).heads:
        torch.testing.assert_close(logits.mean(dim=0), torch.tensor([3.5 / 9, 0.5 / 4]).logit(), atol=1e-5, rtol=0)


def test_a_finding_that_was_not_learned_is_named():
    labels = torch.tensor([[0.0, 0.0], [1.0, 1.0]] * 20)
    logits = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    logits[:, 1] += 10 * labels[:, 1].numpy()
    patients = [str(i) for i in range(40)]
    (sentence,) = loop.not_learned(logits, labels, patients, ("guessed", "told"))
    assert re.fullmatch(
        r"nothing shows that guessed was learned: its validation AUROC is 0\.\d\d"
        r" \(95 % interval 0\.[0-4]\d-0\.\d\d\), and 0\.5 is chance\.",
        sentence,
    )
    # One class has no AUROC, and one patient no interval: nothing is claimed.
    assert loop.not_learned(logits, torch.zeros_like(labels), patients, ("guessed", "told")) == []
    assert loop.not_learned(logits, labels, ["one"] * 40, ("guessed", "told")) == []


def test_what_was_not_learned_is_said_at_the_end_and_in_the_card(squares, tmp_path):
    console = Console(file=io.StringIO(), width=200)
    run = classify.train(settings(epochs=1, lr=1e-9, min_lr=0.0), squares, tmp_path / "run", console=console)
    assert run.card["warnings"][0].startswith("nothing shows that ")
    for warning in run.card["warnings"]:
        assert f"warning: {warning}" in console.file.getvalue()
        assert warning in (run.path / "card.md").read_text()


# Refusals and precisions ----------------------------------------------------------------------------------------------


def test_a_finished_run_is_returned_untouched(runs, squares):
    run = runs["loss"]
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in run.path.iterdir() if file.is_file()}
    again = quietly(squares, run.path, lr=0.02, epochs=4, schedule="cosine")
    assert again == run
    (run.path / "seen.npz").rename(run.path / "seen.npz.tmp")  # as if an earlier writing had been killed
    assert quietly(squares, run.path, lr=0.02, epochs=4, schedule="cosine") == run
    after = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in run.path.iterdir() if file.is_file()}
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }
    assert {name for name in after if after[name] != before[name]} == {"seen.npz"}


def test_a_run_is_not_evaluated_on_what_it_has_seen(runs, squares, tmp_path):
    with pytest.raises(BadData, match=r"of the 12 images of squares, \S+loss had its thresholds set on 12 \(32\.png"):
        evaluate(runs["loss"], squares.only("val"), tmp_path / "out", bootstraps=0)
    with pytest.raises(BadData, match=r"a run of the ensemble was trained on 32 \(00\.png, for one\): numbers"):
        evaluate([runs["loss"].path, runs["last"].path], squares.only("train"), tmp_path / "out", bootstraps=0)


def test_a_folder_of_another_run_is_refused(runs, squares, tmp_path):
    path = runs["loss"].path
    with pytest.raises(BadRun) as caught:
        quietly(squares, path, lr=0.03, epochs=4, schedule="cosine")
    assert str(caught.value) == (
        f"{path} holds a finished run with other settings (lr was 0.02, now 0.03). Give another --out."
    )
    fewer = replace(squares, records=squares.records[1:])
    other_data = r"other data \(images, labels, findings or splits\)\. Give another --out\.$"
    with pytest.raises(BadRun, match=f"holds a finished run with {other_data}"):
        quietly(fewer, path, lr=0.02, epochs=4, schedule="cosine")
    with pytest.raises(BadRun, match=rf"other settings \(epochs was 4, now 5\) and {other_data}"):
        quietly(fewer, path, lr=0.02, epochs=5, schedule="cosine")


def test_an_unfinished_run_goes_on_with_its_own_settings_alone(squares, tmp_path, stopped):
    out = tmp_path / "run"
    with stopped():
        quietly(squares, out, epochs=2)
    with pytest.raises(BadRun, match=r"training has not ended\. Run the same train command again to go on\.$"):
        Run.load(out)
    with pytest.raises(BadRun) as caught:
        quietly(squares, out, epochs=2, batch_size=4)
    assert str(caught.value) == (
        f"{out} was begun with other settings (batch_size was 8, now 4). Give another --out, or remove the folder."
    )
    resumed = quietly(squares, out, epochs=2)
    whole = quietly(squares, tmp_path / "whole", epochs=2)
    assert (resumed.path / "weights.safetensors").read_bytes() == (whole.path / "weights.safetensors").read_bytes()


def test_an_image_replaced_by_another_of_its_name_is_noticed_and_a_lung_mask_is_not_read(squares, tmp_path, stopped):
    first, *rest = squares.records
    path, lungs = tmp_path / "first.png", tmp_path / "lungs.png"
    shutil.copyfile(first.path, path)
    shutil.copyfile(first.path, lungs)
    own = replace(squares, records=(replace(first, path=path, lungs=lungs), *rest))
    out = tmp_path / "run"
    with stopped():
        quietly(own, out, epochs=2)
    copied = tmp_path / "copied.png"  # the same picture elsewhere is the same
    shutil.copyfile(path, copied)
    before = path.read_bytes()
    path.write_bytes(rest[0].path.read_bytes())
    lungs.write_bytes(rest[0].path.read_bytes())
    with pytest.raises(BadRun, match=r"begun with other images: files of the same names have changed since\. Give"):
        quietly(own, out, epochs=2)
    path.write_bytes(before)
    moved = replace(own, records=(replace(own.records[0], path=copied), *rest))
    quietly(moved, out, epochs=2)
    path.write_bytes(rest[0].path.read_bytes())
    with pytest.raises(BadRun, match=r"finished run, and images of its data have changed or gone since\. Give"):
        quietly(own, out, epochs=2)


def test_a_damaged_resume_file_is_refused(squares, tmp_path, stopped):
    out = tmp_path / "run"
    with stopped():
        quietly(squares, out, epochs=2)
    content = (out / "resume.pt").read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"nonsense", b"junk", b"a list of nothing"):
        (out / "resume.pt").write_bytes(damaged)
        with pytest.raises(BadRun, match=r"resume\.pt is damaged \(.*\)\. Remove it to begin again\.$"):
            quietly(squares, out, epochs=2)


def test_data_that_cannot_be_trained_on_is_refused(squares, tmp_path):
    with pytest.raises(BadData, match="no image is in val; the splits present are train"):
        quietly(squares.only("train"), tmp_path / "a")
    untold = tuple(replace(one, labels=(NAN, NAN)) if one.split == "val" else one for one in squares.records)
    with pytest.raises(BadData, match="no image of the val split has a known label"):
        quietly(replace(squares, records=untold), tmp_path / "b")
    unknown = tuple(replace(one, labels=(one.labels[0], NAN)) for one in squares.records)
    with pytest.raises(BadData, match=r"no training image has a known label of 'right'\. Label some, or"):
        quietly(replace(squares, records=unknown), tmp_path / "d")
    positive = tuple(replace(one, labels=(1.0, NAN)) if one.split == "val" else one for one in squares.records)
    with pytest.raises(BadData, match="keep is 'auroc', and no finding has positive and negative validation images"):
        quietly(replace(squares, records=positive), tmp_path / "e", keep="auroc")
    single = tuple(one for one in squares.records if one.split == "val" or one.image == "00.png")
    with pytest.raises(BadData, match="1 readable training image; at least 2 are needed"):
        quietly(replace(squares, records=single), tmp_path / "c")


def test_a_loss_that_is_not_finite_stops_with_advice(squares, tmp_path):
    with pytest.raises(BadSetting, match=r"^the training loss is (nan|inf) in epoch 1\. Lower --lr \(now 1e\+30\)"):
        quietly(squares, tmp_path / "run", lr=1e30)
    assert not (tmp_path / "run" / "resume.pt").exists()
    # Finite losses, but the last step of the epoch went astray: the one step there is.
    with pytest.raises(BadSetting, match=r"^a logit is not finite in epoch 1\. Lower --lr \(now 1e\+30\)"):
        quietly(squares, tmp_path / "last", lr=1e30, batch_size=32)


def test_a_rate_at_which_training_would_not_begin_is_refused(squares, tmp_path):
    with pytest.raises(BadSetting, match=r"^lr 1e-07 is not above min_lr 1e-06, at which training stops\. Raise --lr"):
        quietly(squares, tmp_path / "run", lr=1e-7)


def test_a_transformer_trains_at_another_size_than_its_own(squares, tmp_path):
    run = quietly(squares, tmp_path / "run", epochs=1, backbone={"name": "vit_tiny_patch16_224", "weights": "none"})
    assert run.tile_grid.size_rc == (4, 4)
    with torch.inference_mode():
        assert run.build_model()(torch.rand(1, 1, 64, 64)).maps.shape == (1, 2, 4, 4)


def test_bf16_trains_on_a_cpu_and_precisions_can_follow_one_another(squares, tmp_path):
    run = quietly(squares, tmp_path / "bf16", mixed_precision="bf16", epochs=2)
    assert all(math.isfinite(row["train_loss"]) and math.isfinite(row["val_loss"]) for row in history(run.path))
    assert all(value.isfinite().all() for value in run.build_model().state_dict().values())
    assert all(value.dtype != torch.bfloat16 for value in run.build_model().state_dict().values())
    full = quietly(squares, tmp_path / "full", epochs=2)
    losses = [[row["train_loss"] for row in history(one.path)] for one in (run, full)]
    assert losses[0] != losses[1]  # bf16 was in force
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    # Thresholds belong to what tagging sees, which is float32.
    val = squares.only("val")
    pixels = open_cache([record.path for record in val.records], run.size_px, "stretch").pixels
    accelerator = loop.start_accelerator("no")
    labels = torch.from_numpy(val.labels())
    said = loop.predict_maps(run.build_model(), pixels, labels, run.settings, run.mean, run.sd, accelerator)
    again = Calibration.fit(said.logits, said.maps, val.labels(), findings=run.findings)
    assert run.calibration.score_bias == pytest.approx(again.score_bias, rel=1e-3)
    assert run.calibration.mask_threshold == pytest.approx(again.mask_threshold, rel=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has fp16")
def test_fp16_without_a_gpu_is_refused(squares, tmp_path):
    with pytest.raises(
        BadSetting, match=r"^mixed_precision 'fp16' needs a GPU, and this is a CPU\. Use 'bf16' or 'no'\.$"
    ):
        quietly(squares, tmp_path / "run", mixed_precision="fp16")


def test_crops_can_be_taken_from_larger_images(squares, tmp_path):
    run = quietly(squares, tmp_path / "run", stored_px=96, epochs=1)
    assert run.size_px == 64
    assert run.tile_grid.size_rc == (2, 2)
    assert math.isfinite(history(run.path)[0]["train_loss"])


def test_of_maps_that_do_not_fit_into_memory_some_are_kept(squares, tmp_path, monkeypatch):
    plain = quietly(squares, tmp_path / "plain", epochs=1)
    a_map = 2 * 2 * 2 * 2  # findings x cells of a CAM at 64 px, float16
    monkeypatch.setattr(loop, "MOST_MAP_BYTES", 4 * a_map)
    calls = []
    whole = Calibration.fit
    monkeypatch.setattr(
        Calibration, "fit", lambda *given, **named: calls.append((*given, named)) or whole(*given, **named)
    )
    run = quietly(squares, tmp_path / "run", epochs=1)
    ((logits, maps, labels, named),) = calls
    assert (logits.shape, maps.shape, labels.shape) == ((12, 2), (4, 2, 2, 2), (12, 2))
    for column in squares.only("val").labels()[named["kept"]].T:
        assert {0.0, 1.0} <= set(column.tolist())
    for name in ("score_slope", "score_bias", "map_slope", "map_bias", "score_threshold"):  # which need no whole map
        assert getattr(run.calibration, name) == getattr(plain.calibration, name)
    note = "Mask thresholds are from the maps of 4 of 12 validation images, as many as fit into memory."
    assert note in run.card["limits"]
    assert note not in plain.card["limits"]


def test_another_method_starts_with_the_encoder_of_a_run(runs, squares, tmp_path):
    source = runs["last"]
    start = {"method": "deeplabv3plus", "start_from": str(source.path), "options": {"decoder_channels": 8}}
    run = quietly(squares, tmp_path / "run", epochs=1, lr=1e-12, min_lr=0.0, **start)
    given, taken = (one.build_model().state_dict() for one in (source, run))
    weights = [name for name in given if name.startswith("backbone.") and name.endswith("weight")]
    torch.testing.assert_close({name: taken[name] for name in weights}, {name: given[name] for name in weights})
    assert "and the head of 0 findings" in run.card["weights_from"]
