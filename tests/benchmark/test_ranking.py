"""Tables of methods whose evaluations are made up, every number worked out by hand."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from radtag import faithfulness, groups
from radtag.benchmark.ranking import Entrant, rank
from radtag.errors import BadData
from radtag.metrics import significance
from radtag.metrics.perturbation import PerturbationCurve
from radtag.pairs import PairTable
from radtag.report.benchmark import main_metric, write_benchmark
from radtag.report.page import Colours
from radtag.report.tables import as_csv, as_latex, as_markdown, comparisons_csv, groups_csv

FINDINGS = ("nodule", "effusion")
IMAGES = 40


@pytest.fixture
def entrant(tmp_path: Path) -> Callable[..., Entrant]:
    def made(
        name: str,
        *hits: Sequence[Sequence[float]],
        minutes: float = 2.0,
        speed: float = 4.0,
        followed: Sequence[tuple[int, str, float, float]] = (),
        by: Sequence[str] = (),
        score: float = 0.5,
        trained_as: str = "",
    ) -> Entrant:
        """A method by its hits, (finding, image) of 1 and 0, once a seed; every image has both findings.

        ``followed`` are images with a finding, whose score is the one number all through insertion, the other all
        through deletion. ``by`` may have "sex": every fourth image is of a man, but for the last, of which it is not
        known.
        """
        folders = {}
        for seed, of_seed in enumerate(hits):
            folder = tmp_path / name / str(seed) / "evaluation"
            PairTable.of(
                {
                    "image": f"{image}.png",
                    "patient": f"p{image}",
                    "split": "test",
                    "finding": finding,
                    "label": 1.0,
                    "score": score,
                    "positive": 1.0,
                    "located": 1.0,
                    "pointing": of_seed[number][image],
                    "box_share": (image + 1) / 100,
                }
                for image in range(IMAGES)
                for number, finding in enumerate(FINDINGS)
            ).write(folder / "pairs.csv")
            faithfulness.write(
                folder,
                [
                    faithfulness.Followed(f"{image}.png", f"p{image}", finding, constant(inserted), constant(deleted))
                    for image, finding, inserted, deleted in followed
                ],
            )
            if "sex" in by:
                sexes = {f"{i}.png": "" if i == IMAGES - 1 else "FM"[i % 4 == 0] for i in range(IMAGES)}
                groups.write_values(folder, {"sex": sexes})
            about = {
                "by": list(by),
                "faithfulness": 3 if followed else 0,
                "data": "made up", "split": "test", "images": IMAGES, "notes": [f"of {name}"], "hardware": "cpu",
                "images_per_second": speed, "card": {"minutes": minutes}, "minutes": 0.1,
            }  # fmt: skip
            metrics = {"findings": {}, "micro": {}, "macro": {}, "about": about}
            (folder / "metrics.json").write_text(json.dumps(metrics))
            folders[seed] = folder
        return Entrant(name, folders, [folder.parent for folder in folders.values()], trained_as)

    return made


def constant(score: float) -> PerturbationCurve:
    return PerturbationCurve(np.linspace(0, 1, 3), np.full(3, score))


def hits(first: int, second: int) -> list[list[float]]:
    """So many hits of each finding, the first images of each."""
    return [[float(image < n) for image in range(IMAGES)] for n in (first, second)]


def test_values_ranks_and_differences(entrant: Callable[..., Entrant]):
    found = rank(
        [entrant("good", hits(36, 32)), entrant("same", hits(36, 31)), entrant("bad", hits(8, 4))],
        ["auroc", "pointing"],
        bootstraps=50,
    )
    assert found["metrics"] == ["pointing"]  # all labels are 1: the AUROC is undefined for all
    methods = found["methods"]
    numbers = {name: one["total"]["pointing"] for name, one in methods.items()}
    assert [numbers[name]["value"] for name in numbers] == pytest.approx([0.85, (0.9 + 31 / 40) / 2, 0.15])
    assert [numbers[name]["rank"] for name in numbers] == [1, 1, 3]
    assert methods["bad"]["findings"]["effusion"]["pointing"]["value"] == pytest.approx(0.1)
    assert [one["mean_rank"] for one in methods.values()] == [1, 1, 3]
    assert found["draws"] == 240  # three pairs of methods: 4 * 3 / 0.05
    assert (found["images"], found["patients"], found["left_out"], found["total"]) == (40, 40, 0, "macro")
    rows = {(row["a"], row["b"]): row for row in found["comparisons"] if row["finding"] is None}
    assert list(rows) == [("good", "same"), ("good", "bad"), ("same", "bad")]
    assert rows["good", "bad"]["value"] == pytest.approx(0.7)
    assert rows["good", "bad"]["p"] == pytest.approx(2 / 241)  # no draw on the other side
    assert rows["good", "bad"]["p_holm"] == pytest.approx(6 / 241)
    assert rows["good", "bad"]["significant"]
    assert not rows["good", "same"]["significant"]
    assert rows["good", "same"]["low"] == 0  # one image apart, which a draw may lack


def test_fewer_is_better_where_it_is(entrant: Callable[..., Entrant]):
    two = [entrant("sure", hits(40, 40), score=0.9), entrant("unsure", hits(40, 40), score=0.6)]
    found = rank(two, ["brier"], bootstraps=50)
    assert {name: one["total"]["brier"]["rank"] for name, one in found["methods"].items()} == {"sure": 1, "unsure": 2}
    row = found["comparisons"][0]
    assert row["value"] == pytest.approx(0.1**2 - 0.4**2)
    assert row["significant"]


def test_lesions_by_size(entrant: Callable[..., Entrant]):
    # Boxes of 1 to 40 % of the image, both findings alike: thirds end at 14 % and at 27 %.
    found = rank([entrant("small ones", hits(14, 14))], ["pointing"], bootstraps=20)
    assert found["size_edges"] == pytest.approx(np.quantile(np.repeat(np.arange(1, 41) / 100, 2), [1 / 3, 2 / 3]))
    sizes = found["methods"]["small ones"]["sizes"]["pointing"]
    assert {name: (one["value"], one["n"]) for name, one in sizes.items()} == {
        "small": (1.0, 28), "medium": (0.0, 26), "large": (0.0, 26),
    }  # fmt: skip


def test_several_seeds_are_averaged_and_their_spread_is_said(entrant: Callable[..., Entrant]):
    found = rank(
        [entrant("two", hits(40, 40), hits(20, 20)), entrant("one", hits(30, 30))], ["pointing"], bootstraps=80
    )
    entry = found["methods"]["two"]["total"]["pointing"]
    assert entry["value"] == pytest.approx(0.75)
    assert entry["spread"] == pytest.approx(math.sqrt(0.125))  # of 1 and 0.5
    # A draw takes one of two seeds, so the interval reaches from about one to the other.
    assert entry["high"] == 1
    assert entry["low"] < 0.5
    assert found["methods"]["one"]["total"]["pointing"]["spread"] is None
    assert not found["comparisons"][0]["significant"]
    assert found["methods"]["two"]["seeds"] == [0, 1]


def test_methods_that_share_runs_share_the_draws_of_their_seeds(entrant: Callable[..., Entrant]):
    """Or how much trainings differ would hide that one is better in each of them."""
    seeds = [hits(20, 20), hits(36, 36)]
    better = [hits(24, 24), hits(40, 40)]
    shared = rank([entrant("a", *seeds), entrant("a, mirrored", *better, trained_as="a")], ["pointing"], bootstraps=200)
    apart = rank([entrant("b", *seeds), entrant("c", *better)], ["pointing"], bootstraps=200)
    one, other = (found["comparisons"][0] for found in (shared, apart))
    assert one["value"] == other["value"] == pytest.approx(-0.1)
    assert one["significant"]
    assert not other["significant"]
    assert one["high"] < 0 < other["high"]


def test_a_pair_that_one_method_lacks_counts_for_none(entrant: Callable[..., Entrant]):
    lacking = hits(40, 40)
    lacking[0][0] = lacking[0][1] = float("nan")
    found = rank([entrant("whole", hits(20, 40)), entrant("lacking", lacking)], ["pointing"], bootstraps=20)
    assert found["methods"]["whole"]["findings"]["nodule"]["pointing"]["value"] == pytest.approx(18 / 38)
    assert found["methods"]["whole"]["findings"]["nodule"]["pointing"]["n"] == 38


def test_cost_is_of_a_run_and_of_all_images(entrant: Callable[..., Entrant]):
    found = rank([entrant("slow", hits(4, 4), hits(4, 4), minutes=7.5, speed=0.5)], ["pointing"], bootstraps=10)
    cost = {"training_minutes": 7.5, "images_per_second": 0.5, "hardware": ["cpu"]}
    assert found["methods"]["slow"]["cost"] == cost


def test_insertion_and_deletion_are_compared_on_pairs_that_all_followed(entrant: Callable[..., Entrant]):
    both = [(0, "nodule"), (1, "nodule"), (2, "effusion")]
    found = rank(
        [
            entrant("one", hits(4, 4), followed=[(*pair, 0.8, 0.3) for pair in both]),
            entrant("other", hits(4, 4), followed=[(*pair, 0.6, 0.1) for pair in [*both, (3, "effusion")]]),
        ],
        ["pointing", "deletion", "insertion"],
        bootstraps=50,
    )
    assert found["metrics"] == ["pointing", "deletion", "insertion"]
    assert found["faithfulness"] == 3
    one, other = (found["methods"][name] for name in ("one", "other"))
    assert one["total"]["insertion"]["value"] == pytest.approx(0.8)
    assert [of["findings"]["effusion"]["deletion"]["n"] for of in (one, other)] == [1, 1]
    assert [of["findings"]["nodule"]["deletion"]["n"] for of in (one, other)] == [2, 2]
    # Always apart by as much, so that it is sure: more inserted is better, and less deleted.
    assert [of["total"]["insertion"]["rank"] for of in (one, other)] == [1, 2]
    assert [of["total"]["deletion"]["rank"] for of in (one, other)] == [2, 1]


def test_insertion_is_left_out_where_it_was_not_measured_for_all(entrant: Callable[..., Entrant]):
    followed = entrant("one", hits(4, 4), followed=[(0, "nodule", 0.8, 0.3)])
    found = rank([followed, entrant("other", hits(4, 4))], ["pointing", "insertion"], bootstraps=20)
    assert (found["metrics"], found["faithfulness"]) == (["pointing"], 0)


def test_numbers_by_group_and_their_gaps(entrant: Callable[..., Entrant]):
    found = rank(
        # Of 20 images the first 8 are hit: of 10 men two; of 29 women six.
        [entrant("one", hits(8, 0), by=["sex", "size"]), entrant("all", hits(40, 40), hits(40, 40), by=["sex"])],
        ["pointing", "auroc"],
        bootstraps=50,
    )
    assert found["groups"] == {  # and not by size, which the second is not grouped by
        "sex": {
            "reference": "F",
            "unknown": 1,
            "cuts": None,
            "metrics": ["pointing"],  # no label is 0
            "parts": {"F": {"images": 29, "patients": 29}, "M": {"images": 10, "patients": 10}},
        }
    }
    one = found["methods"]["one"]["groups"]["sex"]
    assert one["F"]["gap"] is None
    assert one["M"]["findings"]["nodule"]["pointing"]["value"] == pytest.approx(2 / 10)
    assert one["F"]["findings"]["nodule"]["pointing"]["value"] == pytest.approx(6 / 29)
    assert one["M"]["total"]["pointing"]["value"] == pytest.approx(1 / 10)  # the mean with effusion, of which none is
    gap = one["M"]["gap"]["findings"]["nodule"]["pointing"]
    assert gap["value"] == pytest.approx(2 / 10 - 6 / 29)
    assert gap["low"] < gap["value"] < gap["high"]
    sure = found["methods"]["all"]["groups"]["sex"]["M"]["gap"]["total"]["pointing"]
    assert (sure["value"], sure["low"], sure["high"]) == (0, 0, 0)


def test_intervals_of_groups_are_those_of_an_evaluation(entrant: Callable[..., Entrant]):
    one = entrant("one", hits(20, 10), by=["sex", "size"])
    found = rank([one], ["pointing", "box_0.3"], bootstraps=60)["methods"]["one"]["groups"]
    folder = one.folders[0]
    table = PairTable.read(folder / "pairs.csv")
    by = [groups.By("sex"), groups.By("size")]
    told = groups.grouped(table, groups.read_values(folder), by, bootstraps=60)["groups"]
    for column, group in (("sex", "M"), ("size", "small")):
        mine, theirs = found[column][group], told[column]
        for scope in ("nodule", "effusion"):
            assert mine["findings"][scope]["pointing"] == theirs["parts"][group]["findings"][scope]["pointing"]
            assert mine["gap"]["findings"][scope]["pointing"] == theirs["gaps"][group]["findings"][scope]["pointing"]
        assert mine["gap"]["total"]["pointing"] == theirs["gaps"][group]["macro"]["pointing"]


def test_groups_whose_values_were_deleted_are_missed_by_name(entrant: Callable[..., Entrant]):
    one = entrant("one", hits(20, 10), by=["sex", "size"])
    (one.folders[0] / "groups.csv").unlink()
    message = r"0.evaluation.groups\.csv is missing or has no column sex.* --by sex --overwrite\.$"
    with pytest.raises(BadData, match=message):
        rank([one], ["pointing"], bootstraps=20)
    (one.folders[0] / "groups.csv").write_text("image,age\n")
    with pytest.raises(BadData, match=message):
        rank([one], ["pointing"], bootstraps=20)


def test_lesions_of_a_size_are_a_group(entrant: Callable[..., Entrant]):
    found = rank([entrant("small ones", hits(14, 14), by=["size:0.105,0.305"])], ["pointing"], bootstraps=20)
    parts = found["methods"]["small ones"]["groups"]["size"]
    # Boxes of 1 to 40 % of the image, of which those up to 14 % are hit.
    values = {name: part["total"]["pointing"]["value"] for name, part in parts.items()}
    assert values == {"small": 1, "medium": pytest.approx(4 / 20), "large": 0}
    assert found["groups"]["size"]["reference"] == "large"
    assert found["groups"]["size"]["cuts"] == {"nodule": [0.105, 0.305], "effusion": [0.105, 0.305]}
    assert parts["small"]["gap"]["total"]["pointing"]["value"] == 1


def test_groups_are_in_every_file(entrant: Callable[..., Entrant], tmp_path: Path, value: dict):
    entrants = [entrant("good", hits(36, 40), by=["sex"]), entrant("bad|", hits(8, 0), by=["sex"])]
    value["sources"]["one"] = {**rank(entrants, ["pointing", "brier"], bootstraps=50), "missing": {}}
    rows = list(csv.DictReader(io.StringIO(groups_csv(value))))
    assert len(rows) == 2 * 2 * 3 * 2  # methods, groups, all findings and each, numbers
    reference, man = (
        next(row for row in rows if (row["method"], row["group"], row["finding"]) == ("bad|", sex, "nodule"))
        for sex in "FM"
    )
    assert (reference["reference"], reference["gap"], reference["images"]) == ("1", "", "29")
    assert (man["reference"], man["by"], man["metric"], man["n"]) == ("0", "sex", "pointing", "10")
    assert float(man["gap"]) == pytest.approx(2 / 10 - 6 / 29)
    assert float(man["gap_low"]) < float(man["gap"]) < float(man["gap_high"])

    lines = as_markdown(value).splitlines()
    assert "### Pointing accuracy by sex" in lines
    assert "### Brier score ↓ by sex" in lines
    at = lines.index("### Pointing accuracy by sex") + 2
    assert lines[at] == "| method | F (29 images, reference) | M (10 images) |"
    number, signed = r"0\.\d{3} \(0\.\d{3}-[01]\.\d{3}\)", r"[+-]0\.\d{3} \([+-]?0\.\d{3} to [+-]?0\.\d{3}\)"
    assert re.fullmatch(rf"\| bad\\\| \| {number} \| {number}, gap {signed} \|", lines[at + 3])
    assert lines[-1].endswith("bold: rank 1. Gap: the group minus the reference, on the same draws of patients.")
    assert f"{2 / 10 / 2 - 6 / 29 / 2:+.3f}" in lines[at + 3]

    text = as_latex(value)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    assert r"one: Brier score $\downarrow$ by sex; gap: the group minus the reference" in text
    row = next(line for line in text.splitlines() if line.startswith("    bad| & 0.103 "))
    span, gap = r"\{\\scriptsize \(0\.\d{3}--0\.\d{3}\)\}", r"\{\\scriptsize \(\S+ to \S+\)\}"
    assert re.search(rf"& 0\.103 {span} & 0\.100 {span}, gap \$-\$0\.003 {gap} \\\\$", row)
    assert "Method & F (29 images, reference) & M (10 images) \\\\" in text

    write_benchmark(tmp_path / "b.html", value, Colours("#00f", "#fff", ("#000", "#fff")), {})
    page = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert "<h3>By sex</h3>" in page
    assert "In no group: 1 image without a value." in page
    assert page.count('class="ci gap">gap') == 2 * 2  # methods, numbers: of the men


@pytest.fixture
def value(entrant: Callable[..., Entrant]) -> dict:
    found = rank(
        [entrant("A & B_1", hits(36, 32)), entrant("<bad>", hits(8, 4), minutes=0.1)],
        ["pointing", "brier"],
        bootstraps=50,
    )
    return {
        "title": "Made <up>",
        "metrics": ["pointing", "brier"],
        "main": None,
        "level": 0.05,
        "sources": {"one": {**found, "missing": {"third": "1 of 2 cells are not done"}}},
        "problems": [],
        "cells": [
            {"source": "one", "method": "third", "fold": None, "seed": 0, "state": "failed", "note": "no <memory>"}
        ],
        "about": {"file": "b.toml", "version": "0", "date": "2026-01-01", "bootstraps": 50, "seeds": [0]},
    }


def test_csv(value: dict):
    rows = list(csv.DictReader(io.StringIO(as_csv(value))))
    assert len(rows) == 2 * 3 * 2  # methods, all findings and each, numbers
    first = rows[0]
    assert (first["source"], first["method"], first["finding"], first["metric"]) == ("one", "A & B_1", "", "pointing")
    assert float(first["value"]) == pytest.approx(0.85)
    assert (first["n"], first["rank"], first["spread"], first["seeds"], first["training_minutes"]) == (
        "2", "1", "", "1", "2.0",
    )  # fmt: skip
    apart = list(csv.DictReader(io.StringIO(comparisons_csv(value))))
    assert (apart[0]["a"], apart[0]["b"], apart[0]["significant"]) == ("A & B_1", "<bad>", "1")
    assert float(apart[0]["value"]) == pytest.approx(0.7)


def test_markdown(value: dict):
    lines = as_markdown(value).splitlines()
    assert "| method | Pointing accuracy | Brier score ↓ | mean rank | training, minutes | images/s |" in lines
    row = next(line for line in lines if line.startswith("| A & B_1"))
    span = r"\(0\.\d{3}-0\.\d{3}\)"
    assert re.fullmatch(rf"\| A & B_1 \| \*\*0\.850\*\* {span} #1 \| \*\*0\.250\*\* {span} #1 \| 1 \| 2 \| 4 \|", row)
    assert "- third: 1 of 2 cells are not done." in lines


def test_it_is_said_of_how_many_images_insertion_is(entrant: Callable[..., Entrant], tmp_path: Path, value: dict):
    followed = entrant("one", hits(4, 4), followed=[(0, "nodule", 0.8, 0.3)])
    value["sources"]["one"] = {**rank([followed], ["insertion", "deletion"], bootstraps=20), "missing": {}}
    said = "insertion and deletion are of at most 3 images of each finding."
    lines = as_markdown(value).splitlines()
    assert any(line.endswith(said) for line in lines)
    assert "| method | Insertion | Deletion ↓ | mean rank | training, minutes | images/s |" in lines
    assert said in as_latex(value)
    write_benchmark(tmp_path / "b.html", value, Colours("#00f", "#fff", ("#000", "#fff")), {})
    page = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert said in page
    assert "compare maps of one run with each other" in page


def test_latex(value: dict):
    text = as_latex(value)
    assert r"A \& B\_1 & \textbf{0.850} {\scriptsize (0." in text
    assert r"\textless{}bad\textgreater{} & 0.150 {\scriptsize (0." in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    assert text.count("{") == text.count("}")
    row = next(line for line in text.splitlines() if "textbf" in line)
    assert row.count(" & ") == 5  # a method and five numbers


def test_the_page_says_who_is_first_and_what_failed(value: dict, tmp_path: Path):
    assert main_metric(value, value["sources"]["one"]) == "pointing"
    write_benchmark(tmp_path / "b.html", value, Colours("#00f", "#fff", ("#000", "#fff")), {})
    page = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert "one: A &amp; B_1 is first in Pointing accuracy with 0.850 (" in page
    assert "ahead of every other method." in page
    assert "no &lt;memory&gt;" in page
    assert "<bad>" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # nothing from elsewhere
    assert page.count('<svg class="plot"') == 3  # against cost, per finding, by size


def test_p_values():
    assert significance.p_value([1, 2, 3, -1]) == pytest.approx(4 / 5)  # one of four beyond: 2 * (1 + 1) / (1 + 4)
    assert significance.p_value([1.0] * 99) == pytest.approx(2 / 100)
    assert significance.p_value([0.0] * 9) == 1
    assert significance.p_value([math.nan, 1, 1, 1]) == pytest.approx(2 / 4)
    assert math.isnan(significance.p_value([math.nan]))


def test_holm():
    # Sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, which may not fall.
    assert significance.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert significance.holm([0.5, 0.9]) == pytest.approx([1, 1])
    corrected = significance.holm([math.nan, 0.01, 0.02])
    assert corrected[1:] == pytest.approx([0.02, 0.02])  # of two, not of three
    assert math.isnan(corrected[0])


def test_ranks_have_ties():
    # A is better than C; B cannot be told from either.
    better = [[False, False, True, False], [False] * 4, [False] * 4, [False] * 4]
    assert significance.ranks(better, [True, True, True, False]) == [1, 1, 2, None]


def test_enough_replicates_for_holms_first_step():
    for comparisons in (1, 3, 66):
        draws = significance.enough_replicates(comparisons)
        assert significance.holm([2 / (1 + draws)] * comparisons)[0] < 0.05 / 2 + 1e-9
