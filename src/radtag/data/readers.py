"""What several readers said of the same images, made one: a label by a rule, and boxes of the same thing fused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from radtag.data.boxes import Boxes
from radtag.geometry import XYXY, box_iou

RULES = ("majority", "any", "agreed")
SAME = 0.4
"""From this intersection over union on, two readers' boxes are of one thing, as VinBigData's challenge counts them."""
CONSENSUS = ""
"""The name of the reader where several spoke with one voice."""
DrawnBy = list[tuple[str, XYXY]]


@dataclass
class Readings:
    """What was said, in the order in which it is added.

    Args:
        said: image -> reader -> findings.
        boxes: image -> finding -> (reader, box).
    """

    said: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    boxes: dict[str, dict[str, DrawnBy]] = field(default_factory=dict)

    def of(self, image: str, reader: str) -> set[str]:
        """What a reader found in an image, to add to; asking alone says that the reader saw it."""
        return self.said.setdefault(image, {}).setdefault(reader, set())

    def add_box(self, image: str, reader: str, finding: str, box_xyxy: XYXY) -> None:
        """A box, and with it the finding."""
        self.of(image, reader).add(finding)
        self.boxes.setdefault(image, {}).setdefault(finding, []).append((reader, box_xyxy))

    def truth(
        self, image: str, findings: Sequence[str], rule: str, boxes: Literal["fused", "each"]
    ) -> tuple[tuple[float, ...], Boxes, int] | None:
        """What readers say together.

        Args:
            image: which.
            findings: in the order of the labels.
            rule: one of ``RULES``, or the name of the one reader who counts; a consensus counts by any rule.
            boxes: of findings labelled 1: one of each thing that readers drew the same, or every reader's.

        Returns:
            A label for each finding, boxes, and the number of boxes of findings that are not labelled 1; None where
            the one reader did not read it.
        """
        of_reader = self.said[image]
        if rule not in RULES and CONSENSUS not in of_reader:
            if rule not in of_reader:
                return None
            of_reader = {rule: of_reader[rule]}
        marks = Counter(finding for names in of_reader.values() for finding in names)
        labels = tuple(label(marks[finding], len(of_reader), rule) for finding in findings)
        kept: Boxes = {}
        left_out = 0
        for finding, value in zip(findings, labels, strict=True):
            drawn = [(who, box) for who, box in self.boxes.get(image, {}).get(finding, []) if who in of_reader]
            if value == 1 and drawn:
                kept[finding] = fused(drawn) if boxes == "fused" else tuple(box for _, box in drawn)
            elif drawn:
                left_out += len(drawn)
        return labels, kept, left_out


def label(marks: int, readers: int, rule: str) -> float:
    """1, 0 or NaN, where so many of so many readers marked a finding; other rules than "any" and "agreed" count more
    than half."""
    if rule == "any":
        return float(marks > 0)
    if rule == "agreed" and 0 < marks < readers:
        return math.nan
    return float(2 * marks > readers)


def fused(drawn: Sequence[tuple[str, XYXY]]) -> tuple[XYXY, ...]:
    """The mean of the boxes that different readers drew of one thing; each box joins the mean that it covers best."""
    groups: list[DrawnBy] = []
    for reader, box in drawn:
        free = [group for group in groups if reader not in {who for who, _ in group}]
        if free:
            means = np.array([np.mean([one for _, one in group], axis=0) for group in free])
            overlap = box_iou(np.array([box]), means)[0]
            best = int(overlap.argmax())
            if overlap[best] >= SAME:
                free[best].append((reader, box))
                continue
        groups.append([(reader, box)])
    corners = (np.mean([one for _, one in group], axis=0).tolist() for group in groups)
    return tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in corners)
