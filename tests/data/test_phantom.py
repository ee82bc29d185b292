"""Phantoms: reproducible, exact to the pixel, and without a trace of the label outside the lesions."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy import ndimage

from radtag.data import lesions, phantom
from radtag.data.phantom import FINDINGS, draw_findings, render, split_of, write
from radtag.data.sources import open_source
from radtag.errors import BadSetting

PAINTED = tuple(finding for finding in FINDINGS if finding != "cardiomegaly")


def test_a_phantom_depends_on_seed_and_index_alone(tmp_path: Path):
    few = write(tmp_path / "few", 3, side=64, progress=False)
    more = write(tmp_path / "more", 5, side=64, progress=False)
    other = write(tmp_path / "other", 3, side=64, seed=1, progress=False)
    for index in range(3):
        name = f"images/{index:05d}.png"
        pixels = np.asarray(Pillow.open(few.parent / name))
        np.testing.assert_array_equal(pixels, np.asarray(Pillow.open(more.parent / name)))
        np.testing.assert_array_equal(pixels, render(index, side=64).pixels)
        different = np.asarray(Pillow.open(other.parent / name))
        assert pixels.shape != different.shape or (pixels != different).mean() > 0.5


def test_another_process_draws_the_same():
    code = (
        "import hashlib; from radtag.data.phantom import render; p = render(7, seed=2, side=96);"
        "print(hashlib.sha256(p.pixels.tobytes() + b''.join(m.tobytes() for m in p.masks.values())).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = render(7, seed=2, side=96)
    joined = here.pixels.tobytes() + b"".join(mask.tobytes() for mask in here.masks.values())
    assert hashlib.sha256(joined).hexdigest() == there


@pytest.mark.parametrize("finding", PAINTED)
def test_what_differs_from_the_healthy_twin_is_the_mask(finding: str):
    """In the 8-bit pixels too; letters stand beside the lungs, other distractors could cover a lesion."""
    tried = 0
    for index in range(40):
        ill, well = render(index, side=96, findings=(finding,)), render(index, side=96, findings=())
        if set(ill.distractors) - {"letter"} or not ill.masks:
            continue
        tried += 1
        changed = ill.pixels != well.pixels
        mask = ill.masks[finding]
        assert not (changed & ~mask).any()
        # Rounded changes of 1.5 levels at least never vanish, but at the ends of the scale they are cut off.
        unchanged = mask & ~changed
        assert np.isin(well.pixels[unchanged], (0, 255)).all()
        assert mask.sum() >= 12
    assert tried >= 5


def test_distractors_and_noise_lie_over_lesions_and_nothing_else_changes():
    for index in range(30):
        ill, well = render(index, side=96, findings=PAINTED), render(index, side=96, findings=())
        union = np.logical_or.reduce(list(ill.masks.values()))
        assert ill.distractors == well.distractors
        assert not ((ill.pixels != well.pixels) & ~union).any()
        assert (ill.pixels != well.pixels)[union].mean() > 0.9


def test_painted_lesions_lie_in_the_lungs_and_an_enlarged_heart_is_wider():
    for index in range(20):
        ill = render(index, side=96, findings=FINDINGS)
        for finding in PAINTED:
            if finding in ill.masks and finding != "nodule":  # a nodule may bulge over the edge a little
                assert not (ill.masks[finding] & ~ill.lungs).any(), finding
        well = render(index, side=96, findings=())
        np.testing.assert_array_equal(ill.masks["cardiomegaly"], ill.heart)
        widths = [np.ptp(np.flatnonzero(p.heart.any(axis=0))) for p in (ill, well)]
        assert widths[0] > 1.2 * widths[1]
        lungs = np.flatnonzero(well.lungs.any(axis=0))
        assert widths[1] / np.ptp(lungs) < 0.52


def test_the_table_agrees_with_masks_boxes_and_splits(tmp_path: Path):
    table = write(tmp_path / "set", 24, side=64, seed=5, progress=False)
    rows = list(csv.DictReader(table.open()))
    boxes: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for line in csv.DictReader((table.parent / "boxes.csv").open()):
        box = tuple(float(line[key]) for key in ("x1", "y1", "x2", "y2"))
        boxes.setdefault((line["image"], line["finding"]), []).append(box)
    seen = 0
    for index, row in enumerate(rows):
        size = Pillow.open(table.parent / row["image"]).size
        assert row["split"] == split_of(index)
        assert Pillow.open(table.parent / row["lungs"]).size == size
        for finding in FINDINGS:
            assert (row[finding] == "1") == bool(row[f"mask:{finding}"]) == ((row["image"], finding) in boxes)
            if row[finding] == "1":
                seen += 1
                picture = Pillow.open(table.parent / row[f"mask:{finding}"])
                assert picture.mode == "1"
                assert picture.size == size
                mask = np.asarray(picture)
                union = np.zeros_like(mask)
                for x1, y1, x2, y2 in boxes[row["image"], finding]:
                    inside = mask[int(y1) : int(y2), int(x1) : int(x2)]
                    # Tight: a lesion pixel on each of the four edges.
                    assert inside[0].any()
                    assert inside[-1].any()
                    assert inside[:, 0].any()
                    assert inside[:, -1].any()
                    union[int(y1) : int(y2), int(x1) : int(x2)] = True
                assert not (mask & ~union).any()
                assert len(boxes[row["image"], finding]) == ndimage.label(mask, np.ones((3, 3)))[1]
    assert seen > 15
    about = json.loads((table.parent / "about.json").read_text())
    assert (about["count"], about["seed"], about["side_px"]) == (24, 5, 64)


def test_boxes_are_half_open_in_a_mask_made_by_hand():
    mask = np.zeros((4, 7), dtype=bool)
    mask[1, 2:5] = True
    mask[2, 5] = True  # touches by a corner: the same part
    mask[3, 0] = True
    assert lesions.boxes_of(mask) == ((2.0, 1.0, 6.0, 3.0), (0.0, 3.0, 1.0, 4.0))


def test_findings_are_as_frequent_as_stated_and_split_shares_hold_for_any_count():
    drawn = [draw_findings(index) for index in range(4000)]
    assert np.mean([not names for names in drawn]) == pytest.approx(0.30, abs=0.025)
    for finding in FINDINGS:
        assert 0.19 < np.mean([finding in names for names in drawn]) < 0.26
    assert {len(names) for names in drawn} == {0, 1, 2, 3}
    for count in (20, 100, 1000):
        splits = [split_of(index) for index in range(count)]
        assert splits.count("train") / count == pytest.approx(0.60, abs=0.051)
        assert splits.count("val") / count == pytest.approx(0.15, abs=0.051)


def test_distractors_do_not_tell_healthy_from_ill():
    found = {True: [], False: []}
    for index in range(250):
        one = render(index, side=48)
        found[bool(one.masks)].append(one.distractors)
    for name in ("letter", "line", "electrode", "clip", "collimator"):
        share = {ill: np.mean([name in names for names in lists]) for ill, lists in found.items()}
        assert 0.05 < share[True] < 0.85
        spread = np.sqrt(0.25 / len(found[True]) + 0.25 / len(found[False]))
        assert abs(share[True] - share[False]) < 3 * spread, name


def test_sizes_vary_and_some_are_not_square():
    shapes = [render(index, side=48, findings=()).pixels.shape for index in range(40)]
    assert any(rows == cols for rows, cols in shapes)
    assert any(rows > 1.1 * cols for rows, cols in shapes)
    assert any(cols > 1.1 * rows for rows, cols in shapes)
    assert len(set(shapes)) > 15


@pytest.mark.parametrize("look", lesions.LOOKS)
@pytest.mark.parametrize("kind", sorted(lesions.KINDS))
def test_a_painter_changes_its_mask_alone_and_not_the_image_it_was_given(kind: str, look: lesions.Look):
    rng = np.random.default_rng(3)
    image = np.full((90, 130), 0.6, dtype=np.float32) + rng.normal(0, 0.01, (90, 130)).astype(np.float32)
    lungs = np.zeros((90, 130), dtype=bool)
    lungs[10:80, 10:55] = lungs[10:80, 75:120] = True
    image[lungs] -= 0.3
    before = image.copy()
    anatomy = lesions.Anatomy.of(image, lungs)
    assert anatomy is not None
    assert len(anatomy.lungs) == 2
    assert anatomy.span == pytest.approx(0.3, abs=0.02)
    for _ in range(10):
        new, mask = lesions.LOOKS[look][kind](rng, image, anatomy)
        np.testing.assert_array_equal(image, before)
        np.testing.assert_array_equal(new != image, mask)
        assert (np.abs(new - image)[mask] >= lesions.SMALLEST_CHANGE / 2).all()
        assert new.dtype == np.float32


@pytest.mark.parametrize("index", range(4))
def test_a_painted_large_heart_is_the_hearts_own_widened(index: int):
    drawn = render(index, side=192, findings=())
    image = drawn.pixels.astype(np.float32) / 255
    anatomy = lesions.Anatomy.of(image, drawn.lungs)
    assert anatomy is not None
    new, mask = lesions.cardiomegaly(np.random.default_rng(index), image, anatomy)
    assert (mask & drawn.heart).sum() > 0.75 * drawn.heart.sum()
    level = anatomy.tissue - anatomy.span / 2
    rows, cols = np.nonzero(mask)
    middle = slice(int(rows.mean()) - 8, int(rows.mean()))
    inside = slice(int(cols.min()), int(cols.max()) + 1)
    before, after = ((one[middle, inside] > level).mean() for one in (image, new))
    assert after > 1.15 * before, "of the rows through the heart, more is as dense as tissue"
    np.testing.assert_array_equal(new[~mask], image[~mask])


def test_lungs_that_touch_are_parted_and_no_lungs_give_no_anatomy():
    joined = np.zeros((60, 100), dtype=bool)
    joined[10:50, 10:90] = True
    joined[10:40, 48:52] = False
    left, right = lesions.split_lungs(joined)
    assert left[:, :45].any()
    assert not left[:, 55:].any()
    assert right[:, 55:].any()
    assert not (left & right).any()
    nothing = np.zeros((60, 100), dtype=bool)
    assert lesions.split_lungs(nothing) == ()
    assert lesions.Anatomy.of(np.zeros((60, 100), dtype=np.float32), nothing) is None


def test_phantom_source_draws_once_and_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RADTAG_CACHE", str(tmp_path))
    first = open_source("phantom:12?seed=4&side=64")
    assert len(first) == 12
    assert first.findings == FINDINGS
    assert {record.split for record in first.records} == {"train", "val", "test"}
    assert all(record.lungs is not None and record.lungs.exists() for record in first.records)
    drawn = render(5, seed=4, side=64)
    np.testing.assert_array_equal(np.asarray(Pillow.open(first.records[5].path)), drawn.pixels)
    assert set(first.records[5].masks) == set(drawn.masks)
    monkeypatch.setattr(phantom, "render", None)  # would fail if anything were drawn again
    again = open_source("phantom:12?seed=4&side=64")
    assert again.records == first.records


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("phantom:many", "phantom: count 'many' is not a whole number"),
        ("phantom:0", "phantom: count '0' is not a whole number from 1"),
        ("phantom:4?side=7", "phantom: side '7' is not a whole number from 48 to 2048"),
        ("phantom:4?seed=-1", "phantom: seed '-1' is not a whole number from 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(spec: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RADTAG_CACHE", str(tmp_path))
    with pytest.raises(BadSetting, match=said):
        open_source(spec)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = phantom.render

    def stop_at_three(index: int, **options: object) -> phantom.Phantom:
        if index == 3:
            raise KeyboardInterrupt
        return drawn(index, **options)

    monkeypatch.setattr(phantom, "render", stop_at_three)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", 5, side=64, progress=False)
    assert not list(tmp_path.iterdir())


def test_writing_refuses_a_full_folder_and_an_unknown_finding(tmp_path: Path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(BadSetting, match="exists and is not empty"):
        write(tmp_path, 2, side=64)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    with pytest.raises(BadSetting, match="no finding 'fracture'"):
        render(0, findings=("fracture",))
