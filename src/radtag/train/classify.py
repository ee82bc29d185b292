"""The whole loop of a classifier, from image labels to a run folder. Nothing here reads a box or a mask.

Resume is exact because nothing random has a history: the order of an epoch, the augmentation of a step and the dropout
of a step are drawn from (seed, epoch, step) alone, and what does have a history (weights, optimiser, schedule, running
average, best weights, log) is written whole after every epoch (:class:`radtag.train.loop.Course`). Killed at any moment
and started again with the same command, a run on a CPU ends with the same bits.

Processes (``accelerate launch``) share a batch: each takes its slice of the same draw, and the loss is that of the
whole batch, so that two processes follow one. BatchNorm sees all of it on GPUs (SyncBatchNorm), only its own slice on
CPUs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from radtag.calibration import Calibration
from radtag.data import augment
from radtag.data.table import Dataset
from radtag.errors import BadData, BadSetting
from radtag.models import build, refuse_unknown
from radtag.models.backbone import load_weights, normalisation
from radtag.models.evidence import measure_evidence
from radtag.train import log
from radtag.train.loop import (
    Course,
    average,
    finished_run,
    generator_for,
    known_only,
    load_pixels,
    mean_and_sd,
    not_learned,
    note_seen,
    predict_logits,
    predict_maps,
    progress_bars,
    refuse_uneven,
    seed_for,
    share_of,
    start_accelerator,
    synchronised,
    validation_areas,
)
from radtag.train.outline import keep_lungs, lungs_for
from radtag.train.run import Run, normalise
from radtag.train.settings import TrainSettings
from radtag.words import counted


def train(settings: TrainSettings, dataset: Dataset, out: Path | str, *, console: Console | None = None) -> Run:
    """Train a localiser on image labels and write its run folder.

    Args:
        settings: everything that shapes the result.
        dataset: with a train and a val split; a test split is not touched.
        out: the run folder; an unfinished one is gone on with, a finished one is returned as it is.
        console: where progress is shown.

    Returns:
        The run, loaded from its folder.

    Raises:
        BadData: no training or validation images, or a finding without any known label.
        BadRun: the folder holds a run with other settings or data.
        BadSetting: settings that do not fit each other, the data or the machine.
    """
    refuse_unknown(settings.method)
    out = Path(out)
    console = console or Console(stderr=True)
    accelerator = start_accelerator(settings.mixed_precision)
    device, world, rank = accelerator.device, accelerator.num_processes, accelerator.process_index
    refuse_uneven(settings.batch_size, world)

    train_set, val_set = known_only(dataset.only("train")), known_only(dataset.only("val"))
    lungs = lungs_for(settings, out, device)
    identity = log.identity(settings, log.fingerprint(train_set, val_set), lungs.digest if lungs else None)
    finished = finished_run(out, identity, train_set, val_set)
    if finished is not None:
        return finished

    _refuse_unlabelled(train_set, val_set, settings)
    # The network comes before the images: a setting that does not fit is refused before hours of decoding.
    torch.manual_seed(settings.seed)
    model = build(settings.method, len(dataset.findings), settings.backbone, settings.options, settings.size_px)
    weights_from, fresh = _first_weights(model, settings, dataset.findings)

    out.mkdir(parents=True, exist_ok=True)
    contents = log.contents(train_set, val_set)
    if accelerator.is_main_process:
        note_seen(out, settings, train_set, val_set)
    pixels, labels, _, failures = load_pixels(train_set, settings, settings.stored_px or settings.size_px, lungs)
    val_pixels, val_labels, val_patients, val_failures = load_pixels(val_set, settings, settings.size_px, lungs)
    order_rows = _sampling(labels, settings)
    batches = max(len(pixels) // settings.batch_size, 1)  # a last, smaller batch would disturb BatchNorm
    if len(pixels) < 2:
        raise BadData(f"{dataset.name}: {counted(len(pixels), 'readable training image[s]')}; at least 2 are needed.")

    model = synchronised(model.to(memory_format=torch.channels_last), accelerator)
    mean, sd = mean_and_sd(settings, _expected(settings))

    model = model.to(device)
    if settings.head_start == "prior" and any(new.any() for new in fresh.values()):
        first = torch.from_numpy(val_pixels[:32]).to(device).float() / 255
        inputs = normalise(first, mean, sd, settings.backbone.channels)
        _start_at_prior(model, inputs, labels.to(device), {head: new.to(device) for head, new in fresh.items()})
    averaged = copy.deepcopy(model).requires_grad_(False) if settings.ema else None
    optimiser = _optimiser(model, settings)
    wrapped, optimiser = accelerator.prepare(model, optimiser)
    positive_weight = _positive_weight(labels, settings).to(device)
    schedule = Schedule(settings, steps=batches * settings.epochs)
    if schedule.finished:
        raise BadSetting(
            f"lr {settings.lr} is not above min_lr {settings.min_lr}, at which training stops. "
            "Raise --lr, or lower min_lr."
        )
    course = Course(
        out,
        identity,
        contents,
        model=model,
        averaged=averaged,
        optimiser=optimiser,
        accelerator=accelerator,
        loss="binary cross-entropy",
        further={"schedule": schedule},
    )
    if course.go_on() and accelerator.is_main_process:
        console.print(f"going on after epoch {len(course.history)} of {settings.epochs}")

    if accelerator.is_main_process:
        keep_lungs(out, settings)
    begin = len(course.history)
    with progress_bars(console, shown=accelerator.is_main_process) as progress:
        epochs_bar = progress.add_task(f"{settings.method}: epochs", total=settings.epochs, completed=begin)
        steps_bar = progress.add_task("steps", total=batches)
        for epoch in range(begin, settings.epochs):
            if schedule.finished:
                break
            progress.reset(steps_bar, total=batches)
            wrapped.train()
            total = torch.zeros((), device=device)
            for step, chosen in enumerate(_epoch_order(order_rows, settings, epoch, batches)):
                rng = generator_for(settings.seed, epoch, step)
                warp = augment.draw(len(chosen), settings.augment, rng)
                part = share_of(len(chosen), rank, world)
                mine = chosen[part]
                images = torch.from_numpy(pixels[mine]).to(device, non_blocking=True).float().div_(255)
                images = augment.take(warp, part).images(images, settings.size_px)
                target = labels[torch.from_numpy(mine)].to(device)
                torch.manual_seed(seed_for(settings.seed, epoch, step, rank + 1))  # dropout
                for group in optimiser.param_groups:
                    group["lr"] = schedule.rate(epoch * batches + step) * group["share"]
                output = wrapped(normalise(images, mean, sd, settings.backbone.channels))
                heads = output.heads or (output.logits,)
                losses = [masked_bce(one, target, positive_weight, settings.label_smoothing) for one in heads]
                loss = torch.stack(losses).mean()
                # DDP averages gradients over processes; what is wanted is the mean over all known labels of the batch.
                known = (~target.isnan()).sum()
                share = world * known / accelerator.reduce(known.clone(), reduction="sum").clamp(min=1)
                optimiser.zero_grad(set_to_none=True)
                accelerator.backward(loss * share)
                if settings.clip_norm:
                    accelerator.clip_grad_norm_(wrapped.parameters(), settings.clip_norm)
                optimiser.step()
                if averaged is not None:
                    average(averaged, model, settings.ema, epoch * batches + step)
                total += loss.detach() * share / world
                progress.advance(steps_bar)

            judged = averaged if averaged is not None else model
            logits = predict_logits(judged, val_pixels, settings, mean, sd, accelerator)
            train_loss = accelerator.reduce(total, reduction="sum").item() / batches
            if not (math.isfinite(train_loss) and np.isfinite(logits).all()):
                what = (
                    f"the training loss is {train_loss}" if not math.isfinite(train_loss) else "a logit is not finite"
                )
                raise BadSetting(
                    f"{what} in epoch {epoch + 1}. Lower --lr (now {settings.lr}), "
                    "or set clip_norm, or mixed_precision to 'no'."
                )
            row = _judge(logits, val_labels, dataset.findings)
            row = {"epoch": epoch + 1, "lr": schedule.rate((epoch + 1) * batches - 1), "train_loss": train_loss, **row}
            value = {"loss": row["val_loss"], "auroc": -row["val_auroc"], "last": -float(epoch)}[settings.keep]
            schedule.end_epoch(row["val_loss"])
            course.end_epoch(row, value, judged)
            progress.update(
                epochs_bar,
                advance=1,
                description=f"{settings.method}: loss {train_loss:.4f}, "
                f"val {row['val_loss']:.4f}, AUROC {row['val_auroc']:.3f}",
            )
        progress.update(epochs_bar, completed=settings.epochs)

    model.load_state_dict(course.best)
    # Tagging is in float32, and so is all that it is set by: mixed precision ends here.
    model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    looked = predict_maps(model, val_pixels, val_labels, settings, mean, sd, accelerator)
    calibration = Calibration.fit(
        looked.logits,
        looked.maps,
        val_labels.numpy(),
        healthy_share=settings.healthy_share,
        peak_share=settings.peak_share,
        findings=dataset.findings,
        peaks=looked.peaks,
        kept=looked.kept,
    )
    grids = measure_evidence(
        model,
        val_pixels.only(looked.kept),
        lambda pixels: normalise(pixels.float() / 255, mean, sd, settings.backbone.channels),
        looked.maps,
        val_labels.numpy()[looked.kept],
    )
    warnings = not_learned(looked.logits, val_labels, val_patients, dataset.findings)
    run = Run(
        path=out,
        settings=settings,
        findings=dataset.findings,
        mean=mean,
        sd=sd,
        grids=grids,
        calibration=calibration,
        card=log.card(
            settings=settings,
            identity=log.digest(identity),
            contents=contents,
            train_set=train_set,
            val_set=val_set,
            weights_from=weights_from,
            validation=log.validation(course.history, settings.keep),
            minutes=course.history[-1]["minutes"],
            failures=(*failures, *val_failures),
            notes=[*looked.notes, *calibration.notes],
            warnings=warnings,
            processes=world,
            device=str(device),
        ),
    )
    return course.finish(run, console)


def masked_bce(
    logits: Float[Tensor, "batch finding"],
    labels: Float[Tensor, "batch finding"],
    positive_weight: Float[Tensor, finding],
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy over the known labels, in float32; a NaN label moves no gradient."""
    known = ~labels.isnan()
    target = torch.where(known, labels, torch.zeros_like(labels)) * (1 - smoothing) + smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits.float(), target, pos_weight=positive_weight, reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


