"""Masks that are not files: run lengths as COCO and others write them, polygons, classes, several masks as one."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as LinePath
from PIL import Image as PillowImage

from radtag.data.check import check_dataset
from radtag.data.masks import load_masks
from radtag.data.outlines import ClassOf, Polygon, Runs, Union, files_of, read_outline, together, unpacked
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, UnreadableImage
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


def test_a_polygon_has_the_pixels_whose_centres_it_holds():
    # By hand: a triangle of corners (0, 0), (4, 0), (0, 4) cuts the centres (.5, 3.5), (1.5, 2.5) ... which lie on it.
    triangle = Polygon.of((3, 5), [[0, 0], [4, 0], [0, 4]])
    assert triangle.read().tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    square = Polygon.of((3, 5), [[1, 1], [3, 1], [3, 2], [1, 2]])
    assert square.read().tolist() == [[0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    other_way = Polygon.of((3, 5), [[1, 2], [3, 2], [3, 1], [1, 1]])
    assert other_way.read().tolist() == square.read().tolist()
    assert triangle.files == ()
    assert triangle.name != square.name
    assert Polygon.of((3, 5), [[1, 1], [3, 1], [3, 2], [1, 2]]) == square


def test_a_polygon_is_cut_off_at_the_edge_and_has_no_hole_where_it_goes_round_twice():
    beyond = Polygon.of((2, 3), [[-5, -5], [1, -5], [1, 9], [-5, 9]])
    assert beyond.read().tolist() == [[1, 0, 0], [1, 0, 0]]
    assert not Polygon.of((2, 3), [[-5, -5], [-1, -5], [-1, 9]]).read().any()
    assert not Polygon.of((2, 3), [[0, 1], [3, 1], [1, 1]]).read().any()  # a line
    once = [[0, 0], [5, 0], [5, 5], [0, 5]]
    inner = [[0, 0], [3, 0], [3, 3], [0, 3]]
    assert Polygon.of((5, 5), [*once, *inner]).read().all()


def test_a_polygon_agrees_with_another_programs():
    rng = np.random.default_rng(3)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 40))
    radius = rng.uniform(5, 14, 40)  # seen from one point, so that it does not cross itself
    points = np.stack([21 + radius * np.cos(angles), 17 + radius * np.sin(angles)], axis=1).astype(np.float32)
    rows, cols = np.mgrid[:36, :44] + 0.5
    inside = LinePath(points).contains_points(np.stack([cols.ravel(), rows.ravel()], axis=1)).reshape(36, 44)
    assert inside.sum() > 100
    assert (Polygon.of((36, 44), points).read() == inside).all()


def test_what_is_no_polygon_is_refused():
    with pytest.raises(BadData, match="a polygon of 2 points"):
        Polygon.of((3, 4), [[0, 0], [1, 1]])
    with pytest.raises(BadData, match="a polygon of 3 points"):
        Polygon.of((3, 4), [[0, 0], [1, 1], [2, float("inf")]])


def test_one_class_of_a_file_of_palette_indices_or_gray_values(tmp_path):
    classes = np.array([[0, 3, 255], [3, 7, 0]], dtype=np.uint8)
    indexed = PillowImage.fromarray(classes, "P")
    indexed.putpalette([0] * 768)  # whatever colours they have
    indexed.save(tmp_path / "p.png")
    PillowImage.fromarray(classes).save(tmp_path / "l.png")
    for name in ("p.png", "l.png"):
        three = ClassOf(tmp_path / name, 3)
        assert read_outline(three).tolist() == [[0, 1, 0], [1, 0, 0]]
        assert files_of(three) == (tmp_path / name,)
    assert three.name == "l.png=3"
    PillowImage.new("RGB", (3, 2)).save(tmp_path / "c.png")
    with pytest.raises(UnreadableImage, match=r"c.png: it has colours \(RGB\), not numbers of classes"):
        ClassOf(tmp_path / "c.png", 3).read()
    (tmp_path / "broken.png").write_text("no")
    for name in ("broken.png", "nowhere.png"):
        with pytest.raises(UnreadableImage, match=name):
            ClassOf(tmp_path / name, 3).read()
