"""Which images are healthy: a question of its own, since a label that is not 1 does not say so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from radtag.data.table import Dataset
from radtag.errors import BadData
from radtag.words import counted

NORMAL_NAMES = ("normal", "healthy", "no finding", "no findings", "nofinding")
"""Findings whose presence says that an image is healthy; letter case, "-" and "_" do not matter."""


def healthy(dataset: Dataset, *, normal: str | None = None) -> Dataset:
    """The images known to be healthy.

    These are the images with the finding ``normal`` = 1; or, if it is not named and the data set has a finding called
    normal, healthy or no finding, that one = 1; or else the images whose every finding is 0. An unknown label is not
    healthy. An image that has another finding beside "normal" is not healthy either.

    Args:
        dataset: any.
        normal: the finding that means healthy.

    Raises:
        BadData: no such finding, or not one image is known to be healthy.
    """
    if normal is not None and normal not in dataset.findings:
        raise BadData(f"{dataset.name} has no finding {normal!r}; it has {', '.join(dataset.findings)}.")
    means_healthy = [name == normal if normal is not None else is_normal(name) for name in dataset.findings]
    kept = []
    for record in dataset.records:
        said = [label for label, means in zip(record.labels, means_healthy, strict=True) if means]
        others = [label for label, means in zip(record.labels, means_healthy, strict=True) if not means]
        if any(label == 1 for label in others):
            continue
        if any(label == 1 for label in said) if said else bool(others) and all(label == 0 for label in others):
            kept.append(record)
    if not kept:
        raise BadData(
            f"{dataset.name}: none of its {len(dataset)} images is known to be healthy: none has every finding 0, or a "
            f"finding called normal. Name the finding that means healthy (--normal), or add healthy images."
        )
    return replace(dataset, records=tuple(kept))


def is_normal(finding: str) -> bool:
    """Whether a finding's name says that an image is healthy."""
    return re.sub(r"[-_ ]+", " ", finding.strip().lower()) in NORMAL_NAMES


def two_sides(dataset: Dataset, *, findings: Sequence[str] | None = None, normal: str | None = None) -> Dataset:
    """The images known to have a wanted finding, and those known to be healthy, whose every label is then 0.

    An image with another disease, or of which too little is known, is on neither side: least of all is it healthy.

    Args:
        dataset: with all its findings, since those that are not wanted say who is not healthy.
        findings: those wanted; left out, all but the one that means healthy.
        normal: the finding that means healthy; see :func:`healthy`.

    Raises:
        BadData: no such finding, no healthy image, no ill one, or a wanted finding without a training image.
    """
    well = {record.image for record in healthy(dataset, normal=normal).records}
    others = tuple(name for name in dataset.findings if not (name == normal if normal is not None else is_normal(name)))
    wanted = dataset.with_findings(findings if findings is not None else others)
    for name in dict.fromkeys(wanted.findings or dataset.findings):
        if name not in others:
            raise BadData(f"{dataset.name}: {name!r} means healthy, and a map needs a disease. Name a --finding.")
    records = []
    for record in wanted.records:
        if record.image in well:
            records.append(replace(record, labels=(0.0,) * len(wanted.findings)))
        elif 1.0 in record.labels:
            records.append(record)
    left_out = len(dataset) - len(records)
    note = (
        counted(left_out, "image[s] with neither a wanted finding nor known to be healthy [is|are] on no side")
        if left_out
        else ""
    )
    chosen = replace(wanted, records=tuple(records), notes=(*wanted.notes, *([note] if note else [])))
    for split in ("train", "val"):
        part = chosen.only(split)
        if all(1.0 in record.labels for record in part.records):
            raise BadData(f"{dataset.name}: no healthy image is in the {split} split. Add some, or give --splits.")
        if not any(1.0 in record.labels for record in part.records):
            raise BadData(
                f"{dataset.name}: no image of the {split} split has {' or '.join(chosen.findings)}."
                " Add some, or give --splits."
            )
    for at, name in enumerate(chosen.findings):
        if not any(record.labels[at] == 1 for record in chosen.only("train").records):
            raise BadData(f"{dataset.name}: no training image has {name!r}. Leave it out with --finding.")
    return chosen
