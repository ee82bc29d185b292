"""From ``metrics.json``, pairs and pictures to one HTML file that opens offline.

Nothing here computes a metric: what is printed is what was handed in.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radtag.data.seen import sentences
from radtag.report.definitions import BY_KEY, DEFINITIONS, DISTANCES, EXPLAINED, PERCENT, QUESTIONS, SHORT, WHERE_SEEN
from radtag.report.plots import forest, perturbation_plot

Metrics = Mapping[str, Mapping[str, Any]]
HIDDEN = {"by", "faithfulness", "card", "notes", "counts", "unreadable", "findings", "left_out", "seen"}
"""What ``about`` holds and the page says elsewhere."""


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file (``data``) of ``width`` x ``height`` pixels; ``alt`` says what it shows."""

    data: bytes
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Case:
    """One image and finding to look at.

    Args:
        finding: which.
        image: the image's name.
        rank: "Best", "Median", "Worst" or "" where it was not ranked.
        caption: its numbers, in words.
        pictures: side by side.
    """

    finding: str
    image: str
    rank: str
    caption: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Colours:
    """What the lines and the scale of the pictures are drawn in, as CSS colours; ``ramp`` from 0 to 1."""

    truth: str
    proposal: str
    ramp: tuple[str, ...]
    peak: str = ""


@dataclass(frozen=True)
class Gallery:
    """The pictures of a report.

    Args:
        colours: for the legend.
        located: per finding the best, median and worst case.
        alarms: images free of a finding with the highest peaks of its map.
        dark: images free of every finding, not chosen by their maps.
        ranked_by: what best and worst mean, in words.
        full: the map's value that is drawn as highest; below 1 where maps are changes of the image, of which a normal
            counterpart is the third picture.
    """

    colours: Colours
    full: float = 1.0
    located: Mapping[str, Sequence[Case]] = field(default_factory=dict)
    alarms: Sequence[Case] = ()
    dark: Sequence[Case] = ()
    ranked_by: str = ""


@dataclass(frozen=True)
class Curve:
    """The inline plots of one finding, with its counts."""

    name: str
    n: int
    positives: int
    svg: str


@dataclass(frozen=True)
class Plot:
    """An inline plot with its name, and what it rests on in words."""

    name: str
    caption: str
    svg: str


def figure(value: float | None, unit: str = "") -> str:
    """A number as the tables print it.

    Args:
        value: a share, mostly; None = undefined.
        unit: "" gives three decimals, "%" a percentage, "px" and "mm" one decimal, "±" before one a signed difference
            ("±%" in percentage points).
    """
    if value is None:
        return "–"
    return f"{_digits(value, unit)} %" if unit == "%" else _digits(value, unit)


def span(low: float, high: float, unit: str = "") -> str:
    """An interval as the tables print it."""
    if unit.startswith("±") or low < 0:
        return f"{_digits(low, unit)} to {_digits(high, unit)}"
    return f"{_digits(low, unit)}–{_digits(high, unit)}" + (" %" if unit == "%" else "")


def _digits(value: float, unit: str) -> str:
    if unit.endswith(("px", "mm")):
        text = f"{value:+.1f}" if unit.startswith("±") else f"{value:.1f}"
        return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")
    if unit == "%":
        return f"{100 * value:.1f}" if value >= 0.1 else f"{100 * value:.2f}"
    if unit.startswith("±"):
        text = f"{100 * value:+.2f}" if unit == "±%" else f"{value:+.3f}"
        return text[1:] if float(text) == 0 else text.replace("-", "−")
    return f"{value:.3f}".replace("-", "−")


def thousands(value: float | None) -> str:
    """A count with thin spaces between its thousands, at which no line breaks."""
    return "–" if value is None else f"{int(value):,}".replace(",", "\u202f")


