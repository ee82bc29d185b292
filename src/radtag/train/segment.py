"""The whole loop of a student, from proposed masks to a run folder.

Of all that is under :mod:`radtag.train` this alone reads masks, and it asks that a run proposed them (``radtag tag
--as-dataset``, whose tables say so in the attribute "masks"): whoever trains on true outlines is to do it on purpose,
with ``trust_masks``, and the card says which it was.

Resume is exact as in :mod:`radtag.train.classify`: what is random is drawn from (seed, epoch, step), and what has a
history is written whole after every epoch. Several processes share a batch and its loss.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from radtag.calibration import Calibration
from radtag.data import augment
from radtag.data.cache import content_digests
from radtag.data.masks import Masks, load_masks
from radtag.data.outlines import files_of
from radtag.data.table import LUNGS, PROPOSED, Dataset, Record
from radtag.errors import BadData, BadSetting
from radtag.geometry import Grid
from radtag.models import build
from radtag.models.backbone import load_weights, normalisation
from radtag.train import log
from radtag.train.loop import (
    Course,
    Pixels,
    ValidationMaps,
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
from radtag.train.settings import StudentSettings
from radtag.words import counted


def train(settings: StudentSettings, dataset: Dataset, out: Path | str, *, console: Console | None = None) -> Run:
    """Train a student on proposed masks and write its run folder.

    Args:
        settings: everything that shapes the result.
        dataset: with masks, a train and a val split; a test split is not touched.
        out: the run folder; an unfinished one is gone on with, a finished one is returned as it is.
        console: where progress is shown.

    Raises:
        BadData: no image to train or to choose by, or a finding without any mask.
        BadRun: the folder holds a run with other settings or data.
        BadSetting: masks that no run proposed, without ``trust_masks``; or settings that do not fit.
    """
    out = Path(out)
    console = console or Console(stderr=True)
    accelerator = start_accelerator(settings.mixed_precision)
    device, world, rank = accelerator.device, accelerator.num_processes, accelerator.process_index
    refuse_uneven(settings.batch_size, world)
    train_set, val_set = known_only(dataset.only("train")), known_only(dataset.only("val"))
    origins = _origins(train_set, val_set, settings)
    _refuse_maskless(train_set, val_set)
    lungs = lungs_for(settings, out, device)
    fingerprint = f"{log.fingerprint(train_set, val_set)} {_fingerprint(train_set, val_set)}"
    identity = log.identity(settings, fingerprint, lungs.digest if lungs else None)
    finished = finished_run(out, identity, train_set, val_set)
    if finished is not None:
        return finished

    torch.manual_seed(settings.seed)
    model = build(settings.method, len(dataset.findings), settings.backbone, settings.options, settings.size_px)
    weights_from = load_weights(model.backbone, settings.backbone)  # type: ignore[arg-type]
    out.mkdir(parents=True, exist_ok=True)
    contents = log.contents(train_set, val_set)
    if accelerator.is_main_process:
        note_seen(out, settings, train_set, val_set)
    pixels, labels, _, failures = load_pixels(train_set, settings, settings.size_px, lungs)
    val_pixels, val_labels, val_patients, val_failures = load_pixels(val_set, settings, settings.size_px, lungs)
    masks, val_masks = (
        load_masks(of, _readable(of, unread), settings.size_px, settings.fit, frames=shown.frames)
        for of, unread, shown in ((train_set, failures, pixels), (val_set, val_failures, val_pixels))
    )
    if masks.known.any(axis=1).sum() < 2:
        with_masks = counted(int(masks.known.any(axis=1).sum()), "training image[s]")
        raise BadData(f"{dataset.name}: {with_masks} with a known mask; 2 are needed.")
    # An image of which no mask is known has its labels to teach, or nothing.
    taught = np.arange(len(pixels)) if settings.labels else np.flatnonzero(masks.known.any(axis=1))
    batches = max(len(taught) // settings.batch_size, 1)
    steps = batches * settings.epochs

    model = synchronised(model.to(memory_format=torch.channels_last), accelerator)
    mean, sd = mean_and_sd(settings, normalisation(settings.backbone))
    model = model.to(device)
    averaged = copy.deepcopy(model).requires_grad_(False) if settings.ema else None
    optimiser = _optimiser(model, settings)
    wrapped, optimiser = accelerator.prepare(model, optimiser)
    course = Course(
        out,
        identity,
        contents,
        model=model,
        averaged=averaged,
        optimiser=optimiser,
        accelerator=accelerator,
        loss="cross-entropy + Dice loss",
    )
    if course.go_on() and accelerator.is_main_process:
        console.print(f"going on after epoch {len(course.history)} of {settings.epochs}")

    if accelerator.is_main_process:
        keep_lungs(out, settings)
    begin = len(course.history)
    with progress_bars(console, shown=accelerator.is_main_process) as progress:
        epochs_bar = progress.add_task("student: epochs", total=settings.epochs, completed=begin)
        steps_bar = progress.add_task("steps", total=batches)
        for epoch in range(begin, settings.epochs):
            progress.reset(steps_bar, total=batches)
            wrapped.train()
            total = torch.zeros((), device=device)
            order = np.random.default_rng([settings.seed, epoch]).permutation(taught)
            for step in range(batches):
                chosen = order[step * settings.batch_size : (step + 1) * settings.batch_size]
                warp = augment.draw(len(chosen), settings.augment, generator_for(settings.seed, epoch, step))
                part = share_of(len(chosen), rank, world)
                mine, warp = chosen[part], augment.take(warp, part)
                images = warp.images(torch.from_numpy(pixels[mine]).to(device).float().div_(255))
                target = torch.from_numpy(_in_view(masks[mine], pixels[mine], lungs)).to(device).float()
                target = torch.stack([warp.masks(of) for of in target.unbind(1)], dim=1)
                known = torch.from_numpy(masks.known[mine]).to(device)
                torch.manual_seed(seed_for(settings.seed, epoch, step, rank + 1))  # dropout
                for group in optimiser.param_groups:
                    group["lr"] = _rate(settings, epoch * batches + step, steps) * group["share"]
                output = wrapped(normalise(images, mean, sd, settings.backbone.channels))
                sums = mask_losses(output.maps, target, known)
                # DDP averages gradients over processes; what is wanted are the means over the whole batch.
                counts = accelerator.reduce(torch.stack([sums.known, sums.filled]), reduction="sum").clamp(min=1)
                loss = of_masks = sums.cross_entropy / counts[0] + settings.dice * sums.dice / counts[1]
                if settings.labels:
                    told = labels[torch.from_numpy(mine)].to(device)
                    loss = loss + settings.labels * label_loss(output.logits, told) / len(chosen)
                optimiser.zero_grad(set_to_none=True)
                accelerator.backward(loss * world)
                if settings.clip_norm:
                    accelerator.clip_grad_norm_(wrapped.parameters(), settings.clip_norm)
                optimiser.step()
                if averaged is not None:
                    average(averaged, model, settings.ema, epoch * batches + step)
                total += of_masks.detach()  # as the validation loss
                progress.advance(steps_bar)

            judged = averaged if averaged is not None else model
            train_loss = accelerator.reduce(total, reduction="sum").item() / batches
            logits = predict_logits(judged, val_pixels, settings, mean, sd, accelerator)
            if not (math.isfinite(train_loss) and np.isfinite(logits).all()):
                raise BadSetting(
                    f"the loss or a logit is not finite in epoch {epoch + 1}. Lower --lr (now {settings.lr}), "
                    "or set clip_norm, or mixed_precision to 'no'."
                )
            row = {
                "epoch": epoch + 1,
                "lr": _rate(settings, (epoch + 1) * batches - 1, steps),
                "train_loss": train_loss,
                **_judge(judged, val_pixels, val_masks, settings, mean, sd, device),
                **validation_areas(logits, val_labels, dataset.findings),
            }
            course.end_epoch(row, row["val_loss"], judged)
            text = f"student: loss {train_loss:.4f}, val {row['val_loss']:.4f}, Dice {row['val_dice']:.3f}"
            progress.update(epochs_bar, advance=1, description=text)

    model.load_state_dict(course.best)
    model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    looked = predict_maps(model, val_pixels, val_labels, settings, mean, sd, accelerator)
    calibration = _calibrate(looked, val_labels, dataset.findings, settings)
    warnings = not_learned(looked.logits, val_labels, val_patients, dataset.findings)
    kept = min(course.history, key=lambda row: row["val_loss"])
    card = log.card(
        settings=settings,
        identity=log.digest(identity),
        contents=contents,
        train_set=train_set,
        val_set=val_set,
        weights_from=weights_from,
        validation={
            **log.validation(course.history, "loss"),
            "dice_with_given_masks": log.undefined_as_none(round(kept["val_dice"], 4)),
        },
        minutes=course.history[-1]["minutes"],
        failures=(*failures, *val_failures, *masks.failures, *val_masks.failures),
        notes=[*looked.notes, *calibration.notes],
        warnings=warnings,
        processes=world,
        device=str(device),
    )
    square = (settings.size_px, settings.size_px)
    run = Run(
        path=out,
        settings=settings,
        findings=dataset.findings,
        mean=mean,
        sd=sd,
        grids=(Grid.tiles(square, square),) * len(dataset.findings),
        calibration=calibration,
        card=_with_masks(card, origins, masks, dataset.findings),
    )
    return course.finish(run, console)


class Sums:
    """Losses of pairs of image and finding, added up, and how many there are.

    Args:
        cross_entropy: of the pairs whose mask is known, each the mean over its pixels.
        dice: soft Dice losses of the pairs whose mask is known and not empty.
        known: pairs with a known mask.
        filled: of these, with one that is not empty.
    """

    def __init__(self, cross_entropy: Tensor, dice: Tensor, known: Tensor, filled: Tensor) -> None:
        self.cross_entropy, self.dice, self.known, self.filled = cross_entropy, dice, known, filled


def mask_losses(
    logits: Float[Tensor, "batch finding row col"],
    masks: Float[Tensor, "batch finding row col"],
    known: Bool[Tensor, "batch finding"],
) -> Sums:
    """Binary cross-entropy and soft Dice loss, in float32; what is not known moves no gradient.

    The soft Dice loss is 1 - 2 sum(p m) / (sum(p) + sum(m)) with p = sigmoid(logit) and m the mask, each pair of image
    and finding by itself (Milletari et al., "V-Net", 2016, without the squares). An empty mask has no overlap to speak
    of, and there the cross-entropy teaches alone.
    """
    logits = logits.float()
    each = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(dim=(2, 3))
    size = masks.sum(dim=(2, 3))
    filled = known & (size > 0)
    chance = logits.sigmoid()
    dice = 1 - 2 * (chance * masks).sum(dim=(2, 3)) / (chance.sum(dim=(2, 3)) + size).clamp(min=1e-6)
    return Sums((each * known).sum(), (dice * filled).sum(), known.sum(), filled.sum())


def label_loss(logits: Float[Tensor, "batch finding"], labels: Float[Tensor, "batch finding"]) -> Float[Tensor, ""]:
    """Binary cross-entropy of the known labels, the mean over findings, summed over images."""
    known = ~labels.isnan()
    each = F.binary_cross_entropy_with_logits(logits.float(), labels.nan_to_num(), reduction="none")
    return (each * known).mean(dim=1).sum()


def _origins(train_set: Dataset, val_set: Dataset, settings: StudentSettings) -> dict[str, int]:
    """By what the masks were proposed -> in how many images.

    Raises:
        BadSetting: masks that no run proposed, and ``trust_masks`` is not set.
    """
    found: dict[str, int] = {}
    for dataset in (train_set, val_set):
        for record in dataset.records:
            if not any(name in record.masks for name in dataset.findings):
                continue
            mark = record.attributes.get("masks", "")
            if dataset.findings == (LUNGS,):  # an organ, and not what anything is scored by
                mark = "the data set's own masks of lungs"
            elif not mark.startswith(PROPOSED):
                if not settings.trust_masks:
                    raise BadSetting(
                        f"the masks of {dataset.name} are not marked as a run's proposals ({record.image}, for one):"
                        " they may be the truth that scores are taken by, and what is trained on them is no longer"
                        " learned from image labels. Propose masks with radtag tag RUN SOURCE --as-dataset DIR and"
                        " train on csv:DIR, or, if outlines are meant, give --set trust_masks=true."
                    )
                mark = "the data set's own (trust_masks)"
            found[mark] = found.get(mark, 0) + 1
    return found


def _refuse_maskless(train_set: Dataset, val_set: Dataset) -> None:
    for dataset, split in ((train_set, "training"), (val_set, "validation")):
        for at, finding in enumerate(dataset.findings):
            if not any(record.labels[at] == 1 and finding in record.masks for record in dataset.records):
                if split == "validation" and any(
                    record.labels[i] == 1 and name in record.masks
                    for record in dataset.records
                    for i, name in enumerate(dataset.findings)
                ):
                    continue  # chosen by the other findings
                raise BadData(
                    f"{dataset.name}: no {split} image with {finding} has a mask of it. Propose some with"
                    " radtag tag RUN SOURCE --as-dataset DIR, or name the findings wanted with --finding."
                )


def _fingerprint(*datasets: Dataset) -> str:
    """A short name of the masks, by content."""
    listed = [
        (record.image, finding, mask)
        for dataset in datasets
        for record in dataset.records
        for finding, mask in sorted(record.masks.items())
        if finding in dataset.findings
    ]
    digests = iter(content_digests([path for *_, mask in listed for path in files_of(mask)]))
    named = []
    for image, finding, mask in listed:
        of_files = [next(digests) for _ in files_of(mask)]
        named.append((image, finding, *of_files) if isinstance(mask, Path) else (image, finding, mask.name, *of_files))
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]


def _readable(dataset: Dataset, failures: Sequence[tuple[str, str]]) -> list[Record]:
    gone = {path for path, _ in failures}
    return [record for record in dataset.records if str(record.path) not in gone]


def _optimiser(model: nn.Module, settings: StudentSettings) -> torch.optim.Optimizer:
    net: nn.Module = model.backbone.net  # type: ignore[union-attr, assignment]
    pretrained = {id(parameter) for parameter in net.parameters()}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in pretrained]
    groups = [{"params": rest, "share": 1.0}, {"params": list(net.parameters()), "share": settings.backbone_lr}]
    return torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)


def _rate(settings: StudentSettings, step: int, steps: int) -> float:
    """Warms up in a line, then falls to 0 as a cosine does."""
    warm = max(int(settings.warmup * steps), 1)
    if step < warm:
        return settings.lr * (step + 1) / warm
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def _in_view(masks: NDArray[np.bool_], pixels: NDArray[np.uint8], lungs: object) -> NDArray[np.bool_]:
    """Masks (image, finding, row, col) without what is black to a network that is shown the lungs alone."""
    return masks if lungs is None else masks & (pixels > 0)[:, None]


@torch.inference_mode()
def _judge(
    model: nn.Module,
    pixels: Pixels,
    masks: Masks,
    settings: StudentSettings,
    mean: float,
    sd: float,
    device: torch.device,
) -> dict[str, float]:
    """Loss of the validation images, and the mean Dice of the masks they have, at the sigmoid of 0.5."""
    model.eval()
    entropy = dice = overlap = 0.0
    known = filled = 0
    for start in range(0, len(pixels), 32):
        part = slice(start, start + 32)
        images = torch.from_numpy(pixels[part]).to(device).float().div_(255)
        maps = model(normalise(images, mean, sd, settings.backbone.channels)).maps
        target = torch.from_numpy(_in_view(masks[part], pixels[part], settings.lungs)).to(device).float()
        told = torch.from_numpy(masks.known[part]).to(device)
        sums = mask_losses(maps, target, told)
        entropy, dice = entropy + sums.cross_entropy.item(), dice + sums.dice.item()
        known, filled = known + int(sums.known), filled + int(sums.filled)
        drawn, size = (maps > 0).float(), target.sum(dim=(2, 3))
        hard = 2 * (drawn * target).sum(dim=(2, 3)) / (drawn.sum(dim=(2, 3)) + size).clamp(min=1)
        overlap += float((hard * (told & (size > 0))).sum())
    return {
        "val_loss": entropy / max(known, 1) + settings.dice * dice / max(filled, 1),
        "val_dice": overlap / filled if filled else math.nan,
    }


def _calibrate(
    looked: ValidationMaps, labels: Tensor, findings: tuple[str, ...], settings: StudentSettings
) -> Calibration:
    """Scores and maps as everywhere; the mask is where the network's own sigmoid is above 0.5, as it was taught."""
    fitted = Calibration.fit(
        looked.logits,
        looked.maps,
        labels.numpy(),
        healthy_share=settings.healthy_share,
        peak_share=settings.peak_share,
        findings=findings,
        peaks=looked.peaks,
        kept=looked.kept,
    )
    values = fitted.to_dict()
    values["mask_threshold"] = [1 / (1 + math.exp(-bias)) for bias in fitted.map_bias]
    notes = [note for note in fitted.notes if "mask threshold" not in note and "masks cover" not in note]
    return Calibration.from_dict({**values, "notes": notes})


def _with_masks(
    card: dict[str, Any], origins: dict[str, int], masks: Masks, findings: tuple[str, ...]
) -> dict[str, Any]:
    """The card of a method that has seen masks: whose they were, and a limit in place of one that does not hold."""
    seen = "Learned from masks, which are " + "; ".join(f"{mark}, of {n} images" for mark, n in origins.items())
    limits = [
        f"{seen}. It repeats their errors." if "no outline of a finding was seen" in one else one
        for one in card["limits"]
    ]
    counts = {name: int((masks.place[:, at] >= 0).sum()) for at, name in enumerate(findings)}
    return {**card, "masks": {"origin": list(origins), "train_masks": counts}, "limits": limits}
