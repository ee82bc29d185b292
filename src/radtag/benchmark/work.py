"""Doing what a benchmark's file says, cell by cell, by one process or many, now or in several goes.

A cell is a folder::

    OUT/cells/SOURCE/METHOD/fold0-seed0/
        run/ run.json              the run, and what it was to be trained by
        evaluation/ cell.json      its evaluation, and what was to be evaluated how
        failed.json                why it failed, if it did
    OUT/prepared/STEP/             what the steps before made, with STEP.json beside it
    OUT/pooled/SOURCE/METHOD/      folds together
    OUT/benchmark.html ...         the page

What is done is passed over, and training that was killed goes on. Processes that share the folder, on one machine or
several, divide the work by locks: each takes the next cell that nobody holds. A lock goes with the process that holds
it. A cell that fails leaves its cause and the others go on; the next call tries it again.
"""

from __future__ import annotations

import datetime
import gc
import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from radtag.benchmark.plan import TAGGING, Cell, Plan, Plant, Train, instead
from radtag.data.files import held
from radtag.data.plant import plant
from radtag.data.sources import load, open_source, open_together, select, without_missing
from radtag.data.splits import from_file_for
from radtag.data.table import LUNGS, Dataset
from radtag.errors import BadRun, BadSetting, RadtagError
from radtag.evaluate import evaluate
from radtag.groups import FILE as GROUPS
from radtag.groups import By, checked, values_needed
from radtag.models import GAMES
from radtag.propose import propose
from radtag.report.page import replace_text
from radtag.train import adversarial, classify, segment
from radtag.train.outline import Outliner
from radtag.train.settings import AdversarialSettings, Settings, StudentSettings, TrainSettings
from radtag.words import changes, counted

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Makes a progress bar of a name; what it gives is called with the number done and of all."""

POLL_S = 2.0
"""Between looks at cells that other processes hold."""


@dataclass(frozen=True)
class State:
    """How far a cell is.

    Args:
        cell: which.
        state: "done", "running" (somebody holds it), "failed", "trained" (not evaluated), "begun" or "waiting".
        note: the cause of a failure, or what has been done.
    """

    cell: Cell
    state: Literal["done", "running", "failed", "trained", "begun", "waiting"]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        cell = self.cell
        return {
            "source": cell.source.name,
            "method": cell.method.name,
            "fold": cell.fold,
            "seed": cell.seed,
            "state": self.state,
            "note": self.note,
        }


@dataclass(frozen=True)
class Outcome:
    """What a call came to.

    Args:
        plan: of the benchmark.
        states: of the cells that were asked for.
        page: the page; None where nothing is complete yet.
        value: the content of ``benchmark.json``.
    """

    plan: Plan
    states: Sequence[State]
    page: Path | None
    value: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every cell that was asked for is done, and all that is done could be put together."""
        return all(one.state == "done" for one in self.states) and not self.value.get("problems")

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"page": self.page, "cells": [one.to_dict() for one in self.states], **self.value}

    def lines(self) -> list[str]:
        """What failed and why, and where the page is."""
        done = sum(one.state == "done" for one in self.states)
        lines = [f"{done} of {counted(len(self.states), 'cell[s]')} done"]
        lines += [f"failed: {one.cell}: {one.note}" for one in self.states if one.state == "failed"]
        lines += [f"not in the page: {problem}" for problem in self.value.get("problems", ())]
        return [*lines, *([f"-> {self.page}"] if self.page is not None else [])]


class _Busy(Exception):
    """Another process holds what is needed."""


