"""Who is healthy, and the two sides of a game: an image with another disease is on neither."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from radtag.data.healthy import healthy, is_normal, two_sides
from radtag.data.table import Dataset, Record
from radtag.errors import BadData

NAN = float("nan")


def made(findings: tuple[str, ...], rows: dict[str, tuple[float, ...]]) -> Dataset:
    """These images in the training split, and the same ones again in that for validation."""
    records = [
        Record(f"{split}/{name}" if split == "val" else name, Path(name), row, split=split)
        for split in ("train", "val")
        for name, row in rows.items()
    ]
    return Dataset("set", findings, tuple(records))


def training(dataset: Dataset) -> dict[str, tuple[float, ...]]:
    return {record.image: record.labels for record in dataset.only("train").records}


def of_split(dataset: Dataset, split: str, keep) -> Dataset:
    """Without those images of the split that are not to be kept."""
    return replace(dataset, records=tuple(one for one in dataset.records if one.split != split or keep(one)))


# Covid patients, other pneumonias and healthy people, as in COVID-QU-Ex.
COVID = made(("COVID-19", "Non-COVID"), {"covid": (1.0, 0.0), "other": (0.0, 1.0), "well": (0.0, 0.0)})


def test_what_counts_as_healthy():
    labels = {
        "all zero": (0.0, 0.0, 0.0),
        "normal": (1.0, 0.0, 0.0),
        "normal alone known": (1.0, NAN, NAN),
        "normal and ill": (1.0, 1.0, 0.0),
        "ill": (0.0, 1.0, 0.0),
        "unknown": (NAN, NAN, NAN),
        "partly unknown": (0.0, 0.0, NAN),
    }
    records = tuple(Record(name, Path(name), row) for name, row in labels.items())
    with_normal = Dataset("set", ("No_Finding", "mass", "oedema"), records)
    assert [r.image for r in healthy(with_normal).records] == ["normal", "normal alone known"]
    without = Dataset("set", ("nodes", "mass", "oedema"), records)
    assert [r.image for r in healthy(without).records] == ["all zero"]
    assert [r.image for r in healthy(without, normal="nodes").records] == ["normal", "normal alone known"]
    with pytest.raises(BadData, match=r"has no finding 'fine'; it has nodes, mass, oedema"):
        healthy(without, normal="fine")
    only_ill = Dataset("set", ("mass",), (Record("x", Path("x"), (1.0,)), Record("y", Path("y"), (NAN,))))
    with pytest.raises(BadData, match="none of its 2 images is known to be healthy"):
        healthy(only_ill)


@pytest.mark.parametrize("name", ["Normal", "HEALTHY", "No Finding", "no_findings", " no-finding ", "NoFinding"])
def test_names_that_mean_healthy(name):
    assert is_normal(name)
    assert not is_normal(f"ab{name.strip()}")


def test_another_disease_is_on_neither_side():
    sides = two_sides(COVID, findings=["COVID-19"])
    assert sides.findings == ("COVID-19",)
    assert training(sides) == {"covid": (1.0,), "well": (0.0,)}
    assert sides.notes == ("2 images with neither a wanted finding nor known to be healthy are on no side",)
    both = two_sides(COVID)
    assert training(both) == {"covid": (1.0, 0.0), "other": (0.0, 1.0), "well": (0.0, 0.0)}
    assert both.notes == ()


def test_the_finding_that_means_healthy_has_no_map():
    rows = {"ill": (0.0, 1.0, 0.0), "well": (1.0, NAN, NAN), "both": (1.0, 1.0, 0.0), "neither": (0.0, 0.0, 0.0)}
    for name, normal in (("No finding", None), ("nodes", "nodes")):
        sides = two_sides(made((name, "mass", "oedema"), rows), findings=["mass"], normal=normal)
        # What says "normal" and has a disease is ill; what has neither is not known to be anything.
        assert training(sides) == {"ill": (1.0,), "well": (0.0,), "both": (1.0,)}
    sides = two_sides(made(("mass", "nodes"), {"ill": (1.0, 0.0), "well": (NAN, 1.0)}), normal="nodes")
    assert sides.findings == ("mass",)
    # With a name given, a finding called normal is one as any other.
    rows = {"ill": (1.0, 0.0), "well": (0.0, 1.0)}
    assert two_sides(made(("normal", "nodes"), rows), normal="nodes").findings == ("normal",)


def test_an_unknown_label_makes_no_side_and_stays_unknown():
    rows = {
        "ill": (1.0, NAN, 0.0),
        "perhaps": (NAN, 0.0, 0.0),
        "unknown": (NAN, NAN, NAN),
        "well": (0.0, 0.0, 0.0),
        "ill too": (0.0, 1.0, NAN),
    }
    sides = two_sides(made(("mass", "oedema", "nodule"), rows), findings=("oedema", "mass"))
    found = training(sides)
    assert list(found) == ["ill", "well", "ill too"]
    assert found["well"] == (0.0, 0.0)
    assert found["ill too"] == (1.0, 0.0)
    assert math.isnan(found["ill"][0])
    assert found["ill"][1] == 1
    # An image is on the ill side for what is wanted, and then keeps all that is wanted.
    assert sides.notes[-1].startswith("4 images with neither")


def test_the_splits_are_kept_and_the_order_too():
    test = Record("test", Path("test"), (1.0, 0.0), split="test")
    sides = two_sides(replace(COVID, records=(test, *COVID.records)), findings=["COVID-19"])
    assert [(one.image, one.split) for one in sides.records] == [
        *(("test", "test"), ("covid", "train"), ("well", "train"), ("val/covid", "val"), ("val/well", "val"))
    ]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_with_one_side_is_refused(split):
    with pytest.raises(BadData, match=rf"^set: no healthy image is in the {split} split\. Add some, or give --splits"):
        two_sides(of_split(COVID, split, lambda one: 1.0 in one.labels))
    with pytest.raises(BadData, match=rf"no image of the {split} split has COVID-19 or Non-COVID\. Add some, or"):
        two_sides(of_split(COVID, split, lambda one: 1.0 not in one.labels))


def test_what_cannot_be_two_sides_is_refused():
    with pytest.raises(BadData, match="has no finding 'Covid'; it has COVID-19, Non-COVID"):
        two_sides(COVID, findings=["Covid"])
    with pytest.raises(BadData, match="has no finding 'fine'"):
        two_sides(COVID, normal="fine")
    no_other = of_split(COVID, "train", lambda one: one.image != "other")
    with pytest.raises(BadData, match=r"^set: no training image has 'Non-COVID'\. Leave it out with --finding\.$"):
        two_sides(no_other)
    assert two_sides(no_other, findings=["COVID-19"]).findings == ("COVID-19",)
    # In validation a finding may be missing, if another is there.
    assert len(two_sides(of_split(COVID, "val", lambda one: one.image != "val/other"))) == 5
    with pytest.raises(BadData, match="none of its 4 images is known to be healthy"):
        two_sides(replace(COVID, records=tuple(one for one in COVID.records if 1.0 in one.labels)))


def test_a_map_of_health_is_refused():
    normal = made(("Normal", "mass"), {"well": (1.0, 0.0), "ill": (0.0, 1.0)})
    with pytest.raises(BadData, match=r"^set: 'Normal' means healthy, and a map needs a disease\. Name a --finding\.$"):
        two_sides(normal, findings=["Normal"])
    alone = made(("Normal",), {"well": (1.0,), "ill": (0.0,)})
    with pytest.raises(BadData, match="'Normal' means healthy, and a map needs a disease"):
        two_sides(alone)


# Several data sets ----------------------------------------------------------------------------------------------------


def lung(findings: tuple[str, ...] = ("tuberculosis",), rows: dict[str, tuple[float, ...]] | None = None) -> Dataset:
    """Another hospital."""
    found = made(findings, rows or {"tb": (1.0,), "fine": (0.0,)})
    records = (replace(one, path=Path("lung") / one.image) for one in found.records)
    return replace(found, name="lung", records=tuple(records))


def told(sides: Dataset) -> dict[str, tuple[float | None, ...]]:
    """The training labels, None for unknown."""
    return {
        image: tuple(None if math.isnan(label) else label for label in labels)
        for image, labels in training(sides).items()
    }


def test_each_data_set_says_who_is_healthy_in_it():
    sides = two_sides(COVID, also=[lung()], findings=["COVID-19", "tuberculosis"])
    assert sides.findings == ("COVID-19", "tuberculosis")
    assert told(sides) == {
        "set:covid": (1.0, None),
        "set:well": (0.0, None),  # nobody has asked for tuberculosis there
        "lung:tb": (None, 1.0),
        "lung:fine": (None, 0.0),
    }
    assert [one.split for one in sides.records].count("val") == 4
    assert {one.source for one in sides.records} == {"set", "lung"}
    assert sides.notes == (
        "set: 2 images with neither a wanted finding nor known to be healthy are on no side",
        "training images: set, 1 ill and 1 healthy; lung, 1 ill and 1 healthy",
    )
    assert two_sides(COVID, also=[lung()]).findings == ("COVID-19", "Non-COVID", "tuberculosis")


@pytest.mark.parametrize(("name", "normal"), [("Normal", None), ("nodes", "nodes")])
def test_normal_may_be_a_finding_of_one_data_set_alone(name, normal):
    rows = {"tb": (1.0, 0.0), "fine": (NAN, 1.0), "odd": (0.0, 0.0)}
    for sets in ((COVID, lung(("tuberculosis", name), rows)), (lung(("tuberculosis", name), rows), COVID)):
        sides = two_sides(sets[0], also=sets[1:], findings=["tuberculosis", "COVID-19"], normal=normal)
        found = told(sides)
        assert found["lung:fine"] == (0.0, None)
        assert found["set:well"] == (None, 0.0)
        assert found["set:covid"] == (None, 1.0)
        assert "set:other" not in found  # another disease
        assert "lung:odd" not in found  # not said to be normal
        assert name not in two_sides(sets[0], also=sets[1:], normal=normal).findings
        with pytest.raises(BadData, match=f"'{name}' means healthy, and a map needs a disease"):
            two_sides(sets[0], also=sets[1:], findings=["COVID-19", name], normal=normal)


def test_a_name_for_normal_counts_where_it_is_known_and_elsewhere_the_usual_ones_do():
    first = lung(("tuberculosis", "nodes"), {"tb": (1.0, 0.0), "fine": (NAN, 1.0)})
    second = made(("Normal", "COVID-19"), {"covid": (0.0, 1.0), "well": (1.0, NAN)})
    sides = two_sides(first, also=[second], normal="nodes")
    assert sides.findings == ("tuberculosis", "COVID-19")
    assert told(sides)["set:well"] == (None, 0.0)


def test_a_finding_that_two_data_sets_name_is_one():
    rows = {"both": (1.0, 1.0), "tb": (1.0, NAN), "fine": (0.0, 0.0)}
    sides = two_sides(COVID, also=[lung(("tuberculosis", "COVID-19"), rows)], findings=["COVID-19"])
    assert told(sides) == {"set:covid": (1.0,), "set:well": (0.0,), "lung:both": (1.0,), "lung:fine": (0.0,)}


def test_a_data_set_without_healthy_images_borrows_them_and_says_so():
    alone = lung(rows={"tb": (1.0,)})
    sides = two_sides(COVID, also=[alone], findings=["COVID-19", "tuberculosis"])
    # For training, whose labels go on saying which findings a source names, a healthy image needs no such label.
    assert told(sides) == {"set:covid": (1.0, None), "set:well": (0.0, None), "lung:tb": (None, 1.0)}
    assert sides.only("val").labels()[1].tolist() == [0, 0]
    assert sides.notes[-2].startswith("no healthy training image is of lung: healthy ones of the others stand beside")
    assert sides.notes[-1].startswith("tuberculosis: no source that names it has healthy images in every split")
    spare = lung(rows={"fine": (0.0,)})
    sides = two_sides(COVID, also=[spare], findings=["COVID-19"])
    assert sides.notes[-1].startswith("no ill training image is of lung: its healthy ones would tell by their look")


def test_several_data_sets_are_refused_as_one_is():
    whole = "set \\+ lung"
    with pytest.raises(BadData, match=rf"^{whole} has no finding 'Covid'; it has COVID-19, Non-COVID, tuberculosis\.$"):
        two_sides(COVID, also=[lung()], findings=["Covid"])
    with pytest.raises(BadData, match=rf"^{whole} has no finding 'fine'; it has"):
        two_sides(COVID, also=[lung()], normal="fine")
    ill = replace(COVID, records=tuple(one for one in COVID.records if 1.0 in one.labels))
    with pytest.raises(BadData, match=rf"^{whole}: none of its 6 images is known to be healthy"):
        two_sides(ill, also=[lung(rows={"tb": (1.0,)})])
    never = of_split(lung(), "train", lambda one: 1.0 not in one.labels)
    with pytest.raises(BadData, match=rf"^{whole}: no training image has 'tuberculosis'\. Leave it out"):
        two_sides(COVID, also=[never])
    with pytest.raises(BadData, match=r"^covid is in set and in set 2\. Leave it out of one of them\.$"):
        two_sides(COVID, also=[COVID])
