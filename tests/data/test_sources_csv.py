"""Source csv, and what all sources share: specifications, options, missing files, selections."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from radtag.data.sources import SOURCES, load, open_source, parse
from radtag.data.table import Dataset
from radtag.errors import BadData, BadSetting


def picture(path: Path, size_rc: tuple[int, int] = (40, 60), value: int | None = None) -> Path:
    """A gray image of its own, or of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.name.encode())
    pixels = np.random.default_rng(seed).integers(0, 256, size_rc) if value is None else np.full(size_rc, value)
    PillowImage.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def table(folder: Path, text: str, *images: str, encoding: str = "utf-8", name: str = "table.csv") -> Path:
    """Writes a table and its pictures."""
    for image in images:
        picture(folder / image)
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def opened(path: Path, options: str = "", **selection) -> Dataset:
    return open_source(f"csv:{path}{options}", **selection)


def same(labels: tuple[float, ...], expected: tuple[float, ...]) -> bool:
    return np.array_equal(labels, expected, equal_nan=True)


def test_every_column_finds_its_place(tmp_path):
    text = (
        "image,patient,split,lungs,attr:sex,mask:nodule,nodule,mass\n"
        "in/a.png,7,train,m/lungs.png,F,m/a.png,1,0\n"
        "in/b.png,8,Validation,,M,,0,\n"
    )
    path = table(tmp_path, text, "in/a.png", "in/b.png", "m/a.png", "m/lungs.png")
    (tmp_path / "boxes.csv").write_text(
        "image,finding,x1,y1,x2,y2\nin/a.png,nodule,10,5,30.5,15\nin/a.png,nodule,1,2,3,4\nin/a.png,mass,0,0,60,40\n"
    )
    data = opened(path)
    first, second = data.records
    assert data.findings == ("nodule", "mass")
    assert (first.image, first.path, first.patient, first.split) == ("in/a.png", tmp_path / "in/a.png", "7", "train")
    assert first.labels == (1.0, 0.0)
    assert same(second.labels, (0.0, math.nan))
    assert second.split == "val"
    assert first.attributes == {"sex": "F"}
    assert first.masks == {"nodule": tmp_path / "m/a.png"}
    assert second.masks == {}
    assert (first.lungs, second.lungs) == (tmp_path / "m/lungs.png", None)
    assert first.boxes_xyxy == {"nodule": ((10, 5, 30.5, 15), (1, 2, 3, 4)), "mass": ((0, 0, 60, 40),)}
    assert first.box_frame_rc is None
    assert first.boxes_in("nodule", (40, 60)).tolist() == [[10, 5, 30.5, 15], [1, 2, 3, 4]]
    assert opened(tmp_path).records == data.records  # the folder of a table.csv will do


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1), ("1.0", 1), (" 1 ", 1), ("True", 1), ("YES", 1), ("0", 0), ("0.00", 0), ("false", 0), ("no", 0)]
    + [("", math.nan), ("  ", math.nan), ("NaN", math.nan), ("NA", math.nan), ("-1", math.nan), ("-1.0", math.nan)],
)
def test_cells_as_programs_write_them(tmp_path, cell, value):
    data = opened(table(tmp_path, f"image,a\nx.png,{cell}\n", "x.png"))
    assert same(data.records[0].labels, (value,))


