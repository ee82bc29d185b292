"""A run is not scored on images it has seen: which they are, what is refused, and what is said where they count."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Pillow

from radtag.data import seen as module
from radtag.data.seen import SeenImages, pooled, screened, sentences
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadRun, BadSetting
from radtag.evaluate import evaluate, pool
from radtag.geometry import Frame, Grid
from radtag.images import Image
from radtag.report.definitions import QUESTIONS, WHERE_SEEN
from radtag.tag import Layer, Prediction, Tag

SIZE = (20, 24)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RADTAG_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Six images: a to c trained on, d and e chosen by, f new; a copy of b under another name, and a new one."""
    (tmp_path / "data").mkdir()
    records = []
    for i, name in enumerate("abcdef"):
        file = tmp_path / "data" / f"{name}.png"
        Pillow.fromarray(np.random.default_rng(i).integers(0, 255, SIZE, dtype=np.uint8)).save(file)
        split = "train" if name in "abc" else "val" if name in "de" else "test"
        records.append(Record(file.name, file, (float(i % 2),), split=split))
    copy = tmp_path / "copy.png"
    copy.write_bytes((tmp_path / "data" / "b.png").read_bytes())
    records.append(Record("copy.png", copy, (1.0,), split="test"))
    return Dataset("six", ("spot",), tuple(records))


def paths(dataset: Dataset, split: str) -> list[Path]:
    return [record.path for record in dataset.only(split).records]


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Path:
    """The folder of a run that was trained on the training images and chosen by the validation images."""
    folder = tmp_path / "run"
    folder.mkdir()
    SeenImages.of(paths(dataset, "train"), paths(dataset, "val")).write(folder)
    return folder


class Even:
    """A tagger whose maps are the same all over."""

    findings = ("spot",)

    def __init__(self, *runs: Path) -> None:
        self.runs = [SimpleNamespace(path=path, card={}, calibration=SimpleNamespace(notes=())) for path in runs]

    def predict(self, images: Iterable[Image]) -> Iterator[Prediction]:
        for image in images:
            layer = Layer(np.full((1, *SIZE), 0.1, np.float32), (Grid.tiles(SIZE, SIZE),), Frame.identity(SIZE))
            yield Prediction(image, np.array([0.5], dtype=np.float32), (layer,))

    def tags(self, prediction: Prediction, name: str) -> list[Tag]:
        return [Tag(name, "spot", 0.5, 0.5, 0.5, None, prediction, 0)]


def test_a_run_keeps_a_part_of_each_files_digest_and_its_size_alone(dataset: Dataset, run: Path):
    def first(name: str) -> int:
        return int(hashlib.sha256((run.parent / "data" / name).read_bytes()).hexdigest()[:16], 16)

    seen = SeenImages.read(run)
    assert seen is not None
    assert seen.trained_on.tolist() == sorted(map(first, ("a.png", "b.png", "c.png")))
    assert seen.chosen_on.tolist() == sorted(map(first, ("d.png", "e.png")))
    assert seen.sizes.tolist() == sorted({os.path.getsize(record.path) for record in dataset.records[:5]})
    assert [file.name for file in run.iterdir()] == ["seen.npz"]
    assert SeenImages.read(run.parent) is None


def test_a_hundred_thousand_images_cost_little(tmp_path: Path):
    digests = np.sort(np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64))
    SeenImages(digests[:90_000], digests[90_000:], np.arange(300_000, 500_000)).write(tmp_path)
    assert os.path.getsize(tmp_path / "seen.npz") < 2_500_000


def test_what_the_run_had_seen_that_it_begins_with_is_seen_too(dataset: Dataset, run: Path, tmp_path: Path):
    (tmp_path / "next").mkdir()
    SeenImages.of(paths(dataset, "test")[:1], (), before=SeenImages.read(run)).write(tmp_path / "next")
    _, about = screened(dataset, [tmp_path / "next"], "count")
    assert (about["trained_on"], about["thresholds_set_on"]) == (5, 2)


