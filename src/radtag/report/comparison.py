"""Evaluations side by side as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radtag.report.definitions import DEFINITIONS, QUESTIONS
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

HEADLINES = ("auroc", "pointing", "iobb_0.25", "box_0.5", "poi_matched", "dice", "healthy_marked")


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
        "total_text": (
            "Means over the findings (macro), and beneath each its 95 % interval."
            if several
            else "One finding; beneath each value its 95 % interval."
        ),
        "groups": _groups(results, total),
        "differences": [_differences(name, names[0], one, total) for name, one in zip(names[1:], apart, strict=True)],
        "colours": colours,
        "gallery": gallery,
        "dark": dark,
        "cards": [
            {"name": name, "rows": facts(result["about"]["card"]) or [("Card", "the run carries none")]}
            for name, result in zip(names, results, strict=True)
        ],
        "notes": list(dict.fromkeys(note for result in results for note in result["about"]["notes"])),
        "interval_text": interval_text(about),
        "definitions": defined_rows(results[0]),
    }
    replace_text(path, environment().get_template("comparison.html.j2").render(context))


def _groups(results: Sequence[Mapping[str, Any]], total: str) -> list[dict[str, Any]]:
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
            micro = [result["micro"].get(one.key) for result in results]
            rows.append(
                {
                    "title": one.title,
                    "better": one.better,
                    "n": next(entry["n"] for entry in micro if entry is not None),
                    "entries": entries,
                    "unit": unit_of(one.key),
                    "best": best if len(best) < len(results) else [],
                }
            )
        if rows:
            groups.append({"title": title, "rows": rows})
    return groups


def _differences(name: str, first: str, apart: Mapping[str, Any], total: str) -> dict[str, Any]:
    keys = [one for one in DEFINITIONS if is_defined(apart[total].get(one.key))]
    nan = float("nan")

    def column(side: str) -> Any:
        values = [apart[total][one.key][side] for one in keys]
        return np.array([nan if value is None else value for value in values])

    columns = [one for one in keys if one.key in HEADLINES]
    about = apart["about"]
    return {
        "short": f"{name} − {first}",
        "title": f"{name} minus {first}",
        "text": (
            f"On the {thousands(about['images'])} images of {thousands(about['patients'])} patients both were"
            " evaluated on. An interval that leaves out zero is a difference at the 95 % level; with so many numbers,"
            " one in twenty does so by chance. Where lower is better, a negative difference is a gain."
        ),
        "svg": safe(
            differences(
                [one.title + (" ↓" if one.better == "lower" else "") for one in keys],
                column("value"),
                column("low"),
                column("high"),
                f"{name} − {first}",
            )
        ),
        "columns": [
            {"title": one.title + (", % points" if unit_of(one.key) else ""), "unit": f"±{unit_of(one.key)}"}
            for one in columns
        ],
        "rows": [
            {
                "name": finding,
                "cells": [{"entry": metrics.get(one.key), "sure": _clear(metrics.get(one.key))} for one in columns],
            }
            for finding, metrics in apart["findings"].items()
        ],
    }


def _clear(entry: Mapping[str, Any] | None) -> bool:
    """Whether the interval leaves out zero."""
    return entry is not None and entry["low"] is not None and (entry["low"] > 0 or entry["high"] < 0)


def _lede(names: Sequence[str], apart: Sequence[Mapping[str, Any]], total: str) -> str:
    """What is surely different, in words."""
    words = []
    for name, one in zip(names[1:], apart, strict=True):
        better: list[str] = []
        worse: list[str] = []
        for key in HEADLINES:
            entry = one[total].get(key)
            if not is_defined(entry) or not _clear(entry):
                continue
            assert entry is not None
            definition = next(d for d in DEFINITIONS if d.key == key)
            gain = (entry["value"] > 0) == (definition.better == "higher")
            unit = unit_of(key)
            size = figure(entry["value"], f"±{unit}") + (" % points" if unit else "")
            (better if gain else worse).append(f"{definition.title} ({size})")
        if better:
            words.append(f"Of the main numbers, {name} is ahead of {names[0]} in {', '.join(better)}.")
        if worse:
            words.append(f"Of the main numbers, {name} is behind {names[0]} in {', '.join(worse)}.")
        if not better and not worse:
            words.append(f"{name} and {names[0]} cannot be told apart by the main numbers on this data.")
    return " ".join(words)
