"""Draws the pictures of docs/formulas.md: `python docs/draw_metrics.py`. Maps and outlines are made up.

Every number in a picture is computed by radtag.metrics from what the picture shows.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from radtag.metrics import boxes, classification, masks, points

IMAGES = Path(__file__).parent / "images"
SIZE_RC = (48, 64)
TRUE, MAP, BOTH = "#0072b2", "#d55e00", "#009e73"
FloatMap = NDArray[np.float64]
Mask = NDArray[np.bool_]


def main() -> None:
    """One file a section."""
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 9})
    draw_ranking(IMAGES / "metric_ranking.png")
    draw_pointing(IMAGES / "metric_pointing.png")
    draw_regions(IMAGES / "metric_regions.png")
    draw_masks(IMAGES / "metric_masks.png")
    draw_matched(IMAGES / "metric_matched.png")


def hill(row: float, col: float, sd: float, height: float = 1.0) -> FloatMap:
    """A map (row, col) with one bell-shaped hill."""
    rows, cols = np.mgrid[: SIZE_RC[0], : SIZE_RC[1]]
    return height * np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / (2 * sd**2))


def ellipse(row: float, col: float, half_rows: float, half_cols: float) -> Mask:
    """A mask (row, col)."""
    rows, cols = np.mgrid[: SIZE_RC[0], : SIZE_RC[1]]
    return ((rows - row) / half_rows) ** 2 + ((cols - col) / half_cols) ** 2 <= 1


def draw_ranking(path: Path) -> None:
    """Scores of ill and healthy images, their ROC and precision-recall curves."""
    labels = np.array([1, 1, 0, 1, 0, 0, 1, 0, 0, 0])
    scores = np.array([0.95, 0.88, 0.81, 0.74, 0.62, 0.51, 0.47, 0.30, 0.22, 0.09])
    auroc = float(classification.auroc(labels, scores))
    precision_mean = float(classification.average_precision(labels, scores))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 2.7), layout="constrained")
    for label, colour, name in ((1, MAP, "ill"), (0, TRUE, "healthy")):
        own = scores[labels == label]
        left.scatter(own, np.full(len(own), label), c=colour, s=40, label=name)
    left.set(title="Ten images and their scores", xlabel="score", yticks=[], ylim=(-0.6, 2.0), xlim=(0, 1))
    left.legend(loc="upper left", ncols=2, frameon=False)
    found = np.concatenate([[0], np.cumsum(labels) / labels.sum()])
    alarms = np.concatenate([[0], np.cumsum(1 - labels) / (1 - labels).sum()])
    middle.fill_between(alarms, found, color=BOTH, alpha=0.25, lw=0)
    middle.plot(alarms, found, color=BOTH, marker="o", ms=3)
    middle.plot([0, 1], [0, 1], color="gray", ls=":", lw=1)
    middle.set(title=f"AUROC {auroc:.2f}", xlabel="share of healthy images called", ylabel="share of ill images found")
    recall, precision = np.cumsum(labels) / labels.sum(), np.cumsum(labels) / np.arange(1, len(labels) + 1)
    for before, now, height in zip([0, *recall[:-1]], recall, precision, strict=True):
        right.add_patch(Rectangle((before, 0), now - before, height, fc=BOTH, alpha=0.25, ec=BOTH))
    right.plot(recall, precision, "o", color=BOTH, ms=3)
    right.set(title=f"Average precision {precision_mean:.2f}", xlabel="recall", ylabel="precision", xlim=(0, 1))
    right.set_ylim(0, 1.05)
    save(figure, path)


def draw_pointing(path: Path) -> None:
    """A hit and a miss; a map's spread does not matter."""
    box = np.array([[30.0, 12.0, 50.0, 32.0]])
    shown = {"wide": hill(24, 36, 11), "narrow": hill(16, 47, 3), "beside it": hill(24, 24, 7)}
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.7), layout="constrained")
    for axis, (name, map_) in zip(axes, shown.items(), strict=True):
        hit = points.pointing_hit(map_, box)
        frame(axis, map_, f"{name}: {'hit, 1' if hit else 'miss, 0'}")
        rectangle(axis, box[0])
        row, col = points.first_maximum(map_)
        axis.plot(col + 0.5, row + 0.5, "+", color="black", ms=12, mew=2)
    save(figure, path)


