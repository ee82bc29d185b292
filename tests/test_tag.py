"""Tagging, with a network whose maps are known: what is bright in the image is bright in the map."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from radtag import draw, evaluate, regions, tag
from radtag.calibration import Calibration
from radtag.data.prepare import lung_field, prepare
from radtag.errors import BadSetting, UnreadableImage
from radtag.geometry import Frame, Grid, reduced_size, to_original
from radtag.images import Image
from radtag.models import Output
from radtag.tag import Layer, Prediction, Tagger, tag_files
from radtag.train.settings import TrainSettings

SIDE = 64
PLAIN = Calibration.identity(2)
SETTINGS = TrainSettings()


class Bright(nn.Module):
    """Two findings, "bright" and "dark", from the mean of each tile of the input, or from its first pixel."""

    def __init__(self, cell: int = 4, look: str = "mean", seconds: float = 0.0) -> None:
        super().__init__()
        self.cell, self.look, self.seconds = cell, look, seconds
        self.seen: list[int] = []

    def forward(self, images: torch.Tensor) -> Output:
        self.seen.append(len(images))
        time.sleep(self.seconds)
        if self.look == "mean":
            cells = nn.functional.avg_pool2d(images, self.cell)
        else:
            cells = images[:, :, :: self.cell, :: self.cell]
        maps = torch.cat([20 * cells - 10, -20 * cells - 10], dim=1)  # sigmoid .5 at gray .5; "dark" is never found
        return Output(maps.amax(dim=(2, 3)), maps)


@dataclass(frozen=True)
class FakeRun:
    """What tagging asks of a run."""

    path: Path
    model: Bright
    fit: str = "stretch"
    findings: tuple[str, ...] = ("bright", "dark")
    calibration: Calibration = PLAIN
    size_px: int = SIDE
    settings: TrainSettings = SETTINGS

    @property
    def grids(self) -> tuple[Grid, ...]:
        cell, count = float(self.model.cell), SIDE // self.model.cell
        if self.model.look == "mean":
            return (self.tile_grid,) * 2
        return (Grid((count, count), (cell, cell), (0.5, 0.5)),) * 2

    @property
    def tile_grid(self) -> Grid:
        count = SIDE // self.model.cell
        return Grid.tiles((count, count), (SIDE, SIDE))

    def build_model(self) -> Bright:
        return self.model

    def prepare(self, image: Image, field: np.ndarray | None = None):
        return prepare(image, SIDE, self.fit, field)  # type: ignore[arg-type]

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        return batch[:, None].float() / 255


def make_run(path: Path, fit: str = "stretch", **options) -> FakeRun:
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.toml").write_text(f"name = '{path.name}'")
    (path / "weights.safetensors").write_bytes(b"none")
    return FakeRun(path, Bright(**options), fit)


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    return make_run(tmp_path / "run")


def pixels(size_rc: tuple[int, int] = (100, 200), box: tuple[int, int, int, int] | None = (50, 25, 100, 50)):
    """Dark, but for the box (x1, y1, x2, y2)."""
    image = np.zeros(size_rc, np.float32)
    if box is not None:
        image[box[1] : box[3], box[0] : box[2]] = 1
    return image


def write_png(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray((image * 255).astype(np.uint8)).save(path)
    return path


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(out / "tags.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def pictures(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.suffix in (".png", ".jpg")}


# -- the chain to original pixels


@pytest.mark.parametrize(
    ("fit", "size_rc", "box"),
    [
        # Edges on the borders of cells: 4 input pixels are 6.25 rows and 12.5 columns; letterboxed, 12.5 of both.
        ("stretch", (100, 200), (50, 25, 100, 50)),
        ("stretch", (200, 80), (10, 50, 40, 100)),
        ("letterbox", (100, 200), (50, 25, 100, 75)),
        ("letterbox", (200, 100), (25, 50, 75, 150)),
    ],
)
def test_a_bright_square_comes_out_at_its_place(tmp_path, fit, size_rc, box):
    tagger = Tagger(make_run(tmp_path / "run", fit))
    image = Image(pixels(size_rc, box), "a.png", spacing_mm=(0.5, 0.8))
    bright, dark = tagger.tag([image])
    assert (bright.image, bright.finding, bright.positive) == ("a.png", "bright", True)
    assert (dark.finding, dark.positive, dark.boxes) == ("dark", False, ())
    (found,) = bright.boxes
    assert np.abs(np.array(found) - box).max() <= 1
    assert (bright.mask != (image.pixels > 0)).mean() < 0.01
    assert bright.map.shape == bright.mask.shape == dark.mask.shape == size_rc
    x, y = bright.peak_xy
    assert box[0] < x < box[2]
    assert box[1] < y < box[3]
    assert bright.mask_area_mm2 == pytest.approx(bright.mask_area_px * 0.4)
    assert bright.score == pytest.approx(1 / (1 + np.exp(-10)), abs=1e-3)


def test_a_healthy_image_is_dark_and_empty(run):
    bright, dark = Tagger(run).tag(Image(pixels(box=None), "a.png"))
    for one in (bright, dark):
        assert not one.positive
        assert one.map.max() < 0.01
        assert not one.mask.any()
        assert np.isnan(one.mask_area_mm2) or one.mask_area_mm2 == 0


def test_unknown_spacing_gives_no_area(run):
    bright, _ = Tagger(run).tag(Image(pixels(), "a.png"))
    assert bright.mask_area_px > 0
    assert np.isnan(bright.mask_area_mm2)


def test_calibration_applies_to_scores_and_maps(tmp_path):
    run = make_run(tmp_path / "run")
    calibrated = replace(
        run, calibration=Calibration((0.5, 1.0), (1.0, 0.0), (0.25, 1.0), (-1.0, 0.0), (0.999, 0.5), (0.9, 0.5))
    )
    bright, _ = Tagger(calibrated).tag(Image(pixels(), "a.png"))
    assert bright.score == pytest.approx(1 / (1 + np.exp(-(0.5 * 10 + 1))), abs=1e-4)
    assert bright.map.max() == pytest.approx(1 / (1 + np.exp(-(0.25 * 10 - 1))), abs=1e-4)
    assert (bright.positive, bright.mask_threshold, bright.mask.any()) == (False, 0.9, False)


def test_the_networks_own_sigmoids_are_kept_beside_the_calibrated_maps(tmp_path):
    one = make_run(tmp_path / "run", look="first")
    calibrated = replace(one, calibration=replace(PLAIN, map_slope=(3.0, 0.5), map_bias=(-2.0, 1.0)))
    image = Image(pixels(), "a.png")
    tagger = Tagger(calibrated, findings=["dark", "bright"], tta="flip")
    (prediction,) = tagger.predict([image])
    square = torch.from_numpy(one.prepare(image)[0])[None]
    with torch.inference_mode():
        plain = one.model(one.normalise(square)).maps.sigmoid()[0].numpy()
        mirrored = one.model(one.normalise(square.flip(-1))).maps.sigmoid()[0].numpy()[..., ::-1]
    np.testing.assert_array_equal(prediction.layers[0].sigmoids, plain[::-1])
    np.testing.assert_array_equal(prediction.layers[1].sigmoids, mirrored[::-1])
    assert not np.allclose(prediction.layers[0].maps, plain[::-1])


def test_batches_do_not_change_the_order_or_the_tags(run):
    images = [Image(pixels((100 + 4 * i, 200), (10 * i, 20, 10 * i + 60, 70)), f"{i}.png") for i in range(7)]
    tags = list(Tagger(run, batch_size=3).tag(images))
    assert [one.image for one in tags] == [f"{i}.png" for i in range(7) for _ in range(2)]
    assert run.model.seen == [3, 3, 1]
    for i, image in enumerate(images):
        (alone, _) = Tagger(run).tag(image)
        assert alone.boxes == tags[2 * i].boxes
        assert alone.map.shape == image.size_rc


def test_predictions_stream(run):
    taken: list[int] = []

    def images():
        for i in range(100):
            taken.append(i)
            yield Image(pixels(), f"{i}.png")

    first = next(iter(Tagger(run, batch_size=4).predict(images())))
    assert isinstance(first, Prediction)
    assert first.maps().shape == (2, 100, 200)
    assert first.map_grid.shape == (2, 16, 16)
    assert len(taken) == 4


# -- options


def test_mirroring_mirrors_in_input_pixels_and_not_in_cells(tmp_path):
    # Each cell sees the first pixel of its tile: mirrored, the last. A slope from left to right tells where it looked.
    run = make_run(tmp_path / "run", look="first")
    ramp = np.tile(np.linspace(0.3, 0.7, SIDE, dtype=np.float32), (SIDE, 1))
    plain, _ = Tagger(run).tag(Image(ramp, "a.png"))
    mirrored, _ = Tagger(run, tta="flip").tag(Image(ramp, "a.png"))
    expected = 1 / (1 + np.exp(-(20 * ramp - 10)))
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(plain.map - expected)[inner].max() < 0.02
    assert np.abs(mirrored.map - expected)[inner].max() < 0.02
    assert not np.array_equal(plain.map, mirrored.map)
    # Cell by cell it would be 1.5 pixels off, the mean of 0 and 3.
    tiles, _ = Tagger(run, grid="tiles").tag(Image(ramp, "a.png"))
    assert np.abs(tiles.map - expected)[inner].max() > 0.03


def test_each_finding_is_laid_by_its_own_grid(tmp_path):
    @dataclass(frozen=True)
    class Apart(FakeRun):
        @property
        def grids(self) -> tuple[Grid, ...]:
            return tuple(replace(self.tile_grid, offset_rc=offset) for offset in ((2.0, 2.0), (6.0, -3.0)))

    run = Apart(tmp_path / "run", Bright(4, "mean"))
    image = Image(pixels(), "a.png")
    (one,) = Tagger(run).predict([image])
    (same,) = Tagger(run, grid="tiles").predict([image])
    for index, grid in enumerate(run.grids):
        expected = to_original(one.layers[0].maps[index], grid, one.frame)
        np.testing.assert_array_equal(one.map(index), expected)
        np.testing.assert_array_equal(one.maps()[index], expected)
        assert one.peaks[index].tolist() == [*regions.peak(expected), expected.max()]
    assert not np.array_equal(one.map(1), same.map(1))
    (dark,) = Tagger(run, findings=["dark"]).predict([image])
    np.testing.assert_array_equal(dark.map(0), one.map(1))


def test_mirroring_leaves_an_image_where_it_is(tmp_path):
    run = make_run(tmp_path / "run", "letterbox")
    bright, _ = Tagger(run, tta="flip").tag(Image(pixels(box=(25, 25, 75, 50)), "a.png"))
    (found,) = bright.boxes
    assert np.abs(np.array(found) - (25, 25, 75, 50)).max() <= 1


def test_an_ensemble_is_the_mean_of_its_members(tmp_path):
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other", "letterbox", cell=8)
    other = replace(other, calibration=replace(PLAIN, score_threshold=(0.7, 0.7)))
    image = Image(pixels(), "a.png")
    (a, _), (b, _), (both, _) = (list(Tagger(runs).tag(image)) for runs in (one, other, [one, other]))
    np.testing.assert_allclose(both.map, (a.map + b.map) / 2, atol=1e-6)
    assert both.score == pytest.approx((a.score + b.score) / 2, abs=1e-6)
    assert both.threshold == pytest.approx(0.6)
    row, col = np.unravel_index(both.map.argmax(), both.map.shape)
    assert both.peak_xy == (col + 0.5, row + 0.5)
    with pytest.raises(BadSetting, match="same findings"):
        Tagger([one, replace(other, findings=("bright", "grey"))])
    with pytest.raises(ValueError, match="no common grid"):
        _ = both.prediction.map_grid


def test_thresholds_can_be_given(run):
    image = Image(pixels() * 0.48, "a.png")
    assert [one.positive for one in Tagger(run).tag(image)] == [False, False]
    assert [one.positive for one in Tagger(run, threshold=0.3).tag(image)] == [True, False]
    assert [one.threshold for one in Tagger(run, threshold={"dark": 0.3}).tag(image)] == [0.5, 0.3]
    bright, _ = Tagger(run, mask=0.3).tag(image)
    assert bright.mask.any()
    with pytest.raises(BadSetting, match="0 to 1, got 3"):
        Tagger(run, threshold=3)
    with pytest.raises(BadSetting, match="validated, otsu or a map value"):
        Tagger(run, mask="best")  # type: ignore[arg-type]


def test_otsu_takes_part_of_every_map(run):
    image = Image(pixels() * 0.3, "a.png")
    plain, _ = Tagger(run).tag(image)
    bright, _ = Tagger(run, mask="otsu").tag(image)
    assert not plain.mask.any()
    assert np.abs(np.array(bright.boxes[0]) - (50, 25, 100, 50)).max() <= 7
    assert 0 < bright.mask_threshold < bright.map.max()
    flat, _ = Tagger(run, mask="otsu").tag(Image(pixels(box=None), "b.png"))
    assert np.isnan(flat.mask_threshold)
    assert not flat.mask.any()


def test_findings_can_be_chosen(run):
    dark, bright = Tagger(run, findings=("dark", "bright")).tag(Image(pixels(), "a.png"))
    assert (dark.finding, dark.positive, bright.finding, bright.positive) == ("dark", False, "bright", True)
    (only,) = Tagger(run, findings=("bright",)).tag(Image(pixels(), "a.png"))
    assert len(only.boxes) == 1
    with pytest.raises(BadSetting, match="'Mass'; it knows bright, dark"):
        Tagger(run, findings=("Mass",))


def test_masks_and_boxes_are_the_same_whether_the_map_was_looked_at_or_not(run):
    tagger = Tagger(run, mask=0.02, min_area_px=0)
    picture = Image(pixels(box=(50, 25, 100, 50)), source="a.png")
    seen = list(tagger.tag(picture))
    for one, other in zip(seen, tagger.tag(picture), strict=True):
        np.testing.assert_array_equal(one.map > one.mask_threshold, one.mask)
        np.testing.assert_array_equal(other.mask, one.mask)
        assert other.boxes == one.boxes
        np.testing.assert_array_equal(other.map, one.map)
    assert seen[0].mask.any()


# -- a folder of tags


def test_files_become_a_folder(run, tmp_path):
    files = [write_png(tmp_path / "in" / f"{i}.png", pixels(box=(50, 25, 100, 50) if i else None)) for i in range(3)]
    seen: list[tuple[int, int]] = []
    summary = tag_files(run, files, tmp_path / "out", progress=lambda done, of: seen.append((done, of)))
    assert summary.ok
    assert (summary.files, summary.images, summary.skipped, summary.positives) == (3, 3, 0, {"bright": 2, "dark": 0})
    assert seen[-1] == (3, 3)
    rows = rows_of(tmp_path / "out")
    assert list(rows[0])[:10] == [
        "image", "finding", "score", "threshold", "positive", "peak_x", "peak_y",
        "mask_area_px", "mask_area_mm2", "boxes",
    ]  # fmt: skip
    assert [(row["image"], row["finding"], row["positive"]) for row in rows] == [
        ("0.png", "bright", "0"), ("0.png", "dark", "0"), ("1.png", "bright", "1"),
        ("1.png", "dark", "0"), ("2.png", "bright", "1"), ("2.png", "dark", "0"),
    ]  # fmt: skip
    (box,) = json.loads(rows[2]["boxes"])
    assert np.abs(np.array(box) - (50, 25, 100, 50)).max() <= 1
    assert (rows[0]["boxes"], rows[0]["mask_area_mm2"]) == ("[]", "")
    assert pictures(tmp_path / "out") == {
        "maps/bright/1.png", "masks/bright/1.png", "overlays/1.jpg",
        "maps/bright/2.png", "masks/bright/2.png", "overlays/2.jpg",
    }  # fmt: skip
    (direct, _) = Tagger(run).tag(files[1])
    np.testing.assert_allclose(draw.read_map(tmp_path / "out/maps/bright/1.png"), direct.map, atol=9 / 65535)
    with PIL.Image.open(tmp_path / "out/masks/bright/1.png") as mask:
        assert mask.mode == "1"
        np.testing.assert_array_equal(np.asarray(mask), direct.mask)
        assert int(rows[2]["mask_area_px"]) == direct.mask.sum()
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["complete"]
    assert [entry["file"] for entry in manifest["files"]] == [str(file) for file in files]
    assert manifest["runs"][0]["path"] == str(run.path)


def test_what_is_saved_can_be_chosen(run, tmp_path):
    file = write_png(tmp_path / "a.png", pixels())
    tag_files(run, [file], tmp_path / "default")
    assert pictures(tmp_path / "default") == {"maps/bright/a.png", "masks/bright/a.png", "overlays/a.jpg"}
    tag_files(run, [file], tmp_path / "none", save=())
    assert pictures(tmp_path / "none") == set()
    tag_files(run, [file], tmp_path / "all", save=("maps",), save_for="all")
    assert pictures(tmp_path / "all") == {"maps/bright/a.png", "maps/dark/a.png"}
    with pytest.raises(BadSetting, match="not 'boxes'"):
        tag_files(run, [file], tmp_path / "other", save=("boxes",))  # type: ignore[arg-type]


def test_a_large_image_has_an_overlay_of_a_size_to_look_at(run, tmp_path):
    file = write_png(tmp_path / "a.png", pixels((600, 2000), (500, 150, 1000, 300)))
    tag_files(run, [file], tmp_path / "out", save=("maps", "overlays"))
    with PIL.Image.open(tmp_path / "out/overlays/a.jpg") as picture:
        assert picture.width == 667  # a third
        assert 200 < picture.height < 270
        coloured = np.ptp(np.asarray(picture).astype(int)[-200:], axis=2) > 60
    rows, cols = np.nonzero(coloured)
    assert np.abs(np.array([cols.min(), cols.max(), rows.min(), rows.max()]) - (167, 333, 50, 100)).max() < 25
    with PIL.Image.open(tmp_path / "out/maps/bright/a.png") as picture:
        assert picture.size == (2000, 600)


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("kind", ["one layer", "two layers", "joint", "amounts"])
def test_an_overlay_shows_the_highest_map_whatever_it_is_made_of(kind, factor):
    random, size_rc, cells = np.random.default_rng(0), (300, 170), (9, 7)
    frame = Frame.stretch(size_rc, (90, 70))
    grids = tuple(Grid(cells, (10.0, 10.0), (5.0 + i, 4.0)) for i in range(3))
    layers = []
    for _ in range(1 if kind in ("one layer", "amounts") else 2):
        maps = random.random((3, *cells), np.float32) ** 3
        maps = np.log(maps / (1 - maps)) if kind == "joint" else maps  # of amounts, some are more than pictures show
        layers.append(Layer(maps, grids, frame, changes=maps if kind == "amounts" else None))
    image = Image(np.full(size_rc, 0.5, np.float32), "a.png")
    prediction = Prediction(image, np.ones(3, np.float32), tuple(layers), joint=kind == "joint")
    highest = np.maximum(
        *(prediction.map(i, frame_of=lambda frame: frame.of_reduced(factor)).astype(np.float64) for i in (0, 2))
    )
    expected = 255 * np.minimum(highest / prediction.full, 1)
    assert np.abs(prediction.shown([0, 2], factor) - expected).max() < 0.55


def test_a_second_call_does_nothing_again(run, tmp_path):
    files = [write_png(tmp_path / f"{i}.png", pixels()) for i in range(3)]
    tag_files(run, files[:2], tmp_path / "out")
    table = (tmp_path / "out/tags.csv").read_bytes()
    run.model.seen.clear()
    again = tag_files(run, files[:2], tmp_path / "out")
    assert run.model.seen == []
    assert (again.skipped, again.images, again.ok) == (2, 2, True)
    assert (tmp_path / "out/tags.csv").read_bytes() == table
    more = tag_files(run, files, tmp_path / "out")
    assert run.model.seen == [1]
    assert (more.skipped, more.images) == (2, 3)
    assert len(rows_of(tmp_path / "out")) == 6


def test_a_changed_file_is_done_again_and_leaves_nothing_of_the_old_one(run, tmp_path):
    file = write_png(tmp_path / "a.png", pixels())
    tag_files(run, [file], tmp_path / "out")
    assert pictures(tmp_path / "out")
    write_png(file, pixels(box=None))
    os.utime(file, ns=(1, 1))
    summary = tag_files(run, [file], tmp_path / "out")
    assert summary.skipped == 0
    assert [row["positive"] for row in rows_of(tmp_path / "out")] == ["0", "0"]
    assert pictures(tmp_path / "out") == set()


@pytest.mark.parametrize("torn", [b'{"file": "/a', b"\x00\x00", b'{"file": "/a"}'])
def test_a_line_that_was_cut_off_is_done_again(run, tmp_path, torn):
    files = [write_png(tmp_path / f"{i}.png", pixels()) for i in range(3)]
    tag_files(run, files[:2], tmp_path / "out")
    with open(tmp_path / "out/journal.jsonl", "ab") as stream:
        stream.write(torn)
    assert tag_files(run, files, tmp_path / "out").skipped == 2
    assert len(rows_of(tmp_path / "out")) == 6
    assert tag_files(run, files, tmp_path / "out").skipped == 3
    assert len(rows_of(tmp_path / "out")) == 6


def test_a_failed_disk_stops_the_call_and_the_next_one_goes_on(run, tmp_path, monkeypatch):
    files = [write_png(tmp_path / f"{i}.png", pixels()) for i in range(5)]
    write_regions, written = draw.write_regions, []

    def full(path, found):
        written.append(path)
        if len(written) == 3:
            raise OSError("no space left on device")
        write_regions(path, found)

    monkeypatch.setattr(draw, "write_regions", full)
    with pytest.raises(OSError, match="no space"):
        tag_files(run, files, tmp_path / "out", threads=1, batch_size=1)
    done = {row["image"] for row in rows_of(tmp_path / "out")}
    assert done == {"0.png", "1.png"}
    assert not json.loads((tmp_path / "out/manifest.json").read_text())["complete"]
    monkeypatch.setattr(draw, "write_regions", write_regions)
    run.model.seen.clear()
    assert tag_files(run, files, tmp_path / "out").skipped == 2
    assert sum(run.model.seen) == 3
    assert len(rows_of(tmp_path / "out")) == 10


def test_a_killed_call_is_taken_up(run, tmp_path):
    files = [write_png(tmp_path / "in" / f"{i}.png", pixels()) for i in range(6)]
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_tag as t; from pathlib import Path; "
        "run = t.FakeRun(Path(sys.argv[2]), t.Bright(seconds=0.3)); "
        "t.tag_files(run, [sys.argv[3]], sys.argv[4], batch_size=1, threads=1)"
    )
    out = tmp_path / "out"
    arguments = [str(Path(__file__).parent), str(run.path), str(tmp_path / "in"), str(out)]
    process = subprocess.Popen([sys.executable, "-c", script, *arguments])
    journal, until = out / "journal.jsonl", time.monotonic() + 180
    while time.monotonic() < until and not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
        assert process.poll() is None, "the call ended by itself"
        time.sleep(0.02)
    with pytest.raises(BadSetting, match="another call is tagging"):
        tag_files(run, files, out)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "tags.csv").exists()
    before = journal.read_bytes().count(b'"rows"')
    assert 1 <= before < 6
    summary = tag_files(run, files, out)
    assert summary.skipped >= 1
    assert sum(run.model.seen) == 6 - summary.skipped
    rows = rows_of(out)
    assert [row["image"] for row in rows] == [f"{i}.png" for i in range(6) for _ in range(2)]
    assert len(pictures(out)) == 18


def test_a_bad_file_is_reported_and_the_others_are_done(run, tmp_path):
    files = [write_png(tmp_path / f"{i}.png", pixels()) for i in range(4)]
    files[1].write_bytes(files[1].read_bytes()[:100])
    files[2].write_bytes(b"")
    summary = tag_files(run, files, tmp_path / "out")
    assert not summary.ok
    assert set(summary.failures) == {str(files[1]), str(files[2])}
    assert all(cause.startswith(file) for file, cause in summary.failures.items())
    assert {row["image"] for row in rows_of(tmp_path / "out")} == {"0.png", "3.png"}
    assert summary.lines()[0] == "2 of 4 files tagged; 2 images in all"
    assert replace(summary, files=3, images=1).lines()[0] == "1 of 3 files tagged; 1 image in all"
    assert replace(summary, files=1, images=0, failures={}).lines()[0] == "1 of 1 file tagged; 0 images in all"
    assert str(files[1]) in "\n".join(summary.lines())
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert {entry["file"] for entry in manifest["failures"]} == set(summary.failures)
    assert not manifest["complete"]
    assert summary.to_dict()["ok"] is False
    write_png(files[1], pixels())
    write_png(files[2], pixels())
    assert tag_files(run, files, tmp_path / "out").skipped == 2
    assert len(rows_of(tmp_path / "out")) == 8
    files[0].write_bytes(b"")
    with pytest.raises(UnreadableImage):
        list(Tagger(run).tag(files))


def test_a_missing_file_does_not_stop_the_others(run, tmp_path):
    file = write_png(tmp_path / "a.png", pixels())
    summary = tag_files(run, [tmp_path / "b.png", file], tmp_path / "out")
    assert (summary.files, summary.images, list(summary.failures)) == (2, 1, [str(tmp_path / "b.png")])
    with pytest.raises(UnreadableImage, match=r"b\.png: no such file"):
        tag_files(run, [tmp_path / "b.png"], tmp_path / "other")
    with pytest.raises(BadSetting, match="no file was given"):
        tag_files(run, [], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_every_frame_is_an_image(run, tmp_path):
    frames = [PIL.Image.fromarray((pixels(box=box) * 255).astype(np.uint8)) for box in (None, (50, 25, 100, 50), None)]
    frames[0].save(tmp_path / "stack.tif", save_all=True, append_images=frames[1:])
    write_png(tmp_path / "a.png", pixels())
    summary = tag_files(run, [tmp_path / "stack.tif", tmp_path / "a.png"], tmp_path / "out", batch_size=2)
    rows = [row for row in rows_of(tmp_path / "out") if row["finding"] == "bright"]
    assert [(row["image"], row["positive"], row["frame"]) for row in rows] == [
        ("a.png", "1", "0"), ("stack.tif#0", "0", "0"), ("stack.tif#1", "1", "1"), ("stack.tif#2", "0", "2")
    ]  # fmt: skip
    assert (summary.files, summary.images) == (2, 4)
    assert "masks/bright/stack#1.png" in pictures(tmp_path / "out")
    assert [one.image for one in Tagger(run).tag(tmp_path / "stack.tif")][::2] == [f"stack.tif#{i}" for i in range(3)]


def test_frames_that_are_gone_leave_the_table(run, tmp_path):
    frames = [PIL.Image.fromarray((pixels() * 255).astype(np.uint8)) for _ in range(3)]
    file = tmp_path / "stack.tif"
    for count in (3, 2, 1):
        frames[0].save(file, save_all=True, append_images=frames[1:count])
        assert tag_files(run, [file], tmp_path / "out").images == count
        assert len(rows_of(tmp_path / "out")) == 2 * count
        assert len(pictures(tmp_path / "out")) == 3 * count


def test_one_folder_holds_the_tags_of_one_way_of_tagging(run, tmp_path):
    file = write_png(tmp_path / "a.png", pixels())
    tag_files(run, [file], tmp_path / "out")
    other = make_run(tmp_path / "other")
    with pytest.raises(BadSetting, match="tags by another run"):
        tag_files(other, [file], tmp_path / "out")
    with pytest.raises(BadSetting, match=r"threshold = \[0.5, 0.5\], and now it is \[0.3, 0.3\]"):
        tag_files(run, [file], tmp_path / "out", threshold=0.3)
    with pytest.raises(BadSetting, match="when the tagger is made"):
        tag_files(Tagger(run), [file], tmp_path / "out", threshold=0.3)
    assert len(rows_of(tmp_path / "out")) == 2


def test_a_failing_network_ends_the_call_without_hanging(run, tmp_path, monkeypatch):
    files = [write_png(tmp_path / f"{i}.png", pixels()) for i in range(40)]
    monkeypatch.setattr(Bright, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tag_files(run, files, tmp_path / "out", batch_size=2)


def test_batches_go_through_the_network_side_by_side_and_are_written_in_order(run, tmp_path, monkeypatch):
    files = [write_png(tmp_path / f"{i}.png", pixels(box=(50, 25, 100 + 10 * i, 50))) for i in range(6)]
    tag_files(run, files, tmp_path / "alone", batch_size=6)
    tagger = Tagger(run, batch_size=1)
    both = threading.Barrier(2, timeout=30)
    threads = []
    forward = Bright.forward

    def meet(self, images):
        both.wait()  # no batch goes on before another is there
        threads.append(torch.get_num_threads())
        return forward(self, images)

    monkeypatch.setattr(Bright, "forward", meet)
    monkeypatch.setattr(Tagger, "lanes", 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tag_files(tagger, files, tmp_path / "out")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1] * 6, "each has its share of the cores"
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "alone")
    images = [json.loads(line) for line in (tmp_path / "out/journal.jsonl").read_text().splitlines()]
    named = [line["rows"][0][0] for line in images if "rows" in line]
    assert named == [f"{i}.png" for i in range(6)]


@pytest.mark.parametrize(("files", "batch_size", "lanes"), [(1, 1, 1), (3, 2, 1), (4, 2, 2), (9, 2, 4), (0, 2, 1)])
def test_a_lone_batch_has_all_threads(run, tmp_path, monkeypatch, files, batch_size, lanes):
    named = [write_png(tmp_path / f"{i}.png", pixels()) for i in range(max(files, 1))]
    if not files:  # all are done
        tag_files(run, named, tmp_path / "out")
    asked = []
    shared = tag._shared_threads
    monkeypatch.setattr(tag, "_shared_threads", lambda count: asked.append(count) or shared(count))
    monkeypatch.setattr(Tagger, "lanes", 4)
    tag_files(run, named, tmp_path / "out", **({"batch_size": batch_size} if files else {}))
    assert asked == [lanes]


def test_threads_are_given_back_where_a_lane_fails(run, tmp_path, monkeypatch):
    files = [write_png(tmp_path / f"{i}.png", pixels()) for i in range(6)]
    monkeypatch.setattr(Tagger, "lanes", 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    forward = Bright.forward
    monkeypatch.setattr(Bright, "forward", lambda self, images: forward(self, images) if sum(self.seen) < 3 else 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError):
            tag_files(Tagger(run, batch_size=1), files, tmp_path / "out")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    monkeypatch.undo()
    # What was done before is in the table, and the next call does the rest.
    assert tag_files(run, files, tmp_path / "out").images == 6


def test_no_empty_batch_is_passed_on(run, tmp_path, monkeypatch):
    sizes = []
    forward = Tagger.forward
    monkeypatch.setattr(Tagger, "forward", lambda self, batch: sizes.append(len(batch)) or forward(self, batch))
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert not tag_files(run, [tmp_path / "bad.png"], tmp_path / "out").ok
    tag_files(run, [write_png(tmp_path / f"{i}.png", pixels()) for i in range(2)], tmp_path / "all", batch_size=2)
    assert sizes == [2]


def test_one_batch_at_once_is_explained(run, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    tagger = Tagger(run, device="cpu")
    assert tagger.lanes == tag.MOST_LANES
    tagger._explainers.append(object())  # type: ignore[arg-type]
    assert tagger.lanes == 1


def test_one_batch_at_once_has_its_findings_taken_away(run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    game = taking(tmp_path / "game")
    assert [Tagger(runs, device="cpu").lanes for runs in (run, game, [run, game])] == [tag.MOST_LANES, 1, 1]


def test_cuda_is_the_device_that_is_current_where_it_is_asked_for(monkeypatch):
    # Threads have a current device each, and a batch goes through the network in another one.
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert tag._device("cuda") == torch.device("cuda:1")
    assert tag._device("cuda:0") == torch.device("cuda:0")


def test_the_pictures_of_a_call_are_not_tagged_by_the_next(run, tmp_path):
    write_png(tmp_path / "images/a.png", pixels())
    out = tmp_path / "images/tags"
    assert tag_files(run, [tmp_path / "images"], out).files == 1
    again = tag_files(run, [tmp_path / "images"], out)
    assert (again.files, again.skipped, again.images) == (1, 1, 1)


def test_a_name_that_is_not_utf8_is_a_name(run, tmp_path):
    file = tmp_path / os.fsdecode(b"M\xfcller.png")
    try:
        write_png(file, pixels())
    except OSError:
        pytest.skip("this disk takes UTF-8 names alone")
    for skipped in (0, 1):
        summary = tag_files(run, [file], tmp_path / "out")
        assert (summary.ok, summary.skipped) == (True, skipped)
    assert (tmp_path / "out/tags.csv").read_bytes().count(b"\nM\xfcller.png,") == 2
    assert json.loads((tmp_path / "out/manifest.json").read_text())["files"][0]["file"] == str(file)


def test_a_folder_of_something_else_is_left_alone(run, tmp_path):
    file = write_png(tmp_path / "a.png", pixels())
    (tmp_path / "out").mkdir()
    for content in ("{}", "[]", "no JSON", '{"runs": [], "settings": {}}'):
        (tmp_path / "out/manifest.json").write_text(content)
        with pytest.raises(BadSetting, match=r"manifest\.json is not of radtag tag, or damaged\. Choose another"):
            tag_files(run, [file], tmp_path / "out")
        assert (tmp_path / "out/manifest.json").read_text() == content


def test_many_bad_files_in_a_row_are_settled_as_they_come(run, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(40)]
    for file in files:
        file.write_bytes(b"")
    write_png(files[-1], pixels())
    lines = []

    def progress(done: int, _: int) -> None:
        lines.append((done, len(run.model.seen)))

    assert len(tag_files(run, files, tmp_path / "out", batch_size=2, progress=progress).failures) == 39
    assert (15, 0) in lines, "before the network had anything to do"
    assert lines[-1] == (40, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, r"^device 'gpu' cannot be used \(.*\)\. Use auto or cpu\.$"),
        ({"device": "cuda:99"}, r"^device 'cuda:99' cannot be used"),
        ({"min_area_px": -1.0}, "at least 0 pixels, got -1.0"),
        ({"threshold": {"brihgt": 0.4}}, r"'brihgt', which is not tagged\. Tagged are bright, dark\.$"),
        ({"threshold": {"dark": 0.4}, "findings": ["bright"]}, r"'dark', which is not tagged\. Tagged are bright\.$"),
    ],
)
def test_options_that_cannot_be_are_refused(run, options, message):
    with pytest.raises(BadSetting, match=message):
        Tagger(run, **options)


# -- what is taken away


class Takes(Bright):
    """Takes 0.5 from what is brighter than 0.6 ("bright"), and -0.25 from what is darker than 0.1 ("dark").

    And from everywhere what is too little to be a change.
    """

    def __init__(self) -> None:
        super().__init__(cell=1)

    def forward(self, images: torch.Tensor) -> Output:
        self.seen.append(len(images))
        taken = torch.cat([0.5 * (images > 0.6), -0.25 * (images < 0.1)], dim=1)
        maps = taken.abs()
        return Output(20 * maps.amax(dim=(2, 3)) - 2, maps, taken + 1 / 1024)


class Barely(Takes):
    """Takes less than a grey level from everywhere."""

    def forward(self, images: torch.Tensor) -> Output:
        output = super().forward(images)
        return output._replace(maps=output.maps + 0.0015)


def taking(path: Path, fit: str = "stretch") -> FakeRun:
    return replace(make_run(path, fit), model=Takes(), calibration=replace(PLAIN, scale="amount"))


def lesions(size_rc: tuple[int, int] = (100, 200)) -> np.ndarray:
    """Noise of 0.2-0.4, and a bright and a dark lesion."""
    image = np.random.default_rng(0).uniform(0.2, 0.4, size_rc).astype(np.float32)
    image[25:50, 50:100] = 0.875
    image[60:80, 120:160] = 0.03125
    return image


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_counterpart_is_the_image_to_the_bit_where_nothing_is_taken(tmp_path, fit):
    image = lesions()
    bright, dark = Tagger(taking(tmp_path / "run", fit)).tag([Image(image, "a.png")])
    change = bright.prediction.change(0)
    assert change.shape == image.shape
    far = np.ones(image.shape, bool)  # by more than a cell of the network's
    far[20:55, 44:106] = False
    assert (change[far] == 0).all()
    np.testing.assert_array_equal(bright.counterpart[far], image[far])
    np.testing.assert_allclose(bright.counterpart[30:45, 58:92], 0.375, atol=0.002)  # 0.875 - 0.5
    np.testing.assert_allclose(dark.counterpart[66:74, 128:152], 0.28125, atol=0.002)  # -0.25 taken is added
    # A letterbox is dark beside the image, which reaches its first rows.
    np.testing.assert_array_equal(dark.counterpart[5:55], image[5:55])
    both = bright.prediction.counterpart([0, 1])
    np.testing.assert_array_equal(both[5:55], bright.counterpart[5:55])
    np.testing.assert_array_equal(both[56:], dark.counterpart[56:])
    np.testing.assert_array_equal(bright.prediction.counterpart([]), image)
    assert image[30, 60] == np.float32(0.875)  # the image itself is as it was


def test_a_map_of_amounts_is_not_calibrated_and_its_mask_is_what_exceeds_the_threshold(tmp_path):
    run = taking(tmp_path / "run")
    run = replace(run, calibration=replace(run.calibration, mask_threshold=(0.3, 0.3)))
    bright, dark = Tagger(run).tag([Image(lesions(), "a.png")])
    assert bright.map.max() == 0.5
    assert dark.map.max() == 0.25
    assert bright.prediction.layers[0].sigmoids is None
    (box,) = bright.boxes
    assert np.abs(np.array(box) - (50, 25, 100, 50)).max() <= 3
    assert dark.boxes == ()


def test_mirroring_and_ensembles_average_the_changes(tmp_path):
    plain, other = taking(tmp_path / "run"), taking(tmp_path / "other", "letterbox")
    image = Image(lesions(), "a.png")
    (one,), (two,), (flipped,), (both,) = (
        Tagger(runs, tta=tta).predict([image])
        for runs, tta in ((plain, "none"), (other, "none"), (plain, "flip"), ([plain, other], "none"))
    )
    np.testing.assert_allclose(flipped.change(0), one.change(0), atol=2e-3)
    mean = (one.change(0) + two.change(0)) / 2
    np.testing.assert_allclose(both.change(0), mean, atol=2.1e-3)  # too little is none, before or after


def test_counterparts_are_written_in_16_bits_without_what_is_positive(tmp_path):
    tagger = Tagger(taking(tmp_path / "run"))
    assert "counterparts" in tagger.pictures
    image = lesions()
    image[60:80, 120:160] = 0.3  # no dark one
    files = [write_png(tmp_path / "ill.png", image), write_png(tmp_path / "well.png", np.full((64, 80), 0.3))]
    assert tag_files(tagger, files, tmp_path / "out").ok
    assert [row["positive"] for row in rows_of(tmp_path / "out")] == ["1", "0", "0", "0"]
    assert {name for name in pictures(tmp_path / "out") if "counterparts" in name} == {"counterparts/ill.png"}
    with PIL.Image.open(tmp_path / "out/counterparts/ill.png") as picture:
        assert picture.mode.startswith("I;16")
        assert picture.size == (200, 100)
    bright = next(tagger.tag([files[0]]))
    written = draw.read_map(tmp_path / "out/counterparts/ill.png")
    np.testing.assert_allclose(written, bright.counterpart, atol=1 / 65535)
    # Of an image with nothing, that is the image.
    tag_files(tagger, files[1:], tmp_path / "all", save=("counterparts",), save_for="all")
    assert pictures(tmp_path / "all") == {"counterparts/well.png"}
    np.testing.assert_allclose(draw.read_map(tmp_path / "all/counterparts/well.png"), 76 / 255, atol=1 / 65535)
    # Tagged anew, it leaves nothing of before.
    write_png(files[0], np.full((100, 200), 0.3))
    os.utime(files[0], ns=(1, 1))
    tag_files(tagger, files, tmp_path / "out")
    assert pictures(tmp_path / "out") == set()


def test_a_classifier_has_no_counterpart(run, tmp_path):
    file = write_png(tmp_path / "a.png", pixels())
    tagger = Tagger(run)
    bright = next(tagger.tag([file]))
    with pytest.raises(BadSetting, match=r"^a classifier has no normal counterpart\. Use a run of taggan, vagan or"):
        _ = bright.counterpart
    assert "counterparts" not in tagger.pictures
    with pytest.raises(BadSetting, match=r"^a classifier has no normal counterparts\. Leave them out, or use a run"):
        tag_files(tagger, [file], tmp_path / "out", save=("counterparts",))
    tag_files(run, [file], tmp_path / "out")
    assert not (tmp_path / "out/counterparts").exists()


def test_the_joint_map_of_two_kinds_is_high_where_both_see_something(run, tmp_path):
    """By hand: the logit is the mean logarithm of map / threshold + 0.1, for each pixel on its own cell's centre."""
    changes = taking(tmp_path / "taker")
    changes = replace(changes, calibration=replace(changes.calibration, mask_threshold=(0.25, 0.25)))
    chances = replace(run, calibration=replace(run.calibration, mask_threshold=(0.5, 0.4)))
    square = np.full((SIDE, SIDE), 0.3, dtype=np.float32)
    square[8:24, 8:24] = 1
    image = Image(square, "a.png")
    (one,), (two,), (both,) = (Tagger(runs).predict([image]) for runs in (changes, chances, [changes, chances]))
    assert both.joint
    assert not one.joint
    logits = (np.log(one.map(0) / 0.25 + 0.1) + np.log(two.map(0) / 0.5 + 0.1)) / 2
    wanted = 1 / (1 + np.exp(-logits))
    at = np.s_[14:18, 14:18]  # amid the square, where all cells are alike
    np.testing.assert_allclose(both.map(0)[at], wanted[at], rtol=1e-4)
    np.testing.assert_allclose(both.map(0)[40:, 40:], wanted[40:, 40:], rtol=1e-4)
    np.testing.assert_allclose(both.scores, (one.scores + two.scores) / 2, rtol=1e-6)
    map_ = both.map(0)
    row, col = np.unravel_index(map_.argmax(), map_.shape)
    np.testing.assert_allclose(both.peaks[0], (col + 0.5, row + 0.5, map_.max()), rtol=1e-6)
    tagger = Tagger([changes, chances])
    assert tagger.settings["mask"] == [0.375, 0.375]
    assert "counterparts" not in tagger.pictures
    tag = tagger.tags(both, "a")[0]
    np.testing.assert_array_equal(tag.mask, map_ > 0.375)
    assert tag.mask[16, 16]
    with pytest.raises(BadSetting, match="has no normal counterpart"):
        _ = tag.counterpart


