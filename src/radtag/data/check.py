"""What is in a data set, and what is wrong with it, before a night of training says so.

Every image and mask is read. Errors are what makes a training or its numbers wrong: an unreadable image, a patient or a
picture in two splits, nothing to learn from. Warnings are what its owner should know, such as pictures in two splits
that look like one stored twice.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.spatial import cKDTree

from radtag.data.files import is_image_name
from radtag.data.outlines import MaskSource, files_of, read_outline
from radtag.data.sources import load, select, without_missing
from radtag.data.table import SPLITS, Dataset, Record
from radtag.errors import BadData, RadtagError
from radtag.words import counted

READERS = 2  # threads; reading is decoding for the most part, which goes on outside Python's lock
EXAMPLES = 5
DARK = 0.1
"""Where the brightest pixel of an image is below this, it is dark: 12 bits stored in 16 reach 0.06."""
SMALLEST_SIDE_PX = 64
FINGERPRINT_SIDE = 16
ALIKE = 0.995
"""From this correlation of their fingerprints two images count as one picture. Among 1,504 images of ChestX-ray14, and
2,366 of COVID-QU-Ex and tuberculosis sets, radiographs of different patients reach 0.981; copies as JPEG of quality 30,
or of two fifths of the side, stay above 0.998."""
ALIKE_CENTRED = 0.98
"""The same once the mean of all images is taken off, which all pictures of a kind share: 0.965 and 0.990 there."""
ENOUGH_TO_CENTRE = 100  # images; the mean of a few is made of the very images compared
_COMPANION = re.compile(r"(.+?)_(?:mask(?:_\d+)?|segmentation|superpixels)", re.IGNORECASE)
"""Names of what lies beside an image and is none: a black mask of a healthy one, or areas it was divided into."""
Fingerprint = NDArray[np.float32]
Result = TypeVar("Result")
Place = TypeVar("Place", Path, MaskSource)
Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        level: an error stops a training, a warning does not.
        kind: a stable short name, for programs.
        count: how many images, boxes, masks ... are concerned.
        text: what a person reads.
        examples: the first few concerned.
    """

    level: Level
    kind: str
    count: int
    text: str
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.examples:
            return self.text
        more = ["..."] if self.count > len(self.examples) else []
        between = " " if self.examples[0].endswith(".") else ", "  # sentences, or names
        return f"{self.text}: {between.join([*self.examples, *more])}"


