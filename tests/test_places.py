"""Pointing and IoU alone: the same numbers as the whole evaluation's, without the images and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from radtag import draw
from radtag.data.table import Dataset, Record
from radtag.errors import BadSetting, UnreadableImage
from radtag.images import read, read_mask
from radtag.images.size import size_of
from radtag.mapfiles import read_levels, read_map
from radtag.pairs import PairTable
from radtag.score import score

SIZE = (40, 56)
FINDINGS = ("nodule", "effusion")
LEFT_OUT = {"map_mean", "poi_matched", "pixel_ap"}
"""What the measures alone do not have, of what was there when this was written."""


def smooth(seed: int, size_rc: tuple[int, int] = SIZE) -> np.ndarray:
    """A bump somewhere on a noisy ground, 0-1."""
    draw_ = np.random.default_rng(seed)
    row, col = (np.exp(-(((np.arange(n) / n - draw_.uniform(0.3, 0.7)) / 0.2) ** 2)) for n in size_rc)
    return (0.8 * np.outer(row, col) + 0.15 * draw_.random(size_rc)).astype(np.float32)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Six images, three patients; a finding with boxes and mask, mask alone, boxes alone or unknown, and healthy."""
    records = []
    for i in range(6):
        path = tmp_path / "images" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(np.full(SIZE, 40 + i, np.uint8)).save(path)
        mask = np.zeros(SIZE, bool)
        mask[10 : 22 + i, 20 : 36 - i] = True
        (tmp_path / f"mask{i}.png").write_bytes(draw.encode_mask(mask))
        boxes = {"nodule": ((20.0, 10.5, 36.25, 24.0),)} if i % 3 != 1 else {}
        masks = {"nodule": tmp_path / f"mask{i}.png"} if i % 3 != 2 else {}
        masks |= {"effusion": tmp_path / f"mask{i}.png"} if i < 2 else {}
        labels = (1.0 if i < 5 else 0.0, 1.0 if i < 2 else float("nan") if i == 2 else 0.0)
        records.append(Record(f"{i}.png", path, labels, f"patient {i // 2}", "test", boxes, masks=masks))
    return Dataset("hand", FINDINGS, tuple(records))


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """As radtag tag writes them, one of them smaller than its image, and one of floats."""
    root = tmp_path / "maps"
    for at, finding in enumerate(FINDINGS):
        (root / finding).mkdir(parents=True)
        for i in range(6):
            values = smooth(10 * at + i, (20, 28) if i == 3 else SIZE)
            if (at, i) == (0, 4):
                np.save(root / finding / f"{i}.npy", values)
            else:
                (root / finding / f"{i}.png").write_bytes(draw.encode_map(values))
    return root


@pytest.mark.parametrize(
    "rule", [{}, {"mask": 0.35}, {"mask": "otsu"}, {"values": "image"}, {"min_area_px": 60, "by": ["size"]}]
)
def test_every_number_is_the_whole_evaluations(dataset, maps, tmp_path, rule) -> None:
    quick = score(maps, dataset, tmp_path / "quick", measures=("pointing", "iou"), bootstraps=50, **rule)
    whole = score(maps, dataset, tmp_path / "whole", bootstraps=50, **rule)
    ours, theirs = (PairTable.read(tmp_path / name / "pairs.csv") for name in ("quick", "whole"))
    assert ours.box_iou == theirs.box_iou
    worked_out = [name for name in ours.numbers if not np.isnan(ours[name]).all()]
    assert {"pointing", "iou", "dice", "iobb", "iou_boxes", "marked", "score", "peak_x"} <= set(worked_out)
    for name in worked_out:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for part in ("micro", "macro"):
        assert {"pointing", "iou", "dice", "iou_0.5", "box_0.3", "healthy_marked"} <= set(quick[part])
        for key, value in quick[part].items():
            assert value == whole[part][key], key
    assert not LEFT_OUT & set(quick["micro"])
    assert ("groups" in quick) == ("by" in rule)
    for name in ("run", "data", "split", "tagging", "digests", "images", "patients", "pairs", "counts", "hardware"):
        assert quick["about"][name] == whole["about"][name], name
    if not rule:
        for folder, now in (("quick", {}), ("whole", {"measures": ["iou"]})):
            with pytest.raises(BadSetting, match=r"holds a result made otherwise: measures was [a-z, ]+, now [a-z]+\."):
                score(maps, dataset, tmp_path / folder, bootstraps=50, **now)
        assert (tmp_path / "whole" / "report.html").exists()
    assert not (tmp_path / "quick" / "report.html").exists()
    assert json.loads((tmp_path / "quick" / "metrics.json").read_text()) == quick