def test_files_that_are_gone_were_not_seen(dataset: Dataset, tmp_path: Path):
    seen = SeenImages.of([tmp_path / "gone.png", dataset.records[0].path], ())
    assert (len(seen.trained_on), len(seen.chosen_on), len(seen.sizes)) == (1, 0, 1)


def test_new_images_are_not_read_where_no_seen_one_has_their_size(dataset: Dataset, run: Path, monkeypatch):
    new = run.parent / "new.png"
    new.write_bytes(dataset.records[0].path.read_bytes() + b"longer than any other")
    read: list[str] = []
    whole = hashlib.file_digest
    monkeypatch.setattr(
        module.hashlib, "file_digest", lambda stream, kind: read.append(Path(stream.name).name) or whole(stream, kind)
    )
    some = replace(dataset, records=(Record("new.png", new, (1.0,)), dataset.records[6]))
    _, about = screened(some, [run], "count")
    assert read == ["copy.png"]
    assert about == {"rule": "count", "images": 2, "trained_on": 1, "thresholds_set_on": 0, "silent_runs": 0}


def test_images_that_were_seen_are_refused(dataset: Dataset, run: Path):
    with pytest.raises(BadData) as refused:
        screened(dataset, [run], "refuse")
    assert str(refused.value) == (
        f"of the 7 images of six, {run} was trained on 4 (a.png, for one) and had its thresholds set on 2 (d.png, for"
        " one): numbers on them do not say how right it is on others. Score the test split of the data and splits that"
        " it was trained with; or leave these images out with --seen leave-out, or count them with --seen count, and"
        " the report says so."
    )
    with pytest.raises(BadData, match=r"^of the 2 images of six, \S+ was trained on 1 \(copy\.png\): numbers"):
        screened(dataset.only("test"), [run], "refuse")  # a copy under another name


def test_new_images_pass_and_it_is_said_that_they_are(dataset: Dataset, run: Path):
    new = replace(dataset, records=dataset.records[5:6])
    kept, about = screened(new, [run], "refuse")
    assert kept == new
    assert about == {"rule": "refuse", "images": 1, "trained_on": 0, "thresholds_set_on": 0, "silent_runs": 0}
    assert sentences(about) == []


def test_seen_images_can_be_left_out_or_counted(dataset: Dataset, run: Path):
    kept, about = screened(dataset, [run], "leave-out")
    assert [record.image for record in kept.records] == ["f.png"]
    assert sentences(about) == [
        "Of 7 images the run was trained on 4 and had its thresholds set on 2: these are left out."
    ]
    kept, about = screened(dataset, [run], "count")
    assert kept == dataset
    assert sentences(about) == [
        "Of 7 images the run was trained on 4 and had its thresholds set on 2: these are counted, and the numbers do"
        " not say how right it is on images it has not seen."
    ]
    with pytest.raises(BadData, match="on all of its 3 images, and none is left to score"):
        screened(dataset.only("train"), [run], "leave-out")
    with pytest.raises(BadSetting, match="not 'keep': give one of refuse, leave-out, count"):
        screened(dataset, [run], "keep")  # type: ignore[arg-type]


def test_an_image_that_any_run_of_an_ensemble_has_seen_was_seen(dataset: Dataset, run: Path, tmp_path: Path):
    other, silent = tmp_path / "other", tmp_path / "silent"
    other.mkdir()
    SeenImages.of(paths(dataset, "val"), paths(dataset, "test")[:1]).write(other)
    _, about = screened(dataset, [run, silent, other], "count")
    assert (about["trained_on"], about["thresholds_set_on"], about["silent_runs"]) == (6, 1, 1)
    with pytest.raises(BadData, match=r"a run of the ensemble was trained on 2 \(d\.png, for one\): numbers"):
        screened(dataset.only("val"), [run, other], "refuse")


def test_of_a_run_that_does_not_say_what_it_has_seen_nothing_is_said(dataset: Dataset, tmp_path: Path):
    assert screened(dataset, [tmp_path], "refuse") == (dataset, {})
    assert screened(dataset, [], "refuse") == (dataset, {})


