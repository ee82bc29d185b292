"""A benchmark as one HTML file that opens offline; what it says is in ``benchmark.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radtag.report.comparison import SideBySide
from radtag.report.definitions import BY_KEY
from radtag.report.page import (
    Colours,
    environment,
    figure,
    group_cell,
    is_defined,
    replace_text,
    safe,
    span,
    thousands,
    unit_of,
)
from radtag.report.plots import against_cost, groups, key_of
from radtag.report.tables import followed_words
from radtag.words import counted

LOCAL = ("points", "regions", "boxes", "masks", "detections", "distances", "published")
"""Groups of numbers that say where, and not whether."""
MOST_PLOTTED = 20
"""Findings in a plot; the tables have all."""


def write_benchmark(
    path: Path, value: Mapping[str, Any], colours: Colours, pictures: Mapping[str, Sequence[SideBySide]]
) -> None:
    """Writes the page.

    Args:
        path: the HTML file; replaced as a whole.
        value: content of ``benchmark.json``, with at least one source.
        colours: of the pictures' legend.
        pictures: per source, images as every method sees them.
    """
    done = sum(cell["state"] == "done" for cell in value["cells"])
    context = {
        "title": value["title"],
        "date": value["about"]["date"],
        "version": value["about"]["version"],
        "file": value["about"]["file"],
        "lede": " ".join(_lede(name, one, main_metric(value, one)) for name, one in value["sources"].items()),
        "sources": [
            _source(number, name, one, main_metric(value, one), pictures.get(name, ()))
            for number, (name, one) in enumerate(value["sources"].items(), start=1)
        ],
        "overall": _overall(value),
        "done": done,
        "cells": value["cells"],
        "open": [cell for cell in value["cells"] if cell["state"] != "done"],
        "problems": value["problems"],
        "level": f"{value['level']:g}",
        "colours": colours,
        "definitions": [
            {"title": BY_KEY[key].title, "key": key, "sentence": BY_KEY[key].sentence}
            for key in dict.fromkeys(key for one in value["sources"].values() for key in one["metrics"])
        ],
    }
    replace_text(path, environment().get_template("benchmark.html.j2").render(context))


def main_metric(value: Mapping[str, Any], source: Mapping[str, Any]) -> str:
    """The number of the plots: the one asked for, else the first that says where, else the first."""
    keys: list[str] = source["metrics"]
    if value["main"] in keys:
        return str(value["main"])
    return next((key for key in keys if BY_KEY[key].group in LOCAL), keys[0])


def _lede(name: str, source: Mapping[str, Any], key: str) -> str:
    """Who is first by the main number, in words."""
    methods = source["methods"]
    numbers = {method: one["total"][key] for method, one in methods.items() if is_defined(one["total"][key])}
    title = BY_KEY[key].title
    if not numbers:
        return f"{name}: {title} is undefined."
    sign = -1 if BY_KEY[key].better == "lower" else 1
    best = max(numbers, key=lambda method: sign * numbers[method]["value"])
    shown = f"{figure(numbers[best]['value'], unit_of(key))}"
    if numbers[best]["low"] is not None:
        shown += f" ({span(numbers[best]['low'], numbers[best]['high'], unit_of(key))})"
    if len(numbers) == 1:
        return f"{name}: {best} has a {title} of {shown}."
    level = [method for method, one in numbers.items() if one["rank"] == 1 and method != best]
    words = f"{name}: {best} is first in {title} with {shown}"
    return f"{words}, and {_and(level)} cannot be told from it." if level else f"{words}, ahead of every other method."


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _source(
    number: int, name: str, one: Mapping[str, Any], main: str, pictures: Sequence[SideBySide]
) -> dict[str, Any]:
    methods: Mapping[str, Any] = one["methods"]
    several = one["total"] == "macro"
    keys = one["metrics"]
    columns = [
        {"key": key, "title": BY_KEY[key].title, "unit": unit_of(key), "better": BY_KEY[key].better} for key in keys
    ]
    spread = any(entry["spread"] is not None for of in methods.values() for entry in of["total"].values())
    return {
        "number": number,
        "name": name,
        "data": one["data"],
        "several": several,
        "what": _what(one),
        "columns": columns,
        "rows": [
            {"name": method, "entries": of["total"], "mean_rank": of["mean_rank"], "cost": of["cost"]}
            for method, of in methods.items()
        ],
        "spread": spread,
        "missing": one["missing"],
        "series": [{"mark": safe(mark), "name": method} for mark, method in key_of(list(methods))],
        "main": BY_KEY[main].title + (" (lower is better)" if BY_KEY[main].better == "lower" else ""),
        "cost_plot": _cost_plot(methods, main, several),
        "hardware": sorted({text for of in methods.values() for text in of["cost"]["hardware"]}),
        "finding_plot": _finding_plot(one, main) if several else None,
        "finding_tables": [
            {
                **column,
                "rows": [
                    {"name": finding, "entries": [of["findings"][finding][column["key"]] for of in methods.values()]}
                    for finding in one["findings"]
                ],
            }
            for column in columns
        ]
        if several
        else [],
        "methods": list(methods),
        "groups": _by_group(one),
        "size_plots": _size_plots(one),
        "size_text": _size_text(one["size_edges"]),
        "matrix": _matrix(one, main) if len(methods) > 1 else None,
        "draws": thousands(one["draws"]),
        "gallery": pictures,
        "notes": one["notes"],
    }


def _what(one: Mapping[str, Any]) -> str:
    words = [f"{thousands(one['images'])} images of {thousands(one['patients'])} patients"]
    if one["folds"] > 1:
        words.append(f"{one['folds']} folds pooled: every image is scored by a run that was not trained on it")
    if one["left_out"]:
        words.append(f"{thousands(one['left_out'])} images that not all methods were scored on are left out")
    if one["inside"] == "lungs":
        words.append("pixels inside the lungs alone count")
    if one["faithfulness"]:
        words.append(followed_words(one))
    return "; ".join(words) + "."


def _cost_plot(methods: Mapping[str, Any], main: str, several: bool) -> Any:
    value, low, high = (
        _column([of["total"][main] for of in methods.values()], side) for side in ("value", "low", "high")
    )
    costs = []
    for key, words in (("training_minutes", "Training, minutes a run"), ("images_per_second", "Images a second")):
        cost = np.array([np.nan if of["cost"][key] is None else of["cost"][key] for of in methods.values()])
        if not np.isnan(cost).all():
            costs.append((words, cost))
    if not costs or np.isnan(value).all():
        return None
    title = BY_KEY[main].title + (", mean of findings" if several else "")
    return safe(against_cost(list(methods), value, low, high, costs, title))


def _finding_plot(one: Mapping[str, Any], main: str) -> Any:
    findings = [
        finding
        for finding in one["findings"]
        if any(is_defined(of["findings"][finding][main]) for of in one["methods"].values())
    ][:MOST_PLOTTED]
    if not findings:
        return None
    values = [[_triple(of["findings"][finding][main]) for of in one["methods"].values()] for finding in findings]
    return safe(groups(findings, list(one["methods"]), values, BY_KEY[main].title))


def _by_group(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each column that was grouped by, a table a number: methods, and the groups side by side."""
    found = []
    for column, about in one["groups"].items():
        lesions = column == "size"
        tables = []
        for key in about["metrics"]:
            rows = []
            for name, method in one["methods"].items():
                parts = method["groups"][column].values()
                cells = [group_cell(key, part["total"].get(key), _gap_of(part, key)) for part in parts]
                rows.append({"name": name, "cells": cells})
            tables.append({"title": BY_KEY[key].title, "better": BY_KEY[key].better, "rows": rows})
        if tables:
            found.append(
                {
                    "column": column,
                    "reference": about["reference"],
                    "unknown": counted(
                        about["unknown"],
                        "positive[s] whose place is not known" if lesions else "image[s] without a value",
                    )
                    if about["unknown"]
                    else "",
                    "heads": [
                        {
                            "name": name,
                            "count": counted(part["images"], "image[s] with such a lesion" if lesions else "image[s]"),
                            "reference": name == about["reference"],
                        }
                        for name, part in about["parts"].items()
                    ],
                    "tables": tables,
                }
            )
    return found


