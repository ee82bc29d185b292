"""False marks, distances and the rules of published benchmarks in an evaluation, every number worked out by hand."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pillow

from radtag.compare import compare, comparison
from radtag.data.table import Dataset, Record
from radtag.evaluate import evaluate, pool
from radtag.geometry import Frame, Grid
from radtag.images import Image
from radtag.metrics import boundaries
from radtag.pairs import DETECTIONS, PairTable
from radtag.tag import Layer, Prediction, Tag

SIZE = (40, 80)  # rows, cols
NAN = float("nan")
SPACING_MM = (0.5, 0.8)


def area(*blocks: tuple[int, int, int, int, float]) -> np.ndarray:
    """A map of 0.1 with blocks x1, y1, x2, y2 of a value."""
    values = np.full(SIZE, 0.1, dtype=np.float32)
    for x1, y1, x2, y2, value in blocks:
        values[y1:y2, x1:x2] = value
    return values


#        score, label, map
IMAGES = {
    # The drawn box is found to the pixel, and the peak in it is not on the outline; a false mark beside it.
    "a": (0.9, 1.0, area((10, 10, 20, 20, 0.9), (12, 12, 13, 13, 0.95), (40, 10, 44, 14, 0.7))),
    # Two outlines; two marks on the first, with IoU .4 and .3, none on the second.
    "b": (0.8, 1.0, area((5, 5, 15, 9, 0.8), (5, 12, 15, 15, 0.6))),
    "c": (0.7, 0.0, area((0, 0, 5, 5, 0.85))),
    "d": (0.1, 0.0, area()),
    "e": (0.5, NAN, area((0, 0, 5, 5, 0.99))),  # counts nowhere
    "f": (0.6, 1.0, area((0, 0, 5, 5, 0.99))),  # nor does this where places count: nobody said where it is
    "g": (0.9, 1.0, area((50, 25, 51, 26, 0.4))),  # 10 pixels beside its box, and too faint for a mark
    "h": (0.3, 1.0, area((20, 20, 30, 30, 0.4))),  # to the pixel, and too faint
}
BOXES = {"a": ((10.0, 10.0, 20.0, 20.0),), "g": ((60.0, 20.0, 70.0, 30.0),)}
OUTLINES = {"a": [(10, 14, 20, 20)], "b": [(5, 5, 15, 15), (50, 25, 60, 35)], "h": [(20, 20, 30, 30)]}


class Known:
    """A tagger of given maps, a cell a pixel; mask and score are positive from 0.5."""

    findings = ("opacity",)
    runs = (SimpleNamespace(path=Path("runs/known"), card={}, calibration=SimpleNamespace(notes=())),)
    spacing_mm: tuple[float, float] | None = None

    def predict(self, images: Iterable[Image]) -> Iterator[Prediction]:
        for image in images:
            score, _, values = IMAGES[Path(image.source).stem]
            layer = Layer(values[None], (Grid.tiles(SIZE, SIZE),), Frame.identity(image.size_rc))
            yield Prediction(replace(image, spacing_mm=self.spacing_mm), np.array([score], dtype=np.float32), (layer,))

    def tags(self, prediction: Prediction, name: str) -> list[Tag]:
        return [Tag(name, "opacity", float(prediction.scores[0]), 0.5, 0.5, None, prediction, 0)]


def outline(name: str) -> np.ndarray:
    return area(*((*one, 1.0) for one in OUTLINES[name])) > 0.5


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("measured")
    records = []
    for i, (name, (_, label, _)) in enumerate(IMAGES.items()):
        Pillow.fromarray(np.full(SIZE, 60 + i, dtype=np.uint8)).save(folder / f"{name}.png")
        masks = {}
        if name in OUTLINES:
            masks = {"opacity": folder / f"{name}_mask.png"}
            Pillow.fromarray(outline(name).astype(np.uint8) * 255).save(masks["opacity"])
        records.append(
            Record(
                name, folder / f"{name}.png", (label,), f"patient {name}", "test", masks=masks,
                boxes_xyxy={"opacity": BOXES[name]} if name in BOXES else {},
            )
        )  # fmt: skip
    return Dataset("by hand", ("opacity",), tuple(records))


@pytest.fixture(scope="module")
def folder(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    tagger = Known()
    tagger.spacing_mm = SPACING_MM
    evaluate(tagger, dataset, folder / "whole", bootstraps=20)
    return folder


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers alone: pictures and report take most of the time."""
    monkeypatch.setattr("radtag.evaluate.choose_and_draw", lambda *_: (None, []))
    monkeypatch.setattr("radtag.evaluate.write_report", lambda *_: None)


