"""The whole loop of two sides that train against each other, from image labels to a run folder.

What the networks are and what each side wants is the game's (:mod:`radtag.models.game`); here is the order of things:
unpaired batches balanced by disease and source, the critics' warm-up, then for every step the critics' turns and the
generators', each with its optimiser, a running average of the generators, and from time to time a look at the
validation images.

Resume is exact as in :mod:`radtag.train.classify`: batches, augmentation and noise are drawn from (seed, step) alone,
and what has a history is written whole at every look. Processes share a batch: each takes its slice of the same draw.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from radtag import draw
from radtag.calibration import Calibration
from radtag.data import augment
from radtag.data.healthy import two_sides
from radtag.data.table import Dataset
from radtag.errors import BadData, BadSetting
from radtag.geometry import Grid
from radtag.models import all_options, new_game
from radtag.models.backbone import Backbone, load_weights, normalisation
from radtag.models.game import Batch, Game, Seen, Terms
from radtag.models.taggan import by_finding
from radtag.train import log
from radtag.train.loop import (
    Pixels,
    ValidationMaps,
    average,
    finished_run,
    generator_for,
    load_pixels,
    mean_and_sd,
    not_learned,
    note_seen,
    predict_maps,
    progress_bars,
    read_resume,
    refuse_uneven,
    seed_for,
    share_of,
    start_accelerator,
    synchronised,
    validation_areas,
    write_resume,
)
from radtag.train.outline import keep_lungs, lungs_for
from radtag.train.run import Run
from radtag.train.settings import AdversarialSettings

EMPTY = 1e-4
"""A mean |map| of ill images below this (of the image's range) is an empty map."""

WARM_UP = -1
"""The turn of the warm-up's batches."""

WARM_UP_RISE, WARM_UP_FALL = 30, 0.7
"""Steps over which the warm-up's rate rises, and the share by which it has fallen at the end."""

WARM_UP_WEIGHT_DECAY = 0.02
"""Of AdamW, in the warm-up; a game's Adam has none."""

DESCRIBED_EVERY = 20
"""Steps from one to the next at which the progress line tells the losses."""

ALIKE = 0.8
"""A map is everywhere if healthy images' mean |map| is above this share of ill images'."""


def train(
    settings: AdversarialSettings,
    dataset: Dataset,
    out: Path | str,
    *,
    also: Sequence[Dataset] = (),
    findings: Sequence[str] | None = None,
    normal: str | None = None,
    console: Console | None = None,
) -> Run:
    """Train generators and critics on image labels and write a run folder.

    Args:
        settings: everything that shapes the result.
        dataset: with a train and a val split, and all its findings; a test split is not touched.
        out: the run folder; an unfinished one is gone on with, a finished one is returned as it is.
        also: further data sets like it; each says for itself who is healthy (:func:`radtag.data.healthy.two_sides`).
        findings: those wanted; left out, all but the ones that mean healthy.
        normal: the finding that means healthy; left out, one called normal, or all findings 0. It has no map.
        console: where progress is shown.

    Raises:
        BadData: no training or validation images, no healthy ones, or a finding without any positive image.
        BadRun: the folder holds a run with other settings or data.
        BadSetting: settings that do not fit each other, the data or the machine; a loss that is not finite.
    """
    out = Path(out)
    console = console or Console(stderr=True)
    accelerator = start_accelerator(settings.mixed_precision, idle_parts=True)
    device, world, rank = accelerator.device, accelerator.num_processes, accelerator.process_index
    refuse_uneven(settings.batch_size, world)

    sides = two_sides(dataset, also=also, findings=findings, normal=normal)
    if accelerator.is_main_process:
        for note in sides.notes:
            console.print(f"note: {note}", markup=False, highlight=False)
    train_set, val_set, names = sides.only("train"), sides.only("val"), sides.findings
    settings = settings.model_copy(update={"options": by_finding(settings.options, names)})
    lungs = lungs_for(settings, out, device)
    identity = log.identity(settings, log.fingerprint(train_set, val_set), lungs.digest if lungs else None)
    done = finished_run(out, identity, train_set, val_set)
    if done is not None:
        return done

    torch.manual_seed(settings.seed)
    mean, sd = mean_and_sd(settings, normalisation(settings.backbone))
    seen = Seen(mean, sd, settings.backbone.channels)
    game = new_game(settings.method, len(names), settings.backbone, settings.options, seen)
    if game.warm_up_steps:
        refuse_uneven(settings.warm_up_batch_size, world, "warm_up_batch_size")
    weights_from = first_weights(game, settings)

    out.mkdir(parents=True, exist_ok=True)
    contents = log.contents(train_set, val_set)
    if accelerator.is_main_process:
        note_seen(out, settings, train_set, val_set)
    pixels, labels, _, failures = load_pixels(train_set, settings, settings.size_px, lungs)
    val_pixels, val_labels, val_patients, val_failures = load_pixels(val_set, settings, settings.size_px, lungs)
    refuse_unreadable(labels, val_labels, sides)
    unread = {path for path, _ in failures}
    sources = [record.source for record in train_set.records if str(record.path) not in unread]
    batches = Batches(pixels, labels, settings, rank, world, device, sources)
    game = synchronised(game, accelerator).to(memory_format=torch.channels_last).to(device).train()
    averaged = copy.deepcopy(game.localiser).requires_grad_(False).eval()
    state = State(game, averaged, settings)
    critics = accelerator.prepare(Side(game.critics, game.critic_terms))
    warming = accelerator.prepare(Side(game.critics, lambda batch, step: game.warm_up_terms(batch)))
    generators = accelerator.prepare(Side(game.generators, game.generator_terms))
    state.prepare(accelerator)

    resume = out / "resume.pt"
    if resume.is_file():
        state.load(read_resume(resume, identity, contents), accelerator)
        if accelerator.is_main_process:
            console.print(f"going on after step {state.step} of {settings.steps}")
    elif not game.warm_up_steps:
        state.begin()
    if accelerator.is_main_process:
        keep_lungs(out, settings)
    started = time.monotonic() - state.seconds
    looks = Looks(
        out=out, settings=settings, findings=names, pixels=val_pixels, labels=val_labels, mean=mean, sd=sd,
        shown=batches.of_validation(val_pixels, val_labels), accelerator=accelerator,
    )  # fmt: skip
    seen_last: ValidationMaps | None = None

    with progress_bars(console, shown=accelerator.is_main_process) as progress:
        warm_bar = progress.add_task(f"{settings.method}: warm-up", total=game.warm_up_steps, completed=state.warmed)
        bar = progress.add_task(f"{settings.method}: steps", total=settings.steps, completed=state.step)
        while state.warmed < game.warm_up_steps:
            rate = settings.warm_up_lr * warm_up_decay(state.warmed, game.warm_up_steps)
            batch = batches.draw(state.warmed, turn=WARM_UP)
            terms = turn(warming, state.warm_optimiser, batch, 0, rate, settings, accelerator)
            state.note({f"warm-up {name}": value for name, value in terms.items()})
            state.warmed += 1
            progress.update(warm_bar, completed=state.warmed)
            if state.warmed == game.warm_up_steps or state.warmed % settings.look_every == 0:
                state.means(accelerator)  # for what it refuses
                if state.warmed == game.warm_up_steps:
                    state.begin()
                state.seconds = time.monotonic() - started
                state.save(resume, identity, contents, accelerator)
        while state.step < settings.steps:
            rate = settings.lr * decay(state.step / settings.steps, settings.decay_from)
            play(game, critics, generators, state, batches, rate, settings, accelerator)
            progress.update(bar, completed=state.step)
            if state.step % DESCRIBED_EVERY == 0:  # reading a loss waits for the device
                progress.update(bar, description=f"{settings.method}: {state.described()}")
            if state.step % settings.look_every == 0 or state.step == settings.steps:
                seen_last = None  # or two looks' maps would be in memory at once
                seen_last = looks.take(game, averaged, state, rate, started, progress.console)
                state.save(resume, identity, contents, accelerator)

    if seen_last is None:  # stopped after the last look
        seen_last = looks.maps(averaged)
    warnings = not_learned(seen_last.logits, val_labels, val_patients, names)
    collapsed = collapse(state.history[-1], all_options(settings.method, settings.options))
    calibration = looks.calibration(seen_last)
    run = Run(
        path=out,
        settings=settings,
        findings=names,
        mean=mean,
        sd=sd,
        # An amount is of the pixel it is taken from, wherever the network looked for it.
        grids=(Grid.tiles(seen_last.maps.shape[2:], (settings.size_px, settings.size_px)),) * len(names),
        calibration=calibration,
        card=log.card(
            settings=settings,
            identity=log.digest(identity),
            contents=contents,
            train_set=train_set,
            val_set=val_set,
            weights_from=weights_from,
            validation=log.adversarial_validation(state.history[-1]),
            minutes=state.seconds / 60,
            failures=(*failures, *val_failures),
            notes=[*seen_last.notes, *calibration.notes],
            warnings=[*warnings, *([collapsed] if collapsed else [])],
            processes=world,
            device=str(device),
        ),
    )
    if accelerator.is_main_process:
        for warning in run.card.get("warnings", ()):
            console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        run.save(averaged.state_dict())
        resume.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    return Run.load(out)


@dataclass(frozen=True)
class Looks:
    """Looks at the validation images, from time to time, by the average: in float32, as tagging is.

    Args:
        out: the run folder.
        settings: of the training.
        findings: names.
        pixels: (image, row, col) uint8 of the validation images.
        labels: (image, finding) 1, 0 or NaN.
        mean: of the normalisation,
        sd: and its scale.
        shown: some of the images, for the strips of pictures.
        accelerator: which processes share the images.
    """

    out: Path
    settings: AdversarialSettings
    findings: tuple[str, ...]
    pixels: Pixels
    labels: Tensor
    mean: float
    sd: float
    shown: Batch
    accelerator: Accelerator

    def maps(self, averaged: nn.Module) -> ValidationMaps:
        """What the average says of the validation images."""
        return predict_maps(averaged, self.pixels, self.labels, self.settings, self.mean, self.sd, self.accelerator)

    def take(
        self, game: Game, averaged: nn.Module, state: State, rate: float, started: float, console: Console
    ) -> ValidationMaps:
        """One look: its line in the log, a strip of pictures, and a word if the maps say nothing.

        Raises:
            BadSetting: a loss or a map is not finite.
        """
        means = state.means(self.accelerator)
        seen = self.maps(averaged)
        if not np.isfinite(seen.logits).all():  # the last of these steps went astray
            raise BadSetting(f"a map is not finite by step {state.step}. Lower lr (now {self.settings.lr}).")
        judged = judge(seen.logits, seen.means, self.labels, self.findings)
        state.seconds = time.monotonic() - started
        row = {"step": state.step, "lr": rate, **means, **judged, "minutes": round(state.seconds / 60, 3)}
        state.history.append(row)
        if self.accelerator.is_main_process:
            warning = collapse(row, all_options(self.settings.method, self.settings.options))
            if warning:
                console.print(f"step {state.step}: {warning}", markup=False, highlight=False)
            log.write_adversarial(self.out, state.history)
            game.eval()  # or BatchNorm would learn from validation images
            strip = game.strip(self.shown)
            game.train()
            draw.write_picture(self.out / "strips" / f"{state.step:06}.png", draw.strip(strip.cpu().numpy()))
        return seen

    def calibration(self, seen: ValidationMaps) -> Calibration:
        """Scores and thresholds by these images, without an outline."""
        return Calibration.fit(
            seen.logits,
            seen.maps,
            self.labels.numpy(),
            healthy_share=self.settings.healthy_share,
            peak_share=self.settings.peak_share,
            findings=self.findings,
            scale="amount",
            peaks=seen.peaks,
            kept=seen.kept,
        )


class Side(nn.Module):
    """The networks that one optimiser moves, and what they minimise, as accelerate wants it: as a module's forward.

    Args:
        moved: the networks.
        terms: the losses of a batch at a step.
    """

    def __init__(self, moved: nn.Module, terms: Callable[[Batch, int], Terms]) -> None:
        super().__init__()
        self.moved, self._terms = moved, terms

    def forward(self, batch: Batch, step: int) -> Terms:
        """The weighted losses, by name."""
        return self._terms(batch, step)


def play(
    game: Game,
    critics: nn.Module,
    generators: nn.Module,
    state: State,
    batches: Batches,
    rate: float,
    settings: AdversarialSettings,
    accelerator: Accelerator,
) -> None:
    """One step: the critics' turns, the generators', and the average.

    Args:
        game: the networks.
        critics: its critics as a :class:`Side`,
        generators: and its generators, both prepared by accelerate.
        state: what has a history; moved on.
        batches: drawn from.
        rate: learning rate.
        settings: of the training.
        accelerator: whose backward pass it is.
    """
    step = state.step
    game.critics.requires_grad_(True)
    for at in reversed(range(game.critic_steps(step))):  # the last turn is on the generators' batch
        terms = turn(critics, state.critic_optimiser, batches.draw(step, turn=at), step, rate, settings, accelerator)
        state.note({f"critic {name}": value for name, value in terms.items()})
    game.critics.requires_grad_(False)
    terms = turn(generators, state.generator_optimiser, batches.draw(step, turn=0), step, rate, settings, accelerator)
    state.note({f"generator {name}": value for name, value in terms.items()})
    state.average()
    state.step += 1


def turn(
    side: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    step: int,
    rate: float,
    settings: AdversarialSettings,
    accelerator: Accelerator,
) -> Terms:
    """One side's step: losses, gradients, weights."""
    terms: Terms = side(batch, step)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    accelerator.backward(torch.stack([value.float() for value in terms.values()]).sum())
    if settings.clip_norm:
        # Not accelerate's own, which would unscale the gradients of the critics' other optimiser (the same ones) too.
        accelerator.unscale_gradients(optimiser)
        nn.utils.clip_grad_norm_(side.parameters(), settings.clip_norm)
    optimiser.step()
    return {name: value.detach() for name, value in terms.items()}


class Batches:
    """Unpaired batches: a finding is drawn, then an image that has it; and a healthy image of the same source.

    As many healthy as ill images of each source, and as often asked for the same findings: the look of a hospital says
    nothing of who is ill. Beside the ill images of a source without healthy ones stand those of all the others.

    Args:
        pixels: (image, row, col) uint8, of both sides.
        labels: (image, finding) 1, 0 or NaN; a healthy image has none.
        settings: of the training.
        rank: this process,
        world: of so many.
        device: where batches go.
        sources: of each image, where it is from; left out, all are from one.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Tensor,
        settings: AdversarialSettings,
        rank: int,
        world: int,
        device: torch.device,
        sources: Sequence[str] | None = None,
    ) -> None:
        self._pixels, self._settings, self._device = pixels, settings, device
        self._rank, self._world = rank, world
        self._last: tuple[tuple[int, int], Batch] | None = None
        self._positive = (labels == 1).float()
        self._with = [np.flatnonzero(column) for column in self._positive.numpy().T]
        named = list(dict.fromkeys(sources)) if sources is not None else []
        number = {name: i for i, name in enumerate(named)}
        self._source = np.array([number[name] for name in sources or ()] or [0] * len(labels), dtype=np.int64)
        healthy = np.flatnonzero(self._positive.sum(dim=1).numpy() == 0)
        of_source = [healthy[self._source[healthy] == i] for i in range(max(len(named), 1))]
        self._healthy = [own if len(own) else healthy for own in of_source]
        self._known = self._known_of(labels)

    def _known_of(self, labels: Tensor) -> Tensor:
        """(image, finding) 0 where a label is unknown whose finding the image's source names, else 1."""
        known = torch.ones_like(labels)
        for source in np.unique(self._source):
            at = torch.from_numpy(np.flatnonzero(self._source == source))
            of_source = (~labels[at].isnan()).float()
            known[at] = torch.where(of_source.any(dim=0), of_source, 1.0)
        return known

    def draw(self, step: int, *, turn: int) -> Batch:
        """This process's share of a turn's batch; asked for again, it is the same object.

        Both sides' first turn of a step have one batch, so that what the generators make serves both.
        """
        if self._last is None or self._last[0] != (step, turn):
            self._last = ((step, turn), self._drawn(step, turn))
        return self._last[1]

    def _drawn(self, step: int, turn: int) -> Batch:
        settings = self._settings
        count = settings.warm_up_batch_size if turn == WARM_UP else settings.batch_size
        part = share_of(count, self._rank, self._world)
        seed = seed_for(settings.seed, step, turn + 1)
        rng = np.random.default_rng(seed)
        ill = np.array([rng.choice(self._with[finding]) for finding in rng.integers(len(self._with), size=count)])
        healthy, asked = np.empty_like(ill), np.empty_like(ill)
        for source in np.unique(self._source[ill]):
            at = np.flatnonzero(self._source[ill] == source)
            healthy[at] = rng.choice(self._healthy[source], len(at))
            asked[at] = rng.permutation(ill[at])  # as often, and as many at once, as they occur
        warps = augment.draw(2 * count, settings.augment, generator_for(seed))
        both = np.concatenate([ill[part], healthy[part]])
        share = torch.cat([torch.arange(count)[part], count + torch.arange(count)[part]])
        images = torch.from_numpy(self._pixels[both]).to(self._device).float().div_(255)
        images = augment.take(warps, share).images(images)
        torch.manual_seed(seed_for(settings.seed, step, turn + 1, part.start + 1))  # noise inside the game
        own = len(images) // 2
        known = self._known[torch.from_numpy(ill[part])].to(self._device)
        return Batch(images[:own], self._labels(ill[part]), images[own:], self._labels(asked[part]), known)

    def of_validation(self, pixels: Pixels, labels: Tensor, count: int = 8) -> Batch:
        """Validation images to look at, as they are, each finding in turn."""
        positive = (labels == 1).float()
        found = [np.flatnonzero(column) for column in positive.numpy().T if column.any()]
        ill = np.array([rows[i // len(found) % len(rows)] for i, rows in zip(range(count), cycle(found))])
        healthy = np.flatnonzero(positive.sum(dim=1).numpy() == 0)
        healthy = healthy[np.arange(count) % len(healthy)]
        sides = [torch.from_numpy(pixels[rows]).to(self._device).float().div_(255) for rows in (ill, healthy)]
        asked = positive[torch.from_numpy(ill)].to(self._device)
        return Batch(sides[0], asked, sides[1], asked, torch.ones_like(asked))

    def _labels(self, rows: NDArray[np.int64]) -> Tensor:
        return self._positive[torch.from_numpy(rows)].to(self._device)


class State:
    """What has a history: networks, optimisers, the average, the log, and where all of them are.

    Args:
        game: the networks of both sides.
        averaged: the running average of the game's localiser.
        settings: of the training.
    """

    def __init__(self, game: Game, averaged: nn.Module, settings: AdversarialSettings) -> None:
        self._game, self._averaged, self._settings = game, averaged, settings
        self.critic_optimiser: torch.optim.Optimizer = self._adam(game.critics)
        self.warm_optimiser: torch.optim.Optimizer = torch.optim.AdamW(
            game.critics.parameters(), settings.warm_up_lr, weight_decay=WARM_UP_WEIGHT_DECAY
        )
        self.generator_optimiser: torch.optim.Optimizer = self._adam(game.generators)
        self.warmed = self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def _adam(self, side: nn.Module) -> torch.optim.Optimizer:
        moved = [parameter for parameter in side.parameters() if parameter.requires_grad]
        return torch.optim.Adam(moved, self._settings.lr, betas=self._settings.betas)

    def prepare(self, accelerator: Accelerator) -> None:
        """Hands the optimisers to accelerate."""
        self.critic_optimiser, self.warm_optimiser, self.generator_optimiser = accelerator.prepare(
            self.critic_optimiser, self.warm_optimiser, self.generator_optimiser
        )

    def begin(self) -> None:
        """From the warm-up to the game."""
        self._game.begin()
        self._averaged.load_state_dict(self._game.localiser.state_dict())

    def average(self) -> None:
        """Takes the generators' last step into the average."""
        average(self._averaged, self._game.localiser, self._settings.ema, self.step)

    def note(self, terms: Mapping[str, Tensor]) -> None:
        """Adds losses to the means since the last look."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Mean losses since the last look, over all processes, and begins anew.

        Raises:
            BadSetting: one is not finite; all processes stop then.
        """
        local = torch.stack([value.float() / self._counts[name] for name, value in self._sums.items()])
        found = dict(zip(self._sums, accelerator.reduce(local, reduction="mean").tolist(), strict=True))
        self._sums, self._counts = {}, {}
        for name, value in found.items():
            if not math.isfinite(value):
                rate = "warm_up_lr" if name.startswith("warm-up") else "lr"
                raise BadSetting(
                    f"the loss {name!r} is {value} by step {self.step or self.warmed}. Lower {rate} (now"
                    f" {getattr(self._settings, rate)}), or set mixed_precision to 'no'."
                )
        return {name: round(value, 6) for name, value in found.items()}

    def described(self) -> str:
        """The two sides' losses, in few characters."""
        means = torch.stack([value.float() / self._counts[name] for name, value in self._sums.items()]).tolist()
        sums = {"critic": 0.0, "generator": 0.0}
        for name, value in zip(self._sums, means, strict=True):
            sums[name.split()[0]] += value
        return ", ".join(f"{side} {value:.3f}" for side, value in sums.items())

    def save(self, file: Path, identity: Mapping[str, Any], contents: str, accelerator: Accelerator) -> None:
        """Everything to go on from, whole or not at all; every process has to come here."""
        pools = {  # those of all processes, one behind the other
            name: [accelerator.gather(one) for one in pool.kept] for name, pool in self._game.pools.items()
        }
        if not accelerator.is_main_process:
            return
        write_resume(
            file,
            {
                "identity": log.digest(identity),
                "begun_with": identity,
                "contents": contents,
                "game": self._game.state_dict(),
                "averaged": self._averaged.state_dict(),
                "critic_optimiser": self.critic_optimiser.state_dict(),
                "warm_optimiser": self.warm_optimiser.state_dict(),
                "generator_optimiser": self.generator_optimiser.state_dict(),
                "pools": pools,
                "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else {},
                "warmed": self.warmed,
                "step": self.step,
                "history": self.history,
                "seconds": self.seconds,
            },
        )

    def load(self, values: Mapping[str, Any], accelerator: Accelerator) -> None:
        """The inverse of :meth:`save`."""
        self._game.load_state_dict(values["game"])
        self._averaged.load_state_dict(values["averaged"])
        for name, pool in self._game.pools.items():
            shares = [one.chunk(accelerator.num_processes)[accelerator.process_index] for one in values["pools"][name]]
            pool.kept = tuple(one.to(accelerator.device) for one in shares)
        self.critic_optimiser.load_state_dict(values["critic_optimiser"])
        self.warm_optimiser.load_state_dict(values["warm_optimiser"])
        self.generator_optimiser.load_state_dict(values["generator_optimiser"])
        if accelerator.scaler is not None and values["scaler"]:
            accelerator.scaler.load_state_dict(values["scaler"])
        self.warmed, self.step = values["warmed"], values["step"]
        self.history, self.seconds = list(values["history"]), values["seconds"]


def refuse_unreadable(labels: Tensor, val_labels: Tensor, sides: Dataset) -> None:
    """Refuses a side of which no image can be read.

    Raises:
        BadData: healthy images of a split, ill ones of val, or a finding's training images.
    """
    advice = "Restore the files; radtag data check names them."
    for split, known in (("train", labels), ("val", val_labels)):
        ill = (known == 1).any(dim=1)
        for side, there in (("healthy", ~ill), ("ill", ill)):
            if not there.any():
                raise BadData(f"{sides.name}: no {side} image of the {split} split can be read. {advice}")
    for name, column in zip(sides.findings, labels.T, strict=True):
        if not (column == 1).any():
            raise BadData(f"{sides.name}: no training image that has {name!r} can be read. {advice}")


def warm_up_decay(done: int, steps: int) -> float:
    """Share of the warm-up's learning rate after so many of its steps: it rises, and falls in a line."""
    return min((done + 1) / WARM_UP_RISE, 1 - WARM_UP_FALL * done / steps)


def decay(done: float, begins: float) -> float:
    """Share of the learning rate when ``done`` (0-1) of the steps are: 1, and from ``begins`` a line to 0."""
    return 1.0 if done < begins else (1 - done) / max(1 - begins, 1e-9)


def judge(
    logits: NDArray[np.floating[Any]], amount: NDArray[np.float32], labels: Tensor, findings: tuple[str, ...]
) -> dict[str, Any]:
    """What validation images say, without an outline: AUROC, and how much is taken from ill and from healthy images.

    Args:
        logits: (image, finding).
        amount: (image, finding) the mean of each map.
        labels: (image, finding) 1, 0 or NaN.
        findings: names.
    """
    positive = labels.numpy() == 1
    healthy = ~positive.any(axis=1)
    return {
        **validation_areas(logits, labels, findings),
        "map_of_ill": float(amount[positive].mean()),
        "map_of_healthy": float(amount[healthy].mean()),
    }


def collapse(row: Mapping[str, Any], options: Iterable[str]) -> str:
    """What is wrong with maps that are empty, or the same on healthy images, with advice; "" if nothing is.

    Args:
        row: of a look.
        options: the names of the method's own, of which advice may speak.
    """
    ill, healthy = row["map_of_ill"], row["map_of_healthy"]
    if ill < EMPTY:
        advice = f"Lower {_named(('sparsity', 'identity'), options)}"
        longer = _named(("ramp", "warm_up"), options)
        return f"the map is empty (mean |map| of ill images {ill:.1e}). {advice}{longer and f', or lengthen {longer}'}."
    if healthy > ALIKE * ill:
        higher = _named(("identity", "warm_up"), options)
        return (
            f"the map is as strong on healthy images as on ill ones (mean |map| {healthy:.1e} and {ill:.1e}). Train"
            f" on{higher and f', or raise {higher}'}."
        )
    return ""


def _named(wanted: Iterable[str], known: Iterable[str]) -> str:
    """Those of the options that there are, as advice has them."""
    return " or ".join(f"options.{name}" for name in wanted if name in known)


def first_weights(game: Game, settings: AdversarialSettings) -> str:
    """Fills the encoders; where from, for the card."""
    source = "random"
    for module in game.modules():
        if isinstance(module, Backbone):
            source = load_weights(module, settings.backbone)
    return source
