"""Insertion and deletion of a network whose score is the mean gray of its image, every number worked out by hand."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from radtag import faithfulness
from radtag.calibration import Calibration
from radtag.data.prepare import prepare
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting
from radtag.evaluate import evaluate, pool
from radtag.geometry import Grid
from radtag.images import Image
from radtag.models import Output
from radtag.report.terminal import faithfulness_table
from radtag.tag import Tagger

SIDE = 64
PLAIN = Calibration.identity(2)


class Mean(nn.Module):
    """Two findings: the score of the first is the mean gray of the image, that of the second what is left to 1."""

    def forward(self, images: torch.Tensor) -> Output:
        mean = images.mean(dim=(1, 2, 3)).clamp(1e-6, 1 - 1e-6)
        cells = nn.functional.avg_pool2d(images, 4)
        return Output(torch.stack([mean.logit(), -mean.logit()], dim=1), torch.cat([cells, -cells], dim=1))


@dataclass(frozen=True)
class FakeRun:
    path: Path
    findings: tuple[str, ...] = ("bright", "dark")
    calibration: Calibration = PLAIN
    card: dict[str, Any] = field(default_factory=dict)
    size_px: int = SIDE
    settings: Any = field(default_factory=lambda: SimpleNamespace(method="mean", lungs=None))

    @property
    def tile_grid(self) -> Grid:
        return Grid.tiles((SIDE // 4, SIDE // 4), (SIDE, SIDE))

    @property
    def grids(self) -> tuple[Grid, ...]:
        return (self.tile_grid,) * 2

    def build_model(self) -> nn.Module:
        return Mean()

    def prepare(self, image: Image, field: np.ndarray | None = None):
        return prepare(image, SIDE, "stretch", field)

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        return batch[:, None].float() / 255


@pytest.fixture
def tagger(tmp_path: Path) -> Tagger:
    return Tagger(FakeRun(tmp_path / "run"), device="cpu")  # type: ignore[arg-type]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Twice as wide as the network's input: one image with a white half, one that is gray, and a black one."""
    half = np.zeros((SIDE, 2 * SIDE), np.uint8)
    half[:, :SIDE] = 255
    pictures = {"half": (half, 1, 0), "gray": (np.full_like(half, 102), 1, 1), "black": (half * 0, 0, 1)}
    for name, (pixels, _, _) in pictures.items():
        PIL.Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    records = [
        Record(name, tmp_path / f"{name}.png", (float(bright), float(dark)), f"patient {name}", "test")
        for name, (_, bright, dark) in pictures.items()
    ]
    return Dataset("by hand", ("bright", "dark"), tuple(records))


def test_areas_by_hand(tagger: Tagger, dataset: Dataset) -> None:
    found = {(one.image, one.finding): one for one in faithfulness.measure(tagger, dataset, 9, steps=4)}
    assert list(found) == [("half", "bright"), ("gray", "bright"), ("gray", "dark"), ("black", "dark")]
    half = found["half", "bright"]
    # The map is high where it is white: the first half of the pixels takes all of the score, in even steps.
    assert half.deletion.scores == pytest.approx([0.5, 0.25, 0, 0, 0], abs=2e-3)  # the two halves meet within a pixel
    assert half.deletion.area == pytest.approx(0.125, abs=1e-3)
    assert half.insertion.scores[-1] == pytest.approx(0.5, abs=1e-3)
    # The white half is whole, and beside it lies what the blur of 3.2 pixels brought over: 3.2 / sqrt(2 pi) / 64.
    assert half.insertion.scores[2] == pytest.approx(0.5 + 0.02, abs=2e-3)
    gray = found["gray", "bright"]
    assert gray.insertion.area == pytest.approx(0.4)  # blurred, it is what it was
    assert gray.deletion.area == pytest.approx(0.2, abs=1e-5)
    # What speaks against a finding: taken away, its score rises.
    assert found["gray", "dark"].deletion.scores == pytest.approx([0.6, 0.7, 0.8, 0.9, 1], abs=1e-4)


def test_images_are_chosen_by_their_labels_alone(dataset: Dataset) -> None:
    assert faithfulness.chosen(dataset, 1) == {"half": ["bright"], "gray": ["dark"]}
    many = Dataset("many", ("x",), tuple(Record(str(i), Path("x"), (float(i % 2),)) for i in range(20)))
    assert list(faithfulness.chosen(many, 3)) == ["1", "9", "19"]