def numbers(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())["findings"]["opacity"]


def test_false_marks_by_hand(folder: Path) -> None:
    got = numbers(folder / "whole")
    # Of five lesions, over six images: .95 is a hit, .85 of a healthy image false, .8 a hit, .7 false, .6 on one found.
    assert got["froc"]["value"] == pytest.approx((1 + 6 * 2) / 5 / 7)
    assert got["froc_0.3"]["value"] == pytest.approx((1 + 6 * 2) / 5 / 7)
    # Precision 1 up to recall .2 (21 of 101 places), then 2/3 up to .4.
    assert got["ap_0.3"]["value"] == pytest.approx((21 + 20 * 2 / 3) / 101)
    assert got["ap_0.5"]["value"] == pytest.approx(21 / 101)
    for key in ("froc", "froc_0.3", "ap_0.3", "ap_0.5"):
        assert (got[key]["n"], got[key]["undefined"]) == (5, 0), key
        assert got[key]["low"] <= got[key]["value"] <= got[key]["high"], key
    points = json.loads((folder / "whole" / "metrics.json").read_text())["froc"]
    assert points["false_per_image"] == [0.125, 0.25, 0.5, 1, 2, 4, 8]
    assert [one["value"] for one in points["findings"]["opacity"]["froc"]] == pytest.approx([0.2, *[0.4] * 6])
    assert points["micro"]["froc"][0]["n"] == 5


def test_published_rules_by_hand(folder: Path) -> None:
    got = numbers(folder / "whole")
    assert got["pointing"]["value"] == 3 / 4
    assert (got["pointing_game"]["value"], got["pointing_game"]["n"]) == (1.0, 4)
    assert (got["hit_rate"]["value"], got["hit_rate"]["n"]) == (pytest.approx(2 / 3), 3)
    a, b = 60 / 116, 70 / 200
    assert got["miou"] | {"low": 0, "high": 0} == {
        "value": pytest.approx((a + b) / 2),
        "low": 0,
        "high": 0,
        "n": 2,
        "undefined": 1,
    }
    assert got["miou_all"]["value"] == pytest.approx((a + b + 0 + 0) / 4)  # h is missed, c a false alarm
    assert (got["miou_all"]["n"], got["miou_all"]["undefined"]) == (4, 1)
    assert got["iou"]["value"] == pytest.approx((a + b + 0) / 3)
    assert got["miou_otsu"]["value"] == pytest.approx((a + b + 1) / 3)
    assert got["box_accuracy_v2"]["value"] == pytest.approx((1 + 1 / 3 + 0 + 0) / 4)
    maps = {name: IMAGES[name][2] for name in OUTLINES}
    want = [np.corrcoef(maps[name].ravel(), outline(name).ravel())[0, 1] for name in OUTLINES]
    assert got["ncc"]["value"] == pytest.approx(np.mean(want))
    # Bins of 1/15: 0.9 twice, and five scores each alone.
    assert got["ece"]["value"] == pytest.approx((2 * 0.1 + 0.2 + 0.7 + 0.1 + 0.4 + 0.7) / 7, abs=1e-6)
    assert (got["ece"]["n"], got["ece"]["undefined"]) == (7, 1)


def test_distances_in_pixels_and_millimetres(folder: Path) -> None:
    got = numbers(folder / "whole")
    pairs = [(IMAGES[name][2] > 0.5, outline(name)) for name in ("a", "b")]  # of h nothing is proposed
    for unit, spacing in (("px", None), ("mm", SPACING_MM)):
        want = [boundaries.boundary_distances(*pair, spacing_mm=spacing) for pair in pairs]
        assert got[f"boundary_{unit}"]["value"] == pytest.approx(np.mean([one.mean for one in want]))
        assert got[f"hd95_{unit}"]["value"] == pytest.approx(np.mean([one.hausdorff_95 for one in want]))
        assert (got[f"hd95_{unit}"]["n"], got[f"hd95_{unit}"]["undefined"]) == (2, 1)


