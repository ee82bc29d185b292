"""Files, folders and globs become files, and what matches nothing is an error that names it."""

import os
from pathlib import Path

import pytest

from radtag.errors import UnreadableImage
from radtag.images import expand


@pytest.fixture
def folder(tmp_path):
    for name in ["b.png", "a.PNG", "sub/c.nii.gz", "sub/deep/d.tif", "notes.txt", "sub/.hidden.png", "table.csv"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    dicom = b"\0" * 128 + b"DICM" + b"\0" * 8
    for name in ["sub/IM000001", "sub/1.2.840.113", "sub/DICOMDIR"]:
        (tmp_path / name).write_bytes(dicom)
    return tmp_path


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_is_searched_by_suffix_and_by_preamble(folder):
    assert names(expand(folder), folder) == [
        "a.PNG",
        "b.png",
        "sub/1.2.840.113",
        "sub/IM000001",
        "sub/c.nii.gz",
        "sub/deep/d.tif",
    ]


def test_a_file_is_taken_whatever_its_name_and_each_once(folder):
    assert names(expand([folder / "notes.txt", folder / "b.png", str(folder / "b.png")]), folder) == [
        "b.png",
        "notes.txt",
    ]


def test_globs(folder):
    assert names(expand(str(folder / "*.png")), folder) == ["b.png"]
    assert names(expand([str(folder / "**" / "*.tif")]), folder) == ["sub/deep/d.tif"]
    assert names(expand([str(folder / "su*")]), folder) == [
        "sub/1.2.840.113",
        "sub/IM000001",
        "sub/c.nii.gz",
        "sub/deep/d.tif",
    ]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    (tmp_path / "scan[1].png").write_bytes(b"x")
    assert expand(tmp_path / "scan[1].png") == [tmp_path / "scan[1].png"]


@pytest.mark.parametrize("missing", ["nothing.png", "*.jpeg", "none/**/*.png"])
def test_what_matches_nothing_is_named(folder, missing):
    with pytest.raises(UnreadableImage) as refusal:
        expand([folder / "b.png", folder / missing])
    assert str(refusal.value) == (
        f"{folder / missing}: no such file or folder, and no file matches it as a glob. Check the spelling."
    )


def test_a_folder_without_images_is_named(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"x")
    with pytest.raises(UnreadableImage, match=r"the folder holds no image. Looked for .png .jpg"):
        expand(tmp_path)


def test_a_relative_path_stays_relative(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert expand("b.png") == [Path("b.png")]
    assert expand(os.curdir)[0] == Path("a.PNG")
