"""What the training loops do alike: processes, images and labels, seeds, validation, progress, the resume file."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from radtag.data.cache import ReadablePixels, open_cache
from radtag.data.seen import FILE as SEEN_FILE
from radtag.data.seen import SeenImages
from radtag.data.table import Dataset
from radtag.errors import BadData, BadRun, BadSetting
from radtag.metrics.bootstrap import Resampling, ranking
from radtag.metrics.classification import auroc
from radtag.models import Output
from radtag.train import log
from radtag.train.run import Run, normalise
from radtag.train.settings import Settings

Pixels = NDArray[np.uint8] | ReadablePixels


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


def refuse_uneven(batch_size: int, processes: int) -> None:
    """Refuses a batch that processes cannot share.

    Raises:
        BadSetting: it does not divide among them.
    """
    if batch_size % processes:
        raise BadSetting(f"a batch of {batch_size} does not divide among {processes} processes. Choose a multiple.")


def finished_run(out: Path, identity: Mapping[str, Any], train_set: Dataset, val_set: Dataset) -> Run | None:
    """The run that the folder holds, if it is this one; None if it holds none.

    Raises:
        BadRun: it holds another.
    """
    if not (out / "run.toml").is_file():
        return None
    finished = Run.load(out)
    if finished.card.get("identity") != log.digest(identity):
        was = {"settings": finished.settings.model_dump(mode="json"), "data": identity["data"]}
        if log.digest(was) != finished.card.get("identity"):  # nor is it the settings alone
            was["data"] = "other"
        raise BadRun(f"{out} holds a finished run with {log.otherwise(was, identity)} Give another --out.")
    contents = log.contents(train_set, val_set)
    if finished.card.get("contents", contents) != contents:
        raise BadRun(
            f"{out} holds a finished run, and images of its data have changed or gone since. Give another --out."
        )
    if not (out / SEEN_FILE).is_file() and os.access(out, os.W_OK):  # of a version that kept none, or taken away
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


@torch.inference_mode()
def predict_maps(
    model: nn.Module,
    pixels: Pixels,
    settings: Settings,
    mean: float,
    sd: float,
    accelerator: Accelerator,
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """(image, finding) logits and (image, finding, row, col) map logits, float16 to halve the memory.

    Worked out in float32, whatever the precision of training.
    """
    logits, maps = [], []
    for output in _outputs(model, pixels, np.arange(len(pixels)), settings, mean, sd, accelerator.device):
        logits.append(output.logits.cpu())
        maps.append(output.maps.half().cpu())
    return torch.cat(logits).numpy(), torch.cat(maps).numpy()


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
    for start in range(0, len(rows), 32):
        images = torch.from_numpy(pixels[rows[start : start + 32]]).to(device).float().div_(255)
        yield model(normalise(images, mean, sd, settings.backbone.channels))


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
    dataset: Dataset, settings: Settings, size_px: int
) -> tuple[ReadablePixels, Tensor, list[str], tuple[tuple[str, str], ...]]:
    """Pixels, labels (image, finding) and patients of what can be read, and what cannot."""
    cache = open_cache([record.path for record in dataset.records], size_px, settings.fit)
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


def read_resume(file: Path, identity: Mapping[str, Any], contents: str) -> dict[str, Any]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        same = state["identity"] == log.digest(identity)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, LookupError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
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
