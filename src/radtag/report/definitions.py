"""What every number of ``metrics.json`` is, in one sentence each: the only list of them.

The keys are stable. The evaluation fills them, the report prints them with these words, and the comparison knows from
``better`` which way is up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Group = Literal[
    "presence",
    "points",
    "regions",
    "boxes",
    "masks",
    "lungs",
    "healthy",
    "detections",
    "distances",
    "published",
    "calibration",
    "faithfulness",
]


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
    "detections": "False marks",
    "distances": "Distances",
    "published": "Benchmarks",
    "calibration": "Calibration",
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
    "detections": (
        "How many false marks does a found lesion cost?",
        "Each proposed box is a mark, scored by the map's highest value in it. Marks are taken from the highest score"
        " down, on images with the finding and without it: how many lesions are found by the time there is a given"
        " number of false marks per image?",
    ),
    "distances": (
        "How far off is the outline?",
        "Distances between the edge of the proposed mask and that of the true one, both ways; 0 is perfect. A pair of"
        " which nothing is proposed has no edge, and is counted as undefined.",
    ),
    "published": (
        "By the rules of published benchmarks",
        "The same maps by the definitions of others, to be set beside their numbers. Nothing is chosen on these images:"
        " masks are cut by the run's threshold, or by each map's own (Otsu).",
    ),
    "calibration": (
        "Does a score of 0.8 mean 80 %?",
        "Whether scores can be read as probabilities. A report shows the curves of each finding.",
    ),
}

WHERE_SEEN = {
    " Thresholds were set on validation images, never on these.": " Thresholds were set on some of these.",
    " Nothing is chosen on these images: masks": " Masks",
}
"""What these texts say that does not hold where images that thresholds were set on are counted, and what does."""
EXPLAINED: frozenset[Group] = frozenset({"detections", "distances", "published", "calibration"})
"""Questions whose numbers are explained beneath their table."""

REGION_THRESHOLDS = (0.1, 0.25, 0.5)
BOX_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
BOX_ACCURACY_THRESHOLDS = (0.3, 0.5, 0.7)
"""Of MaxBoxAccV2."""


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
            "Average precision of the map's values over all pixels of the images with a true mask: the PxAP of Choe et"
            " al. 2020, on one scale for all maps.",
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
        Definition(
            "froc",
            "FROC score",
            "detections",
            "Mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false marks per image; a mark is true if its highest"
            " point lies in a true box (on the outline where there are no boxes), and further marks on the same lesion"
            " cost nothing.",
        ),
        Definition(
            "froc_0.3",
            "FROC, IoU ≥ 0.3",
            "detections",
            "The same where a mark is true only if its box takes a true box of its own with an intersection over union"
            " of at least 0.3.",
        ),
        Definition(
            "ap_0.3",
            "Box AP, IoU ≥ 0.3",
            "detections",
            "COCO's average precision of the marks: precision along rising recall, where a mark is true if its box"
            " takes a true box of its own with an intersection over union of at least 0.3.",
        ),
        Definition(
            "ap_0.5",
            "Box AP, IoU ≥ 0.5",
            "detections",
            "The same at an intersection over union of at least 0.5.",
        ),
        Definition(
            "boundary_px",
            "Mean distance, px",
            "distances",
            "Mean distance from each point of one edge to the nearest of the other, in pixels of the original image.",
            "lower",
        ),
        Definition(
            "hd95_px",
            "HD95, px",
            "distances",
            "The distance that 95 % of an edge's points stay within, the greater of both ways (Hausdorff 95 %), in"
            " pixels.",
            "lower",
        ),
        Definition(
            "boundary_mm",
            "Mean distance, mm",
            "distances",
            "Mean distance in millimetres, of the images whose file tells the size of a pixel.",
            "lower",
        ),
        Definition(
            "hd95_mm",
            "HD95, mm",
            "distances",
            "Hausdorff 95 % in millimetres, of the images whose file tells the size of a pixel.",
            "lower",
        ),
        Definition(
            "pointing_game",
            "Pointing game",
            "published",
            "Share of pairs whose map has its first maximum in the lesion, or within 15 pixels of it (Zhang et al."
            " 2018).",
        ),
        Definition(
            "hit_rate",
            "Hit rate",
            "published",
            "Share of outlined pairs whose map has its first maximum on the outlined lesion (CheXlocalize, Saporta et"
            " al. 2022).",
        ),
        Definition(
            "miou_otsu",
            "mIoU, Otsu",
            "published",
            "CheXlocalize's mean IoU: each map is stretched to its own range and cut by Otsu's threshold; only pairs"
            " with the lesion outlined and something marked count.",
        ),
        Definition(
            "miou",
            "mIoU, found only",
            "published",
            "Mean IoU of the run's own masks over the outlined pairs in which something is marked: CheXlocalize's “true"
            " positives only”, at a threshold from validation images. A missed lesion costs nothing.",
        ),
        Definition(
            "miou_all",
            "mIoU, all",
            "published",
            "The same over all pairs: a missed lesion is 0, and so is an image free of the finding in which anything is"
            " marked.",
        ),
        Definition(
            "box_accuracy_v2",
            "BoxAcc V2",
            "published",
            "Share of pairs in which a proposed box overlaps a true one with an IoU of at least 0.3, 0.5 and 0.7, the"
            " mean of the three: MaxBoxAccV2 (Choe et al. 2020) at the run's threshold, where theirs is the best for"
            " the images scored.",
        ),
        Definition(
            "ncc",
            "NCC",
            "published",
            "Normalised cross-correlation of map and true mask, from −1 to 1 (VA-GAN, Baumgartner et al. 2018).",
        ),
        Definition(
            "ece",
            "Calibration error",
            "calibration",
            "Expected calibration error: the gap between score and share of positives in 15 bins of equal width,"
            " weighed by their images; 0 is perfect, and few images make it larger by chance.",
            "lower",
        ),
        Definition(
            "brier",
            "Brier score",
            "calibration",
            "Mean squared difference between score and label; 0 is perfect, and lower is better.",
            "lower",
        ),
    ]
    return tuple(rows)


DEFINITIONS = _definitions()
FOLLOWED = (
    Definition(
        "insertion",
        "Insertion",
        "faithfulness",
        "Area under the score while the pixels of the network's input are put onto the blurred image, in the order of"
        " the map (RISE, Petsiuk et al. 2018). It is about the network and not about the disease: compare maps of one"
        " run with each other.",
    ),
    Definition(
        "deletion",
        "Deletion",
        "faithfulness",
        "Area under the score while the pixels of the network's input are made black, in the order of the map.",
        "lower",
    ),
)
"""What is only measured where it is asked for, and stands in a part of its own of ``metrics.json``; a benchmark has it
among its numbers."""
BY_KEY = {one.key: one for one in (*DEFINITIONS, *FOLLOWED)}

DISTANCES = {one.key: one.key.rsplit("_", 1)[1] for one in DEFINITIONS if one.group == "distances"}
"""Keys of what is no share, with its unit; printed with one decimal, and never on one axis with shares."""
PERCENT = frozenset({"healthy_marked", "healthy_any"})
"""Keys of what is printed as a percentage everywhere: small shares, which two decimals would hide."""
