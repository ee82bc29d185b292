"""Plots as inline SVG that follows the page: its font, its text size and its light or dark colours.

Matplotlib draws with stand-in colours, which become the page's CSS variables; everything a page does not need
(metadata, name spaces, ids that would clash between two plots) is taken out.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Stand-ins: colours nothing else uses, replaced by the page's own.
_INK, _FAINT, _ACCENT, _CHANCE = "#010203", "#010204", "#010205", "#010206"
_BETTER, _WORSE = "#010207", "#010208"
_SERIES = tuple(f"#0102{16 + i:02x}" for i in range(8))
_VARIABLES = {
    _INK: "var(--ink-2)",
    _FAINT: "var(--rule)",
    _ACCENT: "var(--accent)",
    _CHANCE: "var(--ink-3)",
    _BETTER: "var(--better)",
    _WORSE: "var(--worse)",
    **{colour: f"var(--s{i})" for i, colour in enumerate(_SERIES)},
}
_MARKERS = "osD^vPX*"
"""With the colours, so that methods are told apart without them."""


def _look(number: int) -> tuple[str, str]:
    """Colour and marker of a method: those of 64 differ, and those of 8 in both."""
    return _SERIES[number % 8], _MARKERS[(number + number // 8) % 8]


def presence_plots(
    label: FloatArray,
    score: FloatArray,
    roc: tuple[FloatArray, FloatArray],
    pr: tuple[FloatArray, FloatArray],
    name: str,
) -> str:
    """ROC curve, precision-recall curve and reliability of one finding, side by side.

    Args:
        label: (n,) 1 or 0.
        score: (n,) probabilities.
        roc: false-positive rate and sensitivity along the curve.
        pr: recall and precision along the curve.
        name: the finding, for readers who hear the page.

    Returns:
        An ``<svg>`` element.
    """
    figure, axes = _figure(3, 7.5, 2.62)
    prevalence = float(np.mean(label))
    _square(axes[0], "1 − specificity", "Sensitivity", "ROC")
    axes[0].plot([0, 1], [0, 1], color=_CHANCE, linewidth=0.8, linestyle=(0, (3, 3)))
    axes[0].plot(*_thin(*roc), color=_ACCENT, linewidth=1.8, solid_joinstyle="round")
    _square(axes[1], "Sensitivity (recall)", "Precision", "Precision-recall")
    axes[1].plot([0, 1], [prevalence, prevalence], color=_CHANCE, linewidth=0.8, linestyle=(0, (3, 3)))
    axes[1].plot(*_thin(*pr), color=_ACCENT, linewidth=1.8, solid_joinstyle="round", drawstyle="steps-pre")
    _square(axes[2], "Score", "Share positive", "Reliability")
    axes[2].plot([0, 1], [0, 1], color=_CHANCE, linewidth=0.8, linestyle=(0, (3, 3)))
    _told(axes[2], label, score)
    return _svg(figure, f"{name}: ROC curve, precision-recall curve and reliability of {len(label)} images")


def reliability_plot(label: FloatArray, score: FloatArray, name: str) -> str:
    """The reliability of scores alone, with how many images have which score beneath.

    Args:
        label: (n,) 1 or 0.
        score: (n,) probabilities.
        name: what they are of, for readers who hear the page.
    """
    figure, (axis,) = _figure(1, 2.7, 2.7)
    axis.set_position((0.17, 0.16, 0.8, 0.8))
    _square(axis, "Score", "Share positive", "")
    axis.plot([0, 1], [0, 1], color=_CHANCE, linewidth=0.8, linestyle=(0, (3, 3)))
    counts = np.histogram(score, bins=np.linspace(0, 1, 16))[0]
    axis.bar((np.arange(15) + 0.5) / 15, 0.16 * counts / max(counts.max(initial=0), 1), 0.055, color=_FAINT, zorder=1)
    _told(axis, label, score)
    return _svg(figure, f"{name}: reliability of {len(label)} scores")


def froc_plot(
    curves: Sequence[tuple[FloatArray, FloatArray]],
    at: Sequence[float],
    low: FloatArray,
    high: FloatArray,
    name: str,
) -> str:
    """FROC curves of one finding: the first drawn through with its intervals, the second dashed.

    Args:
        curves: false detections per image and sensitivity along each curve.
        at: false detections per image of the intervals.
        low: (k,) lower limit of the first curve's sensitivity there; NaN = none.
        high: (k,) upper limit.
        name: the finding, for readers who hear the page.
    """
    figure, (axis,) = _figure(1, 2.7, 2.1)
    axis.set_position((0.17, 0.205, 0.8, 0.765))
    left, right = min(at) / 1.3, max(at) * 1.3
    axis.set_xscale("log")
    for number, (false, sensitivity) in enumerate(curves):
        # From nothing found at no false detection; what is reached is held to the end.
        x = np.concatenate([[left / 10], np.maximum(false, left / 10), [right * 10]])
        y = np.concatenate([[0.0], sensitivity, sensitivity[-1:] if len(sensitivity) else [0.0]])
        style: dict[str, Any] = {"linewidth": 1.8} if number == 0 else {"linewidth": 1.2, "linestyle": (0, (4, 2))}
        axis.plot(x, y, color=_ACCENT, drawstyle="steps-post", **style)
    axis.vlines(at, low, high, color=_ACCENT, linewidth=3.2, alpha=0.35)
    axis.set(xlim=(left, right), ylim=(-0.015, 1.015), xlabel="False marks per image", ylabel="Lesions found")
    axis.set_xticks(at, ["⅛", "¼", "½", "1", "2", "4", "8"] if len(at) == 7 else [f"{one:g}" for one in at])
    axis.minorticks_off()
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", ".5", "", "1"])
    axis.grid(color=_FAINT, linewidth=0.5, alpha=0.6)
    axis.set_axisbelow(True)
    for side in ("right", "top"):
        axis.spines[side].set_visible(False)
    return _svg(figure, f"{name}: FROC curve, lesions found against false marks per image")


def _told(axis: Any, label: FloatArray, score: FloatArray) -> None:
    """Draws reliability: a dot a bin, larger where it holds more, with the interval of what was found."""
    told, found, low, high, count = reliability(label, score)
    axis.vlines(told, low, high, color=_ACCENT, linewidth=1.1, alpha=0.55)
    axis.plot(told, found, color=_ACCENT, linewidth=1.2, alpha=0.8)
    size = 10 + 44 * np.sqrt(count / max(float(count.max(initial=1)), 1.0))
    axis.scatter(told, found, s=size, color=_ACCENT, linewidths=0, zorder=3)


def reliability(
    label: FloatArray, score: FloatArray, bins: int = 10
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Told and found probability in bins of equal count, with the Wilson 95 % interval of what was found.

    Args:
        label: (n,) 1 or 0.
        score: (n,) probabilities.
        bins: how many at most; fewer where scores tie.

    Returns:
        Mean score, share positive, its lower and upper limit, and count, each (bin,).
    """
    if len(score) == 0:
        nothing = np.zeros(0)
        return nothing, nothing, nothing, nothing, nothing
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)))
    at = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, max(len(edges) - 2, 0))
    count = np.bincount(at).astype(np.float64)
    kept = count > 0
    told = np.bincount(at, weights=score)[kept] / count[kept]
    found = np.bincount(at, weights=label)[kept] / count[kept]
    n, z = count[kept], 1.959964
    centre = (found + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(found * (1 - found) / n + z * z / (4 * n * n))
    return told, found, centre - half, centre + half, n


def forest(value: float, low: float, high: float, span: tuple[float, float] = (0.0, 1.0)) -> str:
    """A value and its interval as a small strip for a table's cell; nothing where the value is undefined."""
    if not np.isfinite(value):
        return ""
    width, height = 104.0, 14.0

    def at(x: float) -> float:
        return 3 + (width - 6) * (min(max(x, span[0]), span[1]) - span[0]) / (span[1] - span[0])

    parts = [
        f'<line x1="3" x2="{width - 3:.0f}" y1="7" y2="7" stroke="var(--rule)"/>',
        f'<line x1="{at((span[0] + span[1]) / 2):.1f}" x2="{at((span[0] + span[1]) / 2):.1f}" y1="4" y2="10"'
        ' stroke="var(--rule)"/>',
    ]
    if np.isfinite(low) and np.isfinite(high):
        parts.append(
            f'<line x1="{at(low):.1f}" x2="{at(high):.1f}" y1="7" y2="7" stroke="var(--accent)" stroke-width="3"'
            ' stroke-opacity=".45" stroke-linecap="round"/>'
        )
    parts.append(f'<circle cx="{at(value):.1f}" cy="7" r="3.4" fill="var(--accent)"/>')
    return (
        f'<svg class="forest" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
        f' aria-hidden="true">{"".join(parts)}</svg>'
    )


def differences(
    names: Sequence[str],
    value: FloatArray,
    low: FloatArray,
    high: FloatArray,
    title: str,
    verdicts: Sequence[Literal["better", "worse", ""]],
) -> str:
    """Differences with their intervals, a row each, around a line at zero.

    Args:
        names: (row,) what differs.
        value: (row,) the difference.
        low: (row,) its lower limit.
        high: (row,) its upper limit.
        title: the axis' words.
        verdicts: (row,) what the difference is; "" where it may be chance.
    """
    figure, (axis,) = _figure(1, 6.6, 0.62 + 0.27 * len(names))
    rows = np.arange(len(names))[::-1]
    axis.axvline(0, color=_INK, linewidth=0.9)
    colours = [{"better": _BETTER, "worse": _WORSE, "": _CHANCE}[verdict] for verdict in verdicts]
    axis.hlines(rows, low, high, color=colours, linewidth=2.6, alpha=0.5, capstyle="round")
    axis.scatter(value, rows, s=25, color=colours, linewidths=0, zorder=3)
    axis.set_yticks(rows, names)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(-0.7, len(names) - 0.3)
    axis.set_xlabel(title)
    axis.grid(axis="x", color=_FAINT, linewidth=0.7)
    axis.set_axisbelow(True)
    for side in ("left", "right", "top"):
        axis.spines[side].set_visible(False)
    return _svg(figure, title)


def groups(
    rows: Sequence[str],
    series: Sequence[str],
    values: Sequence[Sequence[tuple[float, float, float]]],
    title: str,
    *,
    width_in: float = 6.9,
) -> str:
    """Values with their intervals: a group a row, in it a line a method.

    Args:
        rows: what the groups are of, as findings.
        series: the methods.
        values: per row and method its value, low and high; NaN = undefined.
        title: the axis' words.
        width_in: of the plot.
    """
    step = 0.8 / max(len(series), 1)
    figure, (axis,) = _figure(1, width_in, 0.85 + len(rows) * max(0.3, 0.155 * len(series) + 0.1))
    for number, name in enumerate(series):
        colour, marker = _look(number)
        at = np.array([len(rows) - 1 - row + 0.4 - (number + 0.5) * step for row in range(len(rows))])
        value, low, high = np.array([of[number] for of in values], dtype=np.float64).T
        axis.hlines(at, low, high, color=colour, linewidth=1.7, alpha=0.5)
        axis.scatter(value, at, s=24, color=colour, marker=marker, linewidths=0, zorder=3, label=name)
    axis.set_yticks(np.arange(len(rows))[::-1], rows)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(-0.55, len(rows) - 0.45)
    for edge in np.arange(len(rows) - 1) + 0.5:
        axis.axhline(edge, color=_FAINT, linewidth=0.6)
    axis.set_xlabel(title)
    axis.grid(axis="x", color=_FAINT, linewidth=0.7)
    axis.set_axisbelow(True)
    for side in ("left", "right", "top"):
        axis.spines[side].set_visible(False)
    return _svg(figure, f"{title}: {', '.join(rows)}; {', '.join(series)}")


def against_cost(
    names: Sequence[str],
    value: FloatArray,
    low: FloatArray,
    high: FloatArray,
    costs: Sequence[tuple[str, FloatArray]],
    title: str,
) -> str:
    """A number against what it costs, a panel a cost.

    Args:
        names: (method,)
        value: (method,) the number.
        low: (method,) its lower limit.
        high: (method,) its upper limit.
        costs: of each panel the axis' words, and (method,) values; NaN = unknown.
        title: the words of the upright axis.
    """
    figure, axes = _figure(len(costs), 3.6 * len(costs), 2.9, left=0.2)  # there is room for 0.9925
    for axis, (words, cost) in zip(axes, costs, strict=True):
        known = ~np.isnan(cost)
        for number in np.flatnonzero(known).tolist():
            colour, marker = _look(number)
            axis.vlines(cost[number], low[number], high[number], color=colour, linewidth=1.7, alpha=0.5)
            axis.scatter(
                cost[number], value[number], s=36, color=colour, marker=marker, linewidths=0, zorder=3,
                clip_on=False, label=names[number],
            )  # fmt: skip
        own = cost[known]
        if len(own) and own.min() > 0 and own.max() / own.min() > 8:
            from matplotlib import ticker

            axis.set_xscale("log")
            axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda at, _: f"{at:g}"))
            axis.xaxis.set_minor_locator(ticker.NullLocator())
        elif len(own):
            axis.set_xlim(0, own.max() * 1.15 if own.max() > 0 else 1)
        axis.set(xlabel=words, ylabel=title)
        if not (low < 0).any():
            axis.set_ylim(bottom=max(0.0, axis.get_ylim()[0]))
        axis.grid(color=_FAINT, linewidth=0.5, alpha=0.6)
        axis.set_axisbelow(True)
        for side in ("right", "top"):
            axis.spines[side].set_visible(False)
    return _svg(figure, f"{title} against {' and '.join(words for words, _ in costs)}")