def test_an_evaluation_has_them_if_asked(tagger: Tagger, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = evaluate(tagger, dataset, out, faithfulness=2, bootstraps=20)
    value = result["faithfulness"]
    assert (value["images"], value["steps"]) == (2, 32)
    bright = value["findings"]["bright"]
    assert bright["deletion"]["value"] == pytest.approx((0.125 + 0.2) / 2, abs=1e-3)
    assert bright["deletion"]["low"] == pytest.approx(0.125, abs=1e-3)
    assert bright["deletion"]["n"] == 2
    assert bright["score"]["value"] == pytest.approx(0.45, abs=1e-4)
    assert bright["black"]["value"] == pytest.approx(0, abs=1e-4)
    assert value["micro"]["deletion"]["n"] == 4
    assert value["curves"]["bright"]["deletion"][0] == pytest.approx(0.45, abs=1e-4)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Does the score follow the map?" in page
    assert "bright<span>2 images</span>" in page
    rows = list(csv.DictReader((out / "faithfulness.csv").open(newline="")))
    assert [row["image"] for row in rows] == ["half", "gray", "gray", "black"]
    assert float(rows[0]["deletion"]) == pytest.approx(0.125, abs=1e-3)
    assert len(rows[0]["insertion_scores"].split()) == 33
    assert faithfulness_table(value).row_count == 4

    # Without them it is another evaluation, and nothing of them is left.
    with pytest.raises(BadSetting, match="faithfulness was 2, now 0"):
        evaluate(tagger, dataset, out, bootstraps=0)
    assert "faithfulness" not in evaluate(tagger, dataset, out, bootstraps=0, overwrite=True)
    assert not (out / "faithfulness.csv").exists()
    assert "Does the score follow" not in (out / "report.html").read_text(encoding="utf-8")


def test_folds_are_pooled(tagger: Tagger, dataset: Dataset, tmp_path: Path) -> None:
    whole = evaluate(tagger, dataset, tmp_path / "whole", faithfulness=9, bootstraps=20)
    folds = [tmp_path / name for name in "ab"]
    for folder, records in zip(folds, (dataset.records[:1], dataset.records[1:]), strict=True):
        evaluate(tagger, replace(dataset, records=records), folder, faithfulness=9, bootstraps=0)
    result = pool(folds, tmp_path / "pooled", bootstraps=20)
    for part in ("micro", "macro"):
        for name, entry in whole["faithfulness"][part].items():
            assert result["faithfulness"][part][name] == pytest.approx(entry, abs=1e-5), name
    assert "Does the score follow the map?" in (tmp_path / "pooled" / "report.html").read_text(encoding="utf-8")
    assert faithfulness.pooled(folds, [0, 0]) == (0, [], [])  # whatever lies there
    evaluate(tagger, replace(dataset, records=dataset.records[:1]), folds[0], bootstraps=0, overwrite=True)
    result = pool(folds, tmp_path / "other", bootstraps=0)
    assert "faithfulness" not in result
    assert any(note.startswith("Insertion and deletion are left out") for note in result["about"]["notes"])
    (folds[1] / "faithfulness.csv").write_text("image,patient\nhalf,p\n")
    with pytest.raises(BadData, match="damaged"):
        faithfulness.read(folds[1])


def test_scores_are_those_of_tagging(dataset: Dataset, tmp_path: Path) -> None:
    tagger = Tagger(FakeRun(tmp_path / "run"), device="cpu", tta="flip", findings=["dark"])  # type: ignore[arg-type]
    images = [Image(np.full((64, 64), level, np.float32), "a") for level in (0.2, 0.8)]
    inputs = np.stack([tagger.prepare(image).inputs[0][0] for image in images])
    assert tagger.scores(inputs) == pytest.approx(np.stack([one.scores for one in tagger.predict(images)]))


def test_what_cannot_be_followed_is_refused(tagger: Tagger, dataset: Dataset, tmp_path: Path) -> None:
    two = Tagger([FakeRun(tmp_path / "a"), FakeRun(tmp_path / "b")], device="cpu")  # type: ignore[list-item]
    with pytest.raises(BadSetting, match="are of one network, got 2"):
        evaluate(two, dataset, tmp_path / "out", faithfulness=3)
    with pytest.raises(BadSetting, match="at least 0 images"):
        evaluate(tagger, dataset, tmp_path / "out", faithfulness=-1)
    with pytest.raises(BadSetting, match="here are maps alone"):
        faithfulness.refuse(SimpleNamespace(findings=("a",)), 1)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
