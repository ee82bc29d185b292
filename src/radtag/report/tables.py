"""A benchmark's numbers as CSV, Markdown and LaTeX; each from the content of ``benchmark.json``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from radtag.report.definitions import BY_KEY, DISTANCES, PERCENT
from radtag.words import counted

VALUES = (
    "source", "method", "finding", "metric", "value", "low", "high", "n", "undefined", "rank", "spread", "seeds",
    "training_minutes", "images_per_second",
)  # fmt: skip
COMPARISONS = (
    "source", "metric", "finding", "a", "b", "value", "low", "high", "n", "undefined", "p", "p_holm", "significant",
)  # fmt: skip
GROUPS = (
    "source", "method", "by", "group", "reference", "images", "patients", "finding", "metric", "value", "low", "high",
    "n", "undefined", "gap", "gap_low", "gap_high",
)  # fmt: skip
COSTS = ("training_minutes", "images_per_second")
_COST = ("mean rank", "training, minutes", "images/s")
_Entry = Mapping[str, Any] | None
_DOWN = r"$\downarrow$"
_LATEX_END = (r"    \bottomrule", r"  \end{tabular}", r"\end{table}", "")
_GAP = "gap: the group minus the reference, on the same draws of patients."
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def as_csv(value: Mapping[str, Any]) -> str:
    """A row per source, method, finding and metric; ``finding`` is empty for the mean over findings."""
    rows = []
    for source, of in value["sources"].items():
        for method, one in of["methods"].items():
            shared = {"source": source, "method": method, "seeds": len(one["seeds"]), **one["cost"]}
            for finding, numbers in {"": one["total"], **one["findings"]}.items():
                rows += [{**shared, "finding": finding, "metric": key, **entry} for key, entry in numbers.items()]
    return _csv(VALUES, rows)


def comparisons_csv(value: Mapping[str, Any]) -> str:
    """A row per source, metric, finding and pair of methods: a minus b."""
    rows = [{"source": source, **one} for source, of in value["sources"].items() for one in of["comparisons"]]
    return _csv(COMPARISONS, rows)


def groups_csv(value: Mapping[str, Any]) -> str:
    """A row per source, method, group, finding and metric; ``gap`` is the group minus the reference group."""
    rows = []
    for source, of in value["sources"].items():
        for method, one in of["methods"].items():
            for column, parts in one["groups"].items():
                about = of["groups"][column]
                for group, part in parts.items():
                    shared = {"source": source, "method": method, "by": column, "group": group}
                    shared |= {"reference": group == about["reference"], **about["parts"][group]}
                    apart = part["gap"] or {"total": {}, "findings": {}}
                    gaps = {"": apart["total"], **apart["findings"]}
                    for finding, numbers in {"": part["total"], **part["findings"]}.items():
                        for key, entry in numbers.items():
                            gap = gaps.get(finding, {}).get(key, {})
                            named = {"gap": gap.get("value"), "gap_low": gap.get("low"), "gap_high": gap.get("high")}
                            rows.append({**shared, "finding": finding, "metric": key, **entry, **named})
    return _csv(GROUPS, rows)


def as_markdown(value: Mapping[str, Any]) -> str:
    """A table per source: value, interval, rank; methods of rank 1 are bold."""
    parts = [f"# {value['title']}", ""]
    for source, of in value["sources"].items():
        parts += [f"## {source}", "", _what(of), ""]
        parts.append("| " + " | ".join(["method", *(_heading(key) for key in of["metrics"]), *_COST]) + " |")
        parts.append("|---" * (1 + len(of["metrics"]) + len(_COST)) + "|")
        for method, one in of["methods"].items():
            cells = []
            for key in of["metrics"]:
                entry = one["total"][key]
                text = figure(entry["value"], key)
                text = f"**{text}**" if entry["rank"] == 1 else text
                cells.append(text + _span(entry, key) + (f" #{entry['rank']}" if entry["rank"] is not None else ""))
            cells += [_plain(one["mean_rank"]), *(_plain(one["cost"][key]) for key in COSTS)]
            parts.append("| " + " | ".join([_escaped(method), *cells]) + " |")
        parts += ["", *(f"- {_escaped(name)}: {why}." for name, why in of["missing"].items()), ""]
        for column, key, heads, lines in _by_group(of):
            parts += [f"### {_heading(key)} by {column}", ""]
            parts += ["| " + " | ".join(["method", *map(_escaped, heads)]) + " |", "|---" * (1 + len(heads)) + "|"]
            for method, entries in lines.items():
                cells = [_group_cell(entry, gap, key) for entry, gap in entries]
                parts.append("| " + " | ".join([_escaped(method), *cells]) + " |")
            parts.append("")
    grouped = any(of["groups"] for of in value["sources"].values())
    parts += [_how(value) + f" {_GAP[0].upper()}{_GAP[1:]}" * grouped, ""]
    return "\n".join(parts)


def as_latex(value: Mapping[str, Any]) -> str:
    r"""A ``table`` per source, for ``\usepackage{booktabs}``; methods of rank 1 are bold."""
    parts = [f"% {value['title']}: made by radtag {value['about']['version']}; needs \\usepackage{{booktabs}}.", ""]
    for source, of in value["sources"].items():
        columns = len(of["metrics"]) + len(_COST)
        heads = [tex(_heading(key)).replace("↓", _DOWN) for key in of["metrics"]]
        parts += [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{tex(source)}: {tex(_what(of))} {tex(_how(value))}}}",
            f"  \\begin{{tabular}}{{l{'r' * columns}}}",
            r"    \toprule",
            "    " + " & ".join(["Method", *heads, *(tex(one) for one in _COST)]) + r" \\",
            r"    \midrule",
        ]
        for method, one in of["methods"].items():
            cells = []
            for key in of["metrics"]:
                entry = one["total"][key]
                text = tex(figure(entry["value"], key))
                text = rf"\textbf{{{text}}}" if entry["rank"] == 1 else text
                cells.append(text + _tex_span(entry, key))
            cells += [_plain(one["mean_rank"]), *(_plain(one["cost"][key]) for key in COSTS)]
            parts.append("    " + " & ".join([tex(method), *cells]) + r" \\")
        parts += _LATEX_END
        for column, key, named, lines in _by_group(of):
            said = f"{source}: {_heading(key)} by {column}; {_GAP}"
            parts += [
                r"\begin{table}",
                r"  \centering",
                f"  \\caption{{{tex(said).replace('↓', _DOWN)}}}",
                f"  \\begin{{tabular}}{{l{'r' * len(named)}}}",
                r"    \toprule",
                "    " + " & ".join(["Method", *map(tex, named)]) + r" \\",
                r"    \midrule",
            ]
            for method, entries in lines.items():
                cells = [_tex_group_cell(entry, gap, key) for entry, gap in entries]
                parts.append("    " + " & ".join([tex(method), *cells]) + r" \\")
            parts += _LATEX_END
    return "\n".join(parts)


def figure(value: float | None, key: str) -> str:
    """A metric's value with as many digits as mean something, a dash where it is undefined."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}%" if key in PERCENT else f"{value:.{1 if key in DISTANCES else 3}f}"