def key_of(series: Sequence[str]) -> list[tuple[str, str]]:
    """For a legend in the page's own words: of each method its mark, as a small picture, and its name."""
    shapes = {
        "o": '<circle cx="6" cy="6" r="4.4"/>',
        "s": '<rect x="2" y="2" width="8" height="8"/>',
        "D": '<path d="M6 1 11 6 6 11 1 6z"/>',
        "^": '<path d="M6 1.5 11 10.5 1 10.5z"/>',
        "v": '<path d="M6 10.5 11 1.5 1 1.5z"/>',
        "P": '<path d="M4 1h4v3h3v4h-3v3h-4v-3h-3v-4h3z"/>',
        "X": '<path d="M3.5 1 6 3.5 8.5 1 11 3.5 8.5 6 11 8.5 8.5 11 6 8.5 3.5 11 1 8.5 3.5 6 1 3.5z"/>',
        "*": '<path d="M6 .5 7.5 4.3 11.6 4.5 8.4 7 9.5 11 6 8.7 2.5 11 3.6 7 .4 4.5 4.5 4.3z"/>',
    }
    return [
        (
            f'<svg width="12" height="12" viewBox="0 0 12 12" fill="var(--s{i % 8})" aria-hidden="true">'
            f"{shapes[_look(i)[1]]}</svg>",
            name,
        )
        for i, name in enumerate(series)
    ]


