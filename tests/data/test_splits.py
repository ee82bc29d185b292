"""Splits: drawn by patient, completed, read from a file, written down."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from radtag.data import splits
from radtag.data.sources import open_together, select
from radtag.data.table import Dataset, Record
from radtag.errors import BadData


def dataset(rows: list[tuple[str, tuple[float, ...], str, str]], findings: tuple[str, ...] = ("a", "b")) -> Dataset:
    """rows: image, labels, patient, split."""
    records = tuple(Record(i, Path("/none") / i, labels, patient=p, split=s) for i, labels, p, s in rows)
    return Dataset("made", findings, records)


def clinic(seed: int, patients: int = 400) -> Dataset:
    """Patients of 1 to 6 images, one common finding and one rare, which stay with the patient."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        labels = (float(rng.random() < 0.4), float(rng.random() < 0.03))
        rows += [(f"{patient}_{n}", labels, f"p{patient}", "") for n in range(rng.integers(1, 7))]
    return dataset(rows)


def share(data: Dataset, split_of: dict[str, str], split: str, finding: int | None = None) -> float:
    """Share of the images (of a finding) that are in a split."""
    of_it = [r for r in data.records if finding is None or r.labels[finding] == 1]
    return sum(split_of[r.image] == split for r in of_it) / len(of_it)


@pytest.mark.parametrize("seed", range(3))
def test_no_patient_is_in_two_splits_and_every_finding_keeps_its_share(seed):
    data = clinic(seed)
    drawn = splits.draw(data, splits.SHARES, seed)
    assert drawn.keys() == {record.image for record in data.records}
    of_patient: dict[str, set[str]] = {}
    for record in data.records:
        of_patient.setdefault(record.patient, set()).add(drawn[record.image])
    assert all(len(found) == 1 for found in of_patient.values())
    for split, wanted in splits.SHARES.items():
        assert share(data, drawn, split) == pytest.approx(wanted, abs=0.03)
        assert share(data, drawn, split, 0) == pytest.approx(wanted, abs=0.02)
        assert share(data, drawn, split, 1) == pytest.approx(wanted, abs=0.12)  # about 40 images of 12 patients


def test_patients_of_many_images_do_not_all_go_to_training():
    data = clinic(0)
    images_of = {p: data.patients().count(p) for p in set(data.patients())}
    drawn = splits.draw(data, splits.SHARES, 0)
    mean = {
        split: np.mean([images_of[r.patient] for r in data.records if drawn[r.image] == split])
        for split in splits.SHARES
    }
    assert mean["val"] == pytest.approx(mean["train"], rel=0.15)


def test_twelve_single_patients_are_dealt_exactly():
    # By hand: shares 1/2, 1/4, 1/4 of 4 positives and 8 negatives leave nothing to round.
    data = dataset([(f"i{n}", (float(n < 4), 0.0), f"p{n}", "") for n in range(12)])
    drawn = splits.draw(data, {"train": 2, "val": 1, "test": 1}, seed=5)
    positive = sorted(drawn[f"i{n}"] for n in range(4))
    negative = sorted(drawn[f"i{n}"] for n in range(4, 12))
    assert positive == ["test", "train", "train", "val"]
    assert negative == ["test"] * 2 + ["train"] * 4 + ["val"] * 2


def test_the_seed_decides_and_is_noted():
    data = clinic(1)
    first, again, other = (splits.assign(data, seed) for seed in (7, 7, 8))
    assert [r.split for r in first.records] == [r.split for r in again.records]
    assert [r.split for r in first.records] != [r.split for r in other.records]
    assert first.notes == ("split: drawn by patient, balanced over findings, seed 7 (train 65%, val 15%, test 20%)",)