@pytest.mark.parametrize(("policy", "value"), [("unknown", math.nan), ("positive", 1.0), ("negative", 0.0)])
def test_uncertain_labels_follow_the_policy_and_are_counted(tmp_path, policy, value):
    path = table(tmp_path, "image,a,b\nx.png,-1,-1\ny.png,-1,\nz.png,1,0\n", "x.png", "y.png", "z.png")
    data = load(f"csv:{path}?uncertain={policy}")
    assert same(data.records[0].labels, (value, value))
    assert same(data.records[1].labels, (value, math.nan))
    assert data.notes == (f"labels of -1 are taken as {policy}: a 2, b 1",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_tables_as_programs_save_them(tmp_path, encoding, separator, newline):
    lines = [["Image ", " Größe", "a", ""], [" x.png", "", "1,0" if separator != "," else "1.0", ""], [""], ["", ""]]
    path = table(tmp_path, newline.join(separator.join(cells) for cells in lines), "x.png", encoding=encoding)
    data = opened(path)
    assert data.findings == ("Größe", "a")
    assert data.records[0].image == "x.png"
    assert same(data.records[0].labels, (math.nan, 1.0))


def test_paths_may_be_absolute_leave_the_folder_or_have_backslashes(tmp_path):
    far, near = picture(tmp_path / "far/a.png"), picture(tmp_path / "near/sub/b.png")
    path = table(tmp_path / "near", f'image,a\n"{far}",1\n../far/a.png,0\nsub\\b.png,0\n')
    data = opened(path)
    assert [record.image for record in data.records] == [str(far), "../far/a.png", "sub\\b.png"]
    assert data.records[0].path == far
    assert data.records[1].path.resolve() == far.resolve()
    assert data.records[2].path == near


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,a\nx.png,2\n",
            "table.csv line 2, column a: '2' is no label. Use 1, 0, blank = unknown or -1 = uncertain",
        ),
        ("image,Sex,a\nx.png,Male,1\n", "if the column is not a finding, name it attr:Sex."),
        ('image,a\n"x.png",1\n\nx.png,0\n', "table.csv line 4: image 'x.png' is in line 2 too."),
        (
            "image,a,split\nx.png,1,holdout\n",
            "line 2, column split: 'holdout' is no split. Use train, val, test or blank.",
        ),
        ("path,a\nx.png,1\n", "has no column 'image'; its columns are path, a."),
        ("image,patient\nx.png,1\n", "has no column for a finding; its columns are image, patient."),
        ("image,a\n", "has a header and no rows."),
        ("", "is empty."),
        ("image,a\n,1\n", "line 2, column image: blank."),
        ("image,a,b\nx.png,1\n", "line 2 has 2 cells where the header has 3 columns (image, a, b)"),
        ("image,a\nx.png,1,0\n", "line 2 has 3 cells where the header has 2 columns"),
        ("image,,a\nx.png,7,1\n", "column 2 has cells but no name."),
        ("image,a,a\nx.png,1,1\n", "column 'a' is there 2 times. Keep one."),
        ("image,a,mask:b\nx.png,1,\n", "column mask:b is of no finding; they are a."),
        ("image,a\nx.png,1\nsub/y.png,0\n", "line 3, column image: 'sub/y.png' is not there ("),
        ("image,a,mask:a\nx.png,1,m.png\n", "line 2: the mask "),
    ],
)
def test_a_bad_table_is_refused_by_line_column_and_value(tmp_path, text, message):
    path = table(tmp_path, text, "x.png")
    with pytest.raises(BadData) as error:
        opened(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x.png,b,0,0,1,1", "boxes.csv line 2, column finding: 'b' is no finding of table.csv; they are a."),
        ("x.png,a,0,0,one,1", "boxes.csv line 2, column x2: 'one' is not a number."),
        ("x.png,a,5,0,5,1", "boxes.csv line 2: box x1=5 y1=0 x2=5 y2=1 has no area."),
        ("x.png,a,nan,0,5,1", "boxes.csv line 2, column x1: 'nan' is not a number."),
        ("x.png,a,0,0,inf,1", "boxes.csv line 2, column x2: 'inf' is not a number."),
    ],
)
def test_a_bad_box_is_refused(tmp_path, row, message):
    path = table(tmp_path, "image,a\nx.png,1\n", "x.png")
    (tmp_path / "boxes.csv").write_text(f"image,finding,x1,y1,x2,y2\n{row}\n")
    with pytest.raises(BadData) as error:
        opened(path)
    assert message in str(error.value)


def test_text_in_another_encoding_is_refused_by_line(tmp_path):
    path = table(tmp_path, "image,a\nx.png,1\nGröße.png,0\n", encoding="latin-1")
    with pytest.raises(BadData, match=r"table.csv line 3: not UTF-8 text. Save it as CSV UTF-8."):
        opened(path)


def test_boxes_elsewhere_and_of_other_images_are_noted(tmp_path):
    path = table(tmp_path, "image,a\nx.png,1\n", "x.png")
    (tmp_path / "b2.csv").write_text("finding,image,y1,x1,y2,x2\na,x.png,1,2,3,4\na,y.png,1,2,3,4\n")
    data = load(f"csv:{path}?boxes={tmp_path / 'b2.csv'}")
    assert data.records[0].boxes_xyxy == {"a": ((2, 1, 4, 3),)}
    assert data.notes == ("b2.csv has boxes of 1 image table.csv has not, y.png first",)


def test_rows_without_an_image_are_skipped_on_request(tmp_path):
    path = table(tmp_path, "image,a\nx.png,1\ngone.png,0\n", "x.png")
    data = opened(path, "?missing=skip")
    assert [record.image for record in data.records] == ["x.png"]
    assert data.notes[0] == "1 of 2 labelled images has no file and is left out, gone.png first"


