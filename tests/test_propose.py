"""A labelled set becomes one with proposed masks, with a network whose maps are known (bright is found)."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from radtag import propose as act
from radtag.calibration import Calibration
from radtag.cli import main
from radtag.data import coco
from radtag.data.check import check
from radtag.data.prepare import prepare
from radtag.data.sources import open_source
from radtag.data.table import PROPOSED, Dataset, Record
from radtag.errors import BadData, BadSetting
from radtag.geometry import Grid
from radtag.images import read_mask
from radtag.models import Output
from radtag.propose import Proposal, doubts, propose
from radtag.tag import Tagger
from radtag.train.settings import TrainSettings

SIDE, CELL = 32, 4
NAN = math.nan
PLAIN = Calibration.identity(2)
SETTINGS = TrainSettings()


class Bright(nn.Module):
    """Two findings: "bright", and "dim", which needs less of it."""

    def forward(self, images: torch.Tensor) -> Output:
        cells = nn.functional.avg_pool2d(images, CELL)
        maps = torch.cat([20 * cells - 10, 20 * cells - 5], dim=1)  # sigmoid .5 at gray .5, and at .25
        return Output(maps.amax(dim=(2, 3)), maps)


@dataclass(frozen=True)
class FakeRun:
    path: Path
    findings: tuple[str, ...] = ("bright", "dim")
    calibration: Calibration = PLAIN
    size_px: int = SIDE
    settings: TrainSettings = SETTINGS
    card: dict[str, Any] = field(default_factory=lambda: {"trained_on": "elsewhere", "contents": "0123"})

    @property
    def tile_grid(self) -> Grid:
        return Grid.tiles((SIDE // CELL,) * 2, (SIDE, SIDE))

    @property
    def grids(self) -> tuple[Grid, ...]:
        return (self.tile_grid,) * 2

    def build_model(self) -> Bright:
        return Bright()

    def prepare(self, image, field=None):
        return prepare(image, SIDE, "stretch", field)

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        return batch[:, None].float() / 255


@pytest.fixture
def tagger(tmp_path: Path) -> Tagger:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.toml").write_text("name = 'run'")
    (folder / "weights.safetensors").write_bytes(b"none")
    return Tagger(FakeRun(folder), device="cpu")  # type: ignore[arg-type]


def image(path: Path, *boxes: tuple[int, int, int, int], value: int = 255) -> Path:
    """A dark image of 40 x 60 pixels with bright boxes (x1, y1, x2, y2)."""
    pixels = np.zeros((40, 60), np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    files = tmp_path / "files"
    own = image(files / "truth.png", (0, 0, 5, 5))
    return Dataset(
        "four",
        ("bright", "dim", "unrelated"),
        (
            Record("a/1.png", image(files / "a" / "1.png", (10, 10, 25, 30), (40, 5, 55, 20)), (1, 0, 1), "p1", "train",
                   masks={"bright": own}, boxes_xyxy={"bright": ((0, 0, 5, 5),)}, attributes={"sex": "F"}),
            Record("b/1.png", image(files / "b" / "1.png", (20, 10, 40, 30)), (NAN, 1, NAN), "p2", "val"),
            Record("dark.png", image(files / "dark.png"), (1, NAN, 0), "p3", "test"),
            Record("healthy.png", image(files / "healthy.png", (22, 8, 44, 28)), (0, 0, 0), "p4", "train"),
        ),
    )  # fmt: skip


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


def test_labels_say_what_gets_a_mask_and_stay_as_they_are(tagger: Tagger, dataset: Dataset, tmp_path: Path):
    summary = propose(tagger, dataset, tmp_path / "out")
    assert summary.ok
    assert (summary.masks, summary.empty, summary.by_score) == (
        {"bright": 2, "dim": 1},
        {"bright": 1, "dim": 0},
        {"bright": 1, "dim": 0},
    )
    first, second, dark, healthy = rows_of(tmp_path / "out" / "table.csv")
    assert [first[name] for name in ("bright", "dim", "unrelated")] == ["1", "0", "1"]
    assert [second[name] for name in ("bright", "dim", "unrelated")] == ["", "1", ""]
    # 1: a mask; 0: none, bright as the image is; unknown: by the score, and said so; 1 on a dark image: no proposal
    assert [bool(first[f"mask:{name}"]) for name in ("bright", "dim")] == [True, False]
    assert [bool(second[f"mask:{name}"]) for name in ("bright", "dim")] == [True, True]
    assert (first["attr:by_score"], second["attr:by_score"]) == ("", "bright")
    assert not any(dark[name] or healthy[name] for name in ("mask:bright", "mask:dim", "attr:masks"))
    assert [one["attr:original"] for one in (first, second)] == ["a/1.png", "b/1.png"]
    assert first["attr:masks"].startswith(PROPOSED)
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["complete"] is True
    assert about["runs"][0]["trained_on"] == "elsewhere"
    assert set(about["runs"][0]["splits_seen"]) == {"train", "val"}
    assert about["runs"][0]["mask_thresholds"] == {"bright": 0.5, "dim": 0.5}
    assert re.fullmatch("[0-9a-f]{64}", about["runs"][0]["sha256"])


def test_what_is_written_opens_again_with_its_labels_splits_and_patients(
    tagger: Tagger, dataset: Dataset, tmp_path: Path
):
    propose(tagger, dataset, tmp_path / "out")
    again = open_source(f"csv:{tmp_path / 'out'}")
    assert again.findings == dataset.findings
    np.testing.assert_array_equal(again.labels(), dataset.labels())
    for name in ("patient", "split"):
        assert [getattr(one, name) for one in again.records] == [getattr(one, name) for one in dataset.records]
    assert again.records[0].attributes["sex"] == "F"
    for one, was in zip(again.records, dataset.records, strict=True):
        assert os.path.samefile(one.path, was.path)  # a hard link: no copy
    # The truth of the source is left behind: the mask is the run's, of two parts, and so are the boxes.
    mask = read_mask(again.records[0].masks["bright"])
    assert mask.shape == (40, 60)
    assert mask[20, 17]
    assert mask[12, 47]
    assert not mask[2, 2]
    assert len(again.records[0].boxes_xyxy["bright"]) == 2
    report = check(f"csv:{tmp_path / 'out'}")
    assert report.ok, report.errors


def test_coco_decodes_to_the_same_masks(tagger: Tagger, dataset: Dataset, tmp_path: Path):
    from pycocotools.coco import COCO

    propose(tagger, dataset, tmp_path / "out")
    read = COCO(str(tmp_path / "out" / "coco.json"))
    assert [one["name"] for one in read.loadCats(read.getCatIds())] == ["bright", "dim"]
    again = open_source(f"csv:{tmp_path / 'out'}")
    seen = 0
    for number in read.getImgIds():
        about = read.loadImgs(number)[0]
        assert (about["width"], about["height"]) == (60, 40)
        record = next(one for one in again.records if one.image == about["file_name"])
        for category, finding in ((1, "bright"), (2, "dim")):
            parts = read.loadAnns(read.getAnnIds(imgIds=number, catIds=category))
            union = np.zeros((40, 60), bool)
            for part in parts:
                mask = read.annToMask(part).astype(bool)
                rows, cols = np.nonzero(mask)
                x, y, width, height = part["bbox"]
                assert (x, y, x + width, y + height) == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
                assert part["area"] == mask.sum()
                assert 0 <= part["score"] <= 1
                union |= mask
            wanted = read_mask(record.masks[finding]) if finding in record.masks else np.zeros((40, 60), bool)
            np.testing.assert_array_equal(union, wanted)
            seen += len(parts)
    assert seen == 4  # two parts, and one of each finding


def test_run_lengths_by_hand():
    mask = np.array([[1, 0, 1], [0, 0, 1]], dtype=bool)  # down the columns: 1 0 | 0 0 | 1 1
    assert coco.rle(mask) == {"size": [2, 3], "counts": [0, 1, 3, 2]}
    assert coco.rle(np.zeros((2, 2), bool)) == {"size": [2, 2], "counts": [4]}


def proposal(**changes) -> Proposal:
    plain = Proposal("nodule", "label", 0.9, 0.5, 0.8, 0.3, 100, 0.01)
    return replace(plain, **changes)


def test_what_is_doubtful_and_why():
    usual = [proposal(share=0.01 * (1 + i / 100)) for i in range(20)]
    odd = {
        "none": proposal(area_px=0, share=0.0, peak=0.2),
        "weak": proposal(score=0.2),
        "near": proposal(peak=0.35),
        "large": proposal(share=0.1),
        "small": proposal(share=0.001),
        "unknown": proposal(by="score"),
    }
    found = doubts([*usual, *odd.values()])
    assert all(one.value < 0.05 and not one.why for one in found[:20])
    by_name = dict(zip(odd, found[20:], strict=True))
    assert by_name["none"].value == pytest.approx(0.9)
    assert by_name["weak"].value == pytest.approx(0.6)  # 1 - 0.2 / 0.5
    assert by_name["near"].value == pytest.approx(0.9)  # 0.05 above the threshold, where 0.5 is usual
    assert by_name["unknown"].value == pytest.approx(0.25)
    assert "unusually large" in by_name["large"].why[0]
    assert "unusually small" in by_name["small"].why[0]
    assert "no mask" in by_name["none"].why[0]
    both = doubts([*usual, proposal(score=0.2, by="score")])[-1]
    assert both.value == pytest.approx(1 - 0.4 * 0.75)
    assert [text[:9] for text in both.why] == ["score 0.2", "the label"]


def test_the_doubtful_come_first_on_the_sheet(tagger: Tagger, dataset: Dataset, tmp_path: Path):
    propose(tagger, dataset, tmp_path / "out", on_page=2)
    rows = rows_of(tmp_path / "out" / "check.csv")
    assert [(row["original"], row["finding"]) for row in rows][:2] == [("dark.png", "bright"), ("b/1.png", "bright")]
    assert [float(row["doubt"]) for row in rows] == sorted((float(row["doubt"]) for row in rows), reverse=True)
    assert len(rows) == 4
    page = (tmp_path / "out" / "check.html").read_text()
    assert page.count('<li data-finding="') == 2
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert "4 proposals for 4 images" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # nothing from a network
    for row in rows:
        assert (tmp_path / "out" / row["picture"]).is_file()


def test_a_killed_call_is_taken_up(tagger: Tagger, dataset: Dataset, tmp_path: Path, monkeypatch):
    out = tmp_path / "out"
    tagger.batch_size = 1
    real, done = act._propose_one, []

    def killed(record, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(record.image)
        return real(record, *rest)

    monkeypatch.setattr(act, "_propose_one", killed)
    with pytest.raises(KeyboardInterrupt):
        propose(tagger, dataset, out)
    assert not json.loads((out / "about.json").read_text())["complete"]
    monkeypatch.setattr(act, "_propose_one", real)
    propose(tagger, dataset, out)
    propose(tagger, dataset, tmp_path / "whole")
    for name in ("table.csv", "boxes.csv", "coco.json", "check.csv", "check.html"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert propose(tagger, dataset, out).skipped == 4


def test_a_bad_file_is_reported_at_the_end_and_done_when_it_is_good(tagger: Tagger, dataset: Dataset, tmp_path: Path):
    file = dataset.records[1].path
    good = file.read_bytes()
    file.write_bytes(b"no image")
    summary = propose(tagger, dataset, tmp_path / "out")
    assert not summary.ok
    assert list(summary.failures) == ["b/1.png"]
    assert summary.images == 3
    assert not json.loads((tmp_path / "out" / "about.json").read_text())["complete"]
    file.write_bytes(good)
    summary = propose(tagger, dataset, tmp_path / "out")
    assert summary.ok
    assert (summary.images, summary.skipped) == (4, 3)


def test_a_file_that_is_not_there_is_reported_and_done_when_it_is(tagger: Tagger, dataset: Dataset, tmp_path: Path):
    gone = tmp_path / "gone.png"
    records = (replace(dataset.records[0], path=gone), *dataset.records[1:])
    missing = replace(dataset, records=records)
    out = tmp_path / "proposed"
    first = propose(tagger, missing, out)
    assert list(first.failures) == [dataset.records[0].image]
    assert first.images == len(dataset) - 1
    shutil.copy(dataset.records[0].path, gone)
    second = propose(tagger, missing, out)
    assert second.ok
    assert second.skipped == len(dataset) - 1


def test_masks_lie_in_the_area_and_images_without_it_are_counted(
    tagger: Tagger, dataset: Dataset, tmp_path: Path, monkeypatch
):
    def top(area: str, values: np.ndarray) -> np.ndarray | None:
        if not values.any():  # of the dark image
            return None
        where = np.zeros(values.shape, bool)
        where[:20] = True
        return where

    plain = propose(tagger, dataset, tmp_path / "plain")
    assert (plain.area, plain.unlimited) == ("image", 0)
    monkeypatch.setattr("radtag.tag.estimate", top)
    limited = Tagger(tagger.runs, device="cpu", area="body")
    summary = propose(limited, dataset, tmp_path / "out")
    assert (summary.area, summary.unlimited) == ("body", 1)
    assert "1 image in which no body was found: its masks are not limited" in summary.lines()
    files = sorted(path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain/masks").rglob("*.png"))
    assert len(files) == 3
    for file in files:
        whole, part = (read_mask(tmp_path / out / file) for out in ("plain", "out"))
        assert whole[20:].any()
        np.testing.assert_array_equal(part, whole & (np.arange(40) < 20)[:, None])
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert (about["settings"]["area"], about["images_without_the_area"]) == ("body", 1)
    assert propose(limited, dataset, tmp_path / "out").unlimited == 1
    with pytest.raises(BadSetting, match=r"settings\.area was body, now not given"):
        propose(tagger, dataset, tmp_path / "out")


def test_a_folder_of_something_else_is_refused(tagger: Tagger, dataset: Dataset, tmp_path: Path):
    propose(tagger, dataset, tmp_path / "out")
    other = Tagger(tagger.runs, device="cpu", threshold=0.7)
    with pytest.raises(BadSetting, match=r"made otherwise \(settings.threshold was 0.5, 0.5, now 0.7, 0.7\)"):
        propose(other, dataset, tmp_path / "out")
    relabelled = replace(dataset, records=(replace(dataset.records[0], labels=(0, 0, 1)), *dataset.records[1:]))
    with pytest.raises(BadSetting, match="data was"):
        propose(tagger, relabelled, tmp_path / "out")
    with pytest.raises(BadSetting, match="no folder of proposals"):
        propose(tagger, dataset, tmp_path / "files")


def test_a_run_of_other_findings_is_refused(tagger: Tagger, dataset: Dataset, tmp_path: Path):
    with pytest.raises(BadData, match="the run knows bright, dim and four has unrelated"):
        propose(tagger, dataset.with_findings(["unrelated"]), tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tag", "run", "csv:x"], "give one of --out DIR"),
        (["tag", "run", "csv:x", "--out", "a", "--as-dataset", "b"], "give one of --out DIR"),
        (["tag", "run", "a", "b", "--as-dataset", "c"], "takes one SOURCE, such as csv:table.csv, got a, b."),
        (["tag", "run", "csv:x", "--as-dataset", "c", "--save", "maps"], "--save maps: a data set has its masks"),
        (["tag", "run", "csv:x", "--as-dataset", "c", "--threads", "2"], "--threads is of --out."),
        (["tag", "run", "csv:x", "--as-dataset", "c", "--save-for", "all"], "--save-for all is of --out."),
        (["tag", "run", "x.png", "--out", "c", "--splits", "s.csv"], "--splits s.csv: files have no splits."),
        (["tag", "run", "x.png", "--out", "c", "--split-seed", "1"], "--split-seed 1: files have no splits."),
    ],
)
def test_the_command_line_refuses_what_does_not_go_together(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 1
    assert message in capsys.readouterr().err
