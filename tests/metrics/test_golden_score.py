"""The command ``radtag score`` on folders of maps against other people's evaluators on the same (../shared/golden).

They are CheXlocalize's, wsolevaluation's, torchmetrics' and PYLON's own; docs/results.md has the table.

What is not here differs in its definition: MaxBoxAcc takes the threshold that is best on the images scored
(:mod:`radtag.metrics.wsol` has it), CheXlocalize's mIoU "all" counts an unknown label as an empty truth, and
torchmetrics says 0 of the precision of nothing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from radtag.cli import app


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """In float32, as torch's."""
    import torch

    return torch.sigmoid(torch.from_numpy(logits)).numpy()


RIVALS: dict[str, Callable] = {
    "fullmap": lambda pair: pair.map,  # a map a pixel
    "lowres": lambda pair: pair.logits,  # 16 x 16 logits, to be stretched over the image
    "cells": lambda pair: sigmoid(pair.logits),  # their probabilities
    "steps": lambda pair: np.floor(pair.map.astype(np.float64) * 1000 + 1e-9) / 1000,
}


@pytest.fixture(scope="module")
def data(golden, tmp_path_factory) -> Path:
    """The golden inputs as anybody would have them: images, masks and tables; and a folder of maps for each rival."""
    root = tmp_path_factory.mktemp("golden")
    (root / "images").mkdir()
    rows, boxes, scores = [], [], []
    sizes = {pair.key.split("/")[0]: pair.map.shape for pair in golden.pairs}
    annotated = {pair.key: pair for pair in golden.annotated}
    for i, image in enumerate(golden.images):
        PIL.Image.fromarray(np.full(sizes[image], i, np.uint8)).save(root / "images" / f"{image}.png")
        cells = ["" if np.isnan(label) else int(label) for label in golden.labels[i]]
        masks = [f"masks/{f}/{image}.png" if f"{image}/{f}" in annotated else "" for f in golden.findings]
        rows.append([f"images/{image}.png", golden.patients[image], "test", *cells, *masks])
        scores.append([f"images/{image}.png", *golden.scores[i].tolist()])
    for key, pair in annotated.items():
        image, finding = key.split("/")
        path = root / "masks" / finding / f"{image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pair.mask > 0).save(path)
        boxes += [[f"images/{image}.png", finding, *box] for box in pair.boxes_xyxy.tolist()]
    names = golden.findings
    for file, table in (
        ("table.csv", [["image", "patient", "split", *names, *(f"mask:{name}" for name in names)], *rows]),
        ("boxes.csv", [["image", "finding", "x1", "y1", "x2", "y2"], *boxes]),
        ("scores.csv", [["image", *names], *scores]),
    ):
        with (root / file).open("w", newline="") as stream:
            csv.writer(stream).writerows(table)
    for rival, of in RIVALS.items():
        for pair in golden.pairs:
            image, finding = pair.key.split("/")
            path = root / rival / finding / f"{image}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, of(pair))
    return root


@pytest.fixture(scope="module")
def scored(data, tmp_path_factory) -> Callable[..., dict]:
    """What the command writes, each called for once."""
    done: dict[tuple[str, ...], dict] = {}

    def run(rival: str, *words: str) -> dict:
        if (rival, *words) not in done:
            out = tmp_path_factory.mktemp("scored")
            given = ["score", str(data / rival), f"csv:{data}", "--out", str(out), "--scores", str(data / "scores.csv")]
            app([*given, "--min-area", "0", "--bootstraps", "0", *words], standalone_mode=False)
            done[rival, *words] = json.loads((out / "metrics.json").read_text())
        return done[rival, *words]

    return run


def value(result: dict, finding: str, key: str) -> float:
    part = result["micro"] if finding == "pooled" else result["findings"][finding]
    return part[key]["value"]


@pytest.mark.parametrize("rival", ["fullmap", "lowres"])
def test_chexlocalize(golden, scored, rival) -> None:
    """Hit rate, and mIoU at .5 and by Otsu of maps stretched to 0-1."""
    result = scored(rival, "--values", "image", "--mask", "0.5")
    for key, entry in (
        ("hit_rate", f"chexlocalize.hitrate.{rival}"),
        ("miou", f"chexlocalize.miou.{rival}.fixed0.5.true_positive_only"),
        ("miou_otsu", f"chexlocalize.miou.{rival}.otsu.true_positive_only"),
    ):
        for finding in golden.findings:
            want = golden.values(entry)["per_finding"][finding]
            assert value(result, finding, key) == pytest.approx(want["sample_mean"], abs=1e-6), (key, finding)
            assert result["findings"][finding][key]["n"] == want["n"]


@pytest.mark.parametrize(("rival", "frame"), [("fullmap", "native_fullmap"), ("cells", "native_lowres")])
def test_pylon(golden, scored, rival, frame) -> None:
    result = scored(rival, "--values", "absolute")
    for key, entry in (
        ("pointing", f"pylon.point_loc_acc.{frame}"),
        *((f"iobb_{t:g}", f"pylon.iobb_acc.{frame}.iobb.T{t:g}") for t in (0.1, 0.25, 0.5)),
    ):
        want = golden.values(entry)
        for finding in golden.findings:
            assert value(result, finding, key) == pytest.approx(want["per_finding"][finding], abs=1e-9), (key, finding)
        assert result["micro"][key]["value"] == pytest.approx(want["weighted"], abs=1e-9)
        assert result["macro"][key]["value"] == pytest.approx(want["macro"], abs=1e-9)


def test_torchmetrics(golden, scored) -> None:
    result = scored("fullmap", "--values", "absolute")
    for key, entry in (("auroc", "torchmetrics.image_auroc"), ("average_precision", "torchmetrics.image_ap")):
        for finding in golden.findings:
            assert value(result, finding, key) == pytest.approx(golden.values(entry)[finding], abs=1e-6)
        assert result["macro"][key]["value"] == pytest.approx(golden.values(entry)["macro"], abs=1e-6)
    for key, entry in (
        ("iou", "overlap.tm.jaccard"),
        ("dice", "overlap.tm.f1"),
        ("precision", "overlap.tm.precision"),
        ("poi", "overlap.tm.recall"),
    ):
        for finding, pairs in golden.groups(golden.annotated):
            # Its precision of an empty mask is 0, ours undefined.
            own = [pair.key for pair in pairs if key != "precision" or (pair.map > 0.5).any()]
            want = np.mean([golden.values(entry)[name] for name in own])
            assert value(result, finding, key) == pytest.approx(want, abs=1e-6), (key, finding)
    for finding in (*golden.findings, "pooled"):
        # Float32 maps count as their nearest 16-bit level.
        want = golden.values("torchmetrics.pixel_ap.annotated")[finding]
        assert value(result, finding, "pixel_ap") == pytest.approx(want, abs=5e-5)


def test_wsolevaluation(golden, scored) -> None:
    """PxAP, on maps that lie on its own thousand levels: then both sweep the same thresholds."""
    result = scored("steps", "--values", "absolute")
    want = golden.values("wsol.pxap.native.annotated.step0.001")
    for finding in (*golden.findings, "pooled"):
        assert 100 * value(result, finding, "pixel_ap") == pytest.approx(want[finding], abs=1e-4)