def test_the_masks_of_skipped_rows_are_not_asked_for(tmp_path):
    path = table(tmp_path, "image,a,mask:a,lungs\nx.png,1,x.png,\ngone.png,1,m/gone.png,m/lungs.png\n", "x.png")
    assert [record.image for record in opened(path, "?missing=skip").records] == ["x.png"]
    with pytest.raises(BadData, match=r"column image: 'gone\.png' is not there"):
        opened(path)


def test_none_there_is_refused_even_then(tmp_path):
    path = table(tmp_path, "image,a\ngone.png,0\n")
    with pytest.raises(BadData, match=r"none of its 1 image is there; gone.png was looked for at .*gone.png"):
        opened(path, "?missing=skip")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mimic:x", "unknown source 'mimic' in 'mimic:x'. Write NAME:PATH, where NAME is one of csv: "),
        ("csv", "'csv' has no path. Write csv:PATH."),
        ("csv:", "'csv:' has no path."),
        ("csv:t.csv?uncertian=positive", "source csv has no option 'uncertian'. Its options: uncertain: "),
        ("csv:t.csv?uncertain", "option 'uncertain' in 'csv:t.csv?uncertain' has no value. Write uncertain=VALUE."),
    ],
)
def test_a_bad_specification_is_refused_with_what_there_is(spec, message):
    with pytest.raises(BadSetting) as error:
        open_source(spec)
    assert message in str(error.value)


def test_an_unknown_policy_lists_the_known_ones(tmp_path):
    path = table(tmp_path, "image,a\nx.png,1\n", "x.png")
    with pytest.raises(BadSetting, match="uncertain=maybe of source csv: use unknown, positive or negative"):
        opened(path, "?uncertain=maybe")


def test_unknown_sources_list_all_known_ones():
    with pytest.raises(BadSetting) as error:
        open_source("x:y")
    assert all(name in str(error.value) for name in SOURCES)


def test_specifications_keep_colons_and_spaces():
    assert parse("csv:C:/my data/t.csv?a=b=c&d=^x+$") == ("csv", "C:/my data/t.csv", {"a": "b=c", "d": "^x+$"})


def test_the_home_folder_behind_a_colon(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    table(tmp_path, "image,a\nx.png,1\n", "x.png")
    (tmp_path / "b.csv").write_text("image,finding,x1,y1,x2,y2\nx.png,a,1,2,3,4\n")
    data = load("csv:~/table.csv?boxes=~/b.csv")
    assert data.records[0].path == tmp_path / "x.png"
    assert data.records[0].boxes_xyxy == {"a": ((1, 2, 3, 4),)}


def test_a_path_that_no_file_can_have_is_not_there(tmp_path):
    path = table(tmp_path, "image,a\nno\0folder/x.png,1\n")
    with pytest.raises(BadData, match=r"table.csv line 2, column image: .* is not there"):
        opened(path)


def test_selections(tmp_path):
    text = "image,a,b,split\nx.png,1,0,train\ny.png,0,1,val\nz.png,0,0,test\nw.png,0,0,\n"
    path = table(tmp_path, text, "x.png", "y.png", "z.png", "w.png")
    assert [r.image for r in opened(path, only=("val", "test")).records] == ["y.png", "z.png"]
    assert len(opened(path)) == 4
    turned = opened(path, findings=("b", "a"))
    assert (turned.findings, turned.records[0].labels) == (("b", "a"), (0.0, 1.0))
    (tmp_path / "mine.csv").write_text("image,split\nw.png,train\n")
    assert [r.image for r in opened(path, splits=tmp_path / "mine.csv", only=["train"]).records] == ["w.png"]
    with pytest.raises(BadData, match="no image is in test; the splits present are"):
        opened(path, splits=tmp_path / "mine.csv", only=["test"])
    with pytest.raises(BadSetting, match=r"unknown split 'exam'\. Use train, val or test"):
        opened(path, only=["exam"])
    with pytest.raises(BadData, match="has no finding 'c'; it has a, b"):
        opened(path, findings=["c"])


@pytest.mark.parametrize(
    ("files", "given", "meant"),
    [
        (("phantoms/table.csv",), "phantoms", "csv:phantoms/table.csv"),
        (("chest.csv",), "chest.csv?uncertain=positive", "csv:chest.csv?uncertain=positive"),
        (("images/normal/a.png",), "images", "folder:images"),
        (("nih/Data_Entry_2017_v2020.csv",), "nih", "nih14:nih"),
        (("covid/Infection Segmentation Data/Train/x.png",), "covid", "covid_qu_ex:covid"),
    ],
)
def test_a_path_without_a_source_is_answered_by_the_one_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], given: str, meant: str
):
    monkeypatch.chdir(tmp_path)
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    with pytest.raises(BadSetting) as caught:
        open_source(given)
    assert str(caught.value) == f"{given} does not say what it is. Write {meant}."