class Schedule:
    """The learning rate: of a step ("cosine"), or cut when the validation loss stalls ("plateau")."""

    def __init__(self, settings: TrainSettings, steps: int) -> None:
        self._settings, self._steps = settings, steps
        self._lr, self._best, self._bad = settings.lr, math.inf, 0

    def rate(self, step: int) -> float:
        """Rate of a step, counted from the start of training."""
        settings = self._settings
        if settings.schedule == "plateau":
            return self._lr
        warm = max(int(settings.warmup * self._steps), 1)
        if step < warm:
            return settings.lr * (step + 1) / warm
        return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(self._steps - warm, 1)))

    def end_epoch(self, val_loss: float) -> None:
        """Take note of an epoch, as torch's ReduceLROnPlateau does (relative threshold 1e-4)."""
        if val_loss < self._best * (1 - 1e-4):
            self._best, self._bad = val_loss, 0
        else:
            self._bad += 1
        if self._bad > self._settings.plateau_patience:
            self._lr, self._bad = self._lr * self._settings.plateau_factor, 0

    @property
    def finished(self) -> bool:
        """The rate has fallen as far as it may."""
        return self._settings.schedule == "plateau" and self._lr <= self._settings.min_lr * (1 + 1e-9)

    def dump(self) -> dict[str, float]:
        """What to remember."""
        return {"lr": self._lr, "best": self._best, "bad": self._bad}

    def load(self, state: Mapping[str, float]) -> None:
        """The inverse of :meth:`dump`."""
        self._lr, self._best, self._bad = state["lr"], state["best"], int(state["bad"])