def test_a_damaged_file_is_refused(dataset: Dataset, run: Path):
    file = run / "seen.npz"
    for content in (b"", b"nothing", file.read_bytes()[:200]):
        file.write_bytes(content)
        with pytest.raises(BadRun, match=r"seen\.npz is damaged .* or remove it, and nothing tells any more"):
            screened(dataset, [run], "refuse")


def test_an_evaluation_says_what_was_seen(dataset: Dataset, run: Path, tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(BadData, match="was trained on 4"):
        evaluate(Even(run), dataset, out, bootstraps=0)
    assert not out.exists()
    counted = evaluate(Even(run), dataset, out, bootstraps=0, seen="count")
    said = (
        "Of 7 images the run was trained on 4 and had its thresholds set on 2: these are counted, and the numbers do"
        " not say how right it is on images it has not seen."
    )
    assert json.loads((out / "metrics.json").read_text())["about"]["seen"] == {
        "rule": "count",
        "images": 7,
        "trained_on": 4,
        "thresholds_set_on": 2,
        "silent_runs": 0,
    }
    assert counted["about"]["notes"][0] == said
    page = (out / "report.html").read_text()
    assert page.count("Not a test on new images.") == 1
    assert page.count(said) == 3  # at the top, among the facts, and where there is more to know
    assert ("Thresholds were set on some of these." in page, "never on these" in page) == (True, False)
    assert all(any(usual in text for _, text in QUESTIONS.values()) for usual in WHERE_SEEN)
    left = evaluate(Even(run), dataset, tmp_path / "left", bootstraps=0, seen="leave-out")["about"]
    assert (left["images"], left["seen"]["images"]) == (1, 7)
    assert "Not a test" not in (tmp_path / "left" / "report.html").read_text()
    new = evaluate(Even(run), replace(dataset, records=dataset.records[5:6]), tmp_path / "new", bootstraps=0)
    assert "none of the 1, by their files" in (tmp_path / "new" / "report.html").read_text()
    assert new["about"]["seen"]["trained_on"] == 0
    assert "never on these" in (tmp_path / "new" / "report.html").read_text()
    with_another = Even(run, tmp_path / "silent")
    evaluate(with_another, replace(dataset, records=dataset.records[5:6]), tmp_path / "two", bootstraps=0)
    assert "(1 of the runs does not say what it has seen)" in (tmp_path / "two" / "report.html").read_text()
    assert "seen" not in evaluate(Even(tmp_path), dataset, tmp_path / "old", bootstraps=0)["about"]


def test_folds_are_told_together(dataset: Dataset, run: Path, tmp_path: Path):
    one, other = replace(dataset, records=dataset.records[:3]), replace(dataset, records=dataset.records[3:])
    evaluate(Even(run), one, tmp_path / "one", bootstraps=0, seen="count")
    evaluate(Even(run), other, tmp_path / "other", bootstraps=0, seen="leave-out")
    about = pool([tmp_path / "one", tmp_path / "other"], tmp_path / "both", bootstraps=0)["about"]
    # Of the second fold two are left out by which thresholds were set, and the copy of a training image.
    assert about["seen"] == {"rule": "count", "images": 4, "trained_on": 3, "thresholds_set_on": 0, "silent_runs": 0}
    assert "Not a test on new images." in (tmp_path / "both" / "report.html").read_text()


def test_a_pooled_evaluation_says_what_its_folds_say():
    new = {"rule": "refuse", "images": 9, "trained_on": 0, "thresholds_set_on": 0, "silent_runs": 1}
    left = {"rule": "leave-out", "images": 5, "trained_on": 2, "thresholds_set_on": 1, "silent_runs": 0}
    whole = pooled([new, left])
    assert whole == {"rule": "leave-out", "images": 14, "trained_on": 2, "thresholds_set_on": 1, "silent_runs": 1}
    assert sentences(whole)[0].endswith("these are left out.")
    # A fold whose run does not say what it has seen hides nothing of the others.
    assert pooled([{}, left]) == {**left, "silent_runs": 1}
    assert pooled([{}, {}]) == {}
