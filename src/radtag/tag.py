"""Tag images: a score, a map, a mask and boxes for every finding, in the image's own pixels.

Conventions
-----------
- A file of one image is named as its file (``a.png``); a frame or slice of a file of several is ``scan.dcm#3``, counted
  from 0. Files of one name in different folders are told apart by as many of their folders as it takes (``b/a.png``).
- The mask and its boxes follow from the map alone (map > mask threshold); ``positive`` follows from the score alone
  (score >= threshold). Files of maps, masks and overlays are written for positive findings unless told otherwise.
- With several networks, or mirrored images, what is averaged are calibrated scores, and calibrated maps in original
  pixels; thresholds are the mean of the networks'.
- Networks of two kinds, whose maps are probabilities and changes of the image, have no common scale but their mask
  thresholds. Their joint map is J / (1 + J), J the geometric mean of the maps, each over its own mask threshold (plus
  ``JOINT_FLOOR``): about 0.5 where the networks on the mean just mark, and high only where all of them see something.

``tag_files`` streams: reader threads decode ahead of the network, writer threads follow it, and no more than a few
batches of images are held. Every finished image is a line of ``journal.jsonl``, written after its pictures, so that a
call that was killed is taken up where it stopped; ``tags.csv`` is assembled from the journal.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit

import radtag
from radtag import draw, regions
from radtag.ahead import Step, map_ahead, read_ahead
from radtag.anatomy import AREAS, Area, estimate
from radtag.calibration import Calibration
from radtag.data.files import held
from radtag.data.prepare import LungField, lung_field
from radtag.errors import BadSetting, RadtagError, UnreadableImage
from radtag.geometry import XYXY, Frame, Grid, laid_on_original, stretch_mask, to_original
from radtag.images import Image, expand, read_all
from radtag.journal import Journal, Name, Stamp, name_files, safe, stamp_of
from radtag.process import cores
from radtag.regions import Regions
from radtag.saliency import Explainer, Method, Scale
from radtag.train.loop import confined
from radtag.train.outline import Outliner, cheapest, lungs_of, run_digest
from radtag.train.run import Run
from radtag.words import counted

FloatMap = NDArray[np.float32]
Saved = Literal["maps", "masks", "overlays", "counterparts"]
PICTURES: tuple[Saved, ...] = ("maps", "masks", "overlays", "counterparts")
FULL_CHANGE = 0.2
"""Pictures show a map of changes as they show probabilities, with this share of the image's range as their 1."""
LEAST_CHANGE = np.float32(1 / 512)
"""Half a grey level of 8 bits: a smaller change of a pixel is none, and the pixel keeps its value to the bit."""
JOINT_FLOOR = np.float32(0.1)
"""Added to a map over its threshold, in a joint map: one network that sees nothing cannot rule a place out alone."""
JOINT_THRESHOLD = 0.375
"""Of joint maps, in masks: J > 0.6. Where J > 1 all networks agree, and masks are a third too small; at 0.6 they had
the area of lesions planted in validation images (docs/log.md)."""
MOST_LANES = 4
"""Batches through the network at once at most: each has features of its own in memory."""
MaskRule = Literal["validated", "otsu"]

COLUMNS = (
    *("image", "finding", "score", "threshold", "positive", "peak_x", "peak_y"),
    *("mask_area_px", "mask_area_mm2", "boxes", "mask_threshold", "frame", "file"),
)
OVERLAY_PX = 768
"""Longest side of an overlay at most; it is for looking at, where map and mask have every original pixel."""


class Layer(NamedTuple):
    """Calibrated maps (finding, row, col) of one pass through one network, and the way back to the original.

    ``grids`` say where the cells look, for each finding.
    Of networks of two kinds ``maps`` are logarithms, whose mean is the logit of the joint map.
    ``sigmoids`` are the same maps before calibration, as the network gives them: plain sigmoids of its logits, which
    is what published numbers are taken on; None = there is no other map than the calibrated one.
    """

    maps: FloatMap
    grids: tuple[Grid, ...]
    frame: Frame
    sigmoids: FloatMap | None = None
    changes: FloatMap | None = None
    """What the network takes away to make the image normal (finding, row, col), signed, in units of its range; (1, row,
    col) where that is one for all findings."""
    inside: NDArray[np.bool_] | None = None
    """(row, col) in original pixels: the lungs, where the network was shown nothing else; None = the whole image."""
    outside: float = 0.0
    """The map's value beside them."""

    def laid(
        self,
        finding: int,
        *,
        rows: slice = slice(None),
        cols: slice = slice(None),
        frame_of: Callable[[Frame], Frame] = lambda frame: frame,
    ) -> FloatMap:
        """A finding's map (row, col) in the pixels ``frame_of`` leads back to, or a part of it."""
        frame = frame_of(self.frame)
        map_ = to_original(self.maps[finding], self.grids[finding], frame, rows=rows, cols=cols)
        if self.inside is None:
            return map_
        return np.where(stretch_mask(self.inside, frame.original_size_rc)[rows, cols], map_, np.float32(self.outside))