def _refuse_unlabelled(train_set: Dataset, val_set: Dataset, settings: TrainSettings) -> None:
    """Refuses a finding that nothing can be learned about, and a choice by an AUROC that does not exist."""
    for finding, column in zip(train_set.findings, train_set.labels().T, strict=True):
        if np.isnan(column).all():
            raise BadData(
                f"{train_set.name}: no training image has a known label of {finding!r}. "
                "Label some, or name the findings wanted with --finding."
            )
    val_labels = val_set.labels()
    if settings.keep == "auroc" and not ((val_labels == 1).any(axis=0) & (val_labels == 0).any(axis=0)).any():
        raise BadData(
            f"{val_set.name}: keep is 'auroc', and no finding has positive and negative validation images. "
            "Use keep=loss, or give other --splits."
        )


def _first_weights(
    model: nn.Module, settings: TrainSettings, findings: tuple[str, ...]
) -> tuple[str, dict[str, Tensor]]:
    """Fill the network; where from, and for which findings each head is still random (finding,)."""
    heads = [name for name in ("head", "side_head") if isinstance(getattr(model, name, None), nn.Conv2d)]
    fresh = {head: torch.ones(len(findings), dtype=torch.bool) for head in heads}
    if settings.start_from is None:
        return load_weights(model.backbone, settings.backbone), fresh  # type: ignore[arg-type]
    source = Run.load(settings.start_from)
    given = source.build_model().state_dict()
    own = model.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    # All of the backbone or nothing: other networks share a name and a shape here and there.
    lacking = [name for name in own if name.startswith("backbone.") and name not in fitting]
    if lacking:
        theirs, ours = source.settings.backbone, settings.backbone
        raise BadSetting(
            f"{settings.start_from} does not fit {ours.name} with {ours.channels} channel(s) ({lacking[0]}); "
            f"it is a {theirs.name} with {theirs.channels}. Choose that backbone."
        )
    for head in fresh:
        for name in (f"{head}.weight", f"{head}.bias"):
            fitting.pop(name, None)
        fresh[head] = ~_take_head(own, given, head, findings, source.findings)
    model.load_state_dict({**own, **fitting})
    count = sum(not name.startswith(tuple(fresh)) for name in own)
    taken = f"{len(fitting)} of {count} tensors and the head of {int((~fresh['head']).sum())} findings"
    return f"run {source.path.name} ({taken}), itself from {source.card.get('weights_from')}", fresh