def write_report(
    path: Path,
    result: Mapping[str, Any],
    curves: Sequence[Curve],
    gallery: Gallery,
    plots: Mapping[str, Sequence[Plot]] | None = None,
) -> None:
    """Writes the page of one evaluation.

    Args:
        path: the HTML file; replaced as a whole.
        result: the content of ``metrics.json``.
        curves: plots per finding.
        gallery: pictures.
        plots: further ones, by the section they stand in: "detections" or "calibration".
    """
    about = result["about"]
    sections = [
        {
            "id": group,
            "title": title,
            "short": SHORT[group],
            "text": _true_of(text, about),
            "table": table,
            "explained": [BY_KEY[column["key"]] for column in table["columns"]] if group in EXPLAINED else [],
            "plots": [
                {"name": one.name, "caption": one.caption, "svg": safe(one.svg)} for one in (plots or {}).get(group, ())
            ],
        }
        for group, (title, text) in QUESTIONS.items()
        if (table := _table(result, group, title)) is not None
    ]
    context = {
        "title": f"{about['run']} on {about['data']}",
        "date": about.get("date", ""),
        "version": about.get("versions", {}).get("radtag", ""),
        "lede": _lede(result),
        "not_new": sentences(about["seen"]) if about.get("seen", {}).get("rule") == "count" else [],
        "tiles": _tiles(result),
        "sections": sections,
        "rates": _rates(result),
        "asked": _asked(result),
        "groups": _groups(result),
        "faithfulness": _faithfulness(result),
        "several": len(result["findings"]) > 1,
        "curves": [{"name": c.name, "n": c.n, "positives": c.positives, "svg": safe(c.svg)} for c in curves],
        "gallery": gallery,
        "card": facts(about.get("card", {})) or [("Card", "the run carries none")],
        "about": facts({key: value for key, value in about.items() if key not in HIDDEN}) + _seen(about),
        "notes": list(about.get("notes", ())),
        "definitions": defined_rows(result),
        "interval_text": interval_text(about),
    }
    replace_text(path, environment().get_template("report.html.j2").render(context))


def interval_text(about: Mapping[str, Any]) -> str:
    """How the intervals came about."""
    if not about.get("bootstraps"):
        return "No intervals were asked for."
    return (
        f"Small grey numbers are 95 % intervals: {thousands(about['bootstraps'])} bootstraps over"
        f" {thousands(about['patients'])} patients (seed {about['seed']}), all images of a patient drawn together."
    )


def replace_text(path: Path, text: str) -> None:
    """Writes a text file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # A page is UTF-8 throughout: of a file's name that is not, the odd bytes are spelled out.
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def environment() -> Any:
    """The templates of this package."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("radtag.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    environment.globals["span"] = span
    environment.filters["thousands"] = thousands
    environment.filters["data_uri"] = _data_uri
    return environment


def _data_uri(picture: Picture) -> str:
    kind = "png" if picture.data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture.data).decode()}"


def safe(text: str) -> Any:
    """Markup of our own making, which the template leaves as it is."""
    from markupsafe import Markup

    return Markup(text)


def unit_of(key: str) -> str:
    """How a metric is printed."""
    return "%" if key in PERCENT else DISTANCES.get(key, "")


_STRIPS = {"auroc": ".5 – 1", "pointing": "0 – 1", "poi_matched": "0 – 1", "box_0.5": "0 – 1", "froc": "0 – 1"}