@dataclass(frozen=True)
class Prediction:
    """What the networks say about one image.

    Args:
        image: the image.
        scores: (finding,) probabilities.
        layers: one for each network and each mirroring; the map is their mean in original pixels.
        area: (row, col) where masks may lie; None = anywhere. The map is the same whatever the area.
        joint: the layers are of networks of two kinds, and the map is the sigmoid of their mean.
    """

    image: Image
    scores: NDArray[np.float32]
    layers: tuple[Layer, ...]
    area: NDArray[np.bool_] | None = None
    joint: bool = False

    @property
    def frame(self) -> Frame:
        """How the image became the (first) network's input."""
        return self.layers[0].frame

    @property
    def map_grid(self) -> FloatMap:
        """(finding, row, col) calibrated maps on the grid of the only layer.

        Raises:
            ValueError: there are several layers, whose grids differ; use :meth:`maps`.
        """
        if len(self.layers) > 1:
            raise ValueError(f"{len(self.layers)} layers have no common grid; use maps(), in original pixels")
        return self.layers[0].maps

    def maps(self) -> FloatMap:
        """(finding, row, col) in original pixels."""
        return self.map(slice(None))

    def map(
        self,
        finding: int | slice,
        *,
        rows: slice = slice(None),
        cols: slice = slice(None),
        frame_of: Callable[[Frame], Frame] = lambda frame: frame,
    ) -> FloatMap:
        """One finding's map (row, col), or a slice of them, or a part, in the pixels ``frame_of`` leads back to."""
        if isinstance(finding, slice):
            wanted = range(*finding.indices(len(self.scores)))
            return np.stack([self.map(i, rows=rows, cols=cols, frame_of=frame_of) for i in wanted])
        laid = [one.laid(finding, rows=rows, cols=cols, frame_of=frame_of) for one in self.layers]
        mean = laid[0] if len(laid) == 1 else sum(laid[1:], laid[0]) / np.float32(len(laid))
        if not self.joint:
            return mean
        map_: FloatMap = expit(mean)
        fields = [one.inside for one in self.layers if one.inside is not None]
        if len(fields) < len(self.layers):
            return map_
        size_rc = frame_of(self.frame).original_size_rc
        return np.where(stretch_mask(np.logical_or.reduce(fields), size_rc)[rows, cols], map_, np.float32(0))

    def encoded(self, finding: int) -> bytes:
        """A finding's map in original pixels as a 16-bit PNG file, 65535 = 1.0; to within 8/65535."""
        one = self.layers[0]
        if not self.plain or one.maps[finding].max() > 1:
            return draw.encode_map(self.map(finding))
        return draw.encode_laid_map(laid_on_original(one.maps[finding], one.grids[finding], one.frame))

    def shown(self, findings: Sequence[int], factor: int) -> NDArray[np.uint8]:
        """The highest of these findings' maps, in bytes, :attr:`full` = 255, of the image reduced by a whole number."""
        one = self.layers[0]
        cells = one.maps[list(findings)] / np.float32(self.full)
        # A map that is cut off at the highest value does not change by equal steps between two cells.
        if self.plain and cells.max() <= 1:
            frame = one.frame.of_reduced(factor)
            grids = [one.grids[i] for i in findings]
            return draw.highest([laid_on_original(*of_one, frame) for of_one in zip(cells, grids, strict=True)])
        maps = (self.map(i, frame_of=lambda frame: frame.of_reduced(factor)) for i in findings)
        return draw.to_bytes(reduce(np.maximum, maps) / np.float32(self.full))

    @property
    def confined(self) -> bool:
        """Whether a network was shown a part of the image alone."""
        return any(one.inside is not None for one in self.layers)

    @property
    def plain(self) -> bool:
        """Whether the map is one network's, interpolated, and nothing else."""
        return len(self.layers) == 1 and not self.joint and not self.confined

    @property
    def full(self) -> float:
        """The map's value that pictures show as highest: 1 of a probability, :data:`FULL_CHANGE` of a change."""
        return 1.0 if self.layers[0].changes is None else FULL_CHANGE

    def change(self, finding: int) -> FloatMap:
        """What is taken away (row, col) in original pixels, signed, in units of the image's range.

        Raises:
            BadSetting: a network that changes nothing, as a classifier.
        """
        return self._change(finding, self.layers)

    def _change(self, finding: int, layers: Sequence[Layer]) -> FloatMap:
        """What these of the layers take away, as their part of the mean over all."""
        if any(one.changes is None for one in self.layers):
            raise BadSetting("a classifier has no normal counterpart. Use a run of taggan, vagan or guided.")
        change = np.zeros(self.image.size_rc, dtype=np.float32)
        for one in layers:
            assert one.changes is not None
            own = one.changes[finding if len(one.changes) > 1 else 0]
            share = to_original(own, one.grids[finding], one.frame) / np.float32(len(self.layers))
            change += share if one.inside is None else np.where(one.inside, share, 0)
        change[np.abs(change) < LEAST_CHANGE] = 0
        return change

    def counterpart(self, findings: Iterable[int]) -> FloatMap:
        """The image (row, col) in original pixels, 0-1, without these findings; untouched where nothing is taken.

        What a network takes away for all findings at once (VA-GAN) is taken away once.
        """
        pixels = self.image.pixels
        layers: Sequence[Layer] = self.layers
        for finding in findings:
            pixels = pixels - self._change(finding, layers)
            layers = [one for one in self.layers if one.changes is not None and len(one.changes) > 1]
        return np.clip(pixels, 0, 1)

    def part_above(self, finding: int, threshold: float) -> regions.Part:
        """The part of the image outside which the finding's map is not above a threshold."""
        # Beside the lungs, where they are all that it was shown, a map is no higher than its cells are.
        layers = [(one.maps[finding], one.grids[finding], one.frame) for one in self.layers]
        return regions.part_above(layers, float(logit(threshold)) if self.joint else threshold)

    @cached_property
    def peaks(self) -> NDArray[np.float64]:
        """(finding, 3): x and y of the map's first largest pixel, and its value."""
        if self.confined:
            maps = [self.map(i) for i in range(len(self.scores))]
            return np.array([(*regions.peak(map_), map_.max()) for map_ in maps])
        found = np.empty((len(self.scores), 3))
        alike: dict[tuple[Grid, ...], list[int]] = {}  # findings whose cells lie at the same places share the work
        for i in range(len(self.scores)):
            alike.setdefault(tuple(layer.grids[i] for layer in self.layers), []).append(i)
        for grids, at in alike.items():
            found[at] = regions.peaks(
                [(one.maps[at], grid, one.frame) for one, grid in zip(self.layers, grids, strict=True)]
            )
        if self.joint:
            found[:, 2] = expit(found[:, 2].astype(np.float32))  # as in the map
        return found


