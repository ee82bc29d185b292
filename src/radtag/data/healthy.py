"""Which images are healthy: a question of its own, since a label that is not 1 does not say so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.words import counted

NORMAL_NAMES = frozenset({"normal", "healthy", "negative", "nofinding", "nofindings"})
"""Findings, and classes, that say that an image is healthy; letter case, blanks, "-" and "_" do not matter."""


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
    kept = _known_healthy(dataset, normal)
    if not kept:
        raise _nobody_healthy(dataset)
    return replace(dataset, records=kept)


def healthy_findings(dataset: Dataset, *, normal: str | None = None) -> frozenset[str]:
    """The findings of a data set that say that an image is healthy; perhaps none.

    Args:
        dataset: any.
        normal: the only one of them; None = those called normal, healthy or no finding.

    Raises:
        BadData: no such finding.
    """
    if normal is None:
        return frozenset(filter(is_normal, dataset.findings))
    if normal not in dataset.findings:
        raise BadData(f"{dataset.name} has no finding {normal!r}; it has {', '.join(dataset.findings)}.")
    return frozenset({normal})


def _known_healthy(dataset: Dataset, normal: str | None) -> tuple[Record, ...]:
    """See :func:`healthy`; perhaps none."""
    say_healthy = healthy_findings(dataset, normal=normal)
    means_healthy = [name in say_healthy for name in dataset.findings]
    kept = []
    for record in dataset.records:
        said = [label for label, means in zip(record.labels, means_healthy, strict=True) if means]
        others = [label for label, means in zip(record.labels, means_healthy, strict=True) if not means]
        if any(label == 1 for label in others):
            continue
        if any(label == 1 for label in said) if said else bool(others) and all(label == 0 for label in others):
            kept.append(record)
    return tuple(kept)


def _nobody_healthy(dataset: Dataset) -> BadData:
    return BadData(
        f"{dataset.name}: none of its {len(dataset)} images is known to be healthy: none has every finding 0, or a "
        f"finding called normal. Name the finding that means healthy (--normal), or add healthy images."
    )


def is_normal(finding: str) -> bool:
    """Whether a finding's name says that an image is healthy."""
    return re.sub(r"[\s_-]", "", finding.lower()) in NORMAL_NAMES


def two_sides(
    dataset: Dataset,
    *,
    also: Sequence[Dataset] = (),
    findings: Sequence[str] | None = None,
    normal: str | None = None,
) -> Dataset:
    """The images known to have a wanted finding, and those known to be healthy, of which no label is 1.

    An image with another disease, or of which too little is known, is on neither side: least of all is it healthy.

    With several data sets, each says for itself, on all its findings, who is healthy; one need not know the other's
    findings for that. They stand side by side (:meth:`Dataset.beside`), every image in its own split. A finding that
    an image's own set does not name stays unknown, also for a healthy image, so that validation numbers tell a disease
    from the health of the same source, not one source from another. Only where no healthy image of a split comes from a
    source that names the finding are the others' taken for it.

    Args:
        dataset: with all its findings, since those that are not wanted say who is not healthy.
        also: further data sets.
        findings: those wanted; left out, all but the ones that mean healthy.
        normal: the finding that means healthy, in the sets that have it; see :func:`healthy`.

    Raises:
        BadData: no such finding, no healthy image, no ill one, or a wanted finding without a training image; a file
            that two sets have.
    """
    sets = (dataset, *also)
    whole = dataset.beside(*also)
    if normal is not None and normal not in whole.findings:
        raise BadData(f"{whole.name} has no finding {normal!r}; it has {', '.join(whole.findings)}.")
    names = [normal if normal in one.findings else None for one in sets]
    mean_healthy = {name for one, own in zip(sets, names, strict=True) for name in healthy_findings(one, normal=own)}
    others = tuple(name for name in whole.findings if name not in mean_healthy)
    wanted = tuple(findings) if findings is not None else others
    for name in wanted or whole.findings:
        if name not in whole.findings:
            raise BadData(f"{whole.name} has no finding {name!r}; it has {', '.join(whole.findings)}.")
        if name not in others:
            raise BadData(f"{whole.name}: {name!r} means healthy, and a map needs a disease. Name a --finding.")
    parts = [_sides_of(one, own, wanted) for one, own in zip(sets, names, strict=True)]
    chosen = parts[0].beside(*parts[1:]).with_findings(wanted)
    if all(1.0 in record.labels for record in chosen.records):
        raise _nobody_healthy(whole)
    for split in ("train", "val"):
        part = chosen.only(split)
        if all(1.0 in record.labels for record in part.records):
            raise BadData(f"{chosen.name}: no healthy image is in the {split} split. Add some, or give --splits.")
        if not any(1.0 in record.labels for record in part.records):
            raise BadData(
                f"{chosen.name}: no image of the {split} split has {' or '.join(chosen.findings)}."
                " Add some, or give --splits."
            )
    for at, name in enumerate(chosen.findings):
        if not any(record.labels[at] == 1 for record in chosen.only("train").records):
            raise BadData(f"{chosen.name}: no training image has {name!r}. Leave it out with --finding.")
    return _with_stand_ins(chosen) if also else chosen