def test_pointing_alone_marks_nothing(dataset, maps, tmp_path) -> None:
    quick = score(maps, dataset, tmp_path / "out", measures=["pointing"], bootstraps=0)
    assert "pointing" in quick["micro"]
    assert not {"iou", "dice", "box_0.3", "healthy_marked", "iobb_0.1", "iou_0.5"} & set(quick["micro"])
    assert quick["about"]["measures"] == ["pointing"]
    (tmp_path / "out" / "faithfulness.csv").write_text("of an earlier evaluation")
    score(maps, dataset, tmp_path / "out", measures=["pointing"], bootstraps=0)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["metrics.json", "pairs.csv"]
    with pytest.raises(BadSetting, match="holds a result made otherwise"):
        score(maps, dataset, tmp_path / "out", measures=["pointing", "iou"], bootstraps=0)
    with pytest.raises(BadSetting, match="dice"):
        score(maps, dataset, tmp_path / "other", measures=["dice"])
    with pytest.raises(BadSetting, match="Leave measure out"):
        score(maps, dataset, tmp_path / "other", measures=["iou"], inside="lungs")


def test_neither_pixels_of_images_nor_torch(dataset, maps, tmp_path) -> None:
    (tmp_path / "table.csv").write_text(
        "image,split,nodule,mask:nodule\n" + "".join(f"images/{i}.png,test,1,mask{i}.png\n" for i in range(6))
    )
    for i in range(6):
        file = tmp_path / "images" / f"{i}.png"
        file.write_bytes(file.read_bytes()[:50])  # its header alone
    program = (
        "import sys; from radtag.cli import app; app(sys.argv[1:], standalone_mode=False);"
        " assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    words = ["score", str(maps), f"csv:{tmp_path}", "--out", str(tmp_path / "out"), "--finding", "nodule"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--measure", "pointing", "--measure", "iou"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Pointing accuracy" in done.stdout
    assert done.stdout.strip().endswith(f"-> {tmp_path / 'out' / 'metrics.json'}")


def test_levels_are_those_pillow_reads(tmp_path) -> None:
    values = smooth(3)
    own, foreign, gray, cut = (tmp_path / f"{name}.png" for name in ("own", "foreign", "gray", "cut"))
    own.write_bytes(draw.encode_map(values))
    levels = read_levels(own)
    assert levels is not None
    assert levels.dtype == np.uint16
    np.testing.assert_array_equal(levels, np.asarray(PIL.Image.open(own)))
    np.testing.assert_allclose(levels, values * 65535.0, atol=0.51)
    PIL.Image.fromarray(levels).save(foreign)  # rows told by their neighbours to the left as well
    assert read_levels(foreign) is None
    np.testing.assert_array_equal(read_map(foreign).values, read_map(own).values)
    PIL.Image.fromarray((255 * values).astype(np.uint8)).save(gray)
    assert read_levels(gray) is None
    data = bytearray(own.read_bytes())
    data[len(data) // 2] ^= 255
    cut.write_bytes(data)
    assert read_levels(cut) is None
    with pytest.raises(UnreadableImage, match="cannot be read"):
        read_map(cut)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("ending", ["png", "jpg", "tiff", "bmp"])
def test_size_is_that_of_the_image_as_read(tmp_path, ending, turned) -> None:
    path = tmp_path / f"image.{ending}"
    exif = PIL.Image.Exif()
    if turned:
        exif[0x0112] = 6
    PIL.Image.fromarray(np.zeros((5, 9), np.uint8)).save(path, exif=exif)
    assert size_of(path) == read(path).size_rc == ((9, 5) if turned and ending != "bmp" else (5, 9))


def test_size_of_what_is_no_image(tmp_path, monkeypatch) -> None:
    (tmp_path / "none.png").write_bytes(b"not a picture")
    for name in ("none.png", "absent.png"):
        with pytest.raises(UnreadableImage):
            size_of(tmp_path / name)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    for of in (size_of, read_levels):
        with pytest.raises(UnreadableImage):
            of(tmp_path / "none.png")


def test_masks_of_one_bit_are_turned_like_any(tmp_path) -> None:
    mask = np.zeros((5, 9), bool)
    mask[1, 2:8] = True
    plain, turned = tmp_path / "plain.png", tmp_path / "turned.png"
    plain.write_bytes(draw.encode_mask(mask))
    np.testing.assert_array_equal(read_mask(plain), mask)
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    PIL.Image.fromarray(mask).save(turned, exif=exif)
    np.testing.assert_array_equal(read_mask(turned), mask[::-1, ::-1])