@dataclass(frozen=True)
class Tag:
    """What is said of one image about one finding. Map, mask and boxes are worked out when they are asked for.

    Args:
        image: name of the image.
        finding: name of the finding.
        score: probability that the image has it.
        threshold: positive from this score.
        mask_rule: what the map must exceed to be in the mask, or "otsu".
        min_area_px: smaller components are dropped; None = a share of the image, see :mod:`radtag.regions`.
        prediction: where it comes from.
        index: of the finding in the prediction.
    """

    image: str
    finding: str
    score: float
    threshold: float
    mask_rule: float | Literal["otsu"]
    min_area_px: float | None
    prediction: Prediction = field(repr=False)
    index: int = field(repr=False)

    @property
    def positive(self) -> bool:
        """Whether the score reaches the threshold."""
        return bool(np.float32(self.score) >= np.float32(self.threshold))  # scores are no finer

    @property
    def peak_xy(self) -> tuple[float, float]:
        """Centre of the map's first largest pixel, in original pixels."""
        x, y, _ = self.prediction.peaks[self.index]
        return float(x), float(y)

    @cached_property
    def map(self) -> FloatMap:
        """(row, col) in original pixels: 0-1, but for VA-GAN's, whose amounts nothing bounds."""
        return self.prediction.map(self.index)

    @cached_property
    def mask_threshold(self) -> float:
        """What the map must exceed; NaN for the Otsu threshold of a constant map."""
        return regions.otsu_threshold(self.map) if self.mask_rule == "otsu" else self.mask_rule

    @cached_property
    def regions(self) -> Regions:
        """Mask, boxes and areas."""
        if self.prediction.peaks[self.index, 2] <= self.mask_threshold:
            return Regions.none(self.prediction.image.size_rc)
        part = self.prediction.part_above(self.index, self.mask_threshold)
        if "map" in self.__dict__:  # worked out already
            map_ = self.map[part.rows, part.cols]
        else:
            map_ = self.prediction.map(self.index, rows=part.rows, cols=part.cols)
        area = self.prediction.area[part.rows, part.cols] if self.prediction.area is not None else None
        return regions.find(map_, self.mask_threshold, min_area_px=self.min_area_px, area=area, part=part)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(row, col) in original pixels."""
        return self.regions.mask

    @property
    def counterpart(self) -> FloatMap:
        """(row, col) the image without this finding, by a method that takes it away.

        Raises:
            BadSetting: the run is a classifier's.
        """
        return self.prediction.counterpart([self.index])

    @property
    def boxes(self) -> tuple[XYXY, ...]:
        """Of the mask's components, xyxy, half-open, original pixels; the one with the highest map value first."""
        return self.regions.boxes_xyxy

    @property
    def mask_area_px(self) -> int:
        """Pixels in the mask."""
        return self.regions.area_px

    @property
    def mask_area_mm2(self) -> float:
        """Square millimetres of the mask; NaN where the file does not tell the pixel spacing."""
        return regions.area_mm2(self.mask_area_px, self.prediction.image.spacing_mm)

    def row(self) -> tuple[str, ...]:
        """Its line of ``tags.csv``, but for the file."""
        x, y = self.peak_xy
        area = self.mask_area_mm2
        return (
            *(self.image, self.finding, f"{self.score:.6g}", f"{self.threshold:.6g}", str(int(self.positive))),
            *(f"{x:.10g}", f"{y:.10g}", str(self.mask_area_px), "" if np.isnan(area) else f"{area:.6g}"),
            json.dumps([[int(edge) for edge in box] for box in self.boxes], separators=(",", ":")),
            *("" if np.isnan(self.mask_threshold) else f"{self.mask_threshold:.6g}", str(self.prediction.image.frame)),
        )


def tags_of(
    prediction: Prediction,
    name: str,
    findings: Sequence[str],
    thresholds: Sequence[float] | NDArray[np.floating[Any]],
    mask_rules: Sequence[float | Literal["otsu"]],
    min_area_px: float | None,
) -> list[Tag]:
    """The tags of one image, one a finding; thresholds and mask rules are the findings', in their order."""
    return [
        Tag(
            image=name,
            finding=finding,
            score=float(prediction.scores[i]),
            threshold=float(thresholds[i]),
            mask_rule=mask_rules[i],
            min_area_px=min_area_px,
            prediction=prediction,
            index=i,
        )
        for i, finding in enumerate(findings)
    ]


class Prepared(NamedTuple):
    """An image as every network of a tagger takes it: (row, col) uint8 and the way back, for each."""

    image: Image
    inputs: tuple[tuple[NDArray[np.uint8], Frame], ...]
    area: NDArray[np.bool_] | None = None
    fields: tuple[LungField | None, ...] = ()
    """Of each network: what it is shown of the image and may mark in it; None = the whole of it."""


