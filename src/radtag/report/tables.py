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
COSTS = ("training_minutes", "images_per_second")
_COST = ("mean rank", "training, minutes", "images/s")
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
                if entry["low"] is not None:
                    text += f" ({figure(entry['low'], key)}-{figure(entry['high'], key)})"
                cells.append(text + (f" #{entry['rank']}" if entry["rank"] is not None else ""))
            cells += [_plain(one["mean_rank"]), *(_plain(one["cost"][key]) for key in COSTS)]
            parts.append("| " + " | ".join([_escaped(method), *cells]) + " |")
        parts += ["", *(f"- {_escaped(name)}: {why}." for name, why in of["missing"].items()), ""]
    parts += [_how(value), ""]
    return "\n".join(parts)


def as_latex(value: Mapping[str, Any]) -> str:
    r"""A ``table`` per source, for ``\usepackage{booktabs}``; methods of rank 1 are bold."""
    parts = [f"% {value['title']}: made by radtag {value['about']['version']}; needs \\usepackage{{booktabs}}.", ""]
    for source, of in value["sources"].items():
        columns = len(of["metrics"]) + len(_COST)
        heads = [tex(_heading(key)).replace("↓", r"$\downarrow$") for key in of["metrics"]]
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
                if entry["low"] is not None:
                    span = f"{figure(entry['low'], key)}--{figure(entry['high'], key)}"
                    text += rf" {{\scriptsize ({tex(span)})}}"
                cells.append(text)
            cells += [_plain(one["mean_rank"]), *(_plain(one["cost"][key]) for key in COSTS)]
            parts.append("    " + " & ".join([tex(method), *cells]) + r" \\")
        parts += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""]
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