def _gap_of(part: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    gap: Mapping[str, Any] | None = None if part["gap"] is None else part["gap"]["total"].get(key)
    return gap


def _size_plots(one: Mapping[str, Any]) -> list[Any]:
    methods = one["methods"]
    keys = list(dict.fromkeys(key for of in methods.values() for key in of["sizes"]))
    plots = []
    for key in keys:
        rows = ("small", "medium", "large")
        values = [[_triple(of["sizes"].get(key, {}).get(size)) for of in methods.values()] for size in rows]
        counts = [
            next((of["sizes"][key][size]["n"] for of in methods.values() if key in of["sizes"]), 0) for size in rows
        ]
        named = [f"{size} ({n})" for size, n in zip(rows, counts, strict=True)]
        # Two stand side by side, and their words are as large as the page's.
        plots.append(safe(groups(named, list(methods), values, BY_KEY[key].title, width_in=5.0)))
    return plots


def _size_text(edges: Sequence[float]) -> str:
    if not edges:
        return ""
    low, high = (f"{100 * edge:.2g} %" for edge in edges)
    return (
        f"Thirds of all lesions by their share of the image: small up to {low}, large above {high}. A lesion's size is"
        " that of its outline, or of its boxes where it has none; in brackets, how many."
    )


def _matrix(one: Mapping[str, Any], main: str) -> dict[str, Any]:
    """Each method minus each other by the main number, mean over findings."""
    names = list(one["methods"])
    found = {
        (row["a"], row["b"]): row for row in one["comparisons"] if row["metric"] == main and row["finding"] is None
    }
    unit = f"±{unit_of(main)}"
    sign = {"higher": 1, "lower": -1, "neither": 0}[BY_KEY[main].better]

    def cell(a: str, b: str) -> dict[str, Any] | None:
        row, turn = (found[a, b], 1) if (a, b) in found else (found[b, a], -1) if (b, a) in found else (None, 1)
        if row is None or row["value"] is None:
            return None
        value = turn * row["value"]
        verdict = ("better" if value * sign > 0 else "worse") if row["significant"] and sign else ""
        return {"value": figure(value, unit), "p": _p(row["p_holm"]), "verdict": verdict}

    rows = [{"name": a, "cells": [cell(a, b) for b in names]} for a in names]
    return {"names": names, "rows": rows}


def _overall(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mean ranks over sources, where there are several; of the methods that all of them have."""
    sources = value["sources"]
    if len(sources) < 2:
        return []
    names = [
        name
        for name in next(iter(sources.values()))["methods"]
        if all(name in of["methods"] for of in sources.values())
    ]
    rows = []
    for name in names:
        ranks = [of["methods"][name]["mean_rank"] for of in sources.values()]
        known = [rank for rank in ranks if rank is not None]
        rows.append({"name": name, "ranks": ranks, "mean": sum(known) / len(known) if known else None})
    return sorted(rows, key=lambda row: (row["mean"] is None, row["mean"]))


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".") if p < 1 else "p = 1"


def _column(entries: Sequence[Mapping[str, Any] | None], side: str) -> Any:
    values = [None if entry is None else entry[side] for entry in entries]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _triple(entry: Mapping[str, Any] | None) -> tuple[float, float, float]:
    value, low, high = (float(_column([entry], side)[0]) for side in ("value", "low", "high"))
    return value, low, high