class Tagger:
    """One run, or several as an ensemble, ready to tag.

    Args:
        runs: runs with the same findings.
        device: "cpu", "cuda", ...; "auto" is the accelerator if there is one.
        batch_size: images of a batch through the network; :func:`tag_files` may have several batches in it at once
            (:attr:`lanes`).
        findings: those wanted, in this order; None = all.
        threshold: positive from this score, for all findings or by finding's name; None = as validated.
        mask: what a map must exceed to be in the mask: as validated, Otsu's threshold of each map, or a value 0-1.
        grid: where a map's cells lie on the image: where they were measured to look, or, as published, the centres of
            tiles.
        tta: "flip" averages with what the mirrored image gives (not for findings that are told by their side).
        min_area_px: smaller components of a mask are dropped; None = a share of the image.
        area: where masks, with their boxes and areas, may lie: anywhere on the image, or on the body or in the lungs as
            :mod:`radtag.anatomy` estimates them. Where it finds none, a mask is not limited. Maps, peaks and scores
            are the same whatever the area.
        explain: a method of :mod:`radtag.saliency`, whose maps take the place of the networks' own; None = their own.
            Scores stay what they are.
        explain_layer: of the network whose feature is explained; None = chosen.
        explain_scale: "score" is absolute, the image's score spread by the method; "image" is the usual one, each map
            stretched to 0-1 by itself, for comparing with published numbers. Mask thresholds as validated are those of
            the networks' own maps; on the scale "image" 0.5 takes their place.

    Raises:
        BadSetting: runs that differ in their findings, an unknown finding, a value out of range, or a run that cannot
            be explained.
    """

    def __init__(
        self,
        runs: Run | Sequence[Run],
        *,
        device: str = "auto",
        batch_size: int = 16,
        findings: Sequence[str] | None = None,
        threshold: float | Mapping[str, float] | None = None,
        mask: MaskRule | float = "validated",
        grid: Literal["measured", "tiles"] = "measured",
        tta: Literal["none", "flip"] = "none",
        min_area_px: float | None = None,
        area: Area = "image",
        explain: Method | None = None,
        explain_layer: str | None = None,
        explain_scale: Scale = "score",
    ) -> None:
        self.runs: tuple[Run, ...] = tuple(runs) if isinstance(runs, Sequence) else (runs,)
        if not self.runs:
            raise BadSetting("no run was given. Name at least one folder that train wrote.")
        known = self.runs[0].findings
        for run in self.runs[1:]:
            if run.findings != known:
                raise BadSetting(
                    f"{run.path} knows {', '.join(run.findings)}; {self.runs[0].path} knows {', '.join(known)}."
                    " Runs of an ensemble know the same findings in the same order."
                )
        if batch_size < 1:
            raise BadSetting(f"a batch holds at least one image, got {batch_size}.")
        if grid not in ("measured", "tiles"):
            raise BadSetting(f"grid is measured or tiles, got {grid!r}.")
        if tta not in ("none", "flip"):
            raise BadSetting(f"tta is none or flip, got {tta!r}.")
        if min_area_px is not None and not min_area_px >= 0:
            raise BadSetting(f"the smallest part of a mask has at least 0 pixels, got {min_area_px}.")
        if area not in AREAS:
            raise BadSetting(f"masks lie in one of {', '.join(AREAS)}, not in {area!r}.")
        if explain_scale not in ("score", "image"):
            raise BadSetting(f"the scale of explanations is score or image, got {explain_scale!r}.")
        if explain is None and (explain_layer is not None or explain_scale != "score"):
            raise BadSetting("a layer or a scale of explanations is given, and no method. Name one with explain.")
        for run in self.runs if explain is not None else ():
            if run.calibration.scale != "logit":
                raise BadSetting(
                    f"{run.path} is no classifier: its maps are what it takes away, and there is nothing to explain."
                    " Leave explain out, or give a classifier's run."
                )
        self.findings: tuple[str, ...] = known if findings is None else tuple(dict.fromkeys(findings))
        for name in self.findings:
            if name not in known:
                raise BadSetting(f"the run does not know the finding {name!r}; it knows {', '.join(known)}.")
        for name in threshold if isinstance(threshold, Mapping) else ():
            if name not in self.findings:
                raise BadSetting(
                    f"a threshold is given for {name!r}, which is not tagged. Tagged are {', '.join(self.findings)}."
                )
        at = [known.index(name) for name in self.findings]
        self._at = at
        self._calibrations: list[Calibration] = [run.calibration.only(at) for run in self.runs]
        self._grids = [
            tuple(run.grids[i] for i in at) if grid == "measured" else (run.tile_grid,) * len(at) for run in self.runs
        ]
        self._joint = len({run.calibration.scale for run in self.runs}) > 1
        self.thresholds = np.mean([one.score_threshold for one in self._calibrations], axis=0)
        self.mask_thresholds = np.mean([one.mask_threshold for one in self._calibrations], axis=0)
        if self._joint:
            self.mask_thresholds[:] = JOINT_THRESHOLD
        if explain_scale == "image":
            self.mask_thresholds[:] = 0.5
        if threshold is not None:
            given = threshold if isinstance(threshold, Mapping) else dict.fromkeys(self.findings, threshold)
            for i, name in enumerate(self.findings):
                self.thresholds[i] = _share("threshold", given.get(name, self.thresholds[i]))
        if not isinstance(mask, str):
            self.mask_thresholds[:] = _share("mask", mask)
        elif mask not in ("validated", "otsu"):
            raise BadSetting(f"mask is validated, otsu or a map value from 0 to 1, got {mask!r}.")
        self._otsu = mask == "otsu"
        self.batch_size = batch_size
        self.min_area_px = min_area_px
        self.tta = tta
        self.area: Area = area
        self.device = _device(device)
        # As they are cheapest to run, or with every layer that they were trained with.
        self._models = [
            cheapest(run, self.device) if explain_layer is None else run.build_model().to(self.device)
            for run in self.runs
        ]
        self._lungs: list[Outliner | None] = [lungs_of(run, self.device) for run in self.runs]
        self._explainers: list[Explainer] = []
        self._explain_scale = explain_scale
        for model in self._models if explain is not None else ():
            assert explain is not None
            self._explainers.append(Explainer(model, explain, layer=explain_layer))
        self.pictures: tuple[Saved, ...] = PICTURES
        if not all(run.calibration.scale == "amount" for run in self.runs):
            self.pictures = tuple(name for name in PICTURES if name != "counterparts")
        # What the tags depend on; written with them, so that a folder never mixes two ways of tagging.
        self.settings: dict[str, Any] = {
            "findings": list(self.findings),
            "threshold": [float(value) for value in self.thresholds],
            "mask": "otsu" if self._otsu else [float(value) for value in self.mask_thresholds],
            "grid": grid,
            "tta": tta,
            "min_area_px": min_area_px,
        }
        if area != "image":  # left out where it limits nothing: folders from before there were areas can be completed
            self.settings["area"] = area
        if explain is not None:
            self.settings |= {"explain": explain, "explain_layer": explain_layer, "explain_scale": explain_scale}

    @classmethod
    def load(cls, runs: Path | str | Sequence[Path | str], **options: Any) -> Tagger:
        """From run folders; options as for the class."""
        paths = [runs] if isinstance(runs, str | os.PathLike) else runs
        return cls([Run.load(path) for path in paths], **options)

    def prepare(self, image: Image) -> Prepared:
        """An image as the networks take it; safe to call in any thread."""
        area = None if self.area == "image" else estimate(self.area, image.pixels)
        fields = self._fields(image)
        inputs = tuple(
            run.prepare(image, None if field is None else field.seen)
            for run, field in zip(self.runs, fields, strict=True)
        )
        return Prepared(image, inputs, area, fields)

    def _fields(self, image: Image) -> tuple[LungField | None, ...]:
        """What each network is shown; networks that have the same lungs share the work."""
        found: dict[str, LungField | None] = {}
        for lungs in self._lungs:
            if lungs is not None and lungs.digest not in found:
                found[lungs.digest] = lung_field(image, lungs)
        return tuple(None if lungs is None else found[lungs.digest] for lungs in self._lungs)

    def forward(self, batch: Sequence[Prepared]) -> list[Prediction]:
        """A batch of prepared images through every network."""
        scores = np.zeros((len(batch), len(self.findings)), dtype=np.float32)
        layers: list[list[Layer]] = [[] for _ in batch]
        mirrored = (False, True) if self.tta == "flip" else (False,)
        for i, (run, model, calibration) in enumerate(zip(self.runs, self._models, self._calibrations, strict=True)):
            pixels = torch.from_numpy(np.stack([one.inputs[i][0] for one in batch])).to(self.device)
            for mirror in mirrored:
                inputs = run.normalise(pixels.flip(-1) if mirror else pixels)
                grids = self._grids[i]
                sigmoids = changes = None
                if self._explainers:
                    cells, logits, grids = self._explained(i, inputs)
                else:
                    with torch.inference_mode():
                        output = model(inputs)
                        if self._lungs[i] is not None:
                            shown = pixels.flip(-1) if mirror else pixels
                            output = confined(output, shown, [one.fields[i] is None for one in batch])
                    logits = output.logits.float().cpu().numpy()[:, self._at]
                    cells = output.maps.float().cpu().numpy()[:, self._at]
                    if output.changes is not None:
                        changes = output.changes.float().cpu().numpy()
                        changes = changes if changes.shape[1] == 1 else changes[:, self._at]
                    else:  # torch's own sigmoid: where it saturates, the first maximum is decided by its rounding
                        sigmoids = output.maps.float().sigmoid().cpu().numpy()[:, self._at]
                if mirror:
                    cells = cells[..., ::-1]
                    sigmoids = sigmoids[..., ::-1] if sigmoids is not None else None
                    changes = changes[..., ::-1] if changes is not None else None
                    grids = tuple(grid.mirrored(run.size_px) for grid in grids)
                maps = cells if self._explainers else calibration.maps(cells)
                if self._joint:
                    of_kind = LEAST_CHANGE if calibration.scale == "amount" else 1e-6  # a threshold may be 0
                    least = np.maximum(calibration.mask_threshold, of_kind).astype(np.float32)
                    maps = np.log(maps / least[:, None, None] + JOINT_FLOOR)
                    sigmoids = changes = None
                scores += calibration.scores(logits) / np.float32(len(self.runs) * len(mirrored))
                for j, one in enumerate(batch):
                    field = one.fields[i] if one.fields else None
                    layers[j].append(
                        Layer(
                            maps[j],
                            grids,
                            one.inputs[i][1],
                            sigmoids[j] if sigmoids is not None else None,
                            changes[j] if changes is not None else None,
                            None if field is None else field.lungs,
                            math.log(JOINT_FLOOR) if self._joint else 0.0,
                        )
                    )
        return [
            Prediction(one.image, score, tuple(layer), one.area, self._joint)
            for one, score, layer in zip(batch, scores, layers, strict=True)
        ]

    @property
    def lanes(self) -> int:
        """Batches that may be in :meth:`forward` at once, each in a thread, for the most images a second.

        On a CPU the threads of one batch wait for one another after every layer, and batches side by side do not. A GPU
        is filled by one, explaining keeps the features of one, and where findings are taken away each has features of
        its own, so that one fills much of the memory.
        """
        classifiers = all(run.calibration.scale == "logit" for run in self.runs)
        several = self.device.type == "cpu" and classifiers and not self._explainers
        return min(torch.get_num_threads(), MOST_LANES) if several else 1

    def scores(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(image, finding) scores alone, of images as the first network takes them (image, row, col).

        What :meth:`forward` gives a run alone, without its maps.
        """
        run, model, calibration = self.runs[0], self._models[0], self._calibrations[0]
        batch = torch.from_numpy(pixels).to(self.device)
        found = []
        for mirrored in (batch, batch.flip(-1)) if self.tta == "flip" else (batch,):
            with torch.inference_mode():
                logits = model(run.normalise(mirrored)).logits
            found.append(calibration.scores(logits.float().cpu().numpy()[:, self._at]))
        mean: NDArray[np.float32] = np.mean(found, axis=0, dtype=np.float32)
        return mean

    def _explained(self, number: int, inputs: torch.Tensor) -> tuple[FloatMap, FloatMap, tuple[Grid, ...]]:
        """By a run: maps (image, finding, row, col) 0-1 of explanations, logits, and where the maps' cells look.

        A feature of the shape of the run's own maps looks where these were measured to look.
        """
        run = self.runs[number]
        explained = self._explainers[number](inputs, self._at)
        logits = explained.logits.cpu().numpy()[:, self._at]
        if self._explain_scale == "image":
            maps = explained.relative().cpu().numpy()
        else:
            maps = explained.maps(torch.from_numpy(self._calibrations[number].scores(logits))).cpu().numpy()
        shape = (maps.shape[2], maps.shape[3])
        if explained.layer is not None and shape == run.tile_grid.size_rc:
            return maps, logits, self._grids[number]
        return maps, logits, (Grid.tiles(shape, (run.size_px, run.size_px)),) * len(self._at)

    def unlimited(self, prediction: Prediction) -> bool:
        """Whether masks were to be limited, and are not in this image, the area not being found."""
        return self.area != "image" and prediction.area is None

    def predict(self, images: Iterable[Image]) -> Iterator[Prediction]:
        """Scores and maps of images, batch by batch, in their order."""
        prepared: Iterator[Prepared] = map(self.prepare, images)
        if self.area != "image":  # estimating takes longer than preparing
            prepared = map_ahead(self.prepare, images, threads=2, ahead=self.batch_size)
        while batch := list(islice(prepared, self.batch_size)):
            yield from self.forward(batch)

    def tags(self, prediction: Prediction, name: str) -> list[Tag]:
        """The tags of one image, one a finding."""
        rules: list[float | Literal["otsu"]] = [
            "otsu" if self._otsu else float(threshold) for threshold in self.mask_thresholds
        ]
        return tags_of(prediction, name, self.findings, self.thresholds, rules, self.min_area_px)

    def tag(self, images: Iterable[Path | str | Image] | Path | str | Image) -> Iterator[Tag]:
        """Tags of files, folders, or images at hand: one for each image and finding, image by image.

        Raises:
            UnreadableImage: a file that cannot be read; :func:`tag_files` goes on and reports it.
        """
        given: list[Any] = [images] if isinstance(images, str | os.PathLike | Image) else list(images)
        todo: list[Path | Image] = []
        for one in given:
            todo += [one] if isinstance(one, Image) else expand([one])
        names = name_files([one for one in todo if not isinstance(one, Image)])

        def read(one: Path | Image) -> Iterator[tuple[str, Prepared]]:
            if isinstance(one, Image):
                yield Path(one.source).name + (f"#{one.frame}" if one.frame else ""), self.prepare(one)
                return
            for image, number in _numbered(read_all(one)):
                yield names[one].name + number, self.prepare(image)

        def values() -> Iterator[tuple[str, Prepared]]:
            for step in read_ahead(todo, read, threads=2, ahead=self.batch_size):
                if step.error is not None:
                    raise step.error
                if step.value is not None:
                    yield step.value

        stream = values()
        while batch := list(islice(stream, self.batch_size)):
            predictions = self.forward([prepared for _, prepared in batch])
            for (name, _), prediction in zip(batch, predictions, strict=True):
                yield from self.tags(prediction, name)


def load(run: Path | str | Sequence[Path | str], **options: Any) -> Tagger:
    """A tagger from a run folder, or from several as an ensemble; options as for :class:`Tagger`."""
    return Tagger.load(run, **options)


@dataclass(frozen=True)
class TagSummary:
    """What a call of :func:`tag_files` did.

    Args:
        out: the folder.
        files: files asked for.
        skipped: of these, files that were tagged before and have not changed.
        images: images in ``tags.csv``, from this call and those before.
        positives: per finding, how many of them.
        failures: files that could not be tagged, and why.
        seconds: the call took.
        area: where masks were to lie.
        unlimited: images in which that area was not found, so that their masks are not limited.
    """

    out: Path
    files: int
    skipped: int
    images: int
    positives: Mapping[str, int]
    failures: Mapping[str, str]
    seconds: float
    area: Area = "image"
    unlimited: int = 0

    @property
    def ok(self) -> bool:
        """Whether every file was tagged."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "out": str(self.out),
            "ok": self.ok,
            "files": self.files,
            "skipped": self.skipped,
            "images": self.images,
            "positives": dict(self.positives),
            "failures": dict(self.failures),
            "seconds": round(self.seconds, 3),
            "area": self.area,
            "unlimited": self.unlimited,
        }

    def lines(self) -> list[str]:
        """For people."""
        before = f", {self.skipped} of them before" if self.skipped else ""
        files, images = counted(self.files, "file[s]"), counted(self.images, "image[s]")
        lines = [f"{self.files - len(self.failures)} of {files} tagged{before}; {images} in all"]
        lines += [f"{finding}: {count} positive" for finding, count in self.positives.items()]
        if self.unlimited:
            lines.append(not_limited(self.unlimited, self.area))
        if self.failures:
            lines.append(counted(len(self.failures), "file[s] could not be tagged:"))
            lines += [f"  {cause}" for cause in self.failures.values()]
        return [*lines, f"-> {self.out / 'tags.csv'}"]


