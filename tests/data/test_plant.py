"""Planted lesions: healthy images stay as they are, planted ones change inside their masks and nowhere else."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from radtag.data import phantom
from radtag.data.plant import Into, plant
from radtag.data.sources import open_source
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting
from radtag.images import Image


@pytest.fixture(scope="module")
def normals(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Healthy phantoms standing in for patients: two images each, as JPEG, with lung masks, none of them in a split."""
    folder = tmp_path_factory.mktemp("normals")
    records = []
    for index in range(40):
        drawn = phantom.render(index, side=96, findings=())
        path = folder / f"view {index}.jpg"
        Pillow.fromarray(drawn.pixels).save(path, quality=92)
        Pillow.fromarray(drawn.lungs).save(folder / f"lungs{index}.png")
        lungs = folder / f"lungs{index}.png"
        records.append(Record(f"a/view {index}.jpg", path, (0.0, 0.0), patient=f"p{index // 2}", lungs=lungs))
    return Dataset("normals", ("mass", "oedema"), tuple(records))


def _rows(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.open()))


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Pillow.open(path))


def test_healthy_images_keep_every_pixel_and_planted_ones_change_in_their_masks_alone(normals: Dataset, tmp_path: Path):
    table = plant(normals, tmp_path / "out", progress=False)
    original = {record.image: _pixels(record.path) for record in normals.records}
    planted = alone = 0
    for row in _rows(table):
        before, after = original[row["attr:original"]], _pixels(table.parent / row["image"])
        assert after.dtype == np.uint8
        kinds = [kind for kind in ("nodule", "consolidation", "effusion", "pneumothorax") if row[kind] == "1"]
        masks = [_pixels(table.parent / row[f"mask:{kind}"]) for kind in kinds]
        assert {column for column, cell in row.items() if column.startswith("mask:") and cell} == {
            f"mask:{kind}" for kind in kinds
        }
        if not kinds:
            np.testing.assert_array_equal(after, before)
            continue
        planted += 1
        changed = after != before
        assert not (changed & ~np.logical_or.reduce(masks)).any()
        if len(kinds) == 1:
            alone += 1
            np.testing.assert_array_equal(changed, masks[0])
    assert planted == 20
    assert alone >= 8


def test_half_of_each_split_is_planted_and_no_patient_is_in_two_splits(normals: Dataset, tmp_path: Path):
    rows = _rows(plant(normals, tmp_path / "out", progress=False))
    kinds = ("nodule", "consolidation", "effusion", "pneumothorax")
    patients: dict[str, set[str]] = {}
    for split, share in (("train", 0.65), ("val", 0.15), ("test", 0.20)):
        of_split = [row for row in rows if row["split"] == split]
        assert len(of_split) / len(rows) == pytest.approx(share, abs=0.06)
        ill = sum(any(row[kind] == "1" for kind in kinds) for row in of_split)
        assert ill == round(0.5 * len(of_split))
        patients[split] = {row["patient"] for row in of_split}
    assert not patients["train"] & patients["test"]
    assert not patients["val"] & (patients["train"] | patients["test"])
    for kind in kinds:
        assert sum(row[kind] == "1" for row in rows) >= 4


def test_the_folder_opens_as_a_csv_source_and_says_how_it_was_made(normals: Dataset, tmp_path: Path):
    table = plant(normals, tmp_path / "out", kinds=("effusion", "nodule"), progress=False)
    opened = open_source(f"csv:{table}")
    assert opened.findings == ("effusion", "nodule")
    assert len(opened) == 40
    for record in opened.records:
        assert {f for f, label in zip(opened.findings, record.labels, strict=True) if label} == set(record.masks)
        assert set(record.masks) == set(record.boxes_xyxy)
        assert record.attributes["lungs"] == "given"
    about = json.loads((table.parent / "about.json").read_text())
    assert (about["written"], about["planted"], about["left_out"]) == (40, 20, [])


def test_the_same_seed_gives_the_same_set_and_workers_do_not_matter(normals: Dataset, tmp_path: Path):
    first, again, other = (
        plant(normals, tmp_path / name, seed=seed, workers=workers, limit=20, progress=False)
        for name, seed, workers in (("a", 1, 1), ("b", 1, 3), ("c", 2, 1))
    )
    assert first.read_text() == again.read_text()
    for path in sorted(first.parent.rglob("*.png")):
        assert path.read_bytes() == (again.parent / path.relative_to(first.parent)).read_bytes()
    assert first.read_text() != other.read_text()
    assert len(_rows(first)) == 20