def tex(text: str) -> str:
    """Plain text, safe in LaTeX."""
    return "".join(_TEX.get(letter, letter) for letter in text).replace("–", "--")


def followed_words(of: Mapping[str, Any]) -> str:
    """What insertion and deletion of a source are of."""
    images = counted(of["faithfulness"], "image[s]")
    return f"insertion and deletion are of at most {images} of each finding{' in each fold' * (of['folds'] > 1)}"


def _by_group(
    of: Mapping[str, Any],
) -> Iterator[tuple[str, str, list[str], dict[str, list[tuple[_Entry, _Entry]]]]]:
    """Of each column and metric: both, the groups, and per method each group's number and its gap."""
    for column, about in of["groups"].items():
        counts = {name: counted(part["images"], "image[s]") for name, part in about["parts"].items()}
        heads = [f"{name} ({count}{', reference' * (name == about['reference'])})" for name, count in counts.items()]
        for key in about["metrics"]:
            yield (
                column,
                key,
                heads,
                {
                    method: [
                        (part["total"].get(key), part["gap"] and part["gap"]["total"].get(key))
                        for part in one["groups"][column].values()
                    ]
                    for method, one in of["methods"].items()
                },
            )


def _span(entry: Mapping[str, Any], key: str, between: str = "-") -> str:
    """An interval in brackets, behind a value; nothing where there is none."""
    if entry["low"] is None:
        return ""
    return f" ({figure(entry['low'], key)}{between}{figure(entry['high'], key)})"


def _tex_span(entry: Mapping[str, Any], key: str) -> str:
    span = tex(_span(entry, key, "–")).lstrip()
    return rf" {{\scriptsize {span}}}" if span else ""


def _gap(gap: _Entry, key: str) -> tuple[str, str]:
    """A difference, and its interval in brackets; each is empty where there is none."""
    if gap is None or gap["value"] is None:
        return "", ""
    value, *ends = (f"{'+' * ((gap[side] or 0) > 0)}{figure(gap[side], key)}" for side in ("value", "low", "high"))
    return value, f"({' to '.join(ends)})" if gap["low"] is not None else ""


def _group_cell(entry: _Entry, gap: _Entry, key: str) -> str:
    if entry is None or entry["value"] is None:
        return "–"
    value, span = _gap(gap, key)
    return figure(entry["value"], key) + _span(entry, key) + (f", gap {value} {span}".rstrip() if value else "")


def _tex_group_cell(entry: _Entry, gap: _Entry, key: str) -> str:
    if entry is None or entry["value"] is None:
        return "--"
    value, span = (tex(one).replace("-", "$-$") for one in _gap(gap, key))
    told = f", gap {value}" + (rf" {{\scriptsize {span}}}" if span else "") if value else ""
    return tex(figure(entry["value"], key)) + _tex_span(entry, key) + told


def _heading(key: str) -> str:
    one = BY_KEY[key]
    return one.title + (" ↓" if one.better == "lower" else "")


def _what(of: Mapping[str, Any]) -> str:
    total = f"Means over {len(of['findings'])} findings" if of["total"] == "macro" else f"Of {of['findings'][0]}"
    folds = f", {of['folds']} folds pooled" if of["folds"] > 1 else ""
    followed = f"; {followed_words(of)}" if of["faithfulness"] else ""
    return f"{total}; {of['images']} images of {of['patients']} patients{folds}{followed}."


def _how(value: Mapping[str, Any]) -> str:
    return (
        "95% intervals by bootstrap over patients. A rank is one more than the number of methods that are significantly"
        f" better (paired bootstrap, Holm's correction, p < {value['level']:g}); bold: rank 1."
    )


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(_cells(columns, rows))
    return file.getvalue()


def _cells(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    for row in rows:
        values = [row.get(name) for name in columns]
        yield ["" if one is None else int(one) if isinstance(one, bool) else one for one in values]