def _sides_of(dataset: Dataset, normal: str | None, wanted: Sequence[str]) -> Dataset:
    """The ill and the healthy images of one data set, with those of the wanted findings that it names."""
    well = {record.image for record in _known_healthy(dataset, normal)}
    narrowed = dataset.with_findings(name for name in wanted if name in dataset.findings)
    records = []
    for record in narrowed.records:
        if record.image in well:
            records.append(replace(record, labels=(0.0,) * len(narrowed.findings)))
        elif 1.0 in record.labels:
            records.append(record)
    left_out = len(dataset) - len(records)
    note = (
        counted(left_out, "image[s] with neither a wanted finding nor known to be healthy [is|are] on no side")
        if left_out
        else ""
    )
    return replace(narrowed, records=tuple(records), notes=(*narrowed.notes, *([note] if note else [])))


def _with_stand_ins(sides: Dataset) -> Dataset:
    """Several sources, with what to know of them, and healthy images for findings whose own source has none."""
    records = list(sides.records)
    lent: dict[str, None] = {}
    for split in ("train", "val"):
        at = [i for i, record in enumerate(records) if record.split == split]
        well = [i for i in at if 1.0 not in records[i].labels]
        for column, name in enumerate(sides.findings):
            if any(records[i].labels[column] == 0 for i in well):
                continue
            lent[name] = None
            if split == "train":  # which asks for positives alone, and reads from labels what a source names
                continue
            for i in well:
                labels = records[i].labels
                records[i] = replace(records[i], labels=(*labels[:column], 0.0, *labels[column + 1 :]))
    notes = list(sides.notes)
    training = [record for record in sides.records if record.split == "train"]
    counts: dict[str, list[int]] = {}
    for record in training:
        counts.setdefault(record.source, [0, 0])[1.0 not in record.labels] += 1
    notes.append(
        "training images: "
        + "; ".join(f"{source}, {ill} ill and {well} healthy" for source, (ill, well) in counts.items())
    )
    lonely = [source for source, (_, well) in counts.items() if not well]
    for source, (ill, _) in counts.items():
        if not ill and not lonely:
            notes.append(
                f"no ill training image is of {source}: its healthy ones would tell by their look, and are not drawn"
            )
    for source in lonely:
        notes.append(
            f"no healthy training image is of {source}: healthy ones of the others stand beside its ill ones, and the"
            " look of a source may tell them apart"
        )
    for name in lent:
        notes.append(
            f"{name}: no source that names it has healthy images in every split; those of the others are taken"
        )
    return replace(sides, records=tuple(records), notes=tuple(notes))
