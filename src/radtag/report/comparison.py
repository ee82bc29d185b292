"""Evaluations side by side as one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from radtag.report.definitions import BY_KEY, DEFINITIONS, DISTANCES, PERCENT, QUESTIONS, Definition
from radtag.report.page import (
    Colours,
    Picture,
    defined_rows,
    environment,
    facts,
    figure,
    interval_text,
    is_defined,
    replace_text,
    safe,
    thousands,
    unit_of,
)
from radtag.report.plots import differences

HEADLINES = ("auroc", "pointing", "iobb_0.25", "box_0.5", "poi_matched", "dice", "healthy_marked", "froc")


@dataclass(frozen=True)
class Shown:
    """A picture with the name of who made it, and its numbers."""

    name: str
    caption: str
    picture: Picture


@dataclass(frozen=True)
class SideBySide:
    """One image and finding as every evaluation sees it."""

    finding: str
    image: str
    note: str
    shown: tuple[Shown, ...]


def write_comparison(
    path: Path,
    names: Sequence[str],
    results: Sequence[Mapping[str, Any]],
    apart: Sequence[Mapping[str, Any]],
    colours: Colours,
    gallery: Sequence[SideBySide],
    dark: Sequence[SideBySide],
) -> None:
    """Writes the page.

    Args:
        path: the HTML file; replaced as a whole.
        names: of the evaluations.
        results: their ``metrics.json``.
        apart: each evaluation but the first, minus the first, as :func:`radtag.compare.compare` returns it.
        colours: for the legend.
        gallery: images with lesions.
        dark: healthy images.
    """
    about = results[0]["about"]
    several = len(results[0]["findings"]) > 1
    total = "macro" if several else "micro"
    data = list(dict.fromkeys(str(result["about"]["data"]) for result in results))
    context = {
        "title": f"{' and '.join(names) if len(names) == 2 else f'{len(names)} evaluations'} on {', '.join(data)}",
        "date": about["date"],
        "version": about["versions"]["radtag"],
        "lede": _lede(names, apart, total),
        "names": list(names),
        "several": several,
        "total_text": (
            "Means over the findings (macro), and beneath each its 95 % interval."
            if several
            else "One finding; beneath each value its 95 % interval."
        ),
        "groups": _groups(results, apart, total),
        "differences": [_differences(name, names[0], one, total) for name, one in zip(names[1:], apart, strict=True)],
        "colours": colours,
        "gallery": gallery,
        "dark": dark,
        "cards": [
            {"name": name, "rows": facts(result["about"]["card"]) or [("Card", "the run carries none")]}
            for name, result in zip(names, results, strict=True)
        ],
        "notes": list(dict.fromkeys(note for result in results for note in result["about"]["notes"])),
        "interval_text": _intervals(about, [one["about"] for one in apart]),
        "definitions": defined_rows(results[0]),
    }
    replace_text(path, environment().get_template("comparison.html.j2").render(context))


def _intervals(about: Mapping[str, Any], of_differences: Sequence[Mapping[str, Any]]) -> str:
    """How the intervals of values came about, and those of differences where it is another way."""
    texts = dict.fromkeys(map(interval_text, (about, *of_differences)))
    if len(texts) == 1:
        return next(iter(texts))
    values, *differences = texts
    return f"Values: {values} Differences: {' '.join(differences)}"


def _groups(
    results: Sequence[Mapping[str, Any]], apart: Sequence[Mapping[str, Any]], total: str
) -> list[dict[str, Any]]:
    images = {one["about"]["images"] for one in (*results, *apart)}  # of apart: those that both have
    groups = []
    for group, (title, _) in QUESTIONS.items():
        rows = []
        for one in DEFINITIONS:
            entries = [result[total].get(one.key) for result in results]
            if one.group != group or not any(is_defined(entry) for entry in entries):
                continue
            values = [entry["value"] for entry in entries if is_defined(entry)]
            top = max(values) if one.better == "higher" else min(values)
            best = [i for i, entry in enumerate(entries) if is_defined(entry) and entry["value"] == top]
            if one.better == "neither":
                best = []
            cases = [entry["n"] if (entry := result["micro"].get(one.key)) else 0 for result in results]
            ranked = len(images) == 1 and _same_cases(one, results)
            rows.append(
                {
                    "title": one.title,
                    "better": one.better,
                    "findings": " / ".join(_each_once(thousands(entry["n"]) for entry in entries if entry is not None)),
                    "cases": " / ".join(thousands(n) for n in (cases[:1] if len(set(cases)) == 1 else cases)),
                    "ranked": ranked,
                    "entries": entries,
                    "unit": unit_of(one.key),
                    "best": best if ranked and len(best) < len(results) else [],
                }
            )
        if rows:
            groups.append({"title": title, "rows": rows})
    return groups


def _same_cases(one: Definition, results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a number rests on the same cases in all evaluations of the same images.

    The precision of an empty mask is undefined, so each run has precisions of its own pairs. Of scores, undefined are
    the unknown labels, which are the same for all.
    """
    of_all = [[metrics.get(one.key) for metrics in result["findings"].values()] for result in results]
    if any(entry is None for entries in of_all for entry in entries):
        return False
    counts = [[(entry["n"], entry["undefined"]) for entry in entries] for entries in of_all]
    whole = one.group in ("presence", "calibration") or not any(undefined for _, undefined in counts[0])
    return whole and all(count == counts[0] for count in counts)


