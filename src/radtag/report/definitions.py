"""What every number of ``metrics.json`` is, in one sentence each: the only list of them.

The keys are stable. The evaluation fills them, the report prints them with these words, and the comparison knows from
``better`` which way is up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Group = Literal["presence", "points", "regions", "boxes", "masks", "lungs", "healthy"]


@dataclass(frozen=True)
class Definition:
    """One metric.

    Args:
        key: its name in ``metrics.json``.
        title: its name in a table.
        group: the question it answers, and the table it stands in.
        sentence: what it is.
        better: which way is up; "neither" for what others are read against.
    """

    key: str
    title: str
    group: Group
    sentence: str
    better: Literal["higher", "lower", "neither"] = "higher"


SHORT: dict[Group, str] = {
    "presence": "Scores",
    "points": "Points",
    "regions": "Regions",
    "boxes": "Boxes",
    "masks": "Outlines",
    "lungs": "Lungs",
    "healthy": "Healthy images",
}
"""What the questions are called in a row of links."""

QUESTIONS: dict[Group, tuple[str, str]] = {
    "presence": (
        "Is it there?",
        "The score of an image against its label. Thresholds were set on validation images, never on these.",
    ),
    "points": (
        "Does the map peak inside the lesion's box?",
        "The map's single highest point against the truth; only pairs of image and finding with a known place count.",
    ),
    "regions": (
        "Does the bright part of the map cover the lesion?",
        "The part of each map above half of its own maximum, against the union of the true boxes.",
    ),
    "boxes": (
        "Do the proposed boxes fit?",
        "The boxes around the proposed mask against the true boxes.",
    ),
    "masks": (
        "Does the map outline the lesion?",
        "The map and its mask against the true outlines, pixel by pixel.",
    ),
    "lungs": (
        "Does the map stay in the lungs?",
        "Pairs with a known place, of images that the data set gives a lung mask of. Where the classes come from"
        " different hospitals, a map may show the hospital, and lights up outside.",
    ),
    "healthy": (
        "Does a healthy image stay dark?",
        "Images labelled free of the finding: nothing should be marked there.",
    ),
}

REGION_THRESHOLDS = (0.1, 0.25, 0.5)
BOX_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def _definitions() -> tuple[Definition, ...]:
    rows = [
        Definition(
            "auroc",
            "AUROC",
            "presence",
            "Area under the ROC curve: the chance that a positive image scores higher than a negative one; ties count"
            " half.",
        ),
        Definition(
            "average_precision",
            "Average precision",
            "presence",
            "Area under the precision-recall curve, as a step function without interpolation; the share of positive"
            " images is what chance gives.",
        ),
        Definition(
            "sensitivity",
            "Sensitivity",
            "presence",
            "Share of positive images whose score reaches the run's threshold.",
        ),
        Definition(
            "specificity",
            "Specificity",
            "presence",
            "Share of negative images whose score stays below the run's threshold.",
        ),
        Definition(
            "brier",
            "Brier score",
            "presence",
            "Mean squared difference between score and label; 0 is perfect, and lower is better.",
            "lower",
        ),
        Definition(
            "pointing",
            "Pointing accuracy",
            "points",
            "Share of pairs whose map, in the original image's pixels, has its first maximum inside a true box of that"
            " finding (edges included; inside the true mask where there are no boxes).",
        ),
        Definition(
            "pointing_network",
            "Pointing, network size",
            "points",
            "The same at the network's input size, as PYLON (Preechakul et al. 2022) scores it: the plain sigmoid of"
            " the network's map, before calibration, interpolated bilinearly over the network's input.",
        ),
        Definition(
            "pointing_readers",
            "Pointing, readers",
            "points",
            "Share of pairs where a point that people set lies in the truth, of the pairs that the data set has their"
            " points of (CheXlocalize's human benchmark). They did not draw the truth, and were told what is there.",
            "neither",
        ),
    ]
    for threshold in REGION_THRESHOLDS:
        rows.append(
            Definition(
                f"iobb_{threshold:g}",
                f"T(IoBB) > {threshold:g}",
                "regions",
                f"Share of pairs where over {threshold:g} of the map's area above half its maximum lies inside the"
                " union of the true boxes.",
            )
        )
    for threshold in REGION_THRESHOLDS:
        rows.append(
            Definition(
                f"iou_{threshold:g}",
                f"T(IoU) > {threshold:g}",
                "regions",
                "Share of pairs where the map's area above half its maximum and the union of the true boxes have an"
                f" intersection over union above {threshold:g}.",
            )
        )
    for threshold in BOX_THRESHOLDS:
        rows.append(
            Definition(
                f"box_{threshold:g}",
                f"Box IoU > {threshold:g}",
                "boxes",
                "Share of true boxes that a proposed box, one around each part of the mask, overlaps with an"
                f" intersection over union above {threshold:g}; where nothing is proposed, it is not found.",
            )
        )
    rows += [
        Definition(
            "pixel_ap",
            "Pixel AP",
            "masks",
            "Average precision of the map's values over all pixels of the images with a true mask.",
        ),
        Definition(
            "poi_matched",
            "PoI at matched area",
            "masks",
            "Share of the true mask found by the map's highest pixels, as many of them as the mask has: precision and"
            " Dice are the same number, and nothing is won by painting more.",
        ),
        Definition("dice", "Dice", "masks", "Twice the overlap of proposed and true mask over the sum of their areas."),
        Definition("iou", "IoU", "masks", "Overlap of proposed and true mask over their union."),
        Definition("precision", "Precision", "masks", "Share of the proposed mask that is truly diseased."),
        Definition(
            "poi",
            "PoI",
            "masks",
            "Percentage of intersection: share of the true mask that the proposed mask covers; painting everything"
            " scores 1, so it never stands alone.",
        ),
        Definition(
            "map_outside_lungs",
            "Map outside the lungs",
            "lungs",
            "Share of the map's mass, the sum of its values, that lies outside the lungs.",
            "lower",
        ),
        Definition(
            "area_outside_lungs",
            "A map spread evenly",
            "lungs",
            "What that share would be for a map that is the same everywhere: the share of the image outside the lungs.",
            "neither",
        ),
        Definition(
            "healthy_marked",
            "Area marked",
            "healthy",
            "Share of the pixels of negative images that the proposed mask covers.",
            "lower",
        ),
        Definition(
            "healthy_any",
            "Images with a mark",
            "healthy",
            "Share of negative images with at least one pixel in the proposed mask.",
            "lower",
        ),
        Definition(
            "healthy_peak",
            "Mean peak",
            "healthy",
            "Mean over negative images of the map's highest value, on its absolute scale from 0 to 1.",
            "lower",
        ),
    ]
    return tuple(rows)


DEFINITIONS = _definitions()
BY_KEY = {one.key: one for one in DEFINITIONS}

PERCENT = frozenset({"healthy_marked", "healthy_any"})
"""Keys of what is printed as a percentage everywhere: small shares, which two decimals would hide."""