def perturbation_plot(share: Sequence[float], insertion: Sequence[float], deletion: Sequence[float], name: str) -> str:
    """The score while pixels are put in, drawn through, and while they are taken away, dashed.

    Args:
        share: (step + 1,) of the pixels changed.
        insertion: (step + 1,) mean scores.
        deletion: (step + 1,) mean scores.
        name: the finding, for readers who hear the page.
    """
    figure, (axis,) = _figure(1, 2.7, 2.5)
    _square(axis, "Share of pixels", "Score", "")
    axis.plot(share, insertion, color=_ACCENT, linewidth=1.8, solid_joinstyle="round")
    axis.plot(share, deletion, color=_ACCENT, linewidth=1.4, linestyle=(0, (4, 2)))
    return _svg(figure, f"{name}: mean score while pixels are inserted, and while they are deleted")


def _figure(columns: int, width_in: float, height_in: float, left: float | None = None) -> tuple[Any, list[Any]]:
    # The figure is built without pyplot: no global state, no window, usable in a thread.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in))
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    # Margins by hand: working them out takes longer than drawing.
    share, right = 1 / columns, 0.02
    left = left if left is not None else 0.15 if columns > 1 else 0.27
    below, above = 0.46 / height_in, (0.24 if columns > 1 else 0.05) / height_in
    axes = [
        figure.add_axes((share * (column + left), below, share * (1 - left - right), 1 - below - above))
        for column in range(columns)
    ]
    for axis in axes:
        axis.patch.set_alpha(0)
        for spine in axis.spines.values():
            spine.set_color(_FAINT)
            spine.set_linewidth(0.8)
        axis.tick_params(colors=_INK, labelsize=8, color=_FAINT, width=0.8, length=3)
        axis.xaxis.label.set(color=_INK, fontsize=8.5)
        axis.yaxis.label.set(color=_INK, fontsize=8.5)
    return figure, axes


