"""What the training loops do alike: processes, images and labels, seeds, validation, progress, the resume file."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import timm
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from radtag.data.cache import ReadablePixels, open_cache
from radtag.data.prepare import LungFinder
from radtag.data.seen import FILE as SEEN_FILE
from radtag.data.seen import SeenImages
from radtag.data.table import Dataset
from radtag.errors import BadData, BadRun, BadSetting
from radtag.metrics.bootstrap import Resampling, ranking
from radtag.metrics.classification import auroc
from radtag.models import Output
from radtag.models.plain import NotPlain, load_plain
from radtag.train import log
from radtag.train.outline import LUNGS_FOLDER, run_digest
from radtag.train.run import Run, normalise
from radtag.train.settings import Settings

Model = TypeVar("Model", bound=nn.Module)

Pixels = NDArray[np.uint8] | ReadablePixels
MOST_MAP_BYTES = 2_000_000_000
"""Of whole validation maps, float16, in memory at once."""
LEAST_OF_A_CLASS = 32
"""Positives, and negatives, of a finding at least, or all there are, among the images whose maps are kept."""


OUTSIDE = -16.0
"""The logit of a map where it is to say nothing: one in ten millions."""


def start_accelerator(mixed_precision: str, *, idle_parts: bool = False) -> Accelerator:
    """An accelerator of this precision, whatever ran in this process before.

    Args:
        mixed_precision: "no", "bf16" or "fp16".
        idle_parts: whether some networks have no part in some steps, which processes then look for.

    Raises:
        BadSetting: a precision that the machine does not have.
    """
    # Accelerate keeps one precision a process and refuses, or silently keeps, another.
    AcceleratorState._reset_state()
    try:
        handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)] if idle_parts else []
        accelerator = Accelerator(mixed_precision=mixed_precision, kwargs_handlers=handlers)
    except ValueError as error:
        raise BadSetting(f"mixed_precision {mixed_precision!r}: {error} Use 'no'.") from error
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":  # accelerate would ignore it
        raise BadSetting("mixed_precision 'fp16' needs a GPU, and this is a CPU. Use 'bf16' or 'no'.")
    return accelerator


def refuse_uneven(batch_size: int, processes: int, setting: str = "batch_size") -> None:
    """Refuses a batch that processes cannot share.

    Raises:
        BadSetting: it does not divide among them.
    """
    if batch_size % processes:
        raise BadSetting(f"{setting} = {batch_size} does not divide among {processes} processes. Choose a multiple.")


def synchronised(model: Model, accelerator: Accelerator) -> Model:
    """The model, whose BatchNorm sees the whole batch where several GPUs share it.

    By timm's own conversion: torch's would drop the activations that timm keeps in its BatchNorm.
    """
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        model = timm.layers.convert_sync_batchnorm(model)
    return model


def finished_run(out: Path, identity: Mapping[str, Any], train_set: Dataset, val_set: Dataset) -> Run | None:
    """The run that the folder holds, if it is this one; None if it holds none.

    Raises:
        BadRun: it holds another.
    """
    if not (out / "run.toml").is_file():
        return None
    finished = Run.load(out)
    if finished.card.get("identity") != log.digest(identity):
        kept = finished.settings.lungs is not None and (out / LUNGS_FOLDER).is_dir()
        of_lungs = run_digest(out / LUNGS_FOLDER) if kept else None
        was = log.identity(finished.settings, identity["data"], of_lungs)
        if log.digest(was) != finished.card.get("identity"):  # nor is it the settings alone
            was["data"] = "other"
        raise BadRun(f"{out} holds a finished run with {log.otherwise(was, identity)} Give another --out.")
    contents = log.contents(train_set, val_set)
    if finished.card.get("contents", contents) != contents:
        raise BadRun(
            f"{out} holds a finished run, and images of its data have changed or gone since. Give another --out."
        )
    kept = (out / SEEN_FILE).is_file()  # not by an earlier version, nor where it was taken away
    if not kept and AcceleratorState().is_main_process and os.access(out, os.W_OK):
        note_seen(out, finished.settings, train_set, val_set)
    return finished


def note_seen(out: Path, settings: Settings, train_set: Dataset, val_set: Dataset) -> None:
    """Keeps in the run's folder which images it sees, those of the run that it begins with among them."""
    first = getattr(settings, "start_from", None)
    trained_on, chosen_on = ([record.path for record in of.records] for of in (train_set, val_set))
    SeenImages.of(trained_on, chosen_on, SeenImages.read(Path(first)) if first else None).write(out)


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    pixels: Pixels,
    settings: Settings,
    mean: float,
    sd: float,
    accelerator: Accelerator,
) -> NDArray[np.float32]:
    """(image, finding) logits; every process does its share and gets all."""
    each = math.ceil(len(pixels) / accelerator.num_processes)
    # Every process does as many, so that they can be gathered; the last ones may begin again at the first image.
    mine = (np.arange(each) * accelerator.num_processes + accelerator.process_index) % len(pixels)
    with accelerator.autocast():
        outputs = _outputs(model, pixels, mine, settings, mean, sd, accelerator.device)
        local = torch.cat([output.logits for output in outputs])
    if accelerator.num_processes == 1:
        return local.cpu().numpy()
    gathered = accelerator.gather(local).reshape(accelerator.num_processes, each, -1)
    return gathered.transpose(0, 1).reshape(-1, gathered.shape[-1])[: len(pixels)].cpu().numpy()


