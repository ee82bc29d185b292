"""Score maps made by anyone, as ``radtag evaluate`` scores a run's.

A folder of maps (:mod:`radtag.mapfiles`) stands in for the run: :class:`GivenMaps` is a
:class:`radtag.predictions.Predictor`, so numbers, report, ``compare`` and ``pool`` are the same.

Conventions
-----------
- A map of another size than its image is stretched over it, bilinearly, its cells as tiles (torch's
  ``align_corners=False``).
- Maps lie on one absolute scale, 0-1. ``values="image"`` stretches each map from its own minimum to its own maximum, as
  CheXlocalize does, and a constant one to 0; ``"sigmoid"`` takes logits.
- An image's score is that of the table of scores, else the one in the map's file, else the map's maximum.
- Thresholds are given, or chosen on a validation split; never on what is scored: :func:`choose` is the only way to
  choose them, and refuses a split, an image, a file or a patient that is scored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from radtag.calibration import youden_threshold
from radtag.data.csvfile import CsvFile, read_csv
from radtag.data.files import identical_files
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting, UnreadableImage
from radtag.geometry import Frame, Grid, boxes_to_mask
from radtag.images import Image, read
from radtag.mapfiles import MapFolder, Named, read_map, without_ending
from radtag.metrics.chexlocalize import best_of
from radtag.metrics.resize import bilinear
from radtag.truth import truth_of
from radtag.words import counted

if TYPE_CHECKING:
    from radtag.tag import Prediction, Tag

Scale = Literal["absolute", "image", "sigmoid"]
Missing = Literal["refuse", "empty"]
MaskRule = float | Literal["otsu"]

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""What mask thresholds are chosen from."""
PLAIN_THRESHOLD = 0.5
"""Of scores and masks, where nothing else is said."""


@dataclass(frozen=True)
class Scores:
    """Scores of images by finding, and the thresholds that came with them.

    Args:
        score: per finding, by the images' names.
        threshold: of scores, by finding.
        mask_threshold: of maps, by finding; "otsu" where it differs by image.
        digest: of the table's content.
    """

    score: Mapping[str, Named]
    threshold: Mapping[str, float] = field(default_factory=dict)
    mask_threshold: Mapping[str, MaskRule] = field(default_factory=dict)
    digest: str = ""

    @classmethod
    def read(cls, path: Path, findings: Sequence[str]) -> Scores:
        """A table as ``tags.csv`` (a row per image and finding), or a row per image with a column for each finding.

        Raises:
            BadData: no column image, no score of any finding, a cell that is no share, or an image with two rows.
        """
        if not path.is_file():
            raise BadData(f"{path} does not exist. Give a tags.csv, or a table of images and a column a finding.")
        table = read_csv(path)
        at, of = table.column("image"), table.find("finding")
        score: dict[str, dict[str, float]] = {}
        also: dict[str, dict[str, float]] = {"threshold": {}, "mask_threshold": {}}
        for line, row in table.rows:
            name = without_ending(row[at])
            if of is not None:
                cells = {row[of]: ("score", row[table.column("score")])} if row[of] in findings else {}
                for column, known in also.items():
                    where = table.find(column)
                    if cells and where is not None and row[where]:
                        _same(table, line, column, known, row[of], _share(table, line, column, row[where]))
            else:
                where_of = {finding: table.find(finding) for finding in findings}
                cells = {finding: (finding, row[i]) for finding, i in where_of.items() if i is not None}
            for finding, (column, cell) in cells.items():
                if not cell:
                    continue
                own = score.setdefault(finding, {})
                if name in own:
                    raise BadData(f"{path} line {line}: {row[at]} has a score of {finding} already. Keep one row.")
                own[name] = _share(table, line, column, cell)
        if not score:
            raise BadData(f"{path} has no score of {', '.join(findings)}: its columns are {', '.join(table.header)}.")
        masks: dict[str, MaskRule] = {
            name: "otsu" if np.isnan(value) else value for name, value in also["mask_threshold"].items()
        }
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        return cls({name: Named(own, "score") for name, own in score.items()}, also["threshold"], masks, digest)


@dataclass(frozen=True)
class Thresholds:
    """What scores must reach and maps exceed, by finding, and where that comes from."""

    score: Mapping[str, float]
    mask: Mapping[str, MaskRule]
    source: str


