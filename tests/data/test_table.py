"""The contract of every data source: what a table refuses, and that it never changes in place."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from radtag.data.table import Dataset, Record
from radtag.errors import BadData

NAN = math.nan


def record(image: str, labels: tuple[float, ...] = (1.0, 0.0), **fields) -> Record:
    return Record(image, Path(image), labels, **fields)


def dataset(*records: Record) -> Dataset:
    return Dataset("three", ("Mass", "Nodule"), records)


THREE = dataset(
    record("a.png", (1.0, NAN), patient="p1", split="train"),
    record("b.png", (0.0, 0.0), patient="p1", split="val"),
    record("c.png", (NAN, 1.0), split="test"),
)


def test_labels_keep_what_is_unknown():
    labels = THREE.labels()
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, np.array([[1, NAN], [0, 0], [NAN, 1]], np.float32))
    assert Dataset("none", ("Mass",), ()).labels().shape == (0, 1)


def test_an_image_without_a_patient_stands_for_itself():
    assert THREE.patients() == ["p1", "p1", "image:c.png"]


def test_splits_are_chosen_and_given():
    assert [one.image for one in THREE.only("train", "test").records] == ["a.png", "c.png"]
    other = THREE.with_splits({"c.png": "train"}, "as told")
    assert [one.split for one in other.records] == ["", "", "train"]
    assert other.notes == ("as told",)
    assert [one.split for one in THREE.records] == ["train", "val", "test"]  # the first one is left as it was
    assert THREE.notes == ()


def test_some_outlined_images_are_drawn_each_findings_in_turn(tmp_path: Path):
    box = ((1.0, 2.0, 3.0, 4.0),)
    masses = [record(f"m{i}.png", boxes_xyxy={"Mass": box}) for i in range(20)]
    nodules = [record(f"n{i}.png", (0.0, 1.0), masks={"Nodule": tmp_path}) for i in range(3)]
    both = record("both.png", (1.0, 1.0), boxes_xyxy={"Mass": box, "Nodule": box})
    data = dataset(record("plain.png"), *masses, *nodules, both)
    drawn = data.outlined(6, seed=1)
    names = [one.image for one in drawn.records]
    assert len(names) == 6
    assert "plain.png" not in names
    count = {finding: sum(finding in {**r.boxes_xyxy, **r.masks} for r in drawn.records) for finding in data.findings}
    assert abs(count["Mass"] - count["Nodule"]) <= 1
    assert names == [one.image for one in data.records if one.image in names]  # in their order
    assert drawn.notes == ("6 of 24 images where a finding is outlined, drawn with seed 1",)
    assert data.outlined(6, seed=1) == drawn
    assert [one.image for one in data.outlined(6, seed=2).records] != names
    assert len(data.outlined(100)) == 24
    assert data.with_findings(["Nodule"]).outlined(100).records[-1].image == "both.png"
    assert len(data.with_findings(["Nodule"]).outlined(100)) == 4
    with pytest.raises(BadData, match="no finding is outlined in any image"):
        dataset(record("plain.png")).outlined(3)


def test_findings_are_chosen_with_their_labels():
    swapped = THREE.with_findings(["Nodule", "Mass"])
    assert swapped.findings == ("Nodule", "Mass")
    np.testing.assert_array_equal(swapped.labels(), THREE.labels()[:, ::-1])
    assert THREE.with_findings(["Nodule"]).labels().shape == (3, 1)


def test_another_set_joins_as_training_images():
    other = Dataset("other", ("Nodule", "Edema"), tuple(
        Record(f"{split}.png", Path("other", f"{split}.png"), (1.0, 0.0), patient="7", split=split)
        for split in ("train", "val", "test")
    ))  # fmt: skip
    both = THREE.join(other)
    assert both.findings == THREE.findings
    added = both.records[len(THREE) :]
    assert [(one.image, one.split, one.patient) for one in added] == [
        ("other/train.png", "train", "other:7"), ("other/val.png", "train", "other:7")
    ]  # fmt: skip
    assert all(math.isnan(one.labels[0]) and one.labels[1] == 1 for one in added)  # it knows nothing of Mass
    with pytest.raises(BadData, match="shares no finding with three: it has Edema; wanted are Mass, Nodule"):
        THREE.join(other.with_findings(["Edema"]))
    scored = next(one for one in THREE.records if one.split in ("val", "test"))
    again = Dataset("again", ("Mass",), (Record("x", scored.path, (1.0,), split="train"),))
    with pytest.raises(BadData, match="would be trained on as an image of again, and three has it for validation"):
        THREE.join(again)


def test_boxes_follow_the_frame_they_were_drawn_in():
    boxes = {"Mass": ((10.0, 20.0, 30.0, 60.0),)}
    drawn = record("a.png", boxes_xyxy=boxes, box_frame_rc=(100, 200))
    assert drawn.boxes_in("Mass", (50, 400)).tolist() == [[20.0, 10.0, 60.0, 30.0]]  # rows halved, columns doubled
    assert record("a.png", boxes_xyxy=boxes).boxes_in("Mass", (50, 400)).tolist() == [[10.0, 20.0, 30.0, 60.0]]
    assert drawn.boxes_in("Nodule", (50, 400)).shape == (0, 4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: dataset(record("a.png"), record("a.png")), "three: image 'a.png' is listed twice."),
        (lambda: dataset(record("a.png", (1.0,))), "three: a.png has 1 labels for 2 findings."),
        (lambda: dataset(record("a.png", (0.5, 1.0))), r"three: a.png has labels \(0.5, 1.0\); use 1, 0 or blank"),
        (lambda: dataset(record("a.png", split="dev")), "three: a.png is in split 'dev'; use train, val or test."),
        (lambda: Dataset("three", ("Mass", "Mass"), ()), r"three: a finding is named twice in \['Mass', 'Mass'\]."),
        (lambda: THREE.only("train").only("val"), "three: no image is in val; the splits present are train."),
        (lambda: THREE.with_findings(["Edema"]), "three has no finding 'Edema'; it has Mass, Nodule."),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(build, message):
    with pytest.raises(BadData, match=message):
        build()


def test_a_table_cannot_be_written_into():
    with pytest.raises(FrozenInstanceError):
        THREE.name = "other"
    with pytest.raises(FrozenInstanceError):
        THREE.records[0].split = "test"


def test_sets_stand_side_by_side():
    other = Dataset(
        "three",
        ("Nodule", "Edema"),
        (record("a.png", (1.0, 0.0), split="val", patient="p1"), record("z.png", (NAN, 1.0), split="train")),
        notes=("odd",),
    )
    other = replace(other, records=tuple(replace(one, path=Path("there") / one.image) for one in other.records))
    both = THREE.beside(other)
    assert both.name == "three + three 2"
    assert both.findings == ("Mass", "Nodule", "Edema")
    np.testing.assert_array_equal(
        both.labels(), [[1, NAN, NAN], [0, 0, NAN], [NAN, 1, NAN], [NAN, 1, 0], [NAN, NAN, 1]]
    )
    assert [one.image for one in both.records] == [
        *("three:a.png", "three:b.png", "three:c.png", "three 2:a.png", "three 2:z.png")
    ]
    assert [one.patient for one in both.records] == ["three:p1", "three:p1", "", "three 2:p1", ""]
    assert [one.split for one in both.records] == ["train", "val", "test", "val", "train"]
    assert [one.source for one in both.records] == ["three"] * 3 + ["three 2"] * 2
    assert both.notes == ("three 2: odd",)
    assert THREE.beside() is THREE


def test_a_file_of_two_sets_is_refused():
    other = Dataset("other", ("Nodule",), (record("b.png", (1.0,), split="val"),))
    with pytest.raises(BadData, match=r"^b\.png is in three and in other\. Leave it out of one of them\.$"):
        THREE.beside(other)


def test_lungs_are_a_finding_where_they_are_asked_for():
    with_lungs = Record("a", Path("a.png"), (1.0,), lungs=Path("lungs/a.png"), masks={"mass": Path("m.png")})
    dataset = Dataset("set", ("mass",), (with_lungs, Record("b", Path("b.png"), (0.0,))))
    asked = dataset.with_findings(["lungs", "mass"])
    assert asked.findings == ("lungs", "mass")
    assert asked.records[0].labels == (1.0, 1.0)
    assert asked.records[0].masks == {"mass": Path("m.png"), "lungs": Path("lungs/a.png")}
    assert np.isnan(asked.records[1].labels[0])
    assert dataset.with_findings(["mass"]).findings == ("mass",)
    other = Dataset("other", ("nodule",), (Record("c", Path("c.png"), (0.0,), split="train", lungs=Path("c_l.png")),))
    joined = dataset.with_findings(["lungs"]).join(other)
    assert joined.records[2].labels == (1.0,)
    assert joined.records[2].masks == {"lungs": Path("c_l.png")}
    assert joined.notes == ("joined by 1 training images of other, labelled for lungs",)
    with pytest.raises(BadData, match="set has no finding 'lungs'; it has mass"):
        Dataset("set", ("mass",), dataset.records[1:]).with_findings(["lungs"])