@pytest.mark.usefixtures("no_page")
def test_millimetres_where_pixels_are_square_and_none_where_nobody_knows(dataset: Dataset, tmp_path: Path) -> None:
    tagger = Known()
    tagger.spacing_mm = (0.2, 0.2)
    got = evaluate(tagger, dataset, tmp_path / "square", bootstraps=0)["micro"]
    assert got["hd95_mm"]["value"] == pytest.approx(0.2 * got["hd95_px"]["value"])
    got = evaluate(Known(), dataset, tmp_path / "unknown", bootstraps=0)["micro"]
    assert "hd95_px" in got
    assert "hd95_mm" not in got
    assert "boundary_mm" not in got


def test_detections_are_kept_in_the_table(folder: Path) -> None:
    with (folder / "whole" / "pairs.csv").open() as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert [rows["a"][name] for name in ("proposed", *DETECTIONS)] == [
        "2",
        "0.949999988;0.699999988",
        "1;0",
        "1;0",
        "1;0",
    ]
    assert [rows["b"][name] for name in ("proposed", *DETECTIONS[1:])] == ["2", "1;-1", "1;0", "0;0"]
    assert [rows["c"][name] for name in ("proposed", *DETECTIONS[1:])] == ["1", "0", "0", "0"]
    assert rows["d"]["proposed"] == "0"
    assert [rows[name]["proposed"] for name in "ef"] == ["", ""]
    table = PairTable.read(folder / "whole" / "pairs.csv")
    table.write(folder / "again.csv")
    assert (folder / "again.csv").read_bytes() == (folder / "whole" / "pairs.csv").read_bytes()


@pytest.mark.usefixtures("no_page")
def test_folds_pooled_are_the_whole_and_a_comparison_with_itself_is_0(
    dataset: Dataset, folder: Path, tmp_path: Path
) -> None:
    tagger = Known()
    tagger.spacing_mm = SPACING_MM
    for name, kept in (("one", dataset.records[:3]), ("two", dataset.records[3:])):
        evaluate(tagger, replace(dataset, records=kept), tmp_path / name, bootstraps=0)
    pooled = pool([tmp_path / "one", tmp_path / "two"], tmp_path / "pooled", bootstraps=20)
    whole = json.loads((folder / "whole" / "metrics.json").read_text())
    for key, entry in whole["micro"].items():  # nine digits are kept in the table
        assert pooled["micro"][key] == pytest.approx(entry, rel=1e-7), key
    assert pooled["froc"] == whole["froc"]
    apart = compare(tmp_path / "pooled", folder / "whole", bootstraps=5)["micro"]
    for key in ("froc", "ap_0.3", "ece", "hd95_mm", "miou_all", "box_accuracy_v2"):
        assert (apart[key]["value"], apart[key]["low"], apart[key]["high"]) == (0, 0, 0), key