def _square(axis: Any, x: str, y: str, title: str) -> None:
    axis.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), xlabel=x, ylabel=y, aspect="equal")
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axis.set_xticks(ticks, ["0", "", ".5", "", "1"])
    axis.set_yticks(ticks, ["0", "", ".5", "", "1"])
    axis.grid(color=_FAINT, linewidth=0.5, alpha=0.6)
    axis.set_axisbelow(True)
    axis.set_title(title, color=_INK, fontsize=9, loc="left", fontweight="bold")
    for side in ("right", "top"):
        axis.spines[side].set_visible(False)


def _thin(x: FloatArray, y: FloatArray, most: int = 240) -> tuple[FloatArray, FloatArray]:
    """At most ``most`` points of a curve, its ends among them: more cannot be seen at this size."""
    if len(x) <= most:
        return x, y
    # Even steps along the curve's length, so that steep parts keep their points.
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    at = np.unique(np.searchsorted(length, np.linspace(0, length[-1], most)).clip(0, len(x) - 1))
    return x[at], y[at]


def _svg(figure: Any, description: str) -> str:
    import hashlib
    import html

    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "radtag", "path.simplify_threshold": 0.3}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    # Two plots on one page must not share an id, and most ids name nothing.
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    prefix = "p" + hashlib.sha256((description + text).encode()).hexdigest()[:8]
    text = re.sub(r'\sid="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\1{prefix}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", text)
    # A tenth of a pixel is enough; only in attributes, never in words.
    text = re.sub(r'"[^"]*"', lambda m: re.sub(r"\d+\.\d{2,}", lambda n: f"{float(n[0]):.1f}", m[0]), text)
    text = re.sub(r"\s*\n\s*", " ", text)
    size = re.search(r'width="([\d.]+)pt"', text)
    most = f"{float(size.group(1)) * 4 / 3:.0f}px" if size else "none"
    text = re.sub(r'\s(width|height)="[\d.]+pt"', "", text, count=2)
    opening = f'<svg class="plot" role="img" aria-label="{html.escape(description)}" style="max-width:{most}"'
    return text.replace("<svg", opening, 1).strip()