def tag_files(
    run: Tagger | Run | Path | str | Sequence[Path | str],
    files: Iterable[Path | str],
    out: Path | str,
    *,
    save: Sequence[Saved] | None = None,
    save_for: Literal["positive", "all"] = "positive",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> TagSummary:
    """Tags files into a folder: tags.csv, maps/, masks/, overlays/, manifest.json and journal.jsonl.

    A second call skips the files that are done and have not changed (size and time of change). A file that cannot be
    read is reported at the end, with its cause; all others are done. What was killed at any time is taken up by the
    same call.

    ``maps/FINDING/NAME.png`` and ``masks/FINDING/NAME.png`` are in original pixels; ``overlays/NAME.jpg`` shows all the
    findings that are positive; ``counterparts/NAME.png`` is the image without them, 65535 = 1.0, of methods that take a
    disease away. NAME is the image's without the file's ending.

    Args:
        run: what tags them; a path, or several for an ensemble.
        files: files, folders or patterns.
        out: the folder, new or from a call before.
        save: which pictures to write; None = all that the run has. Without maps, which take as long to pack as the
            rest, it is quicker.
        save_for: the findings whose pictures are written: those that are positive in an image, or all.
        threads: for reading and as many for writing; None = as suits the cores, at most 8 of each.
        progress: called with the number of files done and of all, as each is done.
        options: as for :class:`Tagger`, where ``run`` is not one.

    Raises:
        BadSetting: the folder holds tags by another run or with other settings, or another call is writing into it.
        UnreadableImage: there is nothing to tag at all.
    """
    started = time.monotonic()
    out = Path(out)
    for name in save or ():
        if name not in PICTURES:
            raise BadSetting(f"what can be saved are {', '.join(PICTURES)}, not {name!r}.")
    if save_for not in ("positive", "all"):
        raise BadSetting(f"pictures are saved for positive or all findings, not {save_for!r}.")
    if isinstance(run, Tagger):
        if options:
            raise BadSetting(f"{', '.join(options)}: give options when the tagger is made.")
        tagger = run
    elif isinstance(run, str | os.PathLike | Sequence):
        tagger = Tagger.load(run, **options)
    else:
        tagger = Tagger(run, **options)
    if save is None:
        save = tagger.pictures
    elif "counterparts" in save and "counterparts" not in tagger.pictures:
        raise BadSetting("a classifier has no normal counterparts. Leave them out, or use a run of taggan or its kin.")
    todo, missing = _found(files, out)
    readers, writers = (threads, threads) if threads else _threads(tagger)
    busy = BadSetting(f"{out}: another call is tagging into this folder. Wait for it, or choose another.")
    with held(out / ".lock", busy):  # and out is there
        identity = {
            "format": 1,
            "runs": [{"path": str(one.path), "sha256": run_digest(one.path)} for one in tagger.runs],
            "settings": {**tagger.settings, "save": sorted(save), "save_for": save_for},
        }
        _claim(out, identity)
        journal = Journal(out / "journal.jsonl")
        names = name_files(todo, journal.names)
        failures = dict(missing)
        skipped = 0
        try:
            before = journal.leaves()
            waiting = [file for file in todo if not journal.is_done(file)]
            skipped = len(todo) - len(waiting)
            for leaf in (leaf for file in waiting for leaf in before.get(file, ())):
                _remove(out, leaf, tagger.findings)  # of an earlier version of the file
            if progress is not None and skipped:
                progress(skipped, len(todo))
            _tag_all(
                tagger, waiting, names, out, journal, failures,
                save=frozenset(save), everything=save_for == "all", readers=readers, workers=writers,
                progress=(lambda done: progress(skipped + done, len(todo))) if progress is not None else None,
            )  # fmt: skip
        finally:
            positives = journal.assemble(out / "tags.csv", COLUMNS, tagger.findings)
            images, seconds = len(journal.images()), time.monotonic() - started
            unlimited = journal.count("unlimited") if tagger.area != "image" else 0
            summary = TagSummary(
                out, len(todo) + len(missing), skipped, images, positives, failures, seconds, tagger.area, unlimited
            )
            complete = not missing and journal.done(todo) == len(todo)
            _write_manifest(out, identity, journal, summary, complete=complete)
            journal.close()
    return summary


def _found(given: Iterable[Path | str], out: Path) -> tuple[list[Path], dict[str, str]]:
    """The files meant, each once; and what names none, with its cause. Pictures of an earlier call are not tagged."""
    own = [Path(os.path.abspath(out / name)) for name in PICTURES]
    files: dict[Path, None] = {}
    missing: dict[str, str] = {}
    first: UnreadableImage | None = None
    for one in given:
        try:
            found = [Path(os.path.abspath(file)) for file in expand(one)]
            files.update((file, None) for file in found if not any(file.is_relative_to(folder) for folder in own))
        except UnreadableImage as error:
            missing[str(one)] = str(error)
            first = first or error
    if not files:
        raise first if first is not None else BadSetting("no file was given. Name files, folders or patterns.")
    return list(files), missing


def _tag_all(
    tagger: Tagger,
    files: Sequence[Path],
    names: Mapping[Path, Name],
    out: Path,
    journal: Journal,
    failures: dict[str, str],
    *,
    save: frozenset[str],
    everything: bool,
    readers: int,
    workers: int,
    progress: Callable[[int], None] | None,
) -> None:
    """Read ahead, network, write behind. Only this thread touches the journal, in the order of the files."""
    stamps: dict[Path, Stamp] = {}

    def read(file: Path) -> Iterator[tuple[str, Prepared]]:
        stamps[file] = stamp_of(file)  # before reading: a file that changes meanwhile is done again next time
        for image, number in _numbered(read_all(file)):
            yield number, tagger.prepare(image)

    def write(prediction: Prediction, name: Name) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
        rows = _write_image(tagger.tags(prediction, name.name), out, name.leaf, save, everything)
        return rows, {"unlimited": True} if tagger.unlimited(prediction) else {}

    pending: list[Step[Path, tuple[str, Prepared]]] = []  # waits for the network
    written: deque[tuple[Path, Name, Future[list[Future[Any]]], int] | Step[Path, Any]] = deque()  # for the journal
    done = 0

    def pass_on(images: Sequence[Prepared], named: Sequence[Name], writers: ThreadPoolExecutor) -> list[Future[Any]]:
        """A batch through the network and on to the writers."""
        return [
            writers.submit(write, prediction, name)
            for prediction, name in zip(tagger.forward(images), named, strict=True)
        ]

    def flush(lanes: ThreadPoolExecutor, writers: ThreadPoolExecutor) -> None:
        """The pending images to the next lane that is free."""
        full = [(step.item, *step.value) for step in pending if step.value is not None]
        named = [names[file].numbered(number) for file, number, _ in full]
        # Files that cannot be read may be all that is pending.
        batch = lanes.submit(pass_on, [image for *_, image in full], named, writers) if full else None
        numbered = enumerate(named)
        for step in pending:
            if step.value is None or batch is None:
                written.append(step)
            else:
                at, name = next(numbered)
                written.append((step.item, name, batch, at))
        pending.clear()

    def settle(keep: int) -> None:
        """Enters what is written into the journal, oldest first, until so many are left."""
        nonlocal done
        while len(written) > keep:
            step = written.popleft()
            if not isinstance(step, Step):
                file, name, batch, at = step
                rows, also = batch.result()[at].result()
                journal.add_image(file, stamps[file], names[file], name, rows, also)
                continue
            if step.error is not None:
                failures[str(step.item)] = _cause(step.item, step.error)
            journal.add_end(step.item, stamps.get(step.item), failures.get(str(step.item)))
            stamps.pop(step.item, None)
            done += 1
            if progress is not None:
                progress(done)

    # A lone batch has all cores. Frames are not counted: to know how many there are, files must be opened.
    count = max(min(tagger.lanes, len(files) // tagger.batch_size), 1)
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="write") as writers,
        _shared_threads(count),
        ThreadPoolExecutor(count, thread_name_prefix="network") as lanes,
    ):
        for step in read_ahead(files, read, threads=readers, ahead=tagger.batch_size + readers):
            pending.append(step)
            # Files that cannot be read fill no batch, and are settled all the same.
            if (
                sum(one.value is not None for one in pending) == tagger.batch_size
                or len(pending) > 8 * tagger.batch_size
            ):
                flush(lanes, writers)
                settle(2 * count * tagger.batch_size)  # an image is two entries, its own and its file's end
        flush(lanes, writers)
        settle(0)


def _threads(tagger: Tagger) -> tuple[int, int]:
    """For reading and for writing. Writing has a thread a core, since an image may be positive for many findings; where
    the network runs on the same cores, fewer readers keep it busy, and more would only wait for a core.
    """
    most = min(8, cores())
    return (most if tagger.device.type != "cpu" else max(most // 2, 1)), most


@contextmanager
def _shared_threads(lanes: int) -> Iterator[None]:
    """Divides torch's threads among as many threads of ours."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(before // lanes, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write_image(
    tags: Sequence[Tag], out: Path, leaf: str, save: frozenset[str], everything: bool
) -> list[tuple[str, ...]]:
    """The pictures of one image; its rows of tags.csv."""
    shown = [tag for tag in tags if everything or tag.positive]
    for tag in shown:
        if "maps" in save:
            map_file = out / "maps" / safe(tag.finding) / f"{leaf}.png"
            draw.write_bytes(map_file, tag.prediction.encoded(tag.index))
        if "masks" in save:
            draw.write_regions(out / "masks" / safe(tag.finding) / f"{leaf}.png", tag.regions)
        tag.__dict__.pop("map", None)  # of many findings one map at a time is in memory; boxes and mask are known now
    if shown and "counterparts" in save:
        taken = [tag.index for tag in shown if tag.positive]
        draw.write_map(out / "counterparts" / f"{leaf}.png", shown[0].prediction.counterpart(taken))
    if shown and "overlays" in save:
        draw.write_picture(out / "overlays" / f"{leaf}.jpg", overlay(shown))
    return [tag.row() for tag in tags]


def _remove(out: Path, leaf: str, findings: Sequence[str]) -> None:
    """The pictures of an image that is about to be tagged anew."""
    for finding in findings:
        (out / "maps" / safe(finding) / f"{leaf}.png").unlink(missing_ok=True)
        (out / "masks" / safe(finding) / f"{leaf}.png").unlink(missing_ok=True)
    (out / "overlays" / f"{leaf}.jpg").unlink(missing_ok=True)
    (out / "counterparts" / f"{leaf}.png").unlink(missing_ok=True)


def overlay(tags: Sequence[Tag], *, longest_px: int = OVERLAY_PX) -> PIL.Image.Image:
    """One picture of the tags of one image: the highest of their maps, their masks, boxes, peaks and scores.

    Args:
        tags: of one image, at least one.
        longest_px: the picture's longest side at most. Larger images are reduced by a whole number, which is many
            times faster than by any other. (Small ones are enlarged: :func:`radtag.draw.annotated`.)
    """
    prediction = tags[0].prediction
    shown = prediction.image.gray8
    factor = -(-max(prediction.image.size_rc) // longest_px)

    # A finding has one colour in all pictures; where there are too many for that, those of a picture differ.
    shared = len(prediction.scores) > len(draw.MARKS)
    return draw.annotated(
        np.asarray(PIL.Image.fromarray(shown).reduce(factor)) if factor > 1 else shown,
        prediction.shown([tag.index for tag in tags], factor),
        [
            draw.Mark(
                caption=f"{tag.finding} {tag.score:.2f} (positive from {tag.threshold:.2f})",
                mask=mask,
                corner_rc=corner_rc,
                boxes_xyxy=np.array(tag.boxes) / factor,
                peak_xy=(tag.peak_xy[0] / factor, tag.peak_xy[1] / factor),
                colour=number if shared else tag.index,
            )
            for number, tag in enumerate(tags)
            for mask, corner_rc in [tag.regions.reduced(factor)]
        ],
    )


def _claim(out: Path, identity: Mapping[str, Any]) -> None:
    """Sees to it that one folder holds the tags of one run, made in one way.

    Raises:
        BadSetting: it holds others.
    """
    path = out / "manifest.json"
    if not path.exists():
        if (out / "journal.jsonl").exists():
            raise BadSetting(f"{out} has a journal but no manifest.json. Choose another folder, or delete this one.")
        draw.write_bytes(path, json.dumps({**identity, "radtag": radtag.__version__, "complete": False}).encode())
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        before["runs"][0]["path"], before["runs"][0]["sha256"], before["settings"]["findings"]
    except (ValueError, LookupError, TypeError) as error:
        raise BadSetting(
            f"{path} is not of radtag tag, or damaged. Choose another folder, or delete this one."
        ) from error
    if [run["sha256"] for run in before["runs"]] != [run["sha256"] for run in identity["runs"]]:
        other = ", ".join(run["path"] for run in before["runs"])
        raise BadSetting(f"{out} holds tags by another run, {other}. Choose another folder, or delete this one.")
    was, now = (
        {"area": "image", "explain": None, **one}
        for one in (before["settings"], json.loads(json.dumps(identity["settings"])))
    )
    for name in now:
        if was.get(name) != now[name]:
            raise BadSetting(
                f"{out} holds tags made with {name} = {was.get(name)}, and now it is {now[name]}."
                " Choose another folder, or delete this one."
            )


def _write_manifest(
    out: Path, identity: Mapping[str, Any], journal: Journal, summary: TagSummary, *, complete: bool
) -> None:
    values = {
        **identity,
        "radtag": radtag.__version__,
        "complete": complete,
        "images": summary.images,
        "positives": dict(summary.positives),
        "unlimited": summary.unlimited,
        "failures": [{"file": file, "cause": cause} for file, cause in summary.failures.items()],
        "files": list(journal.files()),
    }
    # Names of files that are not UTF-8 come as what JSON cannot spell but in escapes.
    draw.write_bytes(out / "manifest.json", (json.dumps(values, indent=1) + "\n").encode())


def not_limited(images: int, area: Area) -> str:
    """In a sentence, that an area was not found in so many images."""
    found = "lungs were" if area == "lungs" else f"{area} was"
    return counted(images, f"image[s] in which no {found} found: [its|their] masks are not limited")


def _cause(file: Path, error: Exception) -> str:
    """What went wrong with a file; our own errors say so in full already."""
    return str(error) if isinstance(error, RadtagError) else f"{file}: {type(error).__name__}: {error}"


def _numbered(images: Iterable[Image]) -> Iterator[tuple[Image, str]]:
    """Images of one file, each with "#" and its number, or with "" if it is the only one."""
    last: Image | None = None
    several = False
    for image in images:
        if last is not None:
            several = True
            yield last, f"#{last.frame}"
        last = image
    if last is not None:
        yield last, f"#{last.frame}" if several else ""


def _device(name: str) -> torch.device:
    """The device of this name; "auto" is the accelerator if there is one.

    Raises:
        BadSetting: no such device, or not on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cuda" and device.index is None:  # which of them is meant may differ from thread to thread
            device = torch.device("cuda", torch.cuda.current_device())
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises all of these
        reason = str(error).splitlines()[0].rstrip(".")[:120]
        raise BadSetting(f"device {name!r} cannot be used ({reason}). Use auto or cpu.") from error
    return device


def _share(setting: str, value: float) -> float:
    """A value that must lie within 0-1."""
    if not 0.0 <= value <= 1.0:
        raise BadSetting(f"{setting} is a probability from 0 to 1, got {value}.")
    return float(value)