def _each_once(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _differences(name: str, first: str, apart: Mapping[str, Any], total: str) -> dict[str, Any]:
    keys = [one for one in DEFINITIONS if is_defined(apart[total].get(one.key))]

    def plot(some: Sequence[Definition], title: str) -> Any:
        value, low, high = (
            np.array([apart[total][one.key][side] for one in some], dtype=np.float64)
            for side in ("value", "low", "high")
        )
        names = [one.title + (" ↓" if one.better == "lower" else "") for one in some]
        verdicts = [_verdict(one, apart[total][one.key]) for one in some]
        return safe(differences(names, value, low, high, title, verdicts))

    shares = [one for one in keys if one.key not in DISTANCES]
    lengths = [one for one in keys if one.key in DISTANCES]
    columns = [one for one in keys if one.key in HEADLINES]
    about = apart["about"]
    return {
        "short": f"{name} − {first}",
        "title": f"{name} minus {first}",
        "text": (
            f"On the {thousands(about['images'])} images of {thousands(about['patients'])} patients both were"
            " evaluated on. An interval that leaves out zero is a difference at the 95 % level; with so many numbers,"
            f" one in twenty does so by chance. Such differences are coloured: green where {name} is better, red where"
            " it is worse. A number that one of the two does not have for a pair (the precision of an empty mask) is"
            " compared on the pairs where both have it."
        ),
        "plots": [
            plot(some, f"{name} − {first}{said}") for some, said in ((shares, ""), (lengths, ", distances")) if some
        ],
        "columns": [
            {"title": one.title + (", % points" if one.key in PERCENT else ""), "unit": f"±{unit_of(one.key)}"}
            for one in columns
        ],
        "rows": [
            {
                "name": finding,
                "cells": [
                    {"entry": metrics.get(one.key), "verdict": _verdict(one, metrics.get(one.key))} for one in columns
                ],
            }
            for finding, metrics in apart["findings"].items()
        ],
    }


def _verdict(one: Definition, entry: Mapping[str, Any] | None) -> Literal["better", "worse", ""]:
    """What a difference is where its interval leaves out zero; nothing where it does not."""
    if one.better == "neither" or entry is None or entry["low"] is None or entry["low"] <= 0 <= entry["high"]:
        return ""
    return "better" if (entry["low"] > 0) == (one.better == "higher") else "worse"


def _lede(names: Sequence[str], apart: Sequence[Mapping[str, Any]], total: str) -> list[str]:
    """What is surely different, in words, a paragraph for each that is compared with the first."""
    paragraphs = []
    for name, one in zip(names[1:], apart, strict=True):
        better: list[str] = []
        worse: list[str] = []
        for key in HEADLINES:
            entry = one[total].get(key)
            verdict = _verdict(BY_KEY[key], entry)
            if not verdict:
                continue
            assert entry is not None
            unit = unit_of(key)
            size = figure(entry["value"], f"±{unit}") + (" % points" if unit == "%" else "")
            (better if verdict == "better" else worse).append(f"{BY_KEY[key].title} ({size})")
        found = [
            f"is {word} {names[0]} in {', '.join(of)}" for word, of in (("ahead of", better), ("behind", worse)) if of
        ]
        if found:
            paragraphs.append(f"Of the main numbers, {name} {', and '.join(found)}.")
        else:
            paragraphs.append(f"{name} and {names[0]} cannot be told apart by the main numbers on this data.")
    return paragraphs