@pytest.mark.usefixtures("no_page")
def test_evaluations_of_before_are_pooled_and_compared_and_count_as_undefined(
    dataset: Dataset, folder: Path, tmp_path: Path
) -> None:
    for name, kept in (("old", dataset.records[:2]), ("new", dataset.records[2:])):
        evaluate(Known(), replace(dataset, records=kept), tmp_path / name, bootstraps=0)
    with (tmp_path / "old" / "pairs.csv").open() as file:
        lines = list(csv.reader(file))
    until = lines[0].index("pointing_game")
    with (tmp_path / "old" / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(line[:until] for line in lines)
    pooled = pool([tmp_path / "old", tmp_path / "new"], tmp_path / "pooled", bootstraps=0)
    got = pooled["findings"]["opacity"]
    # The three lesions of the old fold are of no known detections; g and h are missed, and c has a false mark.
    assert (got["froc"]["value"], got["froc"]["n"], got["froc"]["undefined"]) == (0, 2, 3)
    assert (got["pointing_game"]["n"], got["pointing_game"]["undefined"]) == (2, 2)
    assert (got["dice"]["n"], got["dice"]["undefined"]) == (3, 0)
    assert got["box_accuracy_v2"]["value"] == pytest.approx(1 / 3)
    alone = pool([tmp_path / "old"], tmp_path / "alone", bootstraps=0)
    assert not {"froc", "ap_0.3", "pointing_game", "hd95_px", "ncc"} & set(alone["micro"])
    assert "froc" not in alone
    apart = compare(tmp_path / "alone", folder / "whole", bootstraps=5)["micro"]
    assert "froc" not in apart
    assert apart["dice"]["value"] == 0


@pytest.mark.usefixtures("no_page")
def test_inside_the_lungs_outlines_count_there_and_marks_everywhere(dataset: Dataset, tmp_path: Path) -> None:
    lungs = np.zeros(SIZE, dtype=np.uint8)
    lungs[:20] = 255
    Pillow.fromarray(lungs).save(tmp_path / "lungs.png")
    inside = replace(
        dataset, records=tuple(replace(record, lungs=tmp_path / "lungs.png") for record in dataset.records)
    )
    got = evaluate(Known(), inside, tmp_path / "out", bootstraps=0, inside="lungs")["micro"]
    # Of b the second outline lies below, and all of h's does, whose place is then unknown.
    a, b = 60 / 116, 70 / 100
    for key in ("miou", "miou_otsu"):
        assert (got[key]["value"], got[key]["n"]) == (pytest.approx((a + b) / 2), 2), key
    want = [np.corrcoef(IMAGES[name][2][:20].ravel(), outline(name)[:20].ravel())[0, 1] for name in ("a", "b")]
    assert got["ncc"]["value"] == pytest.approx(np.mean(want))
    apart = [boundaries.boundary_distances(IMAGES[name][2][:20] > 0.5, outline(name)[:20]) for name in ("a", "b")]
    assert got["boundary_px"]["value"] == pytest.approx(np.mean([one.mean for one in apart]))
    assert got["ap_0.3"]["n"] == 4  # both lesions of b


@pytest.mark.usefixtures("no_page")
def test_lesions_by_size_have_their_own_false_marks(dataset: Dataset, tmp_path: Path) -> None:
    result = evaluate(Known(), dataset, tmp_path / "out", bootstraps=5, by=["size:0.02,0.05"])
    parts = result["groups"]["size"]["parts"]
    # a (60 of 3200 pixels, with the mark on it and the false one), and the healthy images.
    assert parts["small"]["micro"]["froc"]["value"] == pytest.approx(1.0)
    assert parts["small"]["micro"]["froc"]["n"] == 1
    assert parts["large"]["micro"]["froc"]["n"] == 2  # b has two
    assert parts["large"]["micro"]["ap_0.3"]["value"] == pytest.approx(51 / 101 / 2)  # behind the healthy image's mark


def test_the_report_shows_them_in_sections_of_their_own(folder: Path) -> None:
    page = (folder / "whole" / "report.html").read_text(encoding="utf-8")
    main = page.index('id="masks"')
    places = [page.index(f'id="{name}"') for name in ("healthy", "detections", "distances", "published", "calibration")]
    assert places == sorted(places)
    assert main < places[0]
    assert 'aria-label="opacity: FROC curve, lesions found against false marks per image"' in page
    assert 'aria-label="All findings: reliability of 7 scores"' in page
    assert "5 true boxes in 6 images" in page
    assert page.count('<th scope="col">⅛</th>') == 1
    assert "Hausdorff 95 %" in page[places[2] : places[3]]


def test_distances_have_an_axis_of_their_own(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "whole", tmp_path / "other")
    comparison([folder / "whole", tmp_path / "other"], tmp_path / "both", names=["this", "that"], bootstraps=5)
    page = (tmp_path / "both" / "comparison.html").read_text(encoding="utf-8")
    assert 'aria-label="that − this"' in page
    assert 'aria-label="that − this, distances"' in page
