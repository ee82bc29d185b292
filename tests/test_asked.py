"""What a map is when another disease is asked for, by hand."""

from __future__ import annotations

import math

import pytest

from radtag.asked import asked
from radtag.pairs import PairTable

NAN = math.nan


def table(*images: tuple[str, tuple[float, ...], tuple[float, ...]]) -> PairTable:
    """Images as (patient, labels, mean maps) of the findings a, b and c."""
    rows = []
    for number, (patient, labels, maps) in enumerate(images):
        for finding, label, amount in zip("abc", labels, maps, strict=False):
            rows.append(
                {"image": f"{number}", "patient": patient, "split": "test", "finding": finding, "label": label}
                | {"map_mean": amount}
            )
    return PairTable.of(rows)


IMAGES = table(
    ("p1", (1, 0), (0.5, 0.125)),
    ("p2", (1, NAN), (0.25, 0.0)),
    ("p3", (1, 1), (0.75, 0.5)),  # the wrong question is none
    ("p4", (0, 1), (0.25, 0.125)),
    ("p5", (0, 0), (0.0625, 0.0)),
    ("p6", (0, NAN), (0.1875, 0.5)),
    ("p7", (NAN, NAN), (1.0, 1.0)),
)


def test_by_hand():
    found = asked(IMAGES, bootstraps=100)["asked"]
    a, b, none = found["findings"]["a"], found["findings"]["b"], found["none"]
    assert (a["a"]["map_mean"]["value"], a["a"]["map_mean"]["n"]) == (0.5, 3)
    assert (a["b"]["map_mean"]["value"], a["b"]["map_mean"]["n"]) == (0.0625, 2)
    # Paired: (0.5 - 0.125 + 0.25 - 0) / 2, not the difference of the two means above.
    assert (a["b"]["own_minus"]["value"], a["b"]["own_minus"]["n"]) == (0.3125, 2)
    assert "own_minus" not in a["a"]
    assert (b["b"]["map_mean"]["value"], b["b"]["map_mean"]["n"]) == (0.3125, 2)
    assert (b["a"]["map_mean"]["value"], b["a"]["own_minus"]["value"], b["a"]["own_minus"]["n"]) == (0.25, -0.125, 1)
    assert b["a"]["own_minus"]["low"] is None  # one patient
    assert (none["a"]["map_mean"]["value"], none["a"]["map_mean"]["n"]) == (0.125, 2)
    assert (none["b"]["map_mean"]["value"], none["b"]["map_mean"]["n"]) == (0.25, 2)


def test_intervals_are_of_patients():
    """Images of one patient are drawn together: six of one and one of another are two, not seven."""
    one = ("p1", (1.0, 0.0), (0.5, 0.0))
    images = [one] * 6 + [("p2", (1.0, 0.0), (0.0, 0.0))]
    of_two = asked(table(*images), bootstraps=400)["asked"]["findings"]["a"]["b"]["own_minus"]
    assert of_two["value"] == pytest.approx(3 / 7)
    assert (of_two["low"], of_two["high"]) == (0.0, 0.5)
    apart = [(f"p{i}", labels, maps) for i, (_, labels, maps) in enumerate(images)]
    of_seven = asked(table(*apart), bootstraps=400)["asked"]["findings"]["a"]["b"]["own_minus"]
    assert of_seven["low"] > 0
    without = asked(table(*apart), bootstraps=0)["asked"]["findings"]["a"]["b"]["own_minus"]
    assert (without["value"], without["low"], without["high"]) == (of_seven["value"], None, None)


def test_what_nobody_has_has_no_row():
    found = asked(table(("p1", (1, 0, NAN), (0.5, 0.25, 0.125))), bootstraps=0)["asked"]
    assert list(found["findings"]) == ["a"]
    assert list(found["findings"]["a"]) == ["a", "b", "c"]
    assert found["findings"]["a"]["c"]["own_minus"]["value"] == 0.375
    assert found["none"] == {}


def test_one_finding_is_never_the_wrong_one():
    assert asked(table(("p1", (1,), (0.5,)))) == {}


def test_a_column_that_says_normal_is_no_disease():
    rows = []
    for number, (sick, normal, one, other) in enumerate([(1, 0, 0.5, 0.25), (0, 1, 0.0625, 0.125), (0, 0, 0.25, 0.5)]):
        for finding, label, amount in (("a", sick, one), ("b", 0, other), ("No Finding", normal, 0.0)):
            rows.append(
                {"image": f"{number}", "patient": f"{number}", "split": "test", "finding": finding, "label": label}
                | {"map_mean": amount}
            )
    found = asked(PairTable.of(rows), bootstraps=0)["asked"]
    assert list(found["findings"]) == ["a"]
    assert list(found["findings"]["a"]) == ["a", "b"]
    assert found["none"]["a"]["map_mean"]["value"] == (0.0625 + 0.25) / 2
    assert found["none"]["b"]["map_mean"]["n"] == 2