def _table(result: Mapping[str, Any], group: str, title: str) -> dict[str, Any] | None:
    """The table of one question, or None where no number of it is defined for any finding."""
    findings: Metrics = result["findings"]
    members = [
        one
        for one in DEFINITIONS
        if one.group == group and any(is_defined(metrics.get(one.key)) for metrics in findings.values())
    ]
    if not members:
        return None
    columns = [
        {"key": one.key, "title": one.title, "unit": unit_of(one.key), "strip": _STRIPS.get(one.key)} for one in members
    ]

    counts = result["about"]["counts"]
    positives = {name: counts[name]["positive"] for name in counts}
    positives |= {"Micro": sum(positives.values()), "Macro": 0}

    def row(name: str, metrics: Mapping[str, Any], hint: str = "") -> dict[str, Any]:
        first = next((metrics[one.key] for one in members if one.key in metrics), None)
        count = first["n"] if first else 0
        shown = thousands(count)
        if group == "presence":
            shown = f"{thousands(positives[name])} / {shown}"
        return {
            "name": name,
            "title": hint,
            "count": count,
            "shown": shown,
            "entries": {one.key: metrics.get(one.key) for one in members},
            "strips": {one.key: _strip(one.key, metrics.get(one.key)) for one in members if one.key in _STRIPS},
        }

    titles = {
        "presence": "Positive / known",
        "healthy": "Negative images",
        "points": "Located",
        "regions": "Located",
        "boxes": "True boxes",
        "masks": "Outlined",
        "lungs": "With a lung mask",
        "detections": "True boxes",
        "distances": "Outlined and marked",
        "published": "Located",
        "calibration": "Known labels",
    }
    several = len(findings) > 1
    return {
        "label": title,
        "caption": "Value, and beneath it the 95 % interval."
        if result["about"].get("bootstraps") and group == "presence"
        else "",
        "width": "narrow" if len(members) < 4 else "",
        "count_title": titles[group],
        "columns": columns,
        "rows": [
            row(name, metrics)
            for name, metrics in findings.items()
            if any(is_defined(metrics.get(one.key)) for one in members)
        ],
        "totals": [
            row("Micro", result["micro"], "every pair of image and finding counts once"),
            row("Macro", result["macro"], "mean over findings") | {"shown": ""},
        ]
        if several
        else [],
    }