@dataclass(frozen=True)
class Counts:
    """One finding in one split: labels by image, boxes and masks that outline it."""

    known: int
    unknown: int
    positive: int
    negative: int
    boxes: int
    images_with_boxes: int
    masks: int


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Args:
        source: the specification that was checked.
        name: the data set's.
        images: how many.
        patients: how many; images of unknown patients count one each.
        images_without_patient: how many images do not say whose they are.
        splits: split ("" = none) -> (images, patients).
        findings: finding -> split -> counts.
        sizes_rc: (rows, columns) -> images, the most frequent first.
        notes: what the source said.
        problems: errors first.
    """

    source: str
    name: str = ""
    images: int = 0
    patients: int = 0
    images_without_patient: int = 0
    splits: tuple[tuple[str, int, int], ...] = ()
    findings: tuple[tuple[str, str, Counts], ...] = ()
    sizes_rc: tuple[tuple[tuple[int, int], int], ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def errors(self) -> list[str]:
        """What stops a training."""
        return [str(problem) for problem in self.problems if problem.level == "error"]

    @property
    def warnings(self) -> list[str]:
        """What does not."""
        return [str(problem) for problem in self.problems if problem.level == "warning"]

    @property
    def ok(self) -> bool:
        """Whether training can go on."""
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        findings: dict[str, dict[str, dict[str, int]]] = {}
        for finding, split, counts in self.findings:
            findings.setdefault(finding, {})[split or "none"] = asdict(counts)
        return {
            "source": self.source,
            "name": self.name,
            "ok": self.ok,
            "images": self.images,
            "patients": self.patients,
            "images_without_patient": self.images_without_patient,
            "splits": {split or "none": {"images": images, "patients": n} for split, images, n in self.splits},
            "findings": findings,
            "sizes": [{"rows": rows, "columns": columns, "images": n} for (rows, columns), n in self.sizes_rc],
            "notes": list(self.notes),
            "errors": self.errors,
            "warnings": self.warnings,
            "problems": [asdict(problem) | {"examples": list(problem.examples)} for problem in self.problems],
        }

    def tables(self) -> list[Table]:
        """The counts, for a rich console."""
        if not self.splits:
            return []
        splits = Table("split", box=None, pad_edge=False)
        for head in ("images", "patients"):
            splits.add_column(head, justify="right")
        for split, images, patients in self.splits:
            splits.add_row(split or "(none)", f"{images:,}", f"{patients:,}")
        findings = Table("finding", "split", box=None, pad_edge=False)
        for head in ("positive", "negative", "unknown", "boxes", "masks"):
            findings.add_column(head, justify="right")
        previous = ""
        for finding, split, counts in self.findings:
            cells = (counts.positive, counts.negative, counts.unknown, counts.boxes, counts.masks)
            findings.add_row(finding if finding != previous else "", split or "(none)", *(f"{n:,}" for n in cells))
            previous = finding
        return [splits, findings]

    def lines(self, width: int = 120) -> list[str]:
        """The whole report as text."""
        text = io.StringIO()
        console = Console(file=text, width=width, no_color=True, highlight=False, markup=False, soft_wrap=True)
        if self.splits:
            console.print(
                f"{self.name}: {counted(self.images, 'image[s]', ',')} of {counted(self.patients, 'patient[s]', ',')}"
            )
            if self.images_without_patient:
                whose = "image[s] [does|do] not say whose [it is and counts|they are and count] as a patient each"
                console.print(counted(self.images_without_patient, whose, ","))
            for table in self.tables():
                console.print()
                console.print(table)
            sizes = [f"{rows} x {columns}: {n:,}" for (rows, columns), n in self.sizes_rc[:10]]
            more = f", and {counted(len(self.sizes_rc) - 10, 'other size[s]')}" if len(self.sizes_rc) > 10 else ""
            console.print(f"\nsizes (rows x columns): {', '.join(sizes)}{more}\n")
        for note in self.notes:
            console.print(f"note     {note}")
        for level, texts in (("warning", self.warnings), ("error", self.errors)):
            for line in texts:
                console.print(f"{level:<8} {line}")
        verdict = "training can go on" if self.ok else "training would go wrong"
        console.print(
            f"{counted(len(self.errors), 'error[s]')}, {counted(len(self.warnings), 'warning[s]')}: {verdict}"
        )
        return [line.rstrip() for line in text.getvalue().splitlines()]


def check(
    spec: str,
    *,
    splits: Path | None = None,
    seed: int = 0,
    findings: Sequence[str] | None = None,
    console: Console | None = None,
) -> CheckReport:
    """Opens a source, reads every file of it, and reports.

    Args:
        spec: as :func:`radtag.data.sources.open_source` takes it; so are ``splits``, ``seed`` and ``findings``.
        console: where a progress bar goes; None = no bar.

    Returns:
        The report; a source that contradicts its own layout makes a report of that one error.

    Raises:
        BadSetting: there is no such source, option or finding.
    """
    try:
        loaded = load(spec)
        _, without_file = without_missing(loaded)
        dataset = select(loaded, splits=splits, seed=seed, findings=findings)
    except BadData as error:
        return CheckReport(spec, problems=(Problem("error", "layout", 1, str(error)),))
    problems = []
    if without_file:
        problems.append(
            _problem("warning", "labels-without-images", "labelled image[s] [has|have] no file", without_file)
        )
    return check_dataset(dataset, source=spec, problems=problems, console=console)


def check_dataset(
    dataset: Dataset, *, source: str = "", problems: Sequence[Problem] = (), console: Console | None = None
) -> CheckReport:
    """Reads every image and mask of a data set and reports; ``problems`` are those known before."""
    looks = dict(_each(_look, [record.path for record in dataset.records], "images", console))
    masks = dict.fromkeys(mask for record in dataset.records for mask in _masks(record))
    mask_looks = dict(_each(_look_at_mask, list(masks), "masks", console))
    found = [
        *problems,
        *_unread(dataset, looks, mask_looks),
        *_leaks(dataset, looks),
        *_near_copies(dataset, looks),
        *_pictures(dataset, looks),
        *_truth(dataset, looks, mask_looks),
        *_learnable(dataset),
        *_unlisted(dataset, (path for mask in masks for path in files_of(mask))),
    ]
    patients = dataset.patients()
    by_split: dict[str, list[str]] = defaultdict(list)
    for record, patient in zip(dataset.records, patients, strict=True):
        by_split[record.split].append(patient)
    order = [split for split in (*SPLITS, "") if split in by_split]
    sizes = Counter(look.size_rc for look in looks.values() if look.size_rc is not None)
    return CheckReport(
        source=source or dataset.name,
        name=dataset.name,
        images=len(dataset),
        patients=len(set(patients)),
        images_without_patient=sum(not record.patient for record in dataset.records),
        splits=tuple((split, len(by_split[split]), len(set(by_split[split]))) for split in order),
        findings=tuple(
            (finding, split, _counts(dataset, finding, split)) for finding in dataset.findings for split in order
        ),
        sizes_rc=tuple(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))),
        notes=dataset.notes,
        problems=tuple(sorted(found, key=lambda problem: problem.level)),
    )


@dataclass(frozen=True)
class _Look:
    """What reading one image told."""

    size_rc: tuple[int, int] | None = None
    constant: bool = False
    brightest: float = 1.0
    frames: int = 1
    file_digest: str = ""
    pixel_digest: str = ""
    error: str = ""
    fingerprint: Fingerprint | None = field(default=None, compare=False)


@dataclass(frozen=True)
class _MaskLook:
    """What reading one mask told."""

    size_rc: tuple[int, int] | None = None
    empty: bool = False
    error: str = ""


def _look(path: Path) -> _Look:
    from radtag.images import read

    try:
        file_digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        return _Look(error=f"{path}: {error.strerror or error}")
    try:
        image = read(path)
    except RadtagError as error:
        return _Look(file_digest=file_digest, error=str(error))
    pixels = np.ascontiguousarray(image.pixels)
    digest = hashlib.blake2b(repr(image.size_rc).encode(), digest_size=16)
    digest.update(pixels.data)
    brightest = float(pixels.max())
    return _Look(
        size_rc=image.size_rc,
        constant=bool(pixels.min() == brightest),
        brightest=brightest,
        frames=int(image.meta.get("frames", 1)),
        file_digest=file_digest,
        pixel_digest=digest.hexdigest(),
        fingerprint=fingerprint(pixels),
    )


def fingerprint(pixels: NDArray[np.float32]) -> Fingerprint | None:
    """What is left of a picture when it is stored anew: its means in 16 x 16 boxes, without brightness and contrast.

    Args:
        pixels: (row, col), 0-1.

    Returns:
        (256,) of mean 0 and length 1, so that a product is a correlation; None for an image of next to nothing.
    """
    side = (FINGERPRINT_SIDE, FINGERPRINT_SIDE)
    small = np.asarray(PIL.Image.fromarray(pixels).resize(side, PIL.Image.Resampling.BOX), dtype=np.float32).ravel()
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    return small / np.float32(length) if length > FINGERPRINT_SIDE / 255 else None


def _masks(record: Record) -> tuple[MaskSource, ...]:
    return (*record.masks.values(), *([record.lungs] if record.lungs is not None else []))


def _look_at_mask(source: MaskSource) -> _MaskLook:
    try:
        mask = read_outline(source)
    except (RadtagError, OSError) as error:
        return _MaskLook(error=str(error))
    return _MaskLook((int(mask.shape[0]), int(mask.shape[1])), not mask.any())


def _each(
    look: Callable[[Place], Result], places: Sequence[Place], what: str, console: Console | None
) -> Iterator[tuple[Place, Result]]:
    """Looks at every image or mask, a few at a time, in order."""
    with (
        ThreadPoolExecutor(READERS) as pool,
        Progress(console=console, transient=True, disable=console is None or not places) as progress,
    ):
        task = progress.add_task(f"reading {what}", total=len(places))
        for start in range(0, len(places), 256):  # in parts, so that an interrupt does not wait for them all
            part = places[start : start + 256]
            for place, result in zip(part, pool.map(look, part), strict=True):
                progress.advance(task)
                yield place, result


def _problem(level: Level, kind: str, what: str, concerned: Iterable[str]) -> Problem:
    names = list(concerned)
    return Problem(level, kind, len(names), counted(len(names), what), tuple(names[:EXAMPLES]))


def _counts(dataset: Dataset, finding: str, split: str) -> Counts:
    at = dataset.findings.index(finding)
    records = [record for record in dataset.records if record.split == split]
    labels = np.array([record.labels[at] for record in records])
    boxes = [len(record.boxes_xyxy.get(finding, ())) for record in records]
    unknown = int(np.isnan(labels).sum())
    return Counts(
        known=len(records) - unknown,
        unknown=unknown,
        positive=int((labels == 1).sum()),
        negative=int((labels == 0).sum()),
        boxes=sum(boxes),
        images_with_boxes=sum(count > 0 for count in boxes),
        masks=sum(finding in record.masks for record in records),
    )


def _unread(dataset: Dataset, looks: dict[Path, _Look], mask_looks: dict[MaskSource, _MaskLook]) -> Iterator[Problem]:
    bad = [looks[record.path].error for record in dataset.records if looks[record.path].error]
    if bad:
        yield _problem("error", "unreadable-images", "image[s] cannot be read", bad)
    bad = [look.error for look in mask_looks.values() if look.error]
    if bad:
        yield _problem("error", "unreadable-masks", "mask[s] cannot be read", bad)


def _leaks(dataset: Dataset, looks: dict[Path, _Look]) -> Iterator[Problem]:
    """Patients and pictures in two splits, and pictures that are there twice."""
    splits_of: dict[str, set[str]] = defaultdict(set)
    for record in dataset.records:
        if record.patient and record.split:
            splits_of[record.patient].add(record.split)
    shared = [f"{patient} ({', '.join(sorted(s))})" for patient, s in splits_of.items() if len(s) > 1]
    if shared:
        yield _problem("error", "patients-in-two-splits", "patient[s] [is|are] in more than one split", shared)

    same_file = _alike(dataset.records, lambda record: looks[record.path].file_digest)
    same_pixels = [
        group
        for group in _alike(dataset.records, lambda record: looks[record.path].pixel_digest)
        if len({looks[record.path].file_digest for record in group}) > 1
    ]
    for kind, what, groups in (
        ("identical-files", "set[s] of identical files", same_file),
        ("identical-pixels", "set[s] of different files with identical pixels", same_pixels),
    ):
        across: list[list[Record]] = []
        within: list[list[Record]] = []
        for group in groups:
            (across if len({record.split for record in group} - {""}) > 1 else within).append(group)
        if across:
            yield _problem("error", f"{kind}-in-two-splits", f"{what} in more than one split", map(_named, across))
        if within:
            yield _problem("warning", kind, what, map(_named, within))
    unlike = [group for group in (*same_file, *same_pixels) if len({repr(record.labels) for record in group}) > 1]
    if unlike:
        names = dict.fromkeys(map(_named, unlike))
        yield _problem(
            "warning", "identical-images-labelled-differently", "picture[s] [is|are] there with unlike labels", names
        )


def _near_copies(dataset: Dataset, looks: dict[Path, _Look]) -> Iterator[Problem]:
    """The same picture, stored anew, in two splits: re-encoded, resized, brightened, but not cropped or turned."""
    at = [i for i, one in enumerate(dataset.records) if one.split and looks[one.path].fingerprint is not None]
    if not at:
        return
    prints = np.stack([looks[dataset.records[i].path].fingerprint for i in at])  # type: ignore[misc]  # not None
    splits = np.array([dataset.records[i].split for i in at])
    found = []
    for a, b in alike(prints, splits):
        one, other = dataset.records[at[a]], dataset.records[at[b]]
        if looks[one.path].pixel_digest != looks[other.path].pixel_digest:  # these are told already
            found.append((at[a], at[b], _named((one, other))))
    if found:
        yield _problem(
            "warning",
            "near-copies-in-two-splits",
            "pair[s] of images look[s|] like one picture stored twice, in more than one split",
            [name for *_, name in sorted(found)],
        )


def alike(prints: Fingerprint, splits: NDArray[np.str_]) -> list[tuple[int, int]]:
    """Pairs of different splits that look alike: of each image with the nearest few of another split.

    Images alike are near each other along every axis. So a tree finds the nearest along the ten axes that tell the
    images apart best, and only these are compared in full: seconds for 100,000 images. Of many copies of one picture it
    names some, not all.

    Args:
        prints: (image, 256) of :func:`fingerprint`.
        splits: (image,).

    Returns:
        Pairs of indices, the smaller first, ascending.
    """
    mean = prints.mean(axis=0)
    centred = prints - mean
    _, axes = np.linalg.eigh(centred.T @ centred)
    places = centred @ axes[:, -10:]
    lengths = np.linalg.norm(centred, axis=1)
    reach = float(np.sqrt(2 - 2 * ALIKE))  # of two unit vectors with this product
    pairs: set[tuple[int, int]] = set()
    for first, second in combinations(sorted(set(splits.tolist())), 2):
        few, many = sorted((np.flatnonzero(splits == first), np.flatnonzero(splits == second)), key=len)
        neighbours = min(8, len(many))
        _, near = cKDTree(places[many]).query(places[few], k=range(1, neighbours + 1), distance_upper_bound=reach)
        who, rank = np.nonzero(near < len(many))
        a, b = few[who], many[near[who, rank]]
        same = np.einsum("ij,ij->i", prints[a], prints[b]) >= ALIKE
        if len(prints) >= ENOUGH_TO_CENTRE:
            same &= np.einsum("ij,ij->i", centred[a], centred[b]) >= ALIKE_CENTRED * lengths[a] * lengths[b]
        pairs.update((min(x, y), max(x, y)) for x, y in zip(a[same].tolist(), b[same].tolist(), strict=True))
    return sorted(pairs)


def _alike(records: Sequence[Record], key: Callable[[Record], str]) -> list[list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if key(record):
            groups[key(record)].append(record)
    return [group for group in groups.values() if len(group) > 1]


def _named(group: Sequence[Record]) -> str:
    return " = ".join(f"{record.image}{f' ({record.split})' if record.split else ''}" for record in group)


def _pictures(dataset: Dataset, looks: dict[Path, _Look]) -> Iterator[Problem]:
    """Images that can be read, and of which there is something to know."""
    constant = [record.image for record in dataset.records if looks[record.path].constant]
    if constant:
        yield _problem("warning", "constant-images", "image[s] [has|have] one value all over", constant)
    dark = [
        record.image
        for record in dataset.records
        if (look := looks[record.path]).brightest < DARK and not look.constant
    ]
    if dark:
        text = f"image[s] use[s|] less than {DARK:.0%} of the range of [its|their] file, as 12 bits stored in 16 do"
        yield _problem("warning", "dark-images", text, dark)
    several = [
        f"{record.image} ({looks[record.path].frames})" for record in dataset.records if looks[record.path].frames > 1
    ]
    if several:
        text = "file[s] [has|have] several frames; only the first is used, of a NIfTI volume the middle slice"
        yield _problem("warning", "several-frames", text, several)
    tiny = [
        record.image
        for record in dataset.records
        if (size := looks[record.path].size_rc) is not None and min(size) < SMALLEST_SIDE_PX
    ]
    if tiny:
        yield _problem("warning", "tiny-images", f"image[s] [has|have] a side below {SMALLEST_SIDE_PX} pixels", tiny)


def _truth(dataset: Dataset, looks: dict[Path, _Look], mask_looks: dict[MaskSource, _MaskLook]) -> Iterator[Problem]:
    """Boxes and masks that do not fit their image or its labels."""
    outside, over_edge, odd_size, empty, unlabelled, empty_lungs = [], [], [], [], [], []
    for record in dataset.records:
        size = looks[record.path].size_rc
        label_of = dict(zip(dataset.findings, record.labels, strict=True))
        for finding, label in label_of.items():
            name = f"{record.image} {finding}"
            mask = mask_looks.get(record.masks[finding]) if finding in record.masks else None
            if mask is not None and mask.empty and label == 1:
                empty.append(name)
            outlined = bool(record.boxes_xyxy.get(finding)) or (mask is not None and not mask.empty and not mask.error)
            if outlined and label != 1:
                unlabelled.append(name)
            if size is None:
                continue
            for x1, y1, x2, y2 in record.boxes_in(finding, size):
                if x2 <= 0 or y2 <= 0 or x1 >= size[1] or y1 >= size[0]:
                    outside.append(name)
                elif x1 < -0.5 or y1 < -0.5 or x2 > size[1] + 0.5 or y2 > size[0] + 0.5:
                    over_edge.append(name)
        lungs = mask_looks.get(record.lungs) if record.lungs is not None else None
        if lungs is not None and lungs.empty:
            empty_lungs.append(record.image)
        for source in _masks(record):
            mask_size = mask_looks[source].size_rc
            if size is not None and mask_size is not None and not _same_aspect(size, mask_size):
                odd_size.append(f"{source.name} {mask_size[0]} x {mask_size[1]} on {size[0]} x {size[1]}")
    checks: tuple[tuple[Level, str, str, list[str]], ...] = (
        ("error", "boxes-outside", "box[es] [lies|lie] outside [its|their] image", outside),
        ("warning", "boxes-over-edge", "box[es] reach[es|] over the edge of [its|their] image", over_edge),
        ("error", "masks-of-odd-size", "mask[s] [has|have] another aspect than [its|their] image", odd_size),
        ("warning", "empty-masks", "mask[s] of a positive finding [is|are] empty", empty),
        ("warning", "empty-lungs", "lung mask[s] [is|are] empty", empty_lungs),
        ("warning", "outlined-not-positive", "outlined finding[s] [is|are] not labelled positive", unlabelled),
    )
    for level, kind, what, concerned in checks:
        if concerned:
            yield _problem(level, kind, what, concerned)


def _same_aspect(size_rc: tuple[int, int], mask_size_rc: tuple[int, int]) -> bool:
    """Whether a mask, stretched over the image, is off by less than a pixel of the smaller of the two."""
    rows, columns = size_rc[0] / mask_size_rc[0], size_rc[1] / mask_size_rc[1]
    longest = min(max(size_rc), max(mask_size_rc))
    return abs(rows / columns - 1) * longest <= 1


def _learnable(dataset: Dataset) -> Iterator[Problem]:
    """Whether there is something to train on, and something to choose by."""
    usable = {"train": 0, "val": 0}
    for split, purpose in (("train", "to train on"), ("val", "to choose a model and its thresholds by")):
        if not any(record.split == split for record in dataset.records):
            yield Problem("error", f"no-{split}", 1, f"no image is in {split}: there is nothing {purpose}")
            continue
        one_class = []
        for finding in dataset.findings:
            counts = _counts(dataset, finding, split)
            if counts.positive and counts.negative:
                usable[split] += 1
            else:
                have = "positives" if counts.positive else "negatives" if counts.negative else "unknown labels"
                one_class.append(f"{finding} (only {have})")
        if one_class:
            level: Level = "error" if split == "train" and not usable["train"] else "warning"
            yield _problem(
                level, f"one-class-in-{split}", f"finding[s] [has|have] not both classes in {split}", one_class
            )


def _unlisted(dataset: Dataset, masks: Iterable[Path]) -> Iterator[Problem]:
    """Image files beside those of the data set that it does not name, and that are no masks of those it does."""
    listed: dict[Path, set[str]] = defaultdict(set)
    for record in dataset.records:
        listed[record.path.parent].add(record.path.name)
    for path in masks:
        if path.parent in listed:
            listed[path.parent].add(path.name)
    unlisted = []
    for folder, names in listed.items():
        try:
            present = os.listdir(folder)
        except OSError:
            continue
        stems = {os.path.splitext(name)[0] for name in present}
        for name in sorted(present):
            companion = _COMPANION.fullmatch(os.path.splitext(name)[0])
            if name not in names and is_image_name(name) and not (companion and companion[1] in stems):
                unlisted.append(str(folder / name))
    if unlisted:
        yield _problem("warning", "images-without-labels", "image[s] beside these [has|have] no labels", unlisted)