def _take_head(
    own: dict[str, Tensor], given: Mapping[str, Tensor], head: str, findings: Sequence[str], theirs: Sequence[str]
) -> Tensor:
    """Takes a head finding by finding, by name: two runs seldom know the same ones in the same order; which it had."""
    weight, bias = f"{head}.weight", f"{head}.bias"
    known = torch.zeros(len(findings), dtype=torch.bool)
    if weight in given and given[weight].shape[1:] == own[weight].shape[1:]:
        for at, finding in enumerate(findings):
            if finding in theirs:
                own[weight][at] = given[weight][theirs.index(finding)]
                own[bias][at] = given[bias][theirs.index(finding)]
                known[at] = True
    return known


def _expected(settings: TrainSettings) -> tuple[float, float]:
    """Mean and sd that the first weights were trained with."""
    if settings.start_from is None:
        return normalisation(settings.backbone)
    source = Run.load(settings.start_from)
    return source.mean, source.sd


@torch.no_grad()
def _start_at_prior(model: nn.Module, images: Tensor, labels: Tensor, fresh: Mapping[str, Tensor]) -> None:
    """For fresh findings, a tenth of a head's weights, and a bias at which its mean logit is the log-odds."""
    for name, new in fresh.items():
        getattr(model, name).weight[new] *= 0.1
    positive, known = (labels == 1).sum(dim=0), (~labels.isnan()).sum(dim=0)
    log_odds = ((positive + 0.5) / (known + 1)).logit()
    output = model.train()(images)
    logits, *beside = output.heads or (output.logits,)
    shift = log_odds - logits.mean(dim=0)
    # A maximum and a mean move as the bias does. A pooling that does not is approached; half a step does not run away.
    for _ in range(50):
        pooled = model.image_logits(output.maps + shift[:, None, None])  # type: ignore[operator]
        missing = log_odds - pooled.mean(dim=0)
        if missing.abs().max() < 1e-3:
            break
        shift = shift + missing / 2
    model.head.bias += shift * fresh["head"]  # type: ignore[union-attr]
    for one in beside:
        model.side_head.bias += (log_odds - one.mean(dim=0)) * fresh["side_head"]  # type: ignore[union-attr]


def _optimiser(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    backbone = [p for name, p in model.named_parameters() if name.startswith("backbone.")]
    rest = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    groups = [{"params": rest, "share": 1.0}, {"params": backbone, "share": settings.backbone_lr}]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimiser]
    return kind(groups, lr=settings.lr, weight_decay=settings.weight_decay)


def _positive_weight(labels: Tensor, settings: TrainSettings) -> Tensor:
    positive, negative = (labels == 1).sum(dim=0), (labels == 0).sum(dim=0)
    if settings.class_weights == "none":
        return torch.ones(labels.shape[1])
    return (negative / positive.clamp(min=1)).clamp(min=1 / 20, max=20)


def _sampling(labels: Tensor, settings: TrainSettings) -> NDArray[np.float64] | int:
    """The number of images, or the weight each is drawn with."""
    if settings.sampling == "uniform":
        return len(labels)
    share = (labels == 1).double().mean(dim=0).clamp(min=1 / max(len(labels), 1))
    rarest = torch.where(labels == 1, share, torch.ones_like(share)).amin(dim=1)
    healthy = (labels == 1).sum(dim=1) == 0
    weight = torch.where(healthy, 1 / healthy.double().mean().clamp(min=1e-9), 1 / rarest)
    return (weight / weight.sum()).numpy()


def _epoch_order(
    rows: NDArray[np.float64] | int, settings: TrainSettings, epoch: int, batches: int
) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng([settings.seed, epoch])
    if isinstance(rows, int):
        order = rng.permutation(rows)
    else:
        order = rng.choice(len(rows), size=len(rows), p=rows)
    for step in range(batches):
        yield order[step * settings.batch_size : (step + 1) * settings.batch_size]


def _judge(logits: NDArray[np.float32], labels: Tensor, findings: tuple[str, ...]) -> dict[str, Any]:
    loss = masked_bce(torch.from_numpy(logits), labels, torch.ones(labels.shape[1])).item()
    return {"val_loss": loss, **validation_areas(logits, labels, findings)}