def draw_regions(path: Path) -> None:
    """The part above half the maximum, against a box."""
    box = np.array([[26.0, 12.0, 50.0, 36.0]])
    shown = {"small": hill(22, 36, 4), "fitting": hill(24, 38, 9), "large": hill(24, 30, 15)}
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.7), layout="constrained")
    for axis, (name, map_) in zip(axes, shown.items(), strict=True):
        iobb, iou = boxes.iobb(map_, box), boxes.iou_with_union(map_, box)
        frame(axis, map_, f"{name}: IoBB {iobb:.2f}, IoU {iou:.2f}")
        axis.contour(*centres(), map_, levels=[map_.max() / 2], colors="black", linewidths=1.5)
        rectangle(axis, box[0])
    save(figure, path)


def draw_masks(path: Path) -> None:
    """A mask that is too small, one that fits, one that covers all."""
    truth = ellipse(24, 34, 12, 15)
    shown = {
        "too small": ellipse(22, 33, 5, 6),
        "shifted": ellipse(28, 40, 12, 15),
        "too large": ellipse(24, 32, 21, 29),
    }
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.0), layout="constrained")
    for axis, (name, mask) in zip(axes, shown.items(), strict=True):
        overlap = masks.overlap(mask, truth)
        first = f"{name}: Dice {overlap.dice:.2f}, IoU {overlap.iou:.2f}"
        paint(axis, mask, truth, f"{first}\nprecision {overlap.precision:.2f}, PoI {overlap.poi:.2f}")
    save(figure, path)


def draw_matched(path: Path) -> None:
    """The map's highest pixels, as many as the outline has."""
    truth = ellipse(24, 40, 9, 12)
    map_ = np.maximum(hill(22, 37, 8), hill(36, 14, 6, 0.75))
    highest = np.zeros(truth.size, dtype=bool)
    highest[np.argsort(-map_, axis=None, kind="stable")[: truth.sum()]] = True
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 2.7), layout="constrained")
    frame(left, map_, "the map and the true outline")
    left.contour(*centres(), truth, levels=[0.5], colors=TRUE, linewidths=2)
    loose = map_ > 0.1
    paint(middle, loose, truth, f"above 0.1: PoI {masks.overlap(loose, truth).poi:.2f}")
    value = float(masks.poi_at_matched_area(map_, truth))
    paint(right, highest.reshape(truth.shape), truth, f"as many pixels as the outline: {value:.2f}")
    save(figure, path)


def centres() -> tuple[FloatMap, FloatMap]:
    """Where the pixels' centres are, x and y: pixel (row, col) covers [row, row + 1) x [col, col + 1)."""
    return np.arange(SIZE_RC[1]) + 0.5, np.arange(SIZE_RC[0]) + 0.5


def frame(axis: Axes, map_: FloatMap, title: str) -> None:
    """A map on the absolute scale."""
    axis.imshow(map_, cmap="Oranges", vmin=0, vmax=1.2, extent=(0, SIZE_RC[1], SIZE_RC[0], 0))
    axis.set(title=title, xticks=[], yticks=[])


def rectangle(axis: Axes, box_xyxy: FloatMap) -> None:
    """A true box."""
    x1, y1, x2, y2 = box_xyxy
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=TRUE, lw=2))


def paint(axis: Axes, mask: Mask, truth: Mask, title: str) -> None:
    """Only predicted, only true, both."""
    picture = np.ones((*SIZE_RC, 3))
    for part, colour in ((mask & ~truth, MAP), (truth & ~mask, TRUE), (mask & truth, BOTH)):
        picture[part] = matplotlib.colors.to_rgb(colour)
    axis.imshow(picture)
    axis.set(title=title, xticks=[], yticks=[])


def save(figure: plt.Figure, path: Path) -> None:
    """Without the date, so that the same picture is the same file."""
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