class GivenMaps:
    """Maps and scores at hand, as an evaluation asks for them: a :class:`radtag.predictions.Predictor`.

    Args:
        folder: where the maps are.
        dataset: the images, by whose files predictions are asked for.
        scores: of the images; None = as in the maps' files, or the maps' maxima.
        values: what the maps' values are.
        missing: what to make of a pair without a map.
        min_area_px: smaller components of a mask are dropped; None = a share of the image.

    Raises:
        BadData: pairs without a map or without a score, or one map for two images.
        BadSetting: a scale there is not.
    """

    area: Literal["image"] = "image"
    is_network = False

    def __init__(
        self,
        folder: MapFolder,
        dataset: Dataset,
        *,
        scores: Scores | None = None,
        values: Scale = "absolute",
        missing: Missing = "refuse",
        min_area_px: float | None = None,
    ) -> None:
        for what, given, allowed in (("values", values, Scale), ("missing maps", missing, Missing)):
            if given not in get_args(allowed):
                raise BadSetting(f"{what} are {' or '.join(get_args(allowed))}, not {given!r}.")
        self.findings: tuple[str, ...] = tuple(folder.files)
        self.folder, self.values, self._scores, self.min_area_px = folder, values, scores, min_area_px
        self.name = f"maps ({folder.root.resolve().name})"
        self._records = {str(record.path): record for record in dataset.records}
        self.thresholds = Thresholds(
            dict.fromkeys(self.findings, PLAIN_THRESHOLD), dict.fromkeys(self.findings, PLAIN_THRESHOLD), "given"
        )
        self.missing = self._look(dataset, missing)
        self.settings: dict[str, Any] = {"values": values, "missing": missing, "min_area_px": min_area_px}
        held = [*folder.stamps(), *([scores.digest] if scores is not None else [])]
        self.digest = hashlib.sha256(json.dumps(held).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.with_thresholds(self.thresholds)

    def with_thresholds(self, thresholds: Thresholds) -> None:
        """Sets what makes a pair positive and a pixel marked."""
        self.thresholds = thresholds
        self.settings |= {
            "threshold": [thresholds.score[name] for name in self.findings],
            "mask": [thresholds.mask[name] for name in self.findings],
            "thresholds": thresholds.source,
        }

    def _look(self, dataset: Dataset, missing: Missing) -> int:
        """How many pairs have no map, where that is allowed."""
        owner: dict[Path, str] = {}
        scored: dict[tuple[str, str], str] = {}
        gone, unscored = [], []
        for record in dataset.records:
            for finding in self.findings:
                path = self.folder.files[finding].of(record)
                if path is None:
                    gone.append(f"{record.image}, {finding}")
                elif owner.setdefault(path, record.image) != record.image:
                    raise BadData(
                        f"{path} is the map of {owner[path]} and of {record.image}. Name maps as the images, folders"
                        " included."
                    )
                if self._scores is not None:
                    named = self._scores.score.get(finding)
                    row = named.name_of(record) if named is not None else None
                    if row is None:
                        unscored.append(f"{record.image}, {finding}")
                    elif scored.setdefault((finding, row), record.image) != record.image:
                        raise BadData(
                            f"the row of {row} has the score of {scored[finding, row]} and of {record.image}. Name rows"
                            " as the images, folders included."
                        )
        if gone and missing == "refuse":
            raise BadData(
                f"{counted(len(gone), 'pair[s] of image and finding [has|have] no map')} in {self.folder.root}; the"
                f" first: {gone[0]}. Write them all (radtag tag: --save-for all), or count what is missing as a map of"
                " nothing with --missing empty."
            )
        if unscored:
            text = "pair[s] of image and finding [has|have] no score"
            raise BadData(f"{counted(len(unscored), text)}; the first: {unscored[0]}. Give them all, or no table.")
        return len(gone)

    def predict(self, images: Iterable[Image]) -> Iterator[Prediction]:
        """A prediction for each image, its maps stretched over it."""
        for image in images:
            yield self.prediction(self._records[image.source], image)

    def prediction(self, record: Record, image: Image) -> Prediction:
        """The maps and scores of one image.

        Raises:
            BadData: values outside 0-1 on the absolute scale.
            UnreadableImage: a file of a map that cannot be read.
        """
        from radtag.tag import Layer, Prediction

        maps = np.zeros((len(self.findings), *image.size_rc), dtype=np.float32)
        scores = np.zeros(len(self.findings), dtype=np.float32)
        for i, finding in enumerate(self.findings):
            path, own = self.folder.files[finding].of(record), None
            if path is not None:
                stored, own = read_map(path)
                maps[i] = self.laid(path, stored, image.size_rc)
            named = self.score_of(record, finding)
            scores[i] = named if named is not None else maps[i].max() if own is None else own
        grid = Grid.tiles(image.size_rc, image.size_rc)
        return Prediction(image, scores, (Layer(maps, (grid,) * len(maps), Frame.identity(image.size_rc)),))

    def score_of(self, record: Record, finding: str) -> float | None:
        """An image's score of the table of scores; None without a table."""
        return None if self._scores is None else self._scores.score[finding].of(record)

    def laid(self, path: Path, stored: NDArray[np.float32], size_rc: tuple[int, int]) -> NDArray[np.float32]:
        """A file's map (row, col) over its image, as 0-1.

        Of logits the sigmoid comes first, and then they are interpolated, as PYLON's evaluation does.

        Raises:
            BadData: values outside 0-1 on the absolute scale.
        """
        if self.values == "sigmoid":
            return bilinear(np.asarray(expit(stored), dtype=np.float32), size_rc)
        values = bilinear(stored, size_rc)
        low, high = values.min(), values.max()
        if self.values == "image":
            return (values - low) / (high - low) if high > low else np.zeros_like(values)
        if low < 0 or high > 1:
            raise BadData(
                f"{path} runs from {low:g} to {high:g}; maps lie on one scale from 0 to 1. Take logits with --values"
                " sigmoid, or stretch each map by itself with --values image."
            )
        return values

    def tags(self, prediction: Prediction, name: str) -> list[Tag]:
        """The tags of one image, one a finding."""
        from radtag.tag import tags_of

        thresholds = [self.thresholds.score[finding] for finding in self.findings]
        rules = [self.thresholds.mask[finding] for finding in self.findings]
        return tags_of(prediction, name, self.findings, thresholds, rules, self.min_area_px)

    def notes(self) -> list[str]:
        """What to know of numbers made from these maps."""
        said = [
            f"Maps are those of {self.folder.root.name}, stretched bilinearly over their images where they are of"
            " another size."
        ]
        if self.values == "image":
            said.append("Each map is stretched to 0-1 by itself: a healthy image's map is as bright as a sick one's.")
        if self._scores is None:
            said.append("Scores are those in the maps' files, or where there are none the maps' maxima.")
        if self.missing:
            text = "pair[s] of image and finding [has|have] no map and count[s|] as a map of nothing."
            said.append(counted(self.missing, text))
        return [*said, f"Thresholds: {self.thresholds.source}."]


def score(
    maps: Path | str,
    dataset: Dataset,
    out: Path | str,
    *,
    scores: Path | str | None = None,
    values: Scale = "absolute",
    mask: MaskRule | None = None,
    threshold: float | None = None,
    validation: tuple[Path | str, Dataset] | None = None,
    missing: Missing = "refuse",
    min_area_px: float | None = None,
    measures: Sequence[str] = (),
    **options: Any,
) -> dict[str, Any]:
    """Scores a folder of maps against a data set, and writes what :func:`radtag.evaluate.evaluate` writes.

    Args:
        maps: a folder of maps (:mod:`radtag.mapfiles`), or what ``radtag tag`` wrote.
        dataset: images with labels, and boxes or masks. Give one split: ``dataset.only("test")``.
        out: the folder of the results.
        scores: a ``tags.csv``, or a table of images and a column a finding; None = the maps' own (or the ``tags.csv``
            beside them, where radtag wrote them).
        values: what the maps' values are.
        mask: what a map must exceed to be in the mask; None = as chosen on ``validation``, else the ``mask_threshold``
            of the scores' table, else 0.5.
        threshold: of scores; None = likewise, from the table's ``threshold``.
        validation: maps and data that thresholds are chosen on.
        missing: what to make of a pair without a map: refuse, or count it as a map of nothing.
        min_area_px: smaller components of a mask are dropped; None = a share of the image.
        measures: work out these alone, in seconds and without a report (:mod:`radtag.places`); none = everything.
        options: further ones of :func:`radtag.evaluate.evaluate`.

    Raises:
        BadData: maps or scores that are missing or do not fit, and validation data that is scored too.
        BadSetting: values that there are not.
        UnreadableImage: a map that cannot be read.
    """
    if mask is not None and validation is not None:
        raise BadSetting("the mask's threshold is given, and validation data to choose it on. Give one of them.")
    if isinstance(mask, str) and mask != "otsu":
        raise BadSetting(f"mask is otsu or a map value from 0 to 1, got {mask!r}.")
    for what, value in (("mask", mask), ("threshold", threshold)):
        if isinstance(value, float | int) and not 0 <= value <= 1:
            raise BadSetting(f"{what} lies from 0 to 1, got {value}.")
    root, table = _places(Path(maps), scores)
    folder = MapFolder.open(root, dataset.findings)
    own = Scores.read(table, tuple(folder.files)) if table is not None else None
    predictor = GivenMaps(folder, dataset, scores=own, values=values, missing=missing, min_area_px=min_area_px)
    chosen = None
    if validation is not None:
        chosen = choose(
            *(Path(validation[0]), validation[1], dataset, predictor.findings),
            scores=table,
            values=values,
            missing=missing,
        )
    predictor.with_thresholds(_thresholds(predictor.findings, own, chosen, mask, threshold))
    if measures:
        from radtag.places import score_places

        if options.pop("inside", "image") != "image":
            raise BadSetting("pixels inside the lungs are counted in a whole evaluation only. Leave measure out.")
        return score_places(predictor, dataset, Path(out), measures, **options)
    from radtag.evaluate import evaluate  # its imports take longer than all of score_places

    return evaluate(predictor, dataset, out, **options)


def choose(
    maps: Path,
    validation: Dataset,
    scored: Dataset,
    findings: Sequence[str],
    *,
    scores: Path | None = None,
    **options: Any,
) -> Thresholds:
    """Thresholds that suit validation images: of maps by the greatest mean IoU, of scores by Youden's index.

    Of maps: the mean over the validation images with a known place, an empty mask counting 0, over ``THRESHOLDS``; of
    equally good ones the lowest. Boxes stand for a mask where there is none. Small parts, which masks lose afterwards,
    count here. 0.5 where no place is known, or one class.

    Args:
        maps: the validation images' maps.
        validation: one split with labels and places, and nothing of what is scored.
        scored: what the thresholds will be used on.
        findings: to choose for.
        scores: a table that has the validation images too, or None.
        options: as for :class:`GivenMaps`.

    Raises:
        BadData: anything of the validation data is scored too.
    """
    refuse_scored(validation, scored)
    root, table = _places(maps, None)
    known = [name for name in findings if name in validation.findings]
    folder = MapFolder.open(root, known)
    table = table if table is not None else scores
    own = Scores.read(table, tuple(folder.files)) if table is not None else None
    validation = validation.with_findings(folder.files)
    predictor = GivenMaps(folder, validation, scores=own, **options)
    ious: dict[str, list[NDArray[np.float64]]] = {name: [] for name in predictor.findings}
    said: list[NDArray[np.float32]] = []
    read_of: list[int] = []
    for number, record in enumerate(validation.records):
        try:
            image = read(record.path)
        except UnreadableImage:
            continue
        prediction = predictor.prediction(record, image)
        said.append(prediction.scores)
        read_of.append(number)
        for i, finding in enumerate(predictor.findings):
            truth = truth_of(record, finding, image.size_rc) if record.labels[i] == 1 else None
            if truth is not None and len(truth.boxes_xyxy):
                where = truth.mask if truth.mask is not None else boxes_to_mask(truth.boxes_xyxy, image.size_rc)
                ious[finding].append(ious_at(prediction.layers[0].maps[i], where, THRESHOLDS))
    labels = validation.labels()[read_of]
    by_mask: dict[str, MaskRule] = dict.fromkeys(findings, PLAIN_THRESHOLD)
    by_score = dict.fromkeys(findings, PLAIN_THRESHOLD)
    for i, finding in enumerate(predictor.findings):
        if ious[finding]:
            by_mask[finding] = best_of(np.array(ious[finding]), THRESHOLDS)
        at = ~np.isnan(labels[:, i])
        positive = labels[at, i] == 1
        if positive.any() and not positive.all():
            by_score[finding] = youden_threshold(np.array(said)[at, i], positive)
    splits = ", ".join(dict.fromkeys(record.split for record in validation.records))
    return Thresholds(by_score, by_mask, f"chosen on {validation.name}, split {splits}, {len(read_of)} images")


def ious_at(map_: NDArray[np.float32], truth: NDArray[np.bool_], thresholds: Sequence[float]) -> NDArray[np.float64]:
    """IoU of ``map > threshold`` and the truth (row, col) at each of ascending thresholds (threshold,)."""
    above = np.searchsorted(np.asarray(thresholds), map_.ravel().astype(np.float64), side="left")  # how many it exceeds
    size = len(thresholds) + 1
    marked = np.bincount(above, minlength=size)[::-1].cumsum()[::-1][1:]
    shared = np.bincount(above[truth.ravel()], minlength=size)[::-1].cumsum()[::-1][1:]
    return np.asarray(shared / (marked + np.count_nonzero(truth) - shared))


def refuse_scored(validation: Dataset, scored: Dataset) -> None:
    """Refuses to choose anything on what is scored.

    Raises:
        BadData: a split of the same name or without one, or an image, a file, its content or a patient in both.
    """
    ours, theirs = ({record.split for record in one.records} for one in (validation, scored))
    if "" in ours or ours & theirs:
        both = ", ".join(sorted(ours & theirs)) or "no split"
        raise BadData(
            f"thresholds would be chosen on {both}, which is scored. Choose them on another split, such as val, and"
            " score with --only test."
        )
    paths = {record.path.absolute(): record for record in scored.records}
    images = {record.image for record in scored.records}
    patients = {record.patient for record in scored.records if record.patient}
    content = identical_files([record.path for one in (validation, scored) for record in one.records])
    contents = {content[record.path] for record in scored.records if record.path in content}
    for record in validation.records:
        if record.image in images or record.path.absolute() in paths:
            raise BadData(
                f"thresholds would be chosen on {record.image}, which is scored. Leave it out of one of them."
            )
        if record.patient and record.patient in patients:
            raise BadData(
                f"thresholds would be chosen on {record.image} of patient {record.patient}, of whom other images are"
                " scored. Give splits by patient with --splits."
            )
        if content.get(record.path) in contents:
            raise BadData(
                f"thresholds would be chosen on {record.image}, a file that is scored under another name. Leave it out"
                " of one of them."
            )


def _thresholds(
    findings: Sequence[str],
    table: Scores | None,
    chosen: Thresholds | None,
    mask: MaskRule | None,
    threshold: float | None,
) -> Thresholds:
    """What was asked for, else chosen, else of the table, else 0.5; and which of them it is, in words."""
    masks: dict[str, MaskRule] = dict.fromkeys(findings, PLAIN_THRESHOLD if mask is None else mask)
    scores = dict.fromkeys(findings, PLAIN_THRESHOLD if threshold is None else threshold)
    source = "as given" if mask is not None or threshold is not None else "0.5"
    if chosen is not None:
        masks = dict(chosen.mask)
        source = chosen.source
        scores = dict(chosen.score) if threshold is None else scores
    elif table is not None:
        of_masks, of_scores = mask is None and bool(table.mask_threshold), threshold is None and bool(table.threshold)
        if of_masks:
            masks |= {name: value for name, value in table.mask_threshold.items() if name in masks}
        if of_scores:
            scores |= {name: value for name, value in table.threshold.items() if name in scores}
        if of_masks or of_scores:
            given = "of masks as given, of scores as in their table"
            source = "those of the table of scores" if mask is None else given
        if of_masks and "otsu" in masks.values():
            source += ", of masks Otsu's for each map where the table's differ by image"
    return Thresholds(scores, masks, source)


def _places(maps: Path, scores: Path | str | None) -> tuple[Path, Path | None]:
    """The folder of maps and the table of scores; what radtag tag wrote has both."""
    if (maps / "maps").is_dir() and (maps / "tags.csv").is_file():
        return maps / "maps", Path(scores) if scores is not None else maps / "tags.csv"
    return maps, Path(scores) if scores is not None else None


def _share(table: CsvFile, line: int, column: str, cell: str) -> float:
    value = table.number(line, column, cell)
    if not 0 <= value <= 1:
        raise BadData(f"{table.path} line {line}, column {column}: {cell} lies outside 0-1. Give probabilities.")
    return value


def _same(table: CsvFile, line: int, column: str, known: dict[str, float], finding: str, value: float) -> None:
    """Keeps a finding's threshold, of which there is one; Otsu's differ by image and are none."""
    if known.setdefault(finding, value) != value and column == "threshold":
        raise BadData(f"{table.path} line {line}: {finding} has the thresholds {known[finding]} and {value}. Keep one.")
    if known[finding] != value:
        known[finding] = float("nan")
