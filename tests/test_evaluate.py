"""An evaluation of maps that are known to the pixel, every number worked out by hand."""

from __future__ import annotations

import csv
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from radtag.compare import compare, comparison
from radtag.data.outlines import together
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting
from radtag.evaluate import evaluate, pool
from radtag.geometry import Frame, Grid, stretch_mask
from radtag.images import Image
from radtag.pairs import PairTable
from radtag.tag import Layer, Prediction, Tag
from radtag.truth import readers_hit, truth_of

SIZE = (20, 40)  # rows, cols
NAN = float("nan")


class KnownMaps:
    """A tagger whose maps and scores are given per image; a cell is a pixel of the original."""

    findings = ("unasked", "opacity", "nodule")
    runs = (
        SimpleNamespace(
            path=Path("runs/known"), card={"method": "known", "images": 7}, calibration=SimpleNamespace(notes=())
        ),
    )

    def __init__(self, known: dict[str, tuple[list[float], dict[str, np.ndarray]]]) -> None:
        self.known = known

    def predict(self, images: Iterable[Image]) -> Iterator[Prediction]:
        for image in images:
            scores, maps = self.known[Path(image.source).name]
            layers = np.full((3, *SIZE), 0.1, dtype=np.float32)
            for finding, values in maps.items():
                layers[self.findings.index(finding)] = values
            layer = Layer(layers, (Grid.tiles(SIZE, SIZE),) * len(layers), Frame.identity(image.size_rc))
            yield Prediction(image, np.array([0.5, *scores], dtype=np.float32), (layer,))

    def tags(self, prediction: Prediction, name: str) -> list[Tag]:
        return [
            Tag(name, f, float(prediction.scores[i]), 0.5, 0.5, None, prediction, i)
            for i, f in enumerate(self.findings)
        ]


