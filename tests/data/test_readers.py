"""Labels and boxes of several readers made one, and what sources say of what they met."""

from __future__ import annotations

import math

import pytest

from radtag.data.boxes import Thing, by_name, from_cells
from radtag.data.csvfile import read_csv
from radtag.data.notes import left_over, told
from radtag.data.readers import CONSENSUS, Readings, fused, label
from radtag.errors import BadData


def test_a_label_by_rule():
    assert [label(marks, 3, "majority") for marks in range(4)] == [0, 0, 1, 1]
    assert label(1, 2, "majority") == 0  # a tie is no majority
    assert [label(marks, 3, "any") for marks in range(4)] == [0, 1, 1, 1]
    agreed = [label(marks, 3, "agreed") for marks in range(4)]
    assert (agreed[0], agreed[3]) == (0, 1)
    assert math.isnan(agreed[1])
    assert math.isnan(agreed[2])


def test_boxes_of_different_readers_are_fused_and_those_of_one_are_not():
    a, b = (0.0, 0.0, 10.0, 10.0), (2.0, 0.0, 12.0, 10.0)  # 80 of 120 pixels
    assert fused([("R1", a), ("R2", b)]) == ((1.0, 0.0, 11.0, 10.0),)
    assert fused([("R1", a), ("R1", b)]) == (a, b)
    far = (5.0, 0.0, 15.0, 10.0)  # 50 of 150 pixels: below 0.4
    assert fused([("R1", a), ("R2", far)]) == (a, far)
    # The third joins the mean of the group that it covers best.
    assert fused([("R1", a), ("R2", far), ("R3", (6.0, 0.0, 16.0, 10.0))]) == (a, (5.5, 0.0, 15.5, 10.0))


def test_readings_are_one_truth_or_one_readers():
    readings = Readings()
    readings.add_box("a", "R1", "mass", (0, 0, 4, 4))
    readings.add_box("a", "R2", "mass", (0, 0, 4, 6))
    readings.add_box("a", "R2", "edema", (1, 1, 2, 2))
    readings.of("a", "R3")
    readings.add_box("b", CONSENSUS, "edema", (5, 5, 6, 6))
    both = ("edema", "mass")
    assert readings.truth("a", both, "majority", "fused") == ((0, 1), {"mass": ((0, 0, 4, 5),)}, 1)
    assert readings.truth("a", both, "any", "each") == (
        (1, 1),
        {"edema": ((1, 1, 2, 2),), "mass": ((0, 0, 4, 4), (0, 0, 4, 6))},
        0,
    )
    assert readings.truth("a", both, "R1", "fused") == ((0, 1), {"mass": ((0, 0, 4, 4),)}, 0)
    assert readings.truth("a", both, "R9", "fused") is None
    assert readings.truth("b", both, "R9", "fused") == ((1, 0), {"edema": ((5, 5, 6, 6),)}, 0)


def test_cells_by_name_as_boxes_and_as_labels(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Image,x,y,width,height,ill\na,1,2,3,4,1\nb,1,2,0,4,\n")
    read = read_csv(path)
    rows = list(read.named("image", "x", "y", "width", "height", "ill", optional=("who",)))
    assert rows[0] == (2, {"image": "a", "x": "1", "y": "2", "width": "3", "height": "4", "ill": "1", "who": ""})
    corners = ("x", "y", "width", "height")
    assert from_cells(read, 2, rows[0][1], corners, second="size") == (1, 2, 4, 6)
    assert from_cells(read, 2, rows[0][1], corners) == (1, 2, 3, 4)
    with pytest.raises(BadData, match=r"t\.csv line 3: a box from 1, 2 to 1, 6\. Get the official table"):
        from_cells(read, *rows[1], corners, second="size")
    assert read.label(2, "ill", "1") == 1
    assert math.isnan(read.label(3, "ill", ""))
    with pytest.raises(BadData, match=r"t\.csv line 3, column ill: '-1' is no label"):
        read.label(3, "ill", "-1")
    assert read.label(3, "ill", "-1", (1, 0, -1)) == -1
    with pytest.raises(BadData, match="has no column 'age'"):
        list(read.named("image", "age"))


def test_things_by_name_and_notes_of_what_was_met():
    things = [Thing("a", (0, 0, 1, 1)), Thing("b", (0, 0, 2, 2)), Thing("a", (0, 0, 3, 3))]
    assert by_name(things) == {"a": ((0, 0, 1, 1), (0, 0, 3, 3)), "b": ((0, 0, 2, 2),)}
    texts = {"lost": "image[s] [is|are] lost", "found": "image[s] found", "never": "nothing"}
    assert told({"found": 2, "lost": 1, "never": 0}, texts) == ["1 image is lost", "2 images found"]
    assert left_over({"b.png", "a.png"}, "image[s] [is|are] left out") == ["2 images are left out, a.png first"]
    assert left_over([], "image[s] [is|are] left out") == []