# -- nothing but the lungs


class Lungs:
    """Finds two lungs at the same places of each image, and none in one whose file is called so."""

    def __init__(self, digest: str) -> None:
        self.name = self.digest = digest
        self.asked = 0

    def __call__(self, image: Image) -> np.ndarray:
        self.asked += 1
        rows, cols = image.size_rc
        mask = np.zeros(image.size_rc, bool)
        if image.source != "none.png":
            mask[rows // 4 : 3 * rows // 4, cols // 8 : 3 * cols // 8] = True
            mask[5 * rows // 8 : 7 * rows // 8, 5 * cols // 8 : 7 * cols // 8] = True
        return mask


@pytest.fixture
def lungs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Lungs]:
    """What finds lungs for the runs of these tests, by what their settings say."""
    finders = {name: Lungs(name) for name in ("one", "other")}
    monkeypatch.setattr(tag, "lungs_of", lambda run, device: finders.get(run.settings.lungs))
    return finders


def confined(run: FakeRun, lungs: str = "one") -> FakeRun:
    return replace(run, settings=TrainSettings(lungs=lungs))


def chest(size_rc: tuple[int, int] = (100, 200), source: str = "a.png") -> Image:
    """Black, with a bright letter beside the lungs and a lesion, less bright, within the left one in the image."""
    pixels = np.zeros(size_rc, np.float32)
    pixels[2:22, 150:190] = 1
    pixels[40:60, 35:60] = 0.9
    return Image(pixels, source)


def field_of(image: Image) -> np.ndarray:
    field = lung_field(image, Lungs("any"))
    assert field is not None
    return field.lungs


@pytest.mark.parametrize("tta", ["none", "flip"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_network_that_is_shown_the_lungs_alone_says_nothing_of_what_lies_beside(lungs, tmp_path, fit, tta):
    run, image = make_run(tmp_path / "run", fit), chest()
    field = field_of(image)
    whole, _ = Tagger(run, tta=tta).tag(image)
    assert whole.map[12, 170] > 0.9
    assert not field[12, 170]
    bright, dark = Tagger(confined(run), tta=tta, min_area_px=0).tag(image)
    assert (bright.map[~field] == 0).all()
    assert (dark.map[~field] == 0).all()
    assert (dark.map[field] > 0).mean() > 0.9
    for layer in bright.prediction.layers:
        assert (layer.maps[1] < 1e-6).mean() > 0.25  # of cells that see black alone, which would be "dark" of 5e-5
    assert bright.map[50, 45] > 0.9
    (box,) = bright.boxes
    assert np.abs(np.array(box) - (35, 40, 60, 60)).max() <= 5  # half a cell
    np.testing.assert_array_equal(bright.mask, bright.map > 0.5)
    for one in (bright, dark):  # "dark" is highest in cells half of which is beside the lungs
        row, col = np.unravel_index(one.map.argmax(), one.map.shape)
        assert one.peak_xy == (col + 0.5, row + 0.5)
        assert field[row, col]
    np.testing.assert_array_equal(bright.prediction.map(0, rows=slice(30, 70)), bright.map[30:70])
    np.testing.assert_allclose(evaluate._means(bright.prediction), [bright.map.mean(), dark.map.mean()], rtol=1e-5)


def test_masks_files_and_pictures_end_where_the_lungs_do_to_the_pixel(lungs, run, tmp_path):
    image = Image(np.full((100, 200), 0.9, np.float32), "a.png")
    field = field_of(image)
    bright, _ = Tagger(confined(run), mask=0.01, min_area_px=0).tag(image)
    assert (bright.mask & ~field).sum() == 0
    assert (bright.mask & field).sum() > 0.9 * field.sum()
    np.testing.assert_array_equal(bright.mask, bright.map > 0.01)
    (tmp_path / "map.png").write_bytes(bright.prediction.encoded(0))
    np.testing.assert_allclose(draw.read_map(tmp_path / "map.png"), bright.map, atol=8 / 65535)
    shown = bright.prediction.shown([0, 1], 1)
    assert not shown[~field].any()
    assert shown[40, 50] > 230
    reduced = bright.prediction.shown([0, 1], 3)
    assert reduced.shape == reduced_size((100, 200), 3)
    assert not reduced[:7].any()  # above the lungs
    assert reduced[40 // 3, 50 // 3] > 230
    otsu, _ = Tagger(confined(run), mask="otsu", min_area_px=0).tag(image)
    assert not (otsu.mask & ~field).any()


def test_where_no_lungs_are_found_an_image_is_shown_whole(lungs, tmp_path):
    run = make_run(tmp_path / "run")
    images = [chest(source="none.png"), chest(source="a.png")]
    plain, tagger = Tagger(run, tta="flip"), Tagger(confined(run), tta="flip")
    (whole, _), (none, some) = (list(one.predict(images)) for one in (plain, tagger))
    assert (none.confined, some.confined) == (False, True)
    np.testing.assert_array_equal(none.maps(), whole.maps())  # where it is black too
    np.testing.assert_array_equal(none.scores, whole.scores)
    np.testing.assert_array_equal(none.peaks, whole.peaks)
    assert (some.map(0)[~field_of(images[1])] == 0).all()


@pytest.mark.parametrize("which", ["changes", "chances", "both"])
def test_of_a_joint_map_a_part_may_be_of_the_lungs_alone(lungs, run, tmp_path, which):
    changes = taking(tmp_path / "taker")
    changes = replace(changes, calibration=replace(changes.calibration, mask_threshold=(0.25, 0.25)))
    chances = replace(run, calibration=replace(run.calibration, mask_threshold=(0.5, 0.4)))
    changes = changes if which == "chances" else confined(changes)
    chances = chances if which == "changes" else confined(chances)
    image = chest()
    (one,), (two,), (both,) = (Tagger(runs).predict([image]) for runs in (changes, chances, [changes, chances]))
    logits = (np.log(one.map(0) / 0.25 + 0.1) + np.log(two.map(0) / 0.5 + 0.1)) / 2
    wanted = 1 / (1 + np.exp(-logits))
    if which == "both":
        wanted[~field_of(image)] = 0  # nobody saw it
    # Where all cells are alike: amid the letter and the lesion, and far from both.
    for at in (np.s_[10:14, 165:175], np.s_[48:52, 45:50], np.s_[85:95, 20:180]):
        np.testing.assert_allclose(both.map(0)[at], wanted[at], rtol=1e-4)
    if which == "both":
        assert (both.map(0)[~field_of(image)] == 0).all()
    map_ = both.map(0)
    row, col = np.unravel_index(map_.argmax(), map_.shape)
    np.testing.assert_allclose(both.peaks[0], (col + 0.5, row + 0.5, map_.max()), rtol=1e-6)
    assert both.map(0)[50, 47] > 0.6
    assert both.map(0)[12, 170] < 0.5  # one of them sees it at most
    (tag_, _) = Tagger([changes, chances]).tags(both, "a")
    assert tag_.mask[50, 47]
    assert not tag_.mask[12, 170]


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_counterpart_beside_the_lungs_is_the_image_to_the_bit(lungs, tmp_path, fit):
    image = Image(lesions(), "a.png")  # 200 x 100, the bright one within a lung and the dark one partly
    field = field_of(image)
    run = confined(taking(tmp_path / "run", fit))
    for tta in ("none", "flip"):
        bright, dark = Tagger(run, tta=tta).tag([image])
        for one in (bright, dark):
            assert (one.prediction.change(one.index)[~field] == 0).all()
            np.testing.assert_array_equal(one.counterpart[~field], image.pixels[~field])
            assert (one.map[~field] == 0).all()
        np.testing.assert_allclose(bright.counterpart[30:45, 55:70], 0.375, atol=0.01)
        np.testing.assert_allclose(dark.counterpart[64:72, 130:150], 0.28125, atol=0.01)


def test_networks_of_the_same_lungs_have_them_found_once_an_image(lungs, tmp_path):
    runs = [confined(make_run(tmp_path / name), of) for name, of in (("a", "one"), ("b", "one"), ("c", "other"))]
    images = [chest(source=f"{i}.png") for i in range(3)]
    for _ in Tagger([*runs, make_run(tmp_path / "d")], tta="flip", batch_size=2).predict(images):
        pass
    assert {name: one.asked for name, one in lungs.items()} == {"one": 3, "other": 3}


# -- where masks may lie


def left_half(area: str, values: np.ndarray) -> np.ndarray | None:
    """In place of an estimate: the left half of the image."""
    assert area in ("body", "lungs")
    where = np.zeros(values.shape, bool)
    where[:, : values.shape[1] // 2] = True
    return where


def test_masks_lie_in_the_area_and_maps_are_the_same(run, monkeypatch):
    image = Image(pixels(box=(50, 25, 150, 50)), "a.png", spacing_mm=(0.5, 0.8))
    plain = next(Tagger(run).tag([image]))
    monkeypatch.setattr(tag, "estimate", left_half)
    limited = next(Tagger(run, area="lungs").tag([image]))
    assert (limited.score, limited.peak_xy, limited.positive) == (plain.score, plain.peak_xy, plain.positive)
    np.testing.assert_array_equal(limited.map, plain.map)
    assert plain.mask[:, 100:].any()
    np.testing.assert_array_equal(limited.mask, plain.mask & (np.arange(200) < 100))
    assert limited.boxes == ((50.0, 25.0, 100.0, 50.0),)
    assert limited.mask_area_px == limited.mask.sum() > 1200  # of 50 x 25: corners are rounded
    assert limited.mask_area_mm2 == pytest.approx(limited.mask.sum() * 0.5 * 0.8)


def test_the_area_is_estimated_once_an_image_in_a_reading_thread_and_only_when_asked_for(run, tmp_path, monkeypatch):
    asked: list[str] = []

    def noted(area: str, values: np.ndarray) -> np.ndarray | None:
        asked.append(threading.current_thread().name)
        return left_half(area, values)

    images = [Image(pixels(box=(50, 25, 150, 50)), f"{i}.png") for i in range(5)]
    files = [write_png(tmp_path / f"{i}.png", pixels()) for i in range(3)]
    monkeypatch.setattr("radtag.anatomy.estimate_lungs", lambda *_: 1 / 0)
    assert next(Tagger(run).predict(images)).area is None
    monkeypatch.setattr(tag, "estimate", noted)
    tagger = Tagger(run, area="body", batch_size=2)
    predicted = list(tagger.predict(images))
    assert [one.image.source for one in predicted] == [one.source for one in images]
    assert all(tagger.tags(one, "x")[0].boxes == ((50.0, 25.0, 100.0, 50.0),) for one in predicted)
    assert len(asked) == 5
    tag_files(tagger, files, tmp_path / "out")
    assert len(asked) == 8
    assert all(name.startswith("read") for name in asked)


def test_a_failing_estimate_ends_the_stream_and_says_so(run, monkeypatch):
    monkeypatch.setattr(tag, "estimate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(Tagger(run, area="lungs").predict([Image(pixels(), "a.png")]))


def test_images_without_the_area_are_counted_and_their_masks_are_not_limited(run, tmp_path, monkeypatch):
    files = [write_png(tmp_path / f"{i}.png", pixels(box=(50, 25, 150, 50))) for i in range(3)]
    monkeypatch.setattr(tag, "estimate", lambda area, values: None if values[30, 60] == 1 else left_half(area, values))
    write_png(files[1], pixels(box=(75, 25, 150, 50)))
    summary = tag_files(run, files[:2], tmp_path / "out", area="lungs")
    assert (summary.area, summary.unlimited) == ("lungs", 1)
    assert "1 image in which no lungs were found: its masks are not limited" in summary.lines()
    assert summary.to_dict()["unlimited"] == 1
    rows = [row for row in rows_of(tmp_path / "out") if row["finding"] == "bright"]
    assert [json.loads(row["boxes"])[0] for row in rows] == [[50, 25, 150, 50], [75, 25, 100, 50]]
    again = tag_files(run, files, tmp_path / "out", area="lungs")  # of the calls before, too
    assert (again.skipped, again.unlimited) == (2, 2)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["settings"]["area"], manifest["unlimited"]) == ("lungs", 2)
    assert not any("no lungs" in line for line in tag_files(run, files, tmp_path / "plain").lines())


def test_a_folder_never_mixes_areas_and_one_from_before_there_were_any_is_completed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tag, "estimate", left_half)
    files = [write_png(tmp_path / f"{i}.png", pixels()) for i in range(2)]
    tag_files(Tagger(run, area="lungs"), files, tmp_path / "lungs")
    with pytest.raises(BadSetting, match="area = lungs, and now it is image"):
        tag_files(run, files, tmp_path / "lungs")
    monkeypatch.undo()
    tag_files(run, files[:1], tmp_path / "plain")
    manifest = json.loads((tmp_path / "plain/manifest.json").read_text())
    assert "area" not in manifest["settings"]  # as before there were areas
    assert tag_files(run, files, tmp_path / "plain", area="image").images == 2
    with pytest.raises(BadSetting, match="area = image, and now it is body"):
        tag_files(run, files, tmp_path / "plain", area="body")
    with pytest.raises(BadSetting, match="one of image, body, lungs, not in 'heart'"):
        Tagger(run, area="heart")  # type: ignore[arg-type]


def test_no_change_worth_the_name_makes_a_joint_map_alone(run, tmp_path):
    """A mask threshold may be 0, and any change at all is infinitely above it."""
    changes = taking(tmp_path / "taker")
    calibration = replace(changes.calibration, mask_threshold=(0.0, 0.0))
    changes = replace(changes, model=Barely(), calibration=calibration)
    (both,) = Tagger([changes, run]).predict([Image(np.full((SIDE, SIDE), 0.3, dtype=np.float32), "a.png")])
    assert both.joint
    assert both.map(0).max() < 0.375


# -- names


def test_names_tell_files_apart():
    files = [Path(one) for one in ("/x/a/1.png", "/x/b/1.png", "/x/b/2.png", "/x/c/2.dcm", "/x/d/3.png", "/x/d/3.dcm")]
    names = tag.name_files(files)
    assert [tuple(names[file]) for file in files] == [
        ("a/1.png", "a/1"), ("b/1.png", "b/1"), ("b/2.png", "b/2"),
        ("c/2.dcm", "c/2"), ("3.png", "3.png"), ("3.dcm", "3.dcm")
    ]  # fmt: skip


def test_a_name_that_was_given_stays():
    first = tag.name_files([Path("/x/a/1.png")])
    both = tag.name_files([Path("/x/b/1.png"), Path("/x/a/1.png")], first)
    assert (both[Path("/x/a/1.png")].name, both[Path("/x/b/1.png")].name) == ("1.png", "b/1.png")


def test_names_are_unique_whatever_the_files():
    random = np.random.default_rng(0)
    parts = ["a", "b", "a.png", "1", "..x"]
    files = list({Path("/", *random.choice(parts, random.integers(1, 5))).with_suffix(s) for s in (".png", ".dcm")
                  for _ in range(60)})  # fmt: skip
    names = tag.name_files(files)
    assert len({name.name for name in names.values()}) == len({name.leaf for name in names.values()}) == len(files)


def test_findings_with_slashes_stay_in_the_folder(run, tmp_path):
    odd = replace(run, findings=("Edema/../Cyst", ".."))
    tag_files(odd, [write_png(tmp_path / "a.png", pixels())], tmp_path / "out", save=("masks",), save_for="all")
    assert pictures(tmp_path / "out") == {"masks/Edema%2F..%2FCyst/a.png", "masks/%2E%2E/a.png"}