def block(x1: int, y1: int, x2: int, y2: int, value: float = 0.9, peak: tuple[int, int] | None = None) -> np.ndarray:
    """A map of 0.1 with a block of a value, and one pixel (row, col) higher still."""
    values = np.full(SIZE, 0.1, dtype=np.float32)
    values[y1:y2, x1:x2] = value
    if peak is not None:
        values[peak] = 0.95
    return values


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    folder = tmp_path / "data"
    folder.mkdir()
    for i, name in enumerate(("one", "two", "three")):
        Pillow.fromarray(np.full(SIZE, 60 + 40 * i, dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    mask = np.zeros((10, 20), dtype=np.uint8)  # half the image's size: stretched over it
    mask[1:4, 2:6] = 255
    Pillow.fromarray(mask).save(folder / "one_mask.png")

    def record(name: str, opacity: float, nodule: float, **truth: object) -> Record:
        return Record(f"{name}.png", folder / f"{name}.png", (opacity, nodule), f"patient {name}", "test", **truth)  # type: ignore[arg-type]

    return Dataset(
        "by hand",
        ("opacity", "nodule"),
        (
            record(
                "one",
                1,
                0,
                boxes_xyxy={"opacity": ((4.0, 2.0, 12.0, 8.0),)},
                masks={"opacity": folder / "one_mask.png"},
            ),
            record("broken", 1, 1),
            # A box drawn on an image of twice the size.
            record("two", 1, NAN, boxes_xyxy={"opacity": ((40.0, 20.0, 60.0, 40.0),)}, box_frame_rc=(40, 80)),
            record("three", 0, 1),
        ),
        notes=("made for the test",),
    )


@pytest.fixture
def tagger() -> KnownMaps:
    return KnownMaps(
        {
            # Within the box (4, 2)-(12, 8) of 48 pixels: 36 of them.
            "one.png": ([0.9, 0.2], {"opacity": block(6, 2, 12, 8, peak=(3, 7))}),
            "two.png": ([0.4, 0.7], {"opacity": block(0, 0, 5, 5)}),
            # Healthy for opacity, and 100 of 800 pixels are marked.
            "three.png": ([0.6, 0.8], {"opacity": block(0, 0, 10, 10)}),
        }
    )


def value(result: dict, finding: str, metric: str) -> float:
    return result["findings"][finding][metric]["value"]


def test_numbers_by_hand(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    result = evaluate(tagger, dataset, tmp_path / "out", bootstraps=50)
    opacity = result["findings"]["opacity"]
    assert value(result, "opacity", "auroc") == 0.5  # 0.9 and 0.4 against 0.6
    assert value(result, "nodule", "auroc") == 1.0
    assert opacity["auroc"]["n"] == 3
    assert result["findings"]["nodule"]["auroc"]["undefined"] == 1  # the unknown label
    assert result["macro"]["auroc"]["value"] == 0.75
    # Micro: positives 0.9, 0.4, 0.8; negatives 0.2, 0.6: 5 of 6 pairs in order.
    assert result["micro"]["auroc"]["value"] == pytest.approx(5 / 6)
    assert value(result, "opacity", "average_precision") == pytest.approx((1 + 2 / 3) / 2)
    assert value(result, "opacity", "sensitivity") == 0.5
    assert value(result, "opacity", "specificity") == 0.0
    assert value(result, "opacity", "brier") == pytest.approx((0.1**2 + 0.6**2 + 0.6**2) / 3)
    # Two pairs have a place: hit and miss.
    for metric in ("pointing", "pointing_network", "iobb_0.1", "iobb_0.5", "iou_0.5", "box_0.1", "box_0.5"):
        assert (opacity[metric]["value"], opacity[metric]["n"]) == (0.5, 2), metric
    # One pair has an outline, which is the box: 36 of its 48 pixels are in the mask, and nothing else.
    assert value(result, "opacity", "dice") == pytest.approx(72 / 84)
    assert value(result, "opacity", "iou") == 0.75
    assert value(result, "opacity", "precision") == 1.0
    assert value(result, "opacity", "poi") == 0.75
    # 36 sure pixels, and 12 of the 764 pixels of 0.1, of which 12 are true.
    assert value(result, "opacity", "poi_matched") == pytest.approx((36 + 12 * 12 / 764) / 48)
    assert value(result, "opacity", "pixel_ap") == pytest.approx(0.75 + 0.25 * 48 / 800)
    assert opacity["dice"]["n"] == 1
    assert opacity["dice"]["low"] is None  # one patient says nothing about the spread
    assert value(result, "opacity", "healthy_marked") == pytest.approx(0.125)
    assert result["micro"]["healthy_marked"]["value"] == pytest.approx(0.0625)
    assert result["micro"]["healthy_any"]["value"] == 0.5
    assert value(result, "nodule", "healthy_peak") == pytest.approx(0.1)
    # Nobody says where nodules are.
    assert result["findings"]["nodule"]["pointing"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "undefined": 0,
    }
    assert result["macro"]["pointing"]["n"] == 1


def test_about_and_files(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    seen = []
    result = evaluate(
        tagger, dataset, tmp_path / "out", bootstraps=10, seed=3, progress=lambda *done: seen.append(done)
    )
    about = result["about"]
    assert (about["images"], about["patients"], about["pairs"]) == (3, 3, 5)
    assert about["counts"]["opacity"] == {"positive": 2, "negative": 1, "unknown": 0, "located": 2, "outlined": 1}
    assert list(about["unreadable"]) == ["broken.png"]
    assert (about["data"], about["split"], about["seed"], about["bootstraps"]) == ("by hand", "test", 3, 10)
    assert about["card"] == {"method": "known", "images": 7}
    assert "made for the test" in about["notes"]
    assert any("unasked" in note for note in about["notes"])
    assert any("broken.png" in note for note in about["notes"])
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == result
    assert seen[-1] == (4, 4)
    with (tmp_path / "out" / "pairs.csv").open() as file:
        rows = {(row["image"], row["finding"]): row for row in csv.DictReader(file)}
    assert len(rows) == 6
    one, two, healthy = rows["one.png", "opacity"], rows["two.png", "opacity"], rows["one.png", "nodule"]
    assert (one["peak_x"], one["peak_y"], one["pointing"], one["box_iou"]) == ("7.5", "3.5", "1", "0.75")
    assert float(one["map_mean"]) == pytest.approx((35 * 0.9 + 0.95 + 764 * 0.1) / 800)
    assert float(one["map_max"]) == pytest.approx(0.95)
    assert (two["iobb"], two["box_iou"], two["dice"], two["pointing"]) == ("0", "0", "", "0")
    assert (healthy["label"], healthy["located"], healthy["marked"], healthy["pointing"]) == ("0", "0", "0", "")
    assert rows["two.png", "nodule"]["label"] == ""


def test_no_intervals_without_bootstraps(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    result = evaluate(tagger, dataset, tmp_path / "out", bootstraps=0)
    entries = [entry for metrics in (*result["findings"].values(), result["micro"]) for entry in metrics.values()]
    assert all(entry["low"] is None and entry["high"] is None for entry in entries)
    assert value(result, "opacity", "pointing") == 0.5
    with pytest.raises(BadSetting, match="-1"):
        evaluate(tagger, dataset, tmp_path / "out", bootstraps=-1)


def test_a_second_evaluation_replaces_the_first(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate(tagger, dataset, out, bootstraps=5)
    assert (out / "pixels.npz").is_file()
    shown = len(list((out / "pictures").iterdir()))
    bare = Dataset("bare", dataset.findings, (dataset.records[3],))
    result = evaluate(tagger, bare, out, bootstraps=5, overwrite=True)
    assert "pointing" not in result["micro"]
    assert not (out / "pixels.npz").exists()
    assert len(list((out / "pictures").iterdir())) < shown
    assert not [path.name for path in out.rglob(".*")]


def test_a_result_made_otherwise_is_not_replaced_unasked(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate(tagger, dataset, out, bootstraps=5)
    before = (out / "metrics.json").read_bytes()
    with pytest.raises(BadSetting) as caught:
        evaluate(tagger, dataset, out, bootstraps=6)
    assert str(caught.value) == (
        f"{out} holds a result made otherwise: bootstraps was 5, now 6."
        " Give another --out, or replace it with --overwrite."
    )
    relabelled = replace(dataset.records[3], labels=(0.0, 0.0))
    with pytest.raises(BadSetting, match=r"digests\.data was \w+, now \w+\."):
        evaluate(tagger, replace(dataset, records=(*dataset.records[:3], relabelled)), out, bootstraps=5)

    class Another(KnownMaps):
        runs = (SimpleNamespace(path=Path("runs/another"), card={}, calibration=SimpleNamespace(notes=())),)

    with pytest.raises(BadSetting, match=r"run was known, now another\."):
        evaluate(Another(tagger.known), dataset, out, bootstraps=5)
    assert (out / "metrics.json").read_bytes() == before
    evaluate(tagger, dataset, out, bootstraps=5)
    evaluate(tagger, dataset, out, bootstraps=6, overwrite=True)
    pool([out], tmp_path / "pooled", bootstraps=0)
    pool([out], tmp_path / "pooled", bootstraps=0)
    with pytest.raises(BadSetting, match=r"pooled holds a result made otherwise: bootstraps was 0, now 5\."):
        pool([out], tmp_path / "pooled", bootstraps=5)


def test_a_comparison_of_others_is_not_replaced_unasked(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        evaluate(tagger, dataset, folder, bootstraps=0)
    out = tmp_path / "out"
    comparison(folders[:2], out, bootstraps=5)
    comparison(folders[:2], out, bootstraps=5)
    with pytest.raises(BadSetting, match=r"folders was \.\./a, \.\./b, now \.\./a, \.\./c; names was a, b, now a, c\."):
        comparison([folders[0], folders[2]], out, bootstraps=5)
    comparison([folders[0], folders[2]], out, bootstraps=5, overwrite=True)
    assert json.loads((out / "comparison.json").read_text())["names"] == ["a", "c"]


def test_findings_that_are_not_evaluated_are_named(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    records = tuple(replace(record, labels=(*record.labels, 0.0)) for record in dataset.records)
    more = replace(dataset, findings=(*dataset.findings, "fracture"), records=records)
    about = evaluate(tagger, more, tmp_path / "out", bootstraps=0)["about"]
    assert about["left_out"] == [
        "Not evaluated, not being among the findings of the data: unasked.",
        "Not evaluated, not being among the findings of the run: fracture.",
    ]
    assert set(about["left_out"]) <= set(about["notes"])


def test_outlines_without_boxes(dataset: Dataset, tmp_path: Path) -> None:
    # An outline in the shape of an L: its box holds (2, 10), the outline does not.
    outline = np.zeros(SIZE, dtype=np.uint8)
    outline[2:10, 4:6] = 255
    outline[8:10, 4:14] = 255
    file = tmp_path / "l.png"
    Pillow.fromarray(outline).save(file)
    first = dataset.records[0]
    record = Record(first.image, first.path, (1.0, 0.0), masks={"opacity": file})
    data = Dataset("l", dataset.findings, (record,))
    tagger = KnownMaps({"one.png": ([0.9, 0.1], {"opacity": block(4, 2, 14, 10, peak=(2, 10))})})
    result = evaluate(tagger, data, tmp_path / "out", bootstraps=5)
    assert value(result, "opacity", "pointing") == 0.0
    assert value(result, "opacity", "pointing_network") == 0.0
    assert value(result, "opacity", "box_0.5") == 1.0
    assert value(result, "opacity", "iobb_0.5") == 1.0
    assert value(result, "opacity", "precision") == pytest.approx((16 + 16) / 80)
    assert any("outline" in note for note in result["about"]["notes"])


def test_pointing_at_the_networks_size_is_of_the_plain_sigmoid(dataset: Dataset, tmp_path: Path) -> None:
    # One high cell among low ones, and a field of nine slightly lower ones: interpolated, the field is higher.
    sigmoids = np.full((5, 10), 0.01, dtype=np.float32)
    sigmoids[1, 1] = 0.9
    sigmoids[1:4, 5:8] = 0.85
    calibrated = np.where(sigmoids == np.float32(0.9), 0.95, np.where(sigmoids > 0.8, 0.5, 0.001)).astype(np.float32)

    class Coarse(KnownMaps):
        def predict(self, images: Iterable[Image]) -> Iterator[Prediction]:
            for image in images:
                layer = Layer(
                    np.stack([calibrated] * 3),
                    (Grid.tiles((5, 10), SIZE),) * 3,
                    Frame.identity(SIZE),
                    np.stack([sigmoids] * 3),
                )
                yield Prediction(image, np.full(3, 0.5, dtype=np.float32), (layer,))

    published = torch.nn.functional.interpolate(torch.from_numpy(sigmoids)[None, None], SIZE, mode="bilinear")
    row, col = np.unravel_index(int(published.argmax()), SIZE)
    assert 5 * 4 <= col < 8 * 4
    assert 1 * 4 <= row < 4 * 4
    first = dataset.records[0]
    field = Record(first.image, first.path, (1.0, 0.0), boxes_xyxy={"opacity": ((20.0, 4.0, 32.0, 16.0),)})
    result = evaluate(Coarse({}), Dataset("field", dataset.findings, (field,)), tmp_path / "out", bootstraps=0)
    assert value(result, "opacity", "pointing_network") == 1.0
    assert value(result, "opacity", "pointing") == 0.0


@pytest.mark.usefixtures("no_page")
def test_points_that_readers_set_are_scored_beside_the_maps(
    dataset: Dataset, tagger: KnownMaps, tmp_path: Path
) -> None:
    plain = evaluate(tagger, dataset, tmp_path / "plain", bootstraps=0)
    assert "pointing_readers" not in plain["micro"]
    one, broken, two, three = dataset.records
    asked = (
        # Columns 4 to 7 and rows 2 to 7 are outlined and boxed; a second point may miss.
        replace(one, readers_xy={"opacity": ((39.9, 19.9), (11.9, 7.9)), "nodule": ((1.0, 1.0),)}),
        broken,
        # On an image of twice the size the box begins at (40, 20): (39, 30) lies just left of it.
        replace(two, readers_xy={"opacity": ((37.9, 30.0),)}),
        replace(three, readers_xy={"nodule": ((1.0, 1.0),)}),  # nobody knows where it is
    )
    result = evaluate(tagger, replace(dataset, records=asked), tmp_path / "out", bootstraps=0)
    assert result["findings"]["opacity"]["pointing_readers"]["value"] == 0.5
    assert result["findings"]["opacity"]["pointing_readers"]["n"] == 2
    assert result["findings"]["nodule"]["pointing_readers"]["n"] == 0
    rows = rows_of(tmp_path / "out")
    assert {key: row["pointing_readers"] for key, row in rows.items() if row["pointing_readers"]} == {
        ("one.png", "opacity"): "1",
        ("two.png", "opacity"): "0",
    }

    outlined = replace(one, boxes_xyxy={}, readers_xy={"opacity": ((11.9, 7.9), (3.9, 2.0))})
    truth = truth_of(outlined, "opacity", SIZE)  # columns 4 to 11, rows 2 to 7
    assert truth is not None
    assert readers_hit(outlined, "opacity", truth) == 1
    assert readers_hit(replace(outlined, readers_xy={"opacity": ((3.9, 2.0), (40.0, 20.0))}), "opacity", truth) == 0
    assert readers_hit(replace(outlined, readers_xy={"opacity": ()}), "opacity", truth) == 0  # asked, and found nothing
    assert np.isnan(readers_hit(replace(outlined, readers_xy={}), "opacity", truth))
    with pytest.raises(BadSetting, match=r"holds a result made otherwise: digests\.data was"):
        evaluate(tagger, dataset, tmp_path / "out", bootstraps=0)


def test_folds_pooled_are_the_whole(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    whole = evaluate(tagger, dataset, tmp_path / "whole", bootstraps=100, seed=4)
    folds = [
        Dataset(f"fold {i}", dataset.findings, records)
        for i, records in enumerate((dataset.records[:2], dataset.records[2:]))
    ]
    for i, fold in enumerate(folds):
        evaluate(tagger, fold, tmp_path / str(i), bootstraps=0)
    pooled = pool([tmp_path / "0", tmp_path / "1"], tmp_path / "pooled", bootstraps=100, seed=4)
    for part in ("micro", "macro"):
        for metric, entry in whole[part].items():
            assert pooled[part][metric] == pytest.approx(entry, abs=1e-7), metric
    for metric, entry in whole["findings"]["opacity"].items():
        assert pooled["findings"]["opacity"][metric] == pytest.approx(entry, abs=1e-7), metric
    assert pooled["about"]["folds"] == 2
    assert pooled["about"]["patients"] == 3
    assert "broken.png" in pooled["about"]["unreadable"]
    assert (tmp_path / "pooled" / "report.html").is_file()
    # A pooled folder is an evaluation like any other.
    assert compare(tmp_path / "pooled", tmp_path / "whole", bootstraps=20)["micro"]["pointing"]["value"] == 0.0


def test_folds_are_pooled_with_their_groups(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    records = [replace(one, attributes={"sex": sex}) for one, sex in zip(dataset.records, "FFMM", strict=True)]
    whole_set = Dataset("by hand", dataset.findings, tuple(records))
    whole = evaluate(tagger, whole_set, tmp_path / "whole", by=["sex", "size"], bootstraps=20)
    for i, part in enumerate((records[:2], records[2:])):
        fold = Dataset("by hand", dataset.findings, tuple(part))
        evaluate(tagger, fold, tmp_path / str(i), by=["sex", "size"] + ["split"] * i, bootstraps=0)
    pooled = pool([tmp_path / "0", tmp_path / "1"], tmp_path / "pooled", bootstraps=20)
    for column, told in whole["groups"].items():
        assert list(pooled["groups"][column]["parts"]) == list(told["parts"])
        for name, part in told["parts"].items():
            for metric, entry in part["findings"]["opacity"].items():
                got = pooled["groups"][column]["parts"][name]["findings"]["opacity"][metric]
                assert got == pytest.approx(entry, abs=1e-7), (name, metric)
    assert {name: part["images"] for name, part in pooled["groups"]["sex"]["parts"].items()} == {"F": 1, "M": 2}
    assert pooled["about"]["by"] == ["sex", "size"]
    assert any(note.startswith("Not grouped by split") for note in pooled["about"]["notes"])
    assert "By sex" in (tmp_path / "pooled" / "report.html").read_text(encoding="utf-8")
    again = pool([tmp_path / "pooled"], tmp_path / "again", bootstraps=0)  # an evaluation like any other
    assert list(again["groups"]) == ["sex", "size"]


def test_folds_share_no_image(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    evaluate(tagger, dataset, tmp_path / "a", bootstraps=0)
    with pytest.raises(BadData, match=r"one\.png is in .*a and in .*a"):
        pool([tmp_path / "a", tmp_path / "a"], tmp_path / "pooled")
    evaluate(tagger, dataset.with_findings(["opacity"]), tmp_path / "b", bootstraps=0)
    with pytest.raises(BadData, match="has the findings opacity;"):
        pool([tmp_path / "a", tmp_path / "b"], tmp_path / "pooled")
    with pytest.raises(BadData, match=r"none.*does not exist\. Give the folder"):
        pool([tmp_path / "none"], tmp_path / "pooled")


def with_lungs(dataset: Dataset, folder: Path, **cols: tuple[int, int]) -> Dataset:
    """The same images, some with a mask of lungs: all rows, and columns from one to before another."""
    records = []
    for record in dataset.records:
        name = record.path.stem
        if name in cols:
            lungs = np.zeros((10, 20), dtype=np.uint8)  # half the image's size
            lungs[:, cols[name][0] // 2 : cols[name][1] // 2] = 255
            Pillow.fromarray(lungs).save(folder / f"{name}_lungs.png")
            record = replace(record, lungs=folder / f"{name}_lungs.png")
        records.append(record)
    return replace(dataset, records=tuple(records))


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers alone: pictures and report take most of the time."""
    monkeypatch.setattr("radtag.evaluate.choose_and_draw", lambda *_: (None, []))
    monkeypatch.setattr("radtag.evaluate.write_report", lambda *_: None)
    monkeypatch.setattr("radtag.evaluate.curves", lambda *_: [])


def rows_of(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    with (folder / "pairs.csv").open() as file:
        return {(row["image"], row["finding"]): row for row in csv.DictReader(file)}


@pytest.mark.usefixtures("no_page")
def test_numbers_inside_the_lungs_by_hand(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    dataset = with_lungs(dataset, tmp_path, one=(0, 10), three=(0, 10))
    whole = evaluate(tagger, dataset, tmp_path / "whole", bootstraps=0)
    result = evaluate(tagger, dataset, tmp_path / "out", bootstraps=0, inside="lungs")
    # Of the lungs' 200 pixels 36 are true, of which the mask has 24, and nothing else.
    assert value(result, "opacity", "dice") == pytest.approx(48 / 60)
    assert value(result, "opacity", "iou") == pytest.approx(24 / 36)
    assert value(result, "opacity", "precision") == 1.0
    assert value(result, "opacity", "poi") == pytest.approx(24 / 36)
    # 24 sure pixels, and 12 of the 176 pixels of 0.1, of which 12 are true.
    assert value(result, "opacity", "poi_matched") == pytest.approx((24 + 12 * 12 / 176) / 36)
    assert value(result, "opacity", "pixel_ap") == pytest.approx(2 / 3 + 1 / 3 * 36 / 200)
    rows = rows_of(tmp_path / "out")
    assert float(rows["one.png", "opacity"]["mask_share"]) == pytest.approx(36 / 200)
    assert float(rows["one.png", "opacity"]["marked"]) == pytest.approx(24 / 200)
    # The healthy image has 100 pixels marked, all of them in its lungs.
    assert value(result, "opacity", "healthy_marked") == pytest.approx(0.5)
    assert value(whole, "opacity", "healthy_marked") == pytest.approx(0.125)
    # Points and boxes are taken on the whole image.
    assert (rows["one.png", "opacity"]["pointing"], rows["one.png", "opacity"]["box_iou"]) == ("1", "0.75")
    # The image without lungs is a flat one: its place is unknown, and so is what is marked in it.
    assert (rows["two.png", "opacity"]["located"], rows["two.png", "opacity"]["marked"]) == ("0", "")
    assert result["findings"]["opacity"]["pointing"]["n"] == 1
    assert result["about"]["inside"] == "lungs"
    assert any(
        note.startswith("1 image has no lung mask, and no lungs were found") for note in result["about"]["notes"]
    )


@pytest.mark.usefixtures("no_page")
def test_marks_of_images_without_lungs_are_undefined_and_counted(
    dataset: Dataset, tagger: KnownMaps, tmp_path: Path
) -> None:
    result = evaluate(tagger, dataset, tmp_path / "out", bootstraps=0, inside="lungs")
    for metric in ("healthy_marked", "healthy_any"):
        assert result["findings"]["opacity"][metric] == {
            "value": None, "low": None, "high": None, "n": 0, "undefined": 1
        }, metric  # fmt: skip


def test_how_much_of_a_map_lies_outside_the_lungs(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    plain = evaluate(tagger, dataset, tmp_path / "plain", bootstraps=0)
    assert "map_outside_lungs" not in plain["micro"]
    dataset = with_lungs(dataset, tmp_path, one=(0, 10), three=(0, 40))
    result = evaluate(tagger, dataset, tmp_path / "out", bootstraps=0)
    opacity, rows = result["findings"]["opacity"], rows_of(tmp_path / "out")
    inside = (23 * 0.9 + 0.95 + 176 * 0.1) / (35 * 0.9 + 0.95 + 764 * 0.1)
    assert opacity["map_outside_lungs"]["value"] == pytest.approx(1 - inside)
    assert opacity["area_outside_lungs"]["value"] == pytest.approx(0.75)
    assert opacity["map_outside_lungs"]["n"] == 1
    # Of positive pairs whose place is known alone, and of those with a lung mask.
    assert [key for key, row in rows.items() if row["map_outside_lungs"]] == [("one.png", "opacity")]
    assert "Does the map stay in the lungs?" in (tmp_path / "out" / "report.html").read_text()
    # Nothing else has changed.
    assert {key: result["micro"][key] for key in plain["micro"]} == plain["micro"]


@pytest.mark.usefixtures("no_page")
def test_an_outline_outside_the_lungs_says_nothing_inside_them(
    dataset: Dataset, tagger: KnownMaps, tmp_path: Path
) -> None:
    dataset = with_lungs(dataset, tmp_path, one=(20, 40))
    result = evaluate(tagger, dataset, tmp_path / "out", bootstraps=0, inside="lungs")
    assert rows_of(tmp_path / "out")["one.png", "opacity"]["located"] == "0"
    said = "1 positive pair has an outline that lies outside the lungs: its place counts as unknown."
    assert said in result["about"]["notes"]


@pytest.mark.usefixtures("no_page")
def test_an_empty_lung_mask_is_none(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    result = evaluate(tagger, with_lungs(dataset, tmp_path, one=(0, 0)), tmp_path / "out", bootstraps=0)
    assert "map_outside_lungs" not in result["micro"]


@pytest.mark.usefixtures("no_page")
def test_lungs_are_estimated_where_there_is_no_mask_in_a_reading_thread_and_once(
    dataset: Dataset, tagger: KnownMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def left(pixels: np.ndarray) -> np.ndarray:
        asked.append(threading.current_thread().name)
        return np.broadcast_to(np.arange(pixels.shape[1]) < 10, pixels.shape)

    monkeypatch.setattr("radtag.evaluate.estimate_lungs", left)
    evaluate(tagger, dataset, tmp_path / "image", bootstraps=0)
    assert asked == []
    result = evaluate(
        tagger, with_lungs(dataset, tmp_path, three=(0, 20)), tmp_path / "out", bootstraps=0, inside="lungs"
    )
    assert len(asked) == 2  # one and two; three has a mask
    assert all(name.startswith("read") for name in asked)
    assert value(result, "opacity", "dice") == pytest.approx(48 / 60)
    assert "2 images have no lung mask: their lungs are estimated." in result["about"]["notes"]
    assert "map_outside_lungs" not in result["micro"]  # which is of the data set's own masks alone

    class Limited(KnownMaps):
        """One that limits masks to the lungs: what it found there serves here, too."""

        area = "lungs"

        def predict(self, images: Iterable[Image]) -> Iterator[Prediction]:
            for prediction in super().predict(images):
                yield replace(prediction, area=np.broadcast_to(np.arange(SIZE[1]) < 10, SIZE))

    asked.clear()
    again = evaluate(Limited(tagger.known), dataset, tmp_path / "limited", bootstraps=0, inside="lungs")
    assert asked == []
    assert value(again, "opacity", "dice") == pytest.approx(48 / 60)
    assert not any("not limited" in note for note in again["about"]["notes"])


@pytest.mark.usefixtures("no_page")
def test_images_whose_masks_are_not_limited_are_counted(
    dataset: Dataset, tagger: KnownMaps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KnownMaps, "area", "body", raising=False)
    result = evaluate(tagger, dataset, tmp_path / "out", bootstraps=0)
    assert "3 images in which no body was found: their masks are not limited." in result["about"]["notes"]


@pytest.mark.usefixtures("no_page")
def test_folds_that_were_tagged_in_other_ways_are_not_pooled(
    dataset: Dataset, tagger: KnownMaps, tmp_path: Path
) -> None:
    for image, (name, settings) in zip(
        ("one", "two", "three", "three"),
        (
            ("a", {"grid": "measured", "mask": [0.5] * 3}),
            ("b", {"grid": "measured", "mask": [0.4] * 3}),
            ("c", {"grid": "tiles"}),
            ("d", {"grid": "measured", "mask": ["otsu"] * 3}),
        ),
        strict=True,
    ):
        tagger.settings = {"findings": ["opacity"], **settings}
        one = replace(dataset, records=tuple(record for record in dataset.records if record.image.startswith(image)))
        evaluate(tagger, one, tmp_path / name, bootstraps=0)
    pool([tmp_path / "a", tmp_path / "b"], tmp_path / "pooled", bootstraps=0)  # thresholds are each run's own
    with pytest.raises(BadData, match=r"c was tagged otherwise than .*a, where grid was measured, now tiles"):
        pool([tmp_path / "a", tmp_path / "c"], tmp_path / "other", bootstraps=0)
    with pytest.raises(BadData, match=r"d was tagged otherwise than .*a, where mask was not given, now otsu"):
        pool([tmp_path / "a", tmp_path / "d"], tmp_path / "other", bootstraps=0)


@pytest.mark.usefixtures("no_page")
def test_evaluations_of_other_pixels_are_not_mixed(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    evaluate(tagger, dataset, tmp_path / "image", bootstraps=0)
    evaluate(tagger, dataset, tmp_path / "lungs", bootstraps=0, inside="lungs")
    said = "counts the pixels inside the lungs, and .*image those inside the image"
    with pytest.raises(BadData, match=said):
        compare(tmp_path / "image", tmp_path / "lungs")
    with pytest.raises(BadData, match=said):
        pool([tmp_path / "image", tmp_path / "lungs"], tmp_path / "pooled")
    with pytest.raises(BadSetting, match="inside was image, now lungs"):
        evaluate(tagger, dataset, tmp_path / "image", bootstraps=0, inside="lungs")
    with pytest.raises(BadSetting, match="inside the image or lungs, not inside 'heart'"):
        evaluate(tagger, dataset, tmp_path / "heart", inside="heart")  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_page")
def test_evaluations_from_before_there_were_lungs_are_read(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    evaluate(tagger, with_lungs(dataset, tmp_path, one=(0, 10)), tmp_path / "new", bootstraps=0)
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    with (tmp_path / "old" / "pairs.csv").open() as file:
        lines = list(csv.reader(file))
    until = lines[0].index("mask_share") + 1
    lines = [line[:until] for line in lines]
    with (tmp_path / "old" / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    metrics = json.loads((tmp_path / "old" / "metrics.json").read_text())
    del metrics["about"]["inside"]
    (tmp_path / "old" / "metrics.json").write_text(json.dumps(metrics))
    table = PairTable.read(tmp_path / "old" / "pairs.csv")
    assert np.isnan(table["map_outside_lungs"]).all()
    apart = compare(tmp_path / "new", tmp_path / "old", bootstraps=5)
    assert apart["findings"]["opacity"]["dice"]["value"] == 0
    assert "map_outside_lungs" not in apart["micro"]
    pooled = pool([tmp_path / "old"], tmp_path / "pooled", bootstraps=0)
    assert pooled["about"]["inside"] == "image"
    with pytest.raises(BadSetting, match="inside was image, now lungs"):
        evaluate(tagger, dataset, tmp_path / "old", bootstraps=0, inside="lungs")
    evaluate(tagger, with_lungs(dataset, tmp_path, one=(0, 10)), tmp_path / "old", bootstraps=0)  # the same, made anew


def test_differences_are_paired(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    evaluate(tagger, dataset, tmp_path / "a", bootstraps=0)
    better = KnownMaps({**tagger.known, "two.png": ([0.7, 0.7], {"opacity": block(20, 10, 30, 20)})})
    evaluate(better, dataset, tmp_path / "b", bootstraps=0)
    apart = compare(tmp_path / "b", tmp_path / "a", bootstraps=200)
    assert apart["micro"]["pointing"]["value"] == 0.5
    assert apart["findings"]["opacity"]["auroc"]["value"] == 0.5
    assert apart["micro"]["dice"]["value"] == 0.0
    assert apart["micro"]["pixel_ap"]["value"] == 0.0
    assert apart["about"]["images"] == 3
    # The pair that differs is drawn or not, so the difference is anything from none to all.
    assert (apart["micro"]["pointing"]["low"], apart["micro"]["pointing"]["high"]) == (0.0, 1.0)
    same = compare(tmp_path / "a", tmp_path / "a", bootstraps=20)
    assert {entry["value"] for entry in same["micro"].values()} == {0.0}
    assert {entry["high"] for entry in same["micro"].values()} <= {0.0, None}


def test_differences_on_what_both_have(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    evaluate(tagger, dataset, tmp_path / "a", bootstraps=0)
    some = Dataset("some", dataset.findings, (dataset.records[3], dataset.records[0]))
    evaluate(tagger, some.with_findings(["nodule", "opacity"]), tmp_path / "b", bootstraps=0)
    apart = compare(tmp_path / "a", tmp_path / "b", bootstraps=20)
    assert apart["about"]["images"] == 2
    assert apart["micro"]["pointing"]["n"] == 1
    assert apart["micro"]["auroc"] | {"n": 4, "undefined": 0} == apart["micro"]["auroc"]
    assert apart["macro"]["auroc"]["value"] == 0.0
    other = Dataset("other", dataset.findings, (Record("one.png", dataset.records[0].path, (0.0, 0.0)),))
    evaluate(tagger, other, tmp_path / "c", bootstraps=0)
    with pytest.raises(BadData, match=r"one\.png, opacity is labelled 1 in one evaluation and 0"):
        compare(tmp_path / "a", tmp_path / "c")
    with pytest.raises(BadSetting, match="at least two"):
        comparison([tmp_path / "a"], tmp_path / "out")


def test_nothing_to_evaluate(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    strange = Dataset("strange", ("fracture",), (Record("one.png", dataset.records[0].path, (1.0,)),))
    with pytest.raises(BadData, match="no finding in common: fracture"):
        evaluate(tagger, strange, tmp_path / "out")
    broken = Dataset("broken", dataset.findings, (dataset.records[1],))
    with pytest.raises(BadData, match=r"none of its 1 image can be read.*broken\.png"):
        evaluate(tagger, broken, tmp_path / "out")
    with pytest.raises(BadData, match="has no image"):
        evaluate(tagger, Dataset("empty", dataset.findings, ()), tmp_path / "out")


def test_names_that_are_not_utf8_are_names(dataset: Dataset, tagger: KnownMaps, tmp_path: Path) -> None:
    odd = [os.fsdecode(name) for name in (b"M\xfcller.png", b"\xff.png", b"kaputt\xe9.png")]
    folder = tmp_path / "odd"
    folder.mkdir()
    records = []
    for name, record in zip(odd, (dataset.records[0], dataset.records[3], dataset.records[1]), strict=True):
        try:
            shutil.copyfile(record.path, folder / name)
        except OSError:
            pytest.skip("this disk takes UTF-8 names alone")
        records.append(replace(record, image=name, path=folder / name, patient=""))
    known = KnownMaps({odd[0]: tagger.known["one.png"], odd[1]: ([0.1, 0.2], {"opacity": block(0, 0, 9, 9)})})
    records[1] = replace(records[1], labels=(0.0, 0.0))
    data = Dataset("odd", dataset.findings, tuple(records))
    result = evaluate(known, data, tmp_path / "out", bootstraps=5)
    assert list(result["about"]["unreadable"]) == [odd[2]]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == result
    assert b"\nM\xfcller.png," in (tmp_path / "out" / "pairs.csv").read_bytes()
    assert PairTable.read(tmp_path / "out" / "pairs.csv")["image"].tolist() == [odd[0], odd[0], odd[1], odd[1]]
    assert "M\\udcfcller.png" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert pool([tmp_path / "out"], tmp_path / "pooled", bootstraps=0)["about"]["images"] == 2
    comparison([tmp_path / "out", tmp_path / "pooled"], tmp_path / "compared", bootstraps=5)


def test_truth_in_original_pixels(dataset: Dataset) -> None:
    one = truth_of(dataset.records[0], "opacity", SIZE)
    two = truth_of(dataset.records[2], "opacity", SIZE)
    assert one is not None
    assert two is not None
    assert one.mask is not None
    expected = np.zeros(SIZE, dtype=bool)
    expected[2:8, 4:12] = True
    np.testing.assert_array_equal(one.mask, expected)
    np.testing.assert_array_equal(two.boxes_xyxy, [[20, 10, 30, 20]])
    assert truth_of(dataset.records[0], "nodule", SIZE) is None


def test_a_mask_smaller_than_its_image_is_stretched() -> None:
    mask = np.zeros((2, 4), dtype=bool)
    mask[0, 3] = True
    np.testing.assert_array_equal(stretch_mask(mask, (2, 8)), np.repeat(mask, 2, axis=1))


def test_pairs_come_back_from_their_file(tmp_path: Path) -> None:
    rows = [
        {
            "image": 'a,"b".png',
            "patient": "p",
            "split": "",
            "finding": "x",
            "label": 1.0,
            "score": np.float32(0.1),
            "box_iou": (0.5, 0.25),
        },
        {"image": "c.png", "patient": "q", "split": "test", "finding": "x"},
    ]
    table = PairTable.of(rows)
    table.write(tmp_path / "pairs.csv")
    back = PairTable.read(tmp_path / "pairs.csv")
    assert back["image"].tolist() == ['a,"b".png', "c.png"]
    assert np.float32(back["score"][0]) == np.float32(0.1)
    assert np.isnan(back["label"][1])
    assert back.box_iou == ((0.5, 0.25), ())
    (tmp_path / "pairs.csv").write_text("image,finding\na,b\n")
    with pytest.raises(BadData, match="has no column 'patient'"):
        PairTable.read(tmp_path / "pairs.csv")


@pytest.mark.usefixtures("no_page")
def test_joint_maps_of_two_kinds_are_measured_as_they_are_shown(
    dataset: Dataset, tagger: KnownMaps, tmp_path: Path
) -> None:
    """Their layers hold logarithms, of whose mean the map is the sigmoid: no mean of layers is a mean of maps."""

    class Joint(KnownMaps):
        def predict(self, images: Iterable[Image]) -> Iterator[Prediction]:
            for one in super().predict(images):
                (layer,) = one.layers
                low, high = (layer._replace(maps=np.log(layer.maps / (1 - layer.maps)) + by) for by in (-1, 1))
                yield Prediction(one.image, one.scores, (low, high), joint=True)

    plain, joint = (
        evaluate(cls(tagger.known), dataset, tmp_path / name, bootstraps=0)
        for cls, name in ((KnownMaps, "plain"), (Joint, "joint"))
    )
    for name, row in rows_of(tmp_path / "plain").items():
        other = rows_of(tmp_path / "joint")[name]
        for column in ("map_mean", "map_max", "peak_x", "peak_y", "marked", "pointing", "iou_boxes"):
            assert other[column] == row[column] or float(other[column]) == pytest.approx(float(row[column]), rel=1e-5)
        assert other["pointing_network"] == ""  # networks of two kinds have no own map in common
    assert joint["findings"]["opacity"]["pointing"] == plain["findings"]["opacity"]["pointing"]


@pytest.mark.usefixtures("no_page")
def test_an_outline_whose_parts_do_not_fit_is_lost_and_the_rest_is_measured(
    dataset: Dataset, tagger: KnownMaps, tmp_path: Path
) -> None:
    parts = []
    for number, side in enumerate((8, 9)):
        parts.append(tmp_path / f"part{number}.png")
        Pillow.fromarray(np.full((side, side), 255, dtype=np.uint8)).save(parts[-1])
    records = tuple(
        replace(one, boxes_xyxy={}, masks={"opacity": together(parts)}) if one.labels[0] == 1 else one
        for one in dataset.records
    )
    result = evaluate(tagger, replace(dataset, records=records), tmp_path / "out", bootstraps=0)
    assert any(
        "cannot be read and counts as unknown" in note or "count as unknown" in note
        for note in result["about"]["notes"]
    )