@dataclass(frozen=True)
class ValidationMaps:
    """What a model says of validation images: of all what is a number a map, of some the whole maps.

    Args:
        logits: (image, finding) float32.
        peaks: (image, finding) each map's highest value, float16 as the maps.
        means: (image, finding) each map's mean, float32.
        kept: (n,) the images whose maps are kept, ascending.
        maps: (n, finding, row, col) in logits or amounts, float16 to halve the memory.
    """

    logits: NDArray[np.float32]
    peaks: NDArray[np.float16]
    means: NDArray[np.float32]
    kept: NDArray[np.int64]
    maps: NDArray[np.float16]

    @property
    def notes(self) -> list[str]:
        """What a card says of maps that are not kept."""
        if len(self.kept) == len(self.logits):
            return []
        return [
            f"Mask thresholds are from the maps of {len(self.kept)} of {len(self.logits)} validation images, as many"
            " as fit into memory."
        ]


@torch.inference_mode()
def predict_maps(
    model: nn.Module,
    pixels: Pixels,
    labels: Tensor,
    settings: Settings,
    mean: float,
    sd: float,
    accelerator: Accelerator,
) -> ValidationMaps:
    """Logits and maps of validation images with these labels (image, finding), in bounded memory.

    Worked out in float32, whatever the precision of training.
    """
    logits: list[NDArray[np.float32]] = []
    peaks: list[NDArray[np.float16]] = []
    means: list[NDArray[np.float32]] = []
    kept = np.arange(0)
    held = np.empty(0, dtype=np.float16)
    for output in _outputs(model, pixels, np.arange(len(pixels)), settings, mean, sd, accelerator.device):
        maps = output.maps.half().cpu().numpy()
        if not logits:
            kept = spread(labels, max(MOST_MAP_BYTES // maps[0].nbytes, 1))
            held = np.empty((len(kept), *maps.shape[1:]), dtype=np.float16)
        done = sum(len(one) for one in logits)
        first, end = np.searchsorted(kept, (done, done + len(maps)))
        held[first:end] = maps[kept[first:end] - done]
        logits.append(output.logits.cpu().numpy())
        peaks.append(maps.max(axis=(2, 3)))
        means.append(maps.astype(np.float32).mean(axis=(2, 3)))
    return ValidationMaps(np.concatenate(logits), np.concatenate(peaks), np.concatenate(means), kept, held)


def spread(labels: Tensor, most: int) -> NDArray[np.int64]:
    """At most so many images, ascending, evenly spaced, with positives and negatives of each finding that has them.

    Of the positives and of the negatives of each finding, the rarest first, :data:`LEAST_OF_A_CLASS` are taken, or as
    many as all of them leave room for; the others are taken from all images. The same labels give the same images.

    Args:
        labels: (image, finding) 1, 0 or NaN = unknown.
        most: at least 1.
    """
    values = labels.numpy()
    taken = np.zeros(len(values), dtype=bool)

    def take(rows: NDArray[np.int64], count: int) -> None:
        left = rows[~taken[rows]]
        count = max(min(count, len(left), most - int(taken.sum())), 0)
        taken[left[np.arange(count) * len(left) // max(count, 1)]] = True

    if len(values) > most:
        classes = [np.flatnonzero(column == value) for column in values.T for value in (1, 0)]
        classes = sorted((rows for rows in classes if len(rows)), key=len)
        each = max(min(LEAST_OF_A_CLASS, most // max(len(classes), 1)), 1)
        for rows in classes:
            take(rows, each - int(taken[rows].sum()))
    take(np.arange(len(values)), most)
    return np.flatnonzero(taken)


def _outputs(
    model: nn.Module,
    pixels: Pixels,
    rows: NDArray[np.int64],
    settings: Settings,
    mean: float,
    sd: float,
    device: torch.device,
) -> Iterator[Output]:
    model.eval()
    frames = pixels.frames if isinstance(pixels, ReadablePixels) else None
    for start in range(0, len(rows), 32):
        images = torch.from_numpy(pixels[rows[start : start + 32]]).to(device).float().div_(255)
        output: Output = model(normalise(images, mean, sd, settings.backbone.channels))
        if frames is not None:
            output = confined(output, images, [frames[row].shows_all for row in rows[start : start + 32]])
        yield output


def confined(output: Output, images: Tensor, whole: Sequence[bool]) -> Output:
    """The output with maps of nothing where images are black, beyond the lungs' field.

    A cell beside the field keeps its value: cells need not look at their own tile, and maps are cut off to the pixel
    when they are laid on the image.

    Args:
        output: of a network.
        images: (image, row, col) what it was shown.
        whole: of each image, whether it was shown as it is, since no lungs were found; black is no border there.
    """
    size = (output.maps.shape[2], output.maps.shape[3])
    shown = (images > 0) | torch.tensor(whole, device=images.device)[:, None, None]
    seen = F.adaptive_max_pool2d(shown.float()[:, None], size)
    inside = F.max_pool2d(seen, 3, stride=1, padding=1) > 0
    nothing = OUTSIDE if output.changes is None else 0.0
    return output._replace(maps=torch.where(inside, output.maps, nothing))


def known_only(dataset: Dataset) -> Dataset:
    """The images with at least one known label."""
    records = tuple(record for record in dataset.records if not all(math.isnan(label) for label in record.labels))
    if not records:
        split = dataset.records[0].split
        raise BadData(
            f"{dataset.name}: no image of the {split} split has a known label. Label some, or give other --splits."
        )
    return replace(dataset, records=records)


def mean_and_sd(settings: Settings, own: tuple[float, float]) -> tuple[float, float]:
    """The normalisation asked for; what is not, as the first weights have it (``own``)."""
    mean = settings.mean if settings.mean is not None else own[0]
    sd = settings.sd if settings.sd is not None else own[1]
    return mean, sd


def load_pixels(
    dataset: Dataset, settings: Settings, size_px: int, find_lungs: LungFinder | None = None
) -> tuple[ReadablePixels, Tensor, list[str], tuple[tuple[str, str], ...]]:
    """Pixels, labels (image, finding) and patients of what can be read, and what cannot."""
    cache = open_cache([record.path for record in dataset.records], size_px, settings.fit, find_lungs=find_lungs)
    labels = torch.from_numpy(dataset.labels())
    patients = [patient for patient, readable in zip(dataset.patients(), cache.readable, strict=True) if readable]
    return cache.kept, labels[torch.from_numpy(cache.readable)], patients, cache.failures


def share_of(count: int, rank: int, world: int) -> slice:
    each = math.ceil(count / world)
    return slice(rank * each, min((rank + 1) * each, count))


def seed_for(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_for(*parts: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(*parts))


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Running average of weights and BatchNorm statistics; young averages forget faster, to lose the first weights."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, now in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - decay)
        else:
            mean.copy_(now)


def validation_areas(
    logits: NDArray[np.floating[Any]], labels: Tensor, findings: tuple[str, ...]
) -> dict[str, float | dict[str, float]]:
    """AUROC of each finding, and their mean, as a log has them; NaN where undefined."""
    per_finding = auroc(labels.numpy(), logits)
    defined = per_finding[~np.isnan(per_finding)]
    return {
        "val_auroc": float(defined.mean()) if len(defined) else math.nan,
        "val_auroc_of": {name: float(value) for name, value in zip(findings, per_finding, strict=True)},
    }


def not_learned(
    logits: NDArray[np.float32], labels: Tensor, patients: Sequence[str], findings: tuple[str, ...]
) -> list[str]:
    """A sentence for each finding of which validation images do not show that anything was learned."""
    by_image = Resampling(patients, replicates=1000, seed=0)
    sentences = []
    estimates = ranking(labels.numpy(), logits, by_image).estimates().per_finding
    for finding, estimate in zip(findings, estimates, strict=True):
        if estimate.low <= 0.5:  # not where it is undefined
            sentences.append(
                f"nothing shows that {finding} was learned: its validation AUROC is {estimate.value:.2f}"
                f" (95 % interval {estimate.low:.2f}-{estimate.high:.2f}), and 0.5 is chance."
            )
    return sentences


class Remembered(Protocol):
    """What has a history of its own that a training goes on with, as a learning rate's schedule."""

    def dump(self) -> Mapping[str, Any]:
        """What to remember, in plain values."""

    def load(self, state: Any) -> None:
        """The inverse."""


class Course:
    """A training by epochs, as far as it has a history: the log, the weights of the best epoch, and what to go on from.

    All of it is written whole after every epoch (``resume.pt``), so that a training that was killed goes on after its
    last whole epoch as if nothing had happened.

    Args:
        out: the run folder.
        identity: the settings and what names the data.
        contents: what names the content of the images.
        model: what is trained, without what a process wraps it in.
        averaged: the running average of its weights, if there is one.
        optimiser: of the model.
        accelerator: whose main process writes.
        loss: what the log's curves call the loss.
        further: whatever else has a history, by name.
    """

    def __init__(
        self,
        out: Path,
        identity: Mapping[str, Any],
        contents: str,
        *,
        model: nn.Module,
        averaged: nn.Module | None,
        optimiser: torch.optim.Optimizer,
        accelerator: Accelerator,
        loss: str,
        further: Mapping[str, Remembered] | None = None,
    ) -> None:
        self.history: list[dict[str, Any]] = []
        self._out, self._identity, self._contents, self._loss = out, identity, contents, loss
        self._model, self._averaged, self._optimiser = model, averaged, optimiser
        self._accelerator, self._further = accelerator, dict(further or {})
        self._best: dict[str, Tensor] = {}
        self._best_value = math.inf
        self._started = time.monotonic()

    @property
    def best(self) -> dict[str, Tensor]:
        """The weights of the best epoch, the first of equals, on the CPU; none before an epoch has ended."""
        return self._best

    def go_on(self) -> bool:
        """Goes back to where an earlier call was stopped; whether there was one.

        Raises:
            BadRun: it had other settings or data, or its file is damaged.
        """
        file = self._out / "resume.pt"
        if not file.is_file():
            return False
        state = read_resume(file, self._identity, self._contents)
        self._model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        if self._accelerator.scaler is not None and state["scaler"]:
            self._accelerator.scaler.load_state_dict(state["scaler"])
        for name, one in self._further.items():
            one.load(state[name])
        self.history, self._best, self._best_value = state["history"], state["best"], state["best_value"]
        self._started = time.monotonic() - state["seconds"]
        return True

    def end_epoch(self, row: Mapping[str, Any], value: float, judged: nn.Module) -> None:
        """Takes note of an epoch, and writes all there is to go on from.

        Args:
            row: its line of the log, to which the minutes are added.
            value: what it is judged by; less is better.
            judged: whose weights these are.
        """
        if not self._best or value < self._best_value:
            self._best_value = value
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in judged.state_dict().items()}
        seconds = time.monotonic() - self._started
        self.history.append({**row, "minutes": round(seconds / 60, 3)})
        if not self._accelerator.is_main_process:
            return
        log.write(self._out, self.history, loss=self._loss)
        scaler = self._accelerator.scaler
        write_resume(
            self._out / "resume.pt",
            {
                "identity": log.digest(self._identity),
                "begun_with": self._identity,
                "contents": self._contents,
                "model": self._model.state_dict(),
                "averaged": self._averaged.state_dict() if self._averaged is not None else {},
                "optimiser": self._optimiser.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else {},
                **{name: one.dump() for name, one in self._further.items()},
                "history": self.history,
                "best": self._best,
                "best_value": self._best_value,
                "seconds": seconds,
            },
        )

    def finish(self, run: Run, console: Console) -> Run:
        """Writes the run with the best epoch's weights, and reads it back; there is nothing to go on from any more."""
        if self._accelerator.is_main_process:
            run.save(self._best)
            (self._out / "resume.pt").unlink(missing_ok=True)
            for warning in run.card.get("warnings", ()):
                console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        self._accelerator.wait_for_everyone()
        return Run.load(self._out)


def read_resume(file: Path, identity: Mapping[str, Any], contents: str) -> dict[str, Any]:
    try:
        state = load_plain(file)
        same = state["identity"] == log.digest(identity)
    except (NotPlain, TypeError, LookupError) as error:
        reason = error if isinstance(error, NotPlain) else "it holds something else"
        raise BadRun(f"{file} is damaged ({reason}). Remove it to begin again.") from error
    if not same:
        how = log.otherwise(state["begun_with"], identity) if "begun_with" in state else "other settings or data."
        raise BadRun(f"{file.parent} was begun with {how} Give another --out, or remove the folder.")
    if state.get("contents", contents) != contents:
        raise BadRun(
            f"{file.parent} was begun with other images: files of the same names have changed since."
            " Give another --out, or remove the folder."
        )
    return state


def write_resume(file: Path, state: Mapping[str, Any]) -> None:
    temporary = file.with_name(file.name + ".tmp")
    torch.save(dict(state), temporary)
    os.replace(temporary, file)


def progress_bars(console: Console, *, shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not shown,
    )
