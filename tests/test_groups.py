"""Numbers by group, by hand: two findings, six images of five patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting
from radtag.groups import checked, grouped, pooled, read_values, values_of, write_values
from radtag.pairs import PairTable
from radtag.report.page import _groups

nan = float("nan")
FINDINGS = ("nodule", "effusion")
#        patient, sex, age, pointing of its nodule (NaN = it has none), share of the image
IMAGES = {
    "a": ("p", "F", "031Y", 1.0, 0.01),
    "b": ("p", "F", "032Y", 0.0, 0.02),
    "c": ("q", "F", "45", 1.0, 0.03),
    "d": ("r", "M", "52", 0.0, 0.04),
    "e": ("s", "M", "70", 1.0, 0.05),
    "f": ("t", "", "", nan, nan),
}


def dataset() -> Dataset:
    return Dataset(
        "hand",
        FINDINGS,
        tuple(
            Record(
                name, Path(name), (float(not np.isnan(hit)), 0.0), patient, "test", attributes={"Sex": sex, "age": age}
            )
            for name, (patient, sex, age, hit, _) in IMAGES.items()
        ),
    )


def table() -> PairTable:
    rows = []
    for name, (patient, _, _, hit, share) in IMAGES.items():
        has = not np.isnan(hit)
        common = {"image": name, "patient": patient, "split": "test", "threshold": 0.5}
        marked = {"marked": 0.1, "map_max": 0.4, "map_mean": 0.1}
        rows.append(
            {**common, **marked, "finding": "nodule", "label": float(has), "score": 0.9 if has else 0.2}
            | {"positive": float(has), "located": float(has)}
            | ({"pointing": hit, "dice": hit / 2, "mask_share": share, "box_iou": (hit,)} if has else {})
        )
        rows.append(
            {**common, **marked, "finding": "effusion", "label": 0.0, "score": 0.1, "positive": 0.0, "located": 0.0}
        )
    return PairTable.of(rows)


def groups(*by: str, bootstraps: int = 50) -> dict:
    asked = checked(by, dataset())
    return grouped(table(), values_of(dataset(), asked), asked, bootstraps=bootstraps)["groups"]


def value(part: dict, key: str, finding: str = "nodule") -> float:
    return part["findings"][finding][key]["value"]


def test_each_group_has_its_own_numbers_and_its_gap() -> None:
    sex = groups("sex")["sex"]
    assert sex["reference"] == "F"
    assert sex["unknown"] == 1
    female, male = sex["parts"]["F"], sex["parts"]["M"]
    assert (female["images"], female["patients"]) == (3, 2)
    assert value(female, "pointing") == pytest.approx(2 / 3)
    assert value(male, "pointing") == 0.5
    assert list(sex["gaps"]) == ["M"]
    gap = sex["gaps"]["M"]["findings"]["nodule"]["pointing"]
    assert gap["value"] == pytest.approx(0.5 - 2 / 3)
    assert gap["low"] < gap["value"] < gap["high"]
    assert gap["n"] == 2


def test_a_gap_of_one_patients_two_groups_is_taken_on_the_same_draws() -> None:
    """Both groups are of the same patients and the same in each: the gap is always 0."""
    images = {name: (f"p{i // 2}", "LR"[i % 2], float(i // 2 % 2)) for i, name in enumerate("abcdefgh")}
    records = tuple(
        Record(name, Path(name), (1.0,), patient, "test", attributes={"side": side})
        for name, (patient, side, _) in images.items()
    )
    rows = [
        {"image": name, "patient": patient, "finding": "x", "label": 1.0, "score": 0.5, "positive": 1.0}
        | {"located": 1.0, "pointing": hit, "box_iou": (hit,)}
        for name, (patient, _, hit) in images.items()
    ]
    data = Dataset("pairs", ("x",), records)
    by = checked(["side"], data)
    found = grouped(PairTable.of(rows), values_of(data, by), by, bootstraps=200)["groups"]["side"]
    assert found["parts"]["L"]["findings"]["x"]["pointing"]["low"] < 0.5
    gap = found["gaps"]["R"]["findings"]["x"]["pointing"]
    assert (gap["value"], gap["low"], gap["high"]) == (0, 0, 0)


def test_bands_of_a_number() -> None:
    age = groups("age:40,65")["age"]
    assert {name: part["images"] for name, part in age["parts"].items()} == {
        "below 40": 2,
        "40 to below 65": 2,
        "from 65": 1,
    }
    assert age["reference"] == "below 40"
    assert list(groups("age", bootstraps=0)["age"]["parts"]) == ["031Y", "032Y", "45", "52", "70"]  # few enough values


def test_the_size_of_lesions() -> None:
    size = groups("size")["size"]
    assert size["reference"] == "large"
    assert size["cuts"]["nodule"] == pytest.approx([0.01 + 0.04 / 3, 0.01 + 0.08 / 3])
    assert {name: part["images"] for name, part in size["parts"].items()} == {"small": 2, "medium": 1, "large": 2}
    small = size["parts"]["small"]
    assert value(small, "pointing") == 0.5
    assert value(small, "auroc") == 1  # against all negatives
    assert small["findings"]["nodule"]["auroc"]["n"] == 3
    assert small["findings"]["nodule"]["box_0.3"]["n"] == 2
    assert "healthy_marked" not in small["micro"]
    given = groups("size:0.02,0.045", bootstraps=0)["size"]
    assert {name: part["images"] for name, part in given["parts"].items()} == {"small": 1, "medium": 3, "large": 1}
    assert given["gaps"]["small"]["micro"]["pointing"]["low"] is None


def test_the_report_shows_the_gap_and_marks_it() -> None:
    result = {"findings": dict.fromkeys(FINDINGS), "groups": groups("sex")}
    (shown,) = _groups(result)
    assert (shown["column"], shown["unknown"]) == ("sex", 1)
    female, male = shown["rows"]
    at = shown["titles"].index("Pointing accuracy")
    assert female["reference"]
    assert female["cells"][at]["gap"] is None
    assert male["cells"][at]["gap"]["value"] == pytest.approx(0.5 - 2 / 3)


def test_what_cannot_be_grouped_by() -> None:
    for by, message in (
        ("ward", "hand has no such column; it has Sex, age"),
        ("age:x", "no numbers"),
        ("age:65,40", "ascend"),
        ("sex:1,2", "'F' is no number"),
        ("size:0.1", r"--by size:0.1: small medium large part at two shares. Write size:0.01,0.05, say."),
    ):
        with pytest.raises(BadSetting, match=message):
            checked([by], dataset())
    many = Dataset(
        "many", ("x",), tuple(Record(str(i), Path("x"), (1.0,), attributes={"ward": f"w{i}"}) for i in range(30))
    )
    with pytest.raises(BadSetting, match="30 different values"):
        checked(["ward"], many)
    assert grouped(table(), {}, []) == {}


def test_values_of_groups_come_back_from_their_file(tmp_path: Path) -> None:
    values = values_of(dataset(), checked(["sex", "age:40,65", "size"], dataset()))
    assert list(values) == ["sex", "age"]
    write_values(tmp_path, values)
    assert (tmp_path / "groups.csv").read_text().splitlines()[:2] == ["image,sex,age", "a,F,031Y"]
    assert read_values(tmp_path) == values
    (tmp_path / "groups.csv").write_text("image,sex\na\n")
    with pytest.raises(BadData, match="damaged"):
        read_values(tmp_path)
    write_values(tmp_path, {})
    assert read_values(tmp_path) == {}
    assert not (tmp_path / "groups.csv").exists()


def test_folds_are_grouped_by_what_all_of_them_are(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder, sex, age in zip(folders, "FM", ("31", ""), strict=True):
        folder.mkdir()
        write_values(folder, {"sex": {f"{folder.name}.png": sex}, "age": {f"{folder.name}.png": age}})
    by, values, notes = pooled(folders, [["sex", "size", "age"], ["sex", "size", "age:40"]])
    assert by == ["sex", "size"]
    assert values == {"sex": {"a.png": "F", "b.png": "M"}}
    assert notes == [
        "Not grouped by age: not all folds are. Evaluate them again with --by age.",
        "Not grouped by age:40: not all folds are. Evaluate them again with --by age:40.",
    ]
    for folder in folders:
        write_values(folder, {"site": {f"{folder.name}{i}.png": f"{folder.name}{i}" for i in range(12)}})
    # More values together than of any fold, and than there may be groups.
    by, values, notes = pooled(folders, [["site", "size"]] * 2)
    assert (by, values) == (["size"], {})
    assert notes == [
        "Not grouped by site. --by site: it has 24 different values, such as 'a0'. Group by a column of at most 20."
    ]
    (folders[0] / "groups.csv").unlink()  # as of evaluations from before there was such a file
    assert pooled(folders, [["sex", "size"]] * 2)[0] == ["size"]