def _rates(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The table of sensitivities at so many false marks per image; None where there are none."""
    value: Mapping[str, Any] | None = result.get("froc")
    if value is None:
        return None
    several = len(value["findings"]) > 1
    rows = {**value["findings"], **({"Micro": value["micro"]} if several else {})}
    return {
        "titles": [_FRACTIONS.get(rate, f"{rate:g}") for rate in value["false_per_image"]],
        "rows": [
            {"name": name, "lesions": of["froc"][0]["n"], "entries": of["froc"]}
            for name, of in rows.items()
            if is_defined(of["froc"][0])
        ],
    }


_FRACTIONS = {0.125: "⅛", 0.25: "¼", 0.5: "½"}


def _asked(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of what is asked for where something else is present; none where there is one finding alone."""
    value: Mapping[str, Any] = result.get("asked", {"findings": {}, "none": {}})
    rows = {**value["findings"], **({"none of them": value["none"]} if value["none"] else {})}
    return [
        {
            "name": name,
            "n": max(cell["map_mean"]["n"] for cell in cells.values()),
            "cells": [
                {
                    "asked": other,
                    "mean": cell["map_mean"],
                    "own": other == name,
                    "less": cell.get("own_minus"),
                    "verdict": _fainter(cell.get("own_minus")),
                }
                for other, cell in cells.items()
            ],
        }
        for name, cells in rows.items()
    ]


_BY_GROUP = (
    "auroc", "sensitivity", "specificity", "pointing", "box_0.3", "poi_matched", "dice", "healthy_marked", "froc",
)  # fmt: skip
"""One number or two for each question, in the tables by group."""


def _groups(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table for each column that was grouped by: groups, their main numbers, and the gaps to the reference."""
    total = "macro" if len(result["findings"]) > 1 else "micro"
    tables = []
    for column, value in result.get("groups", {}).items():
        parts = value["parts"]
        members = [
            one
            for one in DEFINITIONS
            if one.key in _BY_GROUP and any(is_defined(part[total].get(one.key)) for part in parts.values())
        ]
        if not members:
            continue
        rows = []
        for name, part in parts.items():
            gap = value["gaps"].get(name, {total: {}})[total]
            cells = [group_cell(one.key, part[total].get(one.key), gap.get(one.key)) for one in members]
            rows.append(
                {"name": name, "images": part["images"], "reference": name == value["reference"], "cells": cells}
            )
        tables.append(
            {
                "column": column,
                "unknown": value["unknown"],
                "counted": "With such a lesion" if column == "size" else "Images",
                "titles": [one.title for one in members],
                "rows": rows,
            }
        )
    return tables


_FOLLOWED = {"score": "Score", "insertion": "Insertion", "deletion": "Deletion", "blurred": "Blurred", "black": "Black"}


def _faithfulness(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Insertion and deletion: a row a finding, and its mean curves; None where they were not asked for."""
    value: Mapping[str, Any] | None = result.get("faithfulness")
    if value is None:
        return None
    several = len(value["findings"]) > 1
    parts = {**value["findings"], **({"Micro": value["micro"], "Macro": value["macro"]} if several else {})}
    return {
        "steps": value["steps"],
        "images": value["images"],
        "titles": list(_FOLLOWED.values()),
        "rows": [
            {
                "name": name,
                "total": name in ("Micro", "Macro"),
                "n": part["insertion"]["n"] if name != "Macro" else None,
                "entries": [part[key] for key in _FOLLOWED],
            }
            for name, part in parts.items()
        ],
        "curves": [
            {
                "name": name,
                "n": value["findings"][name]["insertion"]["n"],
                "svg": safe(perturbation_plot(of["share"], of["insertion"], of["deletion"], name)),
            }
            for name, of in value["curves"].items()
        ],
    }


def group_cell(key: str, entry: Mapping[str, Any] | None, gap: Mapping[str, Any] | None) -> dict[str, Any]:
    """What ``parts.group_cell`` shows: a group's number, and its gap to the reference."""
    unit = unit_of(key)
    return {"entry": entry, "unit": unit, "gap": gap, "gap_unit": f"±{unit}", "verdict": _verdict(gap)}


def _verdict(gap: Mapping[str, Any] | None) -> str:
    """Whether a group lies below or above the reference, if the interval says so."""
    if gap is None or gap["low"] is None:
        return ""
    return "higher" if gap["low"] > 0 else "lower" if gap["high"] < 0 else ""


def _fainter(difference: Mapping[str, Any] | None) -> str:
    """Whether the wrong question gives less, or more, if the interval says so."""
    if difference is None or difference["low"] is None:
        return ""
    return "fainter" if difference["low"] > 0 else "stronger" if difference["high"] < 0 else ""


def _strip(key: str, entry: Mapping[str, Any] | None):
    if not is_defined(entry):
        return ""
    assert entry is not None
    nan = float("nan")
    low, high = (nan if entry[one] is None else entry[one] for one in ("low", "high"))
    return safe(forest(entry["value"], low, high, (0.5, 1.0) if key == "auroc" else (0.0, 1.0)))


def is_defined(entry: Mapping[str, Any] | None) -> bool:
    """Whether there is such a number, and it has a value."""
    return entry is not None and entry["value"] is not None


def _tiles(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline numbers: one per question that this data can answer, all of them means over the findings."""
    several = len(result["findings"]) > 1
    total = "macro" if several else "micro"
    wanted = [
        ("auroc", "AUROC: is it there?", "{n} labels"),
        ("pointing", "The map's peak lies inside the lesion's box", "{n} known places"),
        ("poi_matched", "Of the lesion, found at equal area", "{n} outlined lesions"),
        ("box_0.5", "A box fits (IoU above 0.5)", "{n} true boxes"),
        ("healthy_marked", "Of healthy images' area, marked by mistake", "{n} negative labels; lower is better"),
    ]
    tiles = []
    for key, what, foot in wanted:
        entry = result[total].get(key)
        if not is_defined(entry):
            continue
        text = foot.format(n=thousands(result["micro"][key]["n"]))
        if several:
            text = f"macro: mean of {_findings(entry['n'])}, {text}"
        unit = "%" if key in PERCENT or key in ("pointing", "box_0.5") else ""
        tiles.append({"key": key, "what": what, "entry": entry, "unit": unit, "foot": text})
    # Four stand in a row; boxes say least of a lesion that has an outline.
    return tiles if len(tiles) < 5 else [tile for tile in tiles if tile["key"] != "box_0.5"]


def _findings(count: int) -> str:
    return "1 finding" if count == 1 else f"{thousands(count)} findings"


def _lede(result: Mapping[str, Any]) -> list[str]:
    """The result in a sentence or two of plain words; numbers are those of the tiles."""
    about = result["about"]
    several = len(result["findings"]) > 1
    total = result["macro" if several else "micro"]
    words = [
        f"{thousands(about['images'])} {'image' if about['images'] == 1 else 'images'} of"
        f" {thousands(about['patients'])} {'patient' if about['patients'] == 1 else 'patients'}"
        + (f", split “{about['split']}”" if about.get("split") else "")
        + "."
    ]
    auroc, pointing, matched, marked = (
        total.get(key) for key in ("auroc", "pointing", "poi_matched", "healthy_marked")
    )
    if is_defined(auroc):
        words.append(
            f"The scores tell sick from healthy with {'a mean' if several else 'an'} AUROC of {figure(auroc['value'])}."
        )
    if is_defined(pointing):
        words.append(
            f"The map’s highest point falls inside the lesion’s box in {figure(pointing['value'], '%')} of"
            f" {thousands(result['micro']['pointing']['n'])} known places"
            + (f", as a mean over {_findings(pointing['n'])}." if several else ".")
        )
    elif is_defined(matched):
        words.append(f"At the lesion’s own area, {figure(matched['value'], '%')} of it is found.")
    if is_defined(marked):
        words.append(f"On images free of a finding, {figure(marked['value'], '%')} of the area is marked for it.")
    return words


def defined_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What every number on the page is, with how many it rests on."""
    rows = []
    for one in DEFINITIONS:
        entry = result["micro"].get(one.key)
        if entry is not None and any(is_defined(m.get(one.key)) for m in result["findings"].values()):
            rows.append(
                {
                    "title": one.title,
                    "key": one.key,
                    "sentence": one.sentence,
                    "n": entry["n"],
                    "undefined": entry["undefined"],
                }
            )
    return rows


def facts(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as rows of plain words."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        name = name[:1].upper() + name[1:]
        if isinstance(value, Mapping):
            if all(not isinstance(one, Mapping | list | tuple) for one in value.values()) and len(str(value)) < 400:
                rows.append((name, ", ".join(f"{k} {_word(v)}" for k, v in value.items()) or "none"))
            else:
                rows += facts(value, f"{name} · ")
        elif isinstance(value, list | tuple):
            words = [_word(one) for one in value]
            sentences = any(word.endswith(".") for word in words)
            rows.append((name, ("; " if sentences else ", ").join(word.rstrip(".") for word in words) or "none"))
        else:
            rows.append((name, _word(value)))
    return rows


def _true_of(text: str, about: Mapping[str, Any]) -> str:
    """A question's text without what does not hold where images that thresholds were set on are counted."""
    seen = about.get("seen", {})
    if seen.get("rule") == "count" and seen["thresholds_set_on"]:
        for usual, instead in WHERE_SEEN.items():
            text = text.replace(usual, instead)
    return text


def _seen(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How many of the images the run had seen in training, where it says which it saw."""
    if "seen" not in about:
        return []
    said = sentences(about["seen"]) or [f"none of the {thousands(about['seen']['images'])}, by their files' content"]
    silent = about["seen"].get("silent_runs", 0)
    unsaid = "does not say what it has" if silent == 1 else "do not say what they have"
    more = f" ({silent} of the runs {unsaid} seen)" if silent else ""
    return [("Images seen in training", said[0] + more)]


def _word(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return thousands(value) if abs(value) >= 10000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_word(v)}" for k, v in value.items())
    return str(value)