def test_identical_files_of_unknown_patients_stay_together(tmp_path):
    records = []
    for n in range(60):
        path = tmp_path / f"{n}.png"
        path.write_bytes(b"picture %d" % (n // 2 + 10))  # same size for all, same bytes for each two
        records.append(Record(path.name, path, (0.0,)))
    drawn = splits.draw(Dataset("made", ("a",), tuple(records)), splits.SHARES, seed=0)
    assert all(drawn[f"{n}.png"] == drawn[f"{n + 1}.png"] for n in range(0, 60, 2))
    assert set(drawn.values()) == {"train", "val", "test"}


def test_known_negatives_are_shared_out_where_most_labels_are_unknown():
    rows = [(f"i{n}", (1.0 if n < 20 else 0.0 if n < 40 else math.nan, 1.0), f"p{n}", "") for n in range(400)]
    data = dataset(rows)
    drawn = splits.draw(data, splits.SHARES, 0)
    negatives = [drawn[f"i{n}"] for n in range(20, 40)]
    assert [negatives.count(split) for split in ("train", "val", "test")] == [13, 3, 4]


def test_a_validation_part_is_drawn_from_the_training_part_only():
    rows = [(f"i{n}", (float(n % 2), 0.0), f"p{n // 2}", "train" if n < 80 else "test") for n in range(100)]
    complete = splits.assign(dataset(rows), 3)
    split_of = {record.image: record.split for record in complete.records}
    assert all(split_of[f"i{n}"] == "test" for n in range(80, 100))
    assert [split_of[f"i{n}"] for n in range(80)].count("val") == 12
    assert complete.notes == ("split: no validation part, so 15% of the training part is drawn by patient, seed 3",)


@pytest.mark.parametrize("present", [("train", "val"), ("test",), ("val", "test"), ("train", "val", "test")])
def test_complete_splits_are_left_as_they_are(present):
    data = dataset([(f"i{n}", (1.0, 0.0), "", split) for n, split in enumerate(present)])
    assert splits.assign(data, 0) is data


def test_a_file_of_splits_overrides_and_leaves_the_rest_out(tmp_path):
    data = dataset([(name, (1.0, 0.0), "", "train") for name in ("a.png", "b.png", "c.png", "d.png")])
    path = tmp_path / "mine.csv"
    path.write_text("Split,image\nvalidation,b.png\nTEST,a.png\n,d.png\ntrain,elsewhere.png\n")
    found = splits.from_file(data, path)
    assert [record.split for record in found.records] == ["test", "val", "", ""]
    assert found.notes == (
        "split: mine.csv names 2 of 4 images; the other 2 are in no split; 1 names in it are not in the data set",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,split\na.png,trian\n", "line 2, column split: 'trian' is no split. Use train, val or test."),
        ("image,split\na.png,train\na.png,test\n", "line 3: image 'a.png' is listed twice"),
        ("image,part\na.png,train\n", "has no column 'split'; its columns are image, part"),
        (
            "image,split\nx/a.png,train\n",
            "names no image of made: it has names like 'x/a.png', the data set like 'a.png'",
        ),
    ],
)
def test_a_bad_file_of_splits_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(BadData) as error:
        splits.from_file(dataset([("a.png", (1.0, 0.0), "", "")]), path)
    assert message in str(error.value)


def test_written_splits_are_read_back(tmp_path):
    data = splits.assign(clinic(2, patients=30), 1)
    splits.write(data, tmp_path / "splits.csv")
    bare = dataset([(record.image, record.labels, record.patient, "") for record in data.records])
    again = splits.from_file(bare, tmp_path / "splits.csv")
    assert [record.split for record in again.records] == [record.split for record in data.records]
    assert [path.name for path in tmp_path.iterdir()] == ["splits.csv"]


def test_a_drawn_split_is_the_same_whatever_findings_are_wanted(tmp_path):
    """Or a run trained on some findings would be scored, with others, on images it has seen."""
    drawn = clinic(3, patients=60)
    records = tuple(replace(record, path=tmp_path / "there.png") for record in drawn.records)
    (tmp_path / "there.png").touch()
    whole = replace(drawn, records=records)
    wanted = [select(whole, findings=names, seed=5) for names in (None, ["a"], ["b"], ["b", "a"])]
    assert wanted[1].findings == ("a",)
    splits_of = [{record.image: record.split for record in one.records} for one in wanted]
    assert splits_of[0] == splits_of[1] == splits_of[2] == splits_of[3]
    assert set(splits_of[0].values()) == {"train", "val", "test"}


def clinics(tmp_path: Path) -> tuple[str, str]:
    """Two folders of tables with an image of one name: east has a splits column, west has none."""
    for name, header, rows in (
        ("east", "image,a,split", ("a.png,1,train", "b.png,0,train", "c.png,1,val", "d.png,0,test")),
        ("west", "image,a", ("a.png,0", "e.png,1", "f.png,0", "g.png,1")),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.csv").write_text("\n".join([header, *rows]) + "\n")
        for row in rows:
            (tmp_path / name / row.split(",")[0]).write_bytes(f"{name}{row}".encode())
    return f"csv:{tmp_path / 'east'}", f"csv:{tmp_path / 'west'}"


def test_one_file_of_splits_is_for_several_data_sets(tmp_path):
    specs = clinics(tmp_path)
    path = tmp_path / "mine.csv"
    path.write_text("image,split\neast:a.png,test\nb.png,train\nwest:a.png,val\ne.png,train\nf.png,test\nz.png,val\n")
    east, west = open_together(specs, splits=path)
    assert [record.split for record in east.records] == ["test", "train", "", ""]
    assert [record.split for record in west.records] == ["val", "train", "test", ""]
    assert east.notes == (
        "split: mine.csv names 2 of 4 images; the other 2 are in no split; 1 names in it are not in the data sets",
    )
    assert west.notes == ("split: mine.csv names 3 of 4 images; the other 1 are in no split",)
    # What the file says of the further images holds: one trains, one chooses, and the rest is left alone.
    joined = east.join(west)
    added = {record.path.name: record.split for record in joined.records[4:]}
    assert added == {"a.png": "val", "e.png": "train"}
    assert joined.notes[-1] == "joined by 1 training images and 1 for validation of west, labelled for a"
    beside = east.beside(west)
    assert [record.split for record in beside.records] == ["test", "train", "", "", "val", "train", "test", ""]
    only = open_together(specs, splits=path, only=["test"])
    assert [[record.image for record in one.records] for one in only] == [["a.png"], ["f.png"]]


def test_a_data_set_that_the_file_does_not_name_keeps_its_own_split(tmp_path):
    specs = clinics(tmp_path)
    path = tmp_path / "mine.csv"
    path.write_text("image,split\ne.png,train\nf.png,val\n")
    east, west = open_together(specs, splits=path)
    assert [record.split for record in east.records] == ["train", "train", "val", "test"]
    assert [record.split for record in west.records] == ["", "train", "val", ""]
    path.write_text("image,split\nb.png,train\nc.png,val\n")
    east, west = open_together(specs, splits=path, findings=["a"])
    assert [record.split for record in east.records] == ["", "train", "val", ""]
    assert {record.split for record in west.records} <= {"train", "val", "test"}
    assert "" not in {record.split for record in west.records}  # drawn, as where no file is given
    assert len(east.join(west)) == 4 + sum(record.split != "test" for record in west.records)


def test_a_name_that_two_data_sets_have_is_refused_with_what_to_write(tmp_path):
    specs = clinics(tmp_path)
    path = tmp_path / "mine.csv"
    for text, message in (
        ("a.png,train\n", r"mine\.csv line 2: 'a\.png' is in east and west\. Write east:a\.png, say"),
        ("east:a.png,train\neast:a.png,val\n", r"line 3: image 'east:a\.png' is listed twice"),
        ("b.png,train\neast:b.png,val\n", r"line 3: image 'east:b\.png' is listed twice"),
        ("q.png,train\n", r"names no image of east or west: it has names like 'q\.png', the data set like 'a\.png'"),
    ):
        path.write_text(f"image,split\n{text}")
        with pytest.raises(BadData, match=message):
            open_together(specs, splits=path)
    path.write_text("image,split\nwest:a.png,train\nwest 2:a.png,val\n")
    first, second = open_together([specs[1], specs[1]], splits=path)
    assert [first.records[0].split, second.records[0].split] == ["train", "val"]
