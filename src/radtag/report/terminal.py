"""The main numbers of one evaluation or of several as a table for a terminal; the report has all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from radtag.report.definitions import BY_KEY, DISTANCES, PERCENT

MAIN = ("auroc", "pointing", "box_0.3", "dice", "healthy_marked")
"""One number for each question an evaluation answers."""


def metrics_table(result: Mapping[str, Any], metrics: Sequence[str] = MAIN) -> Table:
    """A row per finding and for all together, a column per metric that has a value anywhere.

    Args:
        result: content of ``metrics.json``.
        metrics: keys of :data:`radtag.report.definitions.BY_KEY`.
    """
    parts = {**result["findings"], "mean over findings": result["macro"], "all pairs": result["micro"]}
    shown = [key for key in metrics if any(_defined(part, key) for part in parts.values())]
    table = _table("finding", *(BY_KEY[key].title for key in shown))
    for name, part in parts.items():
        style = "bold" if part in (result["macro"], result["micro"]) else None
        table.add_row(name, *(_cell(part.get(key), key) for key in shown), style=style)
    return table


def faithfulness_table(value: Mapping[str, Any]) -> Table:
    """A row per finding: areas of insertion and deletion, and the score of the image as it is.

    Args:
        value: ``faithfulness`` of ``metrics.json``.
    """
    table = _table("finding", "Insertion", "Deletion", "Score", "images")
    parts = {**value["findings"], "mean over findings": value["macro"], "all pairs": value["micro"]}
    for name, part in parts.items():
        count = "" if part is value["macro"] else str(part["insertion"]["n"])
        style = "bold" if part in (value["macro"], value["micro"]) else None
        table.add_row(name, *(_cell(part[key], key) for key in ("insertion", "deletion", "score")), count, style=style)
    return table


def comparison_table(value: Mapping[str, Any], metrics: Sequence[str] = MAIN, *, by_finding: str = "pointing") -> Table:
    """A row per metric as the mean over findings, a column per evaluation and per difference from the first.

    Args:
        value: content of ``comparison.json``.
        metrics: keys of :data:`radtag.report.definitions.BY_KEY`.
        by_finding: the metric that also gets a row per finding.
    """
    names = value["names"]
    columns = [*value["evaluations"], *value["differences"]]
    table = _table("mean of findings", *names, *(f"{name} - {names[0]}" for name in names[1:]))
    for key in metrics:
        if not any(_defined(part["macro"], key) for part in columns):
            continue
        rows = {BY_KEY[key].title: [part["macro"].get(key) for part in columns]}
        if key == by_finding:
            findings = value["evaluations"][0]["findings"]
            rows |= {f"  {name}": [part["findings"].get(name, {}).get(key) for part in columns] for name in findings}
        for name, entries in rows.items():
            apart = len(names)
            cells = [_cell(one, key) for one in entries[:apart]]
            cells += [_cell(one, key, sign="+") for one in entries[apart:]]
            table.add_row(name, *cells, style=None if name.startswith("  ") else "bold")
    return table


def benchmark_tables(value: Mapping[str, Any]) -> list[Table]:
    """A table per source: a row per method, a column per metric, with its rank after a number sign.

    Args:
        value: content of ``benchmark.json``.
    """
    tables = []
    for source, of in value["sources"].items():
        table = _table(source, *(BY_KEY[key].title for key in of["metrics"]))
        for method, one in of["methods"].items():
            cells = []
            for key in of["metrics"]:
                entry = one["total"][key]
                ranked = f" #{entry['rank']}" if entry["rank"] is not None else ""
                cells.append(_cell(entry, key) + ranked)
            table.add_row(method, *cells)
        tables.append(table)
    return tables


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, overflow="fold")  # where a terminal is narrow, names are folded and no number is cut
    for title in others:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _defined(part: Mapping[str, Any], key: str) -> bool:
    return part.get(key) is not None and part[key]["value"] is not None


def _cell(entry: Mapping[str, Any] | None, key: str, *, sign: str = "") -> str:
    """``0.84 (0.80-0.88)``, as the metric is printed; a dash for what is undefined; ``sign="+"`` for differences."""
    if entry is None or entry["value"] is None:
        return "-"
    value, low, high = entry["value"], entry["low"], entry["high"]
    times, digits, unit = (100, 1, "%") if key in PERCENT else (1, 1, "") if key in DISTANCES else (1, 2, "")
    shown = f"{times * value:{sign}z.{digits}f}{unit}"
    if low is None or high is None:
        return shown
    return f"{shown} ({times * low:z.{digits}f}{' to ' if sign else '-'}{times * high:z.{digits}f})"