def test_more_rounds_add_lesions_to_the_training_images_alone(normals: Dataset, tmp_path: Path):
    once = _rows(plant(normals, tmp_path / "once", progress=False))
    table = plant(normals, tmp_path / "thrice", times=3, progress=False)
    thrice = _rows(table)
    assert {row["image"]: row for row in once}.keys() <= {row["image"]: row for row in thrice}.keys()
    for path in sorted((tmp_path / "once").rglob("*.png")):
        assert path.read_bytes() == (tmp_path / "thrice" / path.relative_to(tmp_path / "once")).read_bytes()
    added = [row for row in thrice if row["image"] not in {row["image"] for row in once}]
    train = sum(row["split"] == "train" for row in once)
    assert len(added) == 2 * round(0.5 * train)
    assert {row["split"] for row in added} == {"train"}
    contents = [(table.parent / row["image"]).read_bytes() for row in thrice]
    assert len(set(contents)) == len(contents)
    patients = {row["attr:original"]: row["patient"] for row in once}
    copies = [row for row in thrice if row["split"] == "train"]
    assert len({row["patient"] for row in copies}) == len({row["patient"] for row in once if row["split"] == "train"})
    assert all(row["patient"] == (patients[row["attr:original"]] or row["attr:original"]) for row in copies)


def test_a_name_that_is_not_utf8_is_planted(normals: Dataset, tmp_path: Path):
    odd = [replace(record, image=f"{i}/M\udcfcller.jpg") for i, record in enumerate(normals.records[:4])]
    table = plant(replace(normals, records=tuple(odd)), tmp_path / "out", progress=False)
    assert {row["attr:original"] for row in _rows(table)} == {f"{i}/M\\udcfcller.jpg" for i in range(4)}
    assert len(open_source(f"csv:{table.parent}")) == 4


def test_own_splits_are_kept_and_a_missing_validation_part_is_drawn(normals: Dataset, tmp_path: Path):
    own = tuple(
        replace(record, split="test" if index % 4 < 2 else "train") for index, record in enumerate(normals.records)
    )
    table = plant(replace(normals, records=own), tmp_path / "out", progress=False)
    split_of = {row["attr:original"]: row["split"] for row in _rows(table)}
    for record in own:
        assert split_of[record.image] in (("test",) if record.split == "test" else ("train", "val"))
    assert 0 < list(split_of.values()).count("val") <= 6


def test_sixteen_bit_images_stay_sixteen_bit(tmp_path: Path):
    records = []
    rng = np.random.default_rng(0)
    for index in range(6):
        drawn = phantom.render(index, side=96, findings=())
        deep = drawn.pixels.astype(np.uint16) * 256 + rng.integers(0, 200, drawn.pixels.shape, dtype=np.uint16)
        Pillow.fromarray(deep).save(tmp_path / f"{index}.png")
        Pillow.fromarray(drawn.lungs).save(tmp_path / f"l{index}.png")
        records.append(Record(f"{index}.png", tmp_path / f"{index}.png", (0.0,), lungs=tmp_path / f"l{index}.png"))
    table = plant(Dataset("deep", ("mass",), tuple(records)), tmp_path / "out", progress=False)
    for row in _rows(table):
        before, after = _pixels(tmp_path / row["attr:original"]), _pixels(table.parent / row["image"])
        changed = before.astype(int) != after.astype(int)
        masks = [_pixels(table.parent / row[key]) for key in row if key.startswith("mask:") and row[key]]
        union = np.logical_or.reduce(masks) if masks else np.zeros_like(changed)
        assert Pillow.open(table.parent / row["image"]).mode.startswith("I")
        assert not (changed & ~union).any()


def test_lungs_are_estimated_where_none_are_given(normals: Dataset, tmp_path: Path):
    bare = replace(normals, records=tuple(replace(record, lungs=None) for record in normals.records[:20]))
    table = plant(bare, tmp_path / "out", progress=False)
    rows = _rows(table)
    assert len(rows) >= 16
    assert {row["attr:lungs"] for row in rows} == {"estimated"}
    given = {record.image: record.lungs for record in normals.records}
    inside = []
    for row in rows:
        truth, estimate = _pixels(given[row["attr:original"]]), _pixels(table.parent / row["lungs"])
        assert truth.shape == estimate.shape
        inside.append((truth & estimate).sum() / estimate.sum())
    assert np.median(inside) > 0.85


def test_lungs_are_found_as_one_is_told_where_none_are_given(normals: Dataset, tmp_path: Path):
    bare = tuple(replace(record, lungs=None) for record in normals.records[:16])
    mixed = replace(normals, records=(*bare, *normals.records[16:20]))
    truth = {record.path: _pixels(record.lungs) for record in normals.records if record.lungs is not None}

    class Knowing:
        name = "somebody"

        def __call__(self, image: Image) -> np.ndarray:
            return truth[Path(image.source)]

    table = plant(mixed, tmp_path / "out", find_lungs=Knowing(), progress=False)
    rows = _rows(table)
    assert json.loads((table.parent / "about.json").read_text())["lungs_found_by"] == "somebody"
    assert sorted(row["attr:lungs"] for row in rows) == ["found"] * 16 + ["given"] * 4
    as_given = _rows(plant(replace(normals, records=normals.records[:20]), tmp_path / "given", progress=False))
    for one, other in zip(rows, as_given, strict=True):
        assert one["image"] == other["image"]
        np.testing.assert_array_equal(
            _pixels(table.parent / one["image"]), _pixels(tmp_path / "given" / other["image"])
        )