def chosen(
    plan: Plan,
    *,
    sources: Sequence[str] = (),
    methods: Sequence[str] = (),
    folds: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[Cell]:
    """The cells of these sources, methods, folds and seeds; none named = all.

    Raises:
        BadSetting: a name that is none of the file's.
    """
    cells = plan.cells()
    kept = cells
    for what, wanted, name_of in (
        ("source", list(sources), lambda cell: cell.source.name),
        ("method", list(methods), lambda cell: cell.method.name),
        ("fold", list(folds), lambda cell: cell.fold),
        ("seed", [str(seed) for seed in seeds], lambda cell: str(cell.seed)),
    ):
        known = list(dict.fromkeys(str(name_of(cell)) for cell in cells))
        for name in wanted:
            if name not in known:
                raise BadSetting(f"{plan.path} has no {what} {name}. {instead(name, known)}")
        kept = [cell for cell in kept if not wanted or name_of(cell) in wanted]
    return kept


def states(plan: Plan, cells: Sequence[Cell] | None = None) -> list[State]:
    """How far each cell is, whoever works on it."""
    return [_state(plan, cell) for cell in (plan.cells() if cells is None else cells)]


def benchmark(
    plan: Plan,
    cells: Sequence[Cell] | None = None,
    *,
    console: Console | None = None,
    bar: Bar | None = None,
) -> Outcome:
    """Does what is not done yet, and writes the page.

    Args:
        plan: of the file.
        cells: those wanted; None = all.
        console: where progress is shown.
        bar: makes progress bars for what shows none itself.

    Raises:
        BadSetting: started as one of several processes of accelerate, which share one cell and not several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadSetting(
            "a benchmark's processes each do cells of their own, and are not launched together. Start one a GPU, as in"
            " CUDA_VISIBLE_DEVICES=1 radtag benchmark FILE &."
        )
    cells = plan.cells() if cells is None else list(cells)
    worker = _Worker(plan, cells, console or Console(stderr=True), bar or (lambda _: nullcontext(lambda *_: None)))
    worker.work()
    from radtag.benchmark.ranking import write

    with held(plan.out / ".page.lock", _Busy(), wait=True):
        made, value = write(plan)
    return Outcome(plan, states(plan, cells), made, value)


class _Worker:
    """One process's part."""

    def __init__(self, plan: Plan, cells: Sequence[Cell], console: Console, bar: Bar) -> None:
        self.plan, self.cells, self.console, self.bar = plan, cells, console, bar
        # A failure of an earlier call is tried again, one of this time (by whomever) is not.
        self.earlier = {cell: _text(plan.folder(cell) / "failed.json") for cell in cells}
        self.not_made: dict[Path, Exception] = {}

    def work(self) -> None:
        waiting = [cell for cell in self.cells if not self.over(cell)]
        told = False
        while waiting:
            left = []
            for cell in waiting:
                try:
                    self.attempt(cell)
                except _Busy:
                    left.append(cell)
            if len(left) == len(waiting):
                if not told:
                    text = "cell[s] [is|are] held by other processes, or wait[s|] for what they make"
                    self.say(f"{counted(len(left), text)}")
                told = True
                time.sleep(POLL_S)
            waiting = [cell for cell in left if not self.over(cell)]

    def over(self, cell: Cell) -> bool:
        """Done, or failed in our time."""
        failed = _text(self.plan.folder(cell) / "failed.json")
        return _is_done(self.plan, cell) or (bool(failed) and failed != self.earlier.get(cell, ""))

    def attempt(self, cell: Cell) -> None:
        folder = self.plan.folder(cell)
        with held(folder / ".lock", _Busy()):
            if self.over(cell):
                return
            try:
                run = self.run_of(cell)
                self.evaluate(cell, run)
                (folder / "failed.json").unlink(missing_ok=True)
            except (_Busy, KeyboardInterrupt):
                raise
            except Exception as error:  # whatever befalls a cell, the others go on
                cause = str(error) if isinstance(error, RadtagError) else f"{type(error).__name__}: {error}"
                _write(
                    folder / "failed.json",
                    {
                        "cause": cause,
                        "when": datetime.datetime.now(datetime.UTC).isoformat(),
                        "where": f"{platform.node()}, process {os.getpid()}",
                        "traceback": traceback.format_exc(),
                    },
                )
                self.say(f"failed: {cell}: {cause}")
            finally:
                gc.collect()

    def run_of(self, cell: Cell) -> Path:
        """The cell's run: given, there already, or trained now."""
        plan, owner = self.plan, self.plan.run_cell(cell)
        if owner.method.run is not None:
            self.prepare(owner.method.run, cell)
            return Path(plan.filled(owner.method.run, cell))
        folder = plan.folder(owner)
        if owner != cell:
            failed = _text(folder / "failed.json")
            if failed and failed != self.earlier.get(owner, failed):
                raise BadRun(f"its run, of {owner}, failed: {json.loads(failed)['cause']}")
        settings = plan.method_settings(owner)
        request = _training(plan, owner, settings)
        if (folder / "run" / "run.toml").is_file():
            _claim(folder / "run.json", request)
            return folder / "run"
        with held(folder / ".run.lock", _Busy()):
            learned = [owner.source.model_dump(), owner.method.trained_on, owner.method.settings, plan.content.settings]
            self.prepare(learned, owner)
            _claim(folder / "run.json", request)
            if owner.source.by:  # a column that is not there is of no use to hear of when all is trained
                source = plan.filled(owner.source.model_dump(), owner)
                checked(source["by"], _scored_on(source))
            self.say(f"{self.remaining()} {owner}: training")
            _train(settings, _trained_on(plan, owner), folder / "run", self.console)
        return folder / "run"

    def evaluate(self, cell: Cell, run: Path) -> None:
        plan, folder = self.plan, self.plan.folder(cell)
        source = plan.filled(cell.source.model_dump(), cell)
        self.prepare(cell.source.model_dump(), cell)
        if not (folder / "evaluation" / "metrics.json").is_file():
            (folder / "cell.json").unlink(missing_ok=True)  # what was refused so far may be asked for otherwise
        _claim(folder / "cell.json", _scoring(plan, cell))
        self.say(f"{self.remaining()} {cell}: evaluating")
        dataset = _scored_on(source)
        with self.bar(f"{cell.method.name}: evaluating") as advance:
            evaluate(
                run,
                dataset,
                folder / "evaluation",
                inside=cell.source.inside,
                seen=cell.source.seen,
                by=source["by"],
                faithfulness=plan.content.faithfulness,
                bootstraps=plan.content.bootstraps,
                overwrite=True,  # of a run that is not there any more
                progress=advance,
                **cell.method.tagging,
            )

    def prepare(self, value: Any, cell: Cell) -> None:
        """Does the steps that a value refers to."""
        for name in self.plan.needed(value):
            folder = self.plan.step_folder(name, cell)
            if folder in self.not_made:
                raise BadSetting(f"step {name} failed: {self.not_made[folder]}")
            step = self.plan.steps[name]
            made = folder / ("run.toml" if isinstance(step, Train) else "table.csv")
            request = self.plan.filled(step.model_dump(mode="json", exclude={"name"}), cell)
            beside = folder.with_name(f"{folder.name}.json")
            if made.is_file():
                _claim(beside, request)
                continue
            with held(folder.with_name(f".{folder.name}.lock"), _Busy()):
                if made.is_file():
                    continue
                _claim(beside, request)
                self.say(f"{step.act}: {folder.name}")
                try:
                    self.step(name, request, folder, cell)
                except Exception as error:
                    self.not_made[folder] = error
                    raise

    def step(self, name: str, filled: Mapping[str, Any], folder: Path, cell: Cell) -> None:
        step = self.plan.steps[name]
        if isinstance(step, Train):
            settings = self.plan.settings(step.method, step.settings, cell, int(filled["seed"]))
            given = {"spec": filled["source"], "also": filled["also"], "findings": filled["findings"]}
            _train(settings, {"splits": None, "split_seed": 0, "normal": None, **given}, folder, self.console)
            return
        if not isinstance(step, Plant):
            splits = Path(filled["splits"]) if filled["splits"] else None
            tagged = open_source(
                filled["source"], splits=splits, findings=filled["findings"], seed=int(filled["split_seed"])
            )
            runs = [filled["run"]] if isinstance(filled["run"], str) else filled["run"]
            with self.bar(f"{name}: proposing masks") as advance:
                made = propose(runs, tagged, folder, progress=advance, **{key: filled[key] for key in TAGGING})
            if not made.ok:
                first = next(iter(made.failures.values()))
                self.say(f"{name}: {counted(len(made.failures), 'image[s]')} not read; the first: {first}")
            return
        only = filled["only"]
        dataset = open_source(filled["source"], only=only) if only else without_missing(load(filled["source"]))[0]
        plant(
            dataset,
            folder,
            **{
                key: filled[key]
                for key in ("share", "kinds", "look", "into", "names", "unsure", "normal", "limit", "times")
            },
            find_lungs=Outliner(filled["lungs"], LUNGS) if filled["lungs"] else None,
            seed=int(filled["seed"]),
        )

    def remaining(self) -> str:
        """``[3/12, about 40 min left]``, as the cells that are done took."""
        now = states(self.plan, self.cells)
        done = [one.cell for one in now if one.state == "done"]
        todo = [one.cell for one in now if one.state not in ("done", "failed")]
        took = {cell: _minutes(self.plan, cell) for cell in done}
        text = f"{len(done) + 1}/{len(now)}"
        if not took:
            return f"[{text}]"

        def expected(cell: Cell) -> float:
            like = [minutes for one, minutes in took.items() if one.method == cell.method] or list(took.values())
            return sum(like) / len(like)

        left = sum(expected(cell) for cell in todo)
        return f"[{text}, about {left / 60:.1f} h left]" if left >= 90 else f"[{text}, about {left:.0f} min left]"

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _train(settings: Settings, source: Mapping[str, Any], out: Path, console: Console) -> None:
    """As ``radtag train`` does; what is done is passed over, and what was stopped goes on."""
    game = settings.method in GAMES
    seed = int(source["split_seed"])
    splits = Path(source["splits"]) if source["splits"] else None
    findings = source["findings"]
    specs, wanted = [source["spec"], *source["also"]], None if game else findings
    dataset, *further = open_together(specs, splits=splits, seed=seed, findings=wanted)
    if isinstance(settings, AdversarialSettings):
        normal = source["normal"]
        adversarial.train(settings, dataset, out, also=further, findings=findings, normal=normal, console=console)
        return
    for one in further:
        dataset = dataset.join(one)
    if isinstance(settings, StudentSettings):
        segment.train(settings, dataset, out, console=console)
    else:
        assert isinstance(settings, TrainSettings)
        classify.train(settings, dataset, out, console=console)


def _training(plan: Plan, cell: Cell, settings: Settings) -> dict[str, Any]:
    """What a cell's run is to be trained by."""
    source = _trained_on(plan, cell)
    names = ("spec", "also", "splits", "split_seed", "findings", "normal")
    return {"source": {name: source[name] for name in names}, "settings": settings.told()}


def _trained_on(plan: Plan, cell: Cell) -> dict[str, Any]:
    """A cell's source, as its method learns from it."""
    source: dict[str, Any] = plan.filled(cell.source.model_dump(mode="json"), cell)
    if cell.method.trained_on is None:
        return source
    # Splits in a file are of the source's own images, by their names.
    return {**source, "spec": plan.filled(cell.method.trained_on, cell), "also": [], "splits": None}


def _scored_on(source: Mapping[str, Any]) -> Dataset:
    """The images that a cell is scored on.

    Args:
        source: a source of the file, filled in.

    Raises:
        BadData: files that contradict the layout, splits of nothing that there is, or a limit where nothing is
            outlined.
    """
    seed, only, findings = int(source["split_seed"]), source["only"], source["findings"]
    if source["scored_on"] is not None:
        dataset = open_source(source["scored_on"], only=only, seed=seed)
    elif source["splits"]:
        # As for training: the file is for all of these, and a set that it names no image of keeps its own splits.
        loaded = [without_missing(load(spec))[0] for spec in (source["spec"], *source["also"])]
        dataset = select(from_file_for(loaded, Path(source["splits"]))[0], only=only, seed=seed)
    else:
        dataset = open_source(source["spec"], only=only, seed=seed)
    dataset = dataset if findings is None else dataset.with_findings(findings)
    return dataset if source["limit"] is None else dataset.outlined(source["limit"], seed)


def _scoring(plan: Plan, cell: Cell) -> dict[str, Any]:
    """What a cell is to be evaluated on, and how."""
    owner = plan.run_cell(cell)
    source = plan.filled(cell.source.model_dump(mode="json"), cell)
    if owner.method.run is not None:
        run: Any = {"given": plan.filled(owner.method.run, cell)}
    else:
        run = _training(plan, owner, plan.method_settings(owner))
    names = ["spec", "scored_on", "splits", "split_seed", "only", "findings", "inside"]
    # What is as it was before there was a choice is not written down: benchmarks of then go on.
    names += ["seen"] if cell.source.seen != "refuse" else []
    names += ["limit"] if cell.source.limit is not None else []
    names += ["by"] if cell.source.by else []
    return {
        "run": run,
        "source": {name: source[name] for name in names},
        "tagging": cell.method.tagging,
        "bootstraps": plan.content.bootstraps,
        **({"faithfulness": plan.content.faithfulness} if plan.content.faithfulness else {}),
    }


def _is_done(plan: Plan, cell: Cell) -> bool:
    """Whether it was evaluated, as the file says now; where it says otherwise, an attempt will say how."""
    folder = plan.folder(cell)
    files = ["metrics.json", "report.html", "pairs.csv"]
    files += [GROUPS] if values_needed([By.parse(text) for text in cell.source.by]) else []
    if not all((folder / "evaluation" / name).is_file() for name in files):
        return False
    asked = _text(folder / "cell.json")
    return bool(asked) and json.loads(asked) == _as_read(_scoring(plan, cell))


def _state(plan: Plan, cell: Cell) -> State:
    folder = plan.folder(cell)
    if _is_done(plan, cell):
        return State(cell, "done")
    if any(_is_held(folder / name) for name in (".lock", ".run.lock")):
        return State(cell, "running")
    failed = _text(folder / "failed.json")
    if failed:
        return State(cell, "failed", json.loads(failed)["cause"])
    run = plan.folder(plan.run_cell(cell)) / "run"
    if (run / "run.toml").is_file():
        return State(cell, "trained")
    if (run / "resume.pt").is_file():
        epochs = len(_text(run / "log.jsonl").splitlines())
        return State(cell, "begun", counted(epochs, "line[s] in its log") if epochs else "")
    return State(cell, "waiting")


def _minutes(plan: Plan, cell: Cell) -> float:
    """What a cell took: training, if it trains, and evaluation."""
    about = json.loads(_text(plan.folder(cell) / "evaluation" / "metrics.json"))["about"]
    own = plan.run_cell(cell) == cell and cell.method.run is None
    return float(about["minutes"]) + (float(about["card"].get("minutes", 0)) if own else 0.0)


def _claim(file: Path, request: Mapping[str, Any]) -> None:
    """Notes what is asked for, or refuses to go on with what was asked for otherwise.

    Raises:
        BadSetting: it was made otherwise.
    """
    before, wanted = _text(file), _as_read(request)
    if before and (was := json.loads(before)) != wanted:
        raise BadSetting(
            f"{file.parent} was made otherwise: {changes(was, wanted)}. Give another out, or remove the folder."
        )
    if not before:
        _write(file, request)


def _as_read(value: Mapping[str, Any]) -> Any:
    """What a file has that a value is written into; in which order a table's keys stand says nothing."""
    return json.loads(json.dumps(value))


def _write(file: Path, value: Mapping[str, Any]) -> None:
    replace_text(file, json.dumps(value, indent=1) + "\n")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _is_held(file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        with held(file, _Busy()):
            return False
    except _Busy:
        return True
