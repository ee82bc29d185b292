"""Masks that are not files: run lengths as COCO and others write them, and several masks as one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PillowImage

from radtag.data.check import check_dataset
from radtag.data.masks import load_masks
from radtag.data.outlines import Runs, Union, files_of, read_outline, together, unpacked
from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.truth import truth_of


def test_runs_go_down_the_columns_and_begin_outside():
    # 3 rows, 4 columns: five pixels outside (column 0, and two of column 1), four inside, the rest outside.
    runs = Runs.of((3, 4), [5, 4])
    assert runs.read().tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 0]]
    assert runs.area_px == 4
    assert Runs.of((3, 4), [5, 4, 3]).read().tolist() == runs.read().tolist()
    assert Runs.of((3, 4), [0, 1, 10, 1]).read().tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert not Runs.of((3, 4), [12]).read().any()
    assert not Runs.of((3, 4), []).read().any()


def test_runs_are_values_named_by_what_they_show():
    assert Runs.of((3, 4), [5, 4]) == Runs.of([3, 4], np.array([5, 4]))
    assert len({Runs.of((3, 4), [5, 4]), Runs.of((3, 4), [5, 4]), Runs.of((4, 3), [5, 4])}) == 2
    names = {Runs.of((3, 4), [5, 4]).name, Runs.of((4, 3), [5, 4]).name, Runs.of((3, 4), [5, 5]).name}
    assert len(names) == 3
    assert Runs.of((3, 4), [5, 4]).files == ()


def test_runs_that_are_too_long_or_negative_are_refused():
    with pytest.raises(BadData, match="run lengths of 13 pixels, the smallest 5, for a mask of 3 x 4 = 12"):
        Runs.of((3, 4), [5, 8])
    with pytest.raises(BadData, match="the smallest -1, for a mask"):
        Runs.of((3, 4), [5, -1])
    with pytest.raises(BadData, match="a mask of 0 x 4 pixels"):
        Runs.of((0, 4), [])
    with pytest.raises(BadData, match="run lengths of 9 pixels for a mask of 3 x 4"):
        Runs.from_coco({"size": [3, 4], "counts": [5, 4]})


def test_counts_packed_by_pycocotools_are_unpacked_exactly():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(3)
    for size_rc in ((1, 1), (3, 5), (97, 61), (400, 700)):
        for share in (0.0, 0.02, 0.5, 0.999, 1.0):
            mask = rng.random(size_rc) < share
            mask[: size_rc[0] // 3, : size_rc[1] // 2] = share > 0.1  # long runs, whose differences are large
            packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            for counts in (packed["counts"], packed["counts"].decode()):
                runs = Runs.from_coco({"size": packed["size"], "counts": counts})
                assert np.array_equal(runs.read(), mask)
                assert runs.area_px == mask.sum()


def test_a_packed_count_by_hand():
    # "PVWX6" is CheXlocalize's empty mask of 2320 x 2828 pixels: 6560960 in fives of bits, the lowest first.
    assert unpacked("PVWX6").tolist() == [2320 * 2828]
    assert unpacked("").tolist() == []
    # 1, 2, 3, then 2 + 4 and 3 - 1: a difference to the last but one, negative in two's complement of five bits.
    assert unpacked("1234O").tolist() == [1, 2, 3, 6, 2]
    for text in ("PVWX", " 1", "12\x7f"):  # no end; below and above the code's characters
        with pytest.raises(BadData, match="is no compressed run-length code"):
            unpacked(text)


def test_several_masks_are_one(tmp_path):
    path = tmp_path / "a.png"
    PillowImage.fromarray(np.array([[255, 0], [0, 0], [0, 0]], dtype=np.uint8)).save(path)
    runs = Runs.of((3, 2), [5, 1])
    both = together([path, runs])
    assert read_outline(both).tolist() == [[1, 0], [0, 0], [0, 1]]
    assert files_of(both) == (path,)
    assert both.name == f"a.png + {runs.name}"
    assert together([runs]) is runs
    assert files_of(path) == (path,)
    with pytest.raises(BadData, match=r"are of one image and 3 x 2 and 2 x 3\. Get the official files"):
        Union((runs, Runs.of((2, 3), []))).read()


def test_an_outline_is_truth_is_learnt_from_and_is_checked_like_a_file(tmp_path):
    path = tmp_path / "image.png"
    PillowImage.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10).save(path)
    other = tmp_path / "other.png"
    PillowImage.fromarray(np.arange(24, dtype=np.uint8)[::-1].reshape(4, 6) * 9).save(other)
    runs = Runs.of((2, 3), [2, 2])  # column 1, stretched to columns 2 and 3 of the image
    records = (
        Record("a", path, (1.0,), masks={"nodule": runs}, split="train"),
        Record("b", other, (1.0,), masks={"nodule": Runs.of((3, 2), [])}, split="train"),
    )
    dataset = Dataset("made up", ("nodule",), records)
    truth = truth_of(records[0], "nodule", (4, 6))
    assert truth is not None
    assert truth.mask is not None
    assert truth.mask.tolist() == [[0, 0, 1, 1, 0, 0]] * 4
    assert truth.boxes_xyxy.tolist() == [[2, 0, 4, 4]]

    masks = load_masks(dataset, records[:1], 6, "letterbox")
    assert masks[np.array([0])][0, 0].tolist() == [[0] * 6, *[[0, 0, 1, 1, 0, 0]] * 4, [0] * 6]

    kinds = {problem.kind: problem.examples for problem in check_dataset(dataset).problems}
    assert kinds["masks-of-odd-size"] == (f"{records[1].masks['nodule'].name} 3 x 2 on 4 x 6",)
    assert kinds["empty-masks"] == ("b nodule",)