def test_subtle_lesions_are_fainter_and_nodules_smaller(normals: Dataset, tmp_path: Path):
    """Mean change of a pixel of the lesions, and mean area of the nodules."""
    change, area = {}, {}
    for look in ("plain", "subtle"):
        table = plant(normals, tmp_path / look, kinds=("nodule",), look=look, share=0.9, progress=False)
        assert json.loads((table.parent / "about.json").read_text())["look"] == look
        planted = [row for row in _rows(table) if row["nodule"] == "1"]
        masks = [_pixels(table.parent / row["mask:nodule"]) for row in planted]
        before = {record.image: _pixels(record.path).astype(float) for record in normals.records}
        changes = [
            np.abs(_pixels(table.parent / row["image"]) - before[row["attr:original"]])[mask].mean()
            for row, mask in zip(planted, masks, strict=True)
        ]
        change[look], area[look] = np.mean(changes), np.mean([mask.sum() for mask in masks])
    assert change["subtle"] < 0.85 * change["plain"]
    assert area["subtle"] < 0.6 * area["plain"]


def test_images_of_any_kind_keep_their_labels_beside_what_is_painted(normals: Dataset, tmp_path: Path):
    """Every other image has a mass of its own, and nobody knows of its oedema."""
    ill = {record.image for record in normals.records[::2]}
    records = (replace(r, labels=(1.0, math.nan) if r.image in ill else (0.0, 0.0)) for r in normals.records)
    table = plant(
        replace(normals, records=tuple(records)),
        tmp_path / "out",
        kinds=("mass", "nodule"),
        unsure={"nodule": ("oedema",)},
        share=0.9,
        into="any",
        progress=False,
    )
    about = json.loads((table.parent / "about.json").read_text())
    rows = _rows(table)
    assert (about["into"], about["images"]) == ("any", len(normals))
    assert about["planted"] == pytest.approx(0.9 * len(normals), abs=2), "by the lesions, not by the labels"
    assert {row["attr:original"] for row in rows} == {record.image for record in normals.records}
    boxed = {(row["image"], row["finding"]) for row in csv.DictReader((table.parent / "boxes.csv").open())}
    seen = set()
    for row in rows:
        is_ill = row["attr:original"] in ill
        with_nodule, with_mass = row["nodule"] == "1", row["mass"] == "1"
        assert row["nodule"] in ("1", ""), "the source does not say who has none"
        assert row["mass"] == "1" if is_ill else row["mass"] in ("0", "1")
        assert row["oedema"] == ("" if is_ill or with_nodule else "0")
        assert bool(row["mask:mass"]) == (with_mass and not is_ill), "one's own mass is not outlined"
        assert ((row["image"], "mass") in boxed) == bool(row["mask:mass"])
        assert not row["mask:nodule"], "there may be others"
        seen.add((is_ill, with_nodule, with_mass))
    assert {(True, True, True), (False, True, False), (False, False, True)} <= seen


@pytest.mark.parametrize("normal", [None, "clear"])
def test_an_image_with_a_lesion_is_no_longer_called_healthy(normals: Dataset, tmp_path: Path, normal: str | None):
    name = normal or "No finding"
    healthy = replace(
        normals, findings=("mass", name), records=tuple(replace(r, labels=(0.0, 1.0)) for r in normals.records)
    )
    rows = _rows(plant(healthy, tmp_path / "out", kinds=("mass",), into="any", normal=normal, progress=False))
    assert {(row["mass"], row[name]) for row in rows} == {("0", "1"), ("1", "0")}


@pytest.mark.parametrize("into", ["healthy", "any"])
def test_a_name_for_healthy_that_is_no_finding_is_refused(normals: Dataset, tmp_path: Path, into: Into):
    with pytest.raises(BadData, match="normals has no finding 'clear'; it has mass, oedema"):
        plant(normals, tmp_path / "out", into=into, normal="clear", progress=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"share": 1.0}, "share 1.0 leaves no healthy"),
        ({"kinds": ("nodule", "fracture")}, "no lesion 'fracture'. Use some of nodule"),
        ({"into": "ill"}, "into healthy or any images, not 'ill'"),
        ({"look": "faint"}, "lesions look plain or subtle, not 'faint'"),
        ({"kinds": ()}, "name none, or one twice"),
        ({"limit": 1}, "limit 1 is too few"),
    ],
)
def test_settings_that_will_not_do_are_refused(normals: Dataset, tmp_path: Path, options: dict, said: str):
    with pytest.raises(BadSetting, match=said):
        plant(normals, tmp_path / "out", progress=False, **options)
    assert not list(tmp_path.iterdir())


def test_images_without_lungs_leave_nothing_behind(tmp_path: Path):
    Pillow.fromarray(np.full((80, 90), 120, dtype=np.uint8)).save(tmp_path / "flat.png")
    records = tuple(Record(str(i), tmp_path / "flat.png", (0.0,), patient=str(i)) for i in range(4))
    with pytest.raises(BadData, match=r"4 of 4 healthy images cannot be planted; 0: no lungs were found in it"):
        plant(Dataset("flat", ("mass",), records), tmp_path / "out", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["flat.png"]
