"""The file of a benchmark: sources, methods, folds and seeds, and the steps that come before them.

``${NAME}`` is an environment variable, ``${NAME:-else}`` one with something to take where it is not set. Within a
source, a step, and what a method is trained on, its run and its settings, ``{fold}`` and ``{seed}`` are those of the
cell, and ``{NAME}`` is what the step of that name made: the table of what was planted or tagged, the folder of what was
trained. Everything is checked when the file is read, before anything is done. Paths are as on the command line, from
the working directory.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from radtag.data.lesions import KINDS, Look
from radtag.data.plant import Into
from radtag.data.seen import Seen
from radtag.data.sources import SOURCES
from radtag.errors import BadSetting
from radtag.groups import By
from radtag.models import METHODS, STUDENTS
from radtag.report.definitions import BY_KEY, FOLLOWED
from radtag.report.terminal import MAIN
from radtag.saliency import Method as Explanation
from radtag.saliency import Scale
from radtag.train.settings import Settings, settings_from
from radtag.words import own_words

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_PLACE = re.compile(r"\{([^{}]+)\}")
Seed = int | Literal["{seed}", "{fold}"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _name(value: str) -> str:
    if not re.search(r"\w", value) or value in ("fold", "seed") or set(value) & set("/\\{}"):
        raise ValueError("a name has letters or digits, no slash and no brace, and is not fold or seed")
    return value


Name = Annotated[str, Field(min_length=1, max_length=60)]


class Source(_Table):
    """A data set that every method learns from, and is scored on.

    Attributes:
        name: what the page calls it.
        spec: NAME:PATH, as on the command line; with folds, {fold} in it.
        also: further data to train on, as `radtag train --also`.
        scored_on: the data whose images are scored, where they are another set's; left out, `spec`.
        splits: a CSV with the columns image and split, as `--splits`, for `spec` and `also`; one of them that it names
            no image of keeps its own splits.
        split_seed: with which splits are drawn where there are none.
        only: the splits that are scored.
        limit: at most so many images are scored, of those where a finding is outlined: each finding's in turn, drawn
            with `split_seed`. For methods that take seconds an image; left out, all images.
        findings: the findings wanted; left out, all.
        normal: the finding that means healthy, for methods of two sides.
        folds: of a cross-validation: each is a run, and the folds are pooled.
        inside: whose pixels count, as `radtag evaluate --inside`.
        by: groups that numbers are of besides, as `radtag evaluate --by`: columns of the table as "sex" or "age:40,65",
            or "size", the lesions'.
        seen: what becomes of images that a run has seen in training, as `radtag evaluate --seen`: "refuse",
            "leave-out" or "count".
    """

    name: Name
    spec: str
    also: tuple[str, ...] = ()
    scored_on: str | None = None
    splits: str | None = None
    split_seed: Seed = 0
    only: tuple[str, ...] = ("test",)
    limit: int | None = Field(default=None, ge=1)
    findings: tuple[str, ...] | None = None
    normal: str | None = None
    folds: tuple[int | str, ...] = ()
    inside: Literal["image", "lungs"] = "image"
    by: tuple[str, ...] = ()
    seen: Seen = "refuse"

    _named = field_validator("name")(_name)

    @field_validator("spec", "scored_on")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("{"):
            refuse_unknown_name(value.partition(":")[0].strip(), SOURCES, "source")
        return value

    @field_validator("by")
    @classmethod
    def _groups(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            columns = [By.parse(text).column for text in value]
        except BadSetting as error:
            raise ValueError(str(error).removeprefix("--by ")) from error
        for column in columns:
            if columns.count(column) > 1:
                raise ValueError(f"{column} is grouped by twice; write it once")
        return value

    @model_validator(mode="after")
    def _differ(self) -> Source:
        if self.folds and "{fold}" not in f"{self.spec} {self.splits} {self.split_seed}":
            raise ValueError("there are folds, and neither spec, splits nor split_seed says {fold}: all would be alike")
        if len(set(map(str, self.folds))) < len(self.folds):
            raise ValueError("a fold is named twice")
        return self


class Tagging(_Table):
    """How images are tagged, wherever a table of the file says it.

    Attributes:
        explain: maps are explanations by this, as `--explain`.
        explain_layer: the layer to explain by.
        explain_scale: "score" or "image".
        grid: where cells lie, as `--grid`.
        tta: "flip" averages with the mirrored image.
        mask: what a map must exceed: "validated", "otsu", or a value 0-1.
        area: where masks may lie, as `--area`.
    """

    explain: Explanation | None = None
    explain_layer: str | None = None
    explain_scale: Scale = "score"
    grid: Literal["measured", "tiles"] = "measured"
    tta: Literal["none", "flip"] = "none"
    mask: Literal["validated", "otsu"] | Annotated[float, Field(ge=0, le=1)] = "validated"
    area: Literal["image", "body", "lungs"] = "image"

    @model_validator(mode="after")
    def _of_explanations(self) -> Self:
        if self.explain is None and (self.explain_layer is not None or self.explain_scale != "score"):
            raise ValueError("a layer or a scale of explanations is given, and explain is missing")
        return self

    @property
    def tagging(self) -> dict[str, Any]:
        """Options of :class:`radtag.tag.Tagger`, by name."""
        return {name: getattr(self, name) for name in TAGGING}


TAGGING = tuple(Tagging.model_fields)
"""Keys that are options of :class:`radtag.tag.Tagger`."""


class Method(Tagging):
    """A method, or another way to make maps with the runs of one.

    Attributes:
        name: what the page calls it.
        method: what is trained; left out where runs are another's.
        trained_on: the data it learns from in place of the source's `spec` and `also`, as the proposed masks of a
            student; left out, these.
        settings: of training, on top of the file's [settings]; `preset`, and any setting of docs/runs.md.
        runs_of: the name of a method above whose runs are taken, so that nothing is trained twice.
        run: the folder of a run that is there already.
    """

    name: Name
    method: str | None = None
    trained_on: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    runs_of: str | None = None
    run: str | None = None

    _named = field_validator("name")(_name)

    @field_validator("method")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None:
            refuse_unknown_name(value, METHODS, "method")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> Method:
        given = [key for key in ("method", "runs_of", "run") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of method, runs_of and run, not {' and '.join(given) or 'none'}")
        if self.settings and self.method is None:
            raise ValueError(f"settings are of training, and with {given[0]} nothing is trained")
        if self.trained_on is not None and self.method is None:
            raise ValueError(f"trained_on is of training, and with {given[0]} nothing is trained")
        return self


class Plant(_Table):
    """A step that paints lesions into healthy images, as `radtag data plant`. `{NAME}` is its table.

    Attributes:
        name: what others refer to it by.
        act: "plant".
        source: the healthy images.
        share: of them that get lesions.
        kinds: of lesion.
        look: how easily they are seen, "plain" or "subtle".
        into: "healthy" images, or "any".
        names: kind -> the findings it counts as.
        unsure: kind -> findings that are unknown where it is painted.
        normal: the finding that means healthy.
        only: the splits to use; left out, all.
        limit: at most so many healthy images.
        times: each training image is planted up to so often.
        lungs: a run that outlines the lungs where the source has no masks of them, such as "{NAME}" of a step that
            trains; left out, a simple estimate.
        seed: a number, or "{fold}".
    """

    name: Name
    act: Literal["plant"]
    source: str
    share: float = Field(default=0.5, gt=0, lt=1)
    kinds: tuple[str, ...] = ("nodule", "consolidation", "effusion", "pneumothorax")
    look: Look = "plain"
    into: Into = "healthy"
    names: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    unsure: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    normal: str | None = None
    only: tuple[str, ...] = ()
    limit: int | None = Field(default=None, ge=2)
    times: int = Field(default=1, ge=1)
    lungs: str | None = None
    seed: Seed = 0

    _named = field_validator("name")(_name)

    @field_validator("kinds")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            refuse_unknown_name(kind, KINDS, "lesion")
        return value


class Train(_Table):
    """A step that trains what methods begin with, as `radtag train`. `{NAME}` is its run.

    Attributes:
        name: what others refer to it by.
        act: "train".
        method: what is trained.
        source: what on.
        also: further data to train on.
        settings: `preset`, and any setting; the file's [settings] are not for it.
        findings: the findings wanted; left out, all.
        seed: of everything random; a number, "{seed}" or "{fold}".
    """

    name: Name
    act: Literal["train"]
    method: str
    source: str
    also: tuple[str, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    findings: tuple[str, ...] | None = None
    seed: Seed = 0

    _named = field_validator("name")(_name)

    @field_validator("method")
    @classmethod
    def _known(cls, value: str) -> str:
        refuse_unknown_name(value, METHODS, "method")
        return value


class Propose(Tagging):
    """A step that proposes masks for what labels say, as `radtag tag --as-dataset`. `{NAME}` is its table.

    Attributes:
        name: what others refer to it by.
        act: "tag".
        run: the folder of a run, such as "{NAME}" of a step that trains; or several, which speak with one voice.
        source: the images to tag, with their labels.
        splits: a CSV with the columns image and split, as `--splits`.
        split_seed: with which splits are drawn where there are none.
        findings: the findings wanted; left out, all.
    """

    name: Name
    act: Literal["tag"]
    run: str | Annotated[tuple[str, ...], Field(min_length=1)]
    source: str
    splits: str | None = None
    split_seed: Seed = 0
    findings: tuple[str, ...] | None = None

    _named = field_validator("name")(_name)


Step = Annotated[Plant | Train | Propose, Field(discriminator="act")]


ACTS: dict[str, type[_Table]] = {"plant": Plant, "train": Train, "tag": Propose}


class File(_Table):
    """What the file holds.

    Attributes:
        title: of the page.
        out: the folder that all is written into.
        seeds: of training; each is a run.
        metrics: the numbers of the tables, the one of the plots among them.
        main: the number of the plots; left out, the first of `metrics` that says where.
        bootstraps: draws of patients for the intervals; more are taken where many methods are compared.
        faithfulness: `insertion` and `deletion` of so many images of each finding that have it, as `radtag evaluate
            --faithfulness`; both are numbers of the tables, the last where `metrics` names neither.
        settings: of the training of every method: `preset`, and any setting of docs/runs.md.
        prepare: steps that come before.
        source: the data sets.
        method: the methods.
    """

    title: str = "Benchmark"
    out: str
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    metrics: tuple[str, ...] = Field(default=MAIN, min_length=1)
    main: str | None = None
    bootstraps: int = Field(default=1000, ge=1)
    faithfulness: int = Field(default=0, ge=0)
    settings: dict[str, Any] = Field(default_factory=dict)
    prepare: tuple[Step, ...] = ()
    source: tuple[Source, ...] = Field(min_length=1)
    method: tuple[Method, ...] = Field(min_length=1)

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for key in value:
            refuse_unknown_name(key, BY_KEY, "metric")
        return value

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a seed is named twice")
        return value

    @property
    def shown(self) -> tuple[str, ...]:
        """Keys of the numbers of the tables: `metrics`, and what is measured besides."""
        followed = tuple(one.key for one in FOLLOWED) if self.faithfulness else ()
        return self.metrics if set(followed) & set(self.metrics) else (*self.metrics, *followed)


def refuse_unknown_name(name: str, known: Mapping[str, Any], what: str) -> None:
    """Raises a ValueError that says which name is nearest."""
    if name not in known:
        raise ValueError(f"there is no {what} {name!r}. {instead(name, list(known))}")


def instead(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(known)}."


@dataclass(frozen=True)
class Cell:
    """One run and its evaluation.

    Args:
        source, method: of the plan.
        fold: of the source; None where it has none.
        seed: of training.
    """

    source: Source
    method: Method
    fold: str | None
    seed: int

    def __hash__(self) -> int:
        return hash((self.source.name, self.method.name, self.fold, self.seed))

    @property
    def part(self) -> str:
        """Fold and seed as a folder's name."""
        return f"seed{self.seed}" if self.fold is None else f"fold{slug(self.fold)}-seed{self.seed}"

    def __str__(self) -> str:
        words = [self.source.name, self.method.name, *([f"fold {self.fold}"] if self.fold is not None else [])]
        return ", ".join([*words, f"seed {self.seed}"])


@dataclass(frozen=True)
class Plan:
    """A benchmark's file, checked.

    Args:
        path: the file.
        content: what it holds, environment variables filled in.
        out: the folder.
    """

    path: Path
    content: File
    out: Path

    @property
    def steps(self) -> dict[str, Plant | Train | Propose]:
        """The steps that come before, by name."""
        return {step.name: step for step in self.content.prepare}

    def cells(self) -> list[Cell]:
        """Every cell: seeds in folds in methods in sources."""
        return [
            Cell(source, method, None if fold is None else str(fold), seed)
            for source in self.content.source
            for method in self.content.method
            for fold in source.folds or (None,)
            for seed in self.content.seeds
        ]

    def folder(self, cell: Cell) -> Path:
        """Where a cell lies."""
        return self.out / "cells" / slug(cell.source.name) / slug(cell.method.name) / cell.part

    def run_cell(self, cell: Cell) -> Cell:
        """The cell whose run this one takes: itself, or another method's."""
        if cell.method.runs_of is None:
            return cell
        method = next(one for one in self.content.method if one.name == cell.method.runs_of)
        return Cell(cell.source, method, cell.fold, cell.seed)

    def filled(self, value: Any, cell: Cell) -> Any:
        """A value of the file with {fold}, {seed} and the steps' names replaced, at any depth."""
        return _deep(value, lambda text: _PLACE.sub(lambda match: self._place(match[1], cell), text))

    def _place(self, name: str, cell: Cell) -> str:
        if name == "fold":
            return str(cell.fold)
        return str(cell.seed) if name == "seed" else str(self.made_by(name, cell))

    def made_by(self, name: str, cell: Cell) -> Path:
        """What a step makes: a table or a run."""
        folder = self.step_folder(name, cell)
        return folder if self.steps[name].act == "train" else folder / "table.csv"

    def step_folder(self, name: str, cell: Cell) -> Path:
        """Where a step writes to, for this fold and seed if it depends on them."""
        axes = self._axes(name)
        words = [slug(name)]
        words += [f"fold{slug(cell.fold or 'none')}"] if "fold" in axes else []
        words += [f"seed{cell.seed}"] if "seed" in axes else []
        return self.out / "prepared" / "-".join(words)

    def needed(self, value: Any) -> list[str]:
        """The steps that a value refers to, in the order in which they can be done."""
        return [name for name in self.steps if name in set(self._reached(value))]

    def _reached(self, value: Any) -> Iterator[str]:
        for name in places(value):
            if name in self.steps:
                yield from self._reached(self.steps[name].model_dump())
                yield name

    def _axes(self, name: str) -> set[str]:
        own = self.steps[name].model_dump()
        texts = [own, *(self.steps[other].model_dump() for other in self._reached(own))]
        return {axis for axis in ("fold", "seed") if any(axis in set(places(text)) for text in texts)}

    def settings(self, method: str, given: Mapping[str, Any], cell: Cell, seed: int) -> Settings:
        """Training settings, names of steps filled in.

        Raises:
            BadSetting: an unknown setting, or a value out of range.
        """
        values = dict(self.filled(given, cell))
        return settings_from(values.pop("preset", None), method=method, **values, seed=seed)

    def method_settings(self, cell: Cell) -> Settings:
        """Of a cell that trains: the file's, and on top of them the method's."""
        assert cell.method.method is not None
        return self.settings(cell.method.method, self.given(cell.method), cell, cell.seed)

    def given(self, method: Method) -> dict[str, Any]:
        """Settings of a method as the file gives them: its own on top of those of all, whose preset no student has."""
        shared = dict(self.content.settings)
        if method.method in STUDENTS:
            shared.pop("preset", None)
        return _merged(shared, method.settings)


def read_plan(path: Path | str, *, out: Path | str | None = None) -> Plan:
    """A benchmark's file, checked as a whole.

    Args:
        path: a TOML file.
        out: in place of the file's own.

    Raises:
        BadSetting: no such file, or something in it that will not do, with file, key, value and the nearest name.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadSetting(f"{path} does not exist. Give the TOML file of a benchmark: docs/benchmark.md.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting(f"{path} is not TOML: {error}.") from error
    if out is not None:
        raw["out"] = str(out)
    raw = {key: _with_variables(value, path, key, raw) for key, value in raw.items()}
    raw = _unlike(raw, path)
    try:
        content = File.model_validate(raw)
    except ValidationError as error:
        raise BadSetting(f"{path}, {_explained(error, raw)}") from error
    plan = Plan(path, content, Path(content.out))
    _refuse_inconsistent(plan)
    return plan


def slug(name: object) -> str:
    """A name as a folder's."""
    return re.sub(r"[^\w.+-]+", "_", str(name)).strip("._") or "_"


def places(value: Any) -> Iterator[str]:
    """The names in braces, at any depth."""
    if isinstance(value, str):
        yield from (match[1] for match in _PLACE.finditer(value))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from places(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from places(one)


def _deep(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _deep(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_deep(one, change) for one in value)
    return value


def _with_variables(value: Any, path: Path, key: str, raw: Mapping[str, Any]) -> Any:
    def fill(text: str) -> str:
        def of(match: re.Match[str]) -> str:
            found = os.environ.get(match[1]) or match[2]
            if found is None:
                raise BadSetting(
                    f"{path}, {key}: ${{{match[1]}}} in {text!r} is not set."
                    f" Set it before the command: {match[1]}=... radtag benchmark {path}"
                )
            return found

        return _VARIABLE.sub(of, text)

    return _deep(value, fill)


def _unlike(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Steps that are like another one, with its values."""
    steps: dict[str, dict[str, Any]] = {}
    given = raw.get("prepare", [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        return dict(raw)
    made = []
    for one in given:
        like = one.get("like")
        if like is not None and like not in steps:
            raise BadSetting(
                f"{path}, [[prepare]] {one.get('name')}: like = {like!r} is no step above it."
                f" {instead(str(like), list(steps))}"
            )
        whole = {**(steps[like] if like is not None else {}), **{k: v for k, v in one.items() if k != "like"}}
        if isinstance(whole.get("name"), str):
            steps[whole["name"]] = whole
        made.append(whole)
    return {**raw, **({"prepare": made} if made else {})}


def _explained(error: ValidationError, raw: Mapping[str, Any]) -> str:
    """The first thing that is wrong, by table and key, with its value and the next step."""
    first = error.errors()[0]
    where = list(first["loc"])
    model: Any = File
    words, at = [], 0
    if where and where[0] in ("source", "method", "prepare"):
        table = raw[where[0]]
        number = where[1] if len(where) > 1 else None
        of = table[number] if isinstance(table, list) and isinstance(number, int) else {}
        named = of.get("name", f"number {number + 1}") if isinstance(of, dict) and isinstance(number, int) else ""
        words.append(f"[[{where[0]}]] {named}".strip())
        step = ACTS.get(of.get("act", ""), Plant) if isinstance(of, dict) else Plant
        model = {"source": Source, "method": Method, "prepare": step}[str(where[0])]
        at = 3 if where[0] == "prepare" else 2  # behind a step's number stands its act
    # Behind the key, beside the numbers of a list, stands what kind of value was tried.
    key = ".".join(str(part) for i, part in enumerate(where[at:]) if i == 0 or isinstance(part, int))
    told = own_words(first["msg"])
    if first["type"] == "extra_forbidden":
        return f"{_joined(words)}there is no key {key}. {instead(key.rpartition('.')[2], list(model.model_fields))}"
    if first["type"] == "missing":
        return f"{_joined(words)}{key} is missing."
    if first["type"] == "union_tag_not_found":
        return f"{_joined(words)}act is missing. Use one of {', '.join(ACTS)}."
    if first["type"] == "union_tag_invalid":
        wrong = first["ctx"]["tag"]
        return f"{_joined(words)}act = {wrong!r}: no step does that. {instead(wrong, list(ACTS))}"
    told = told if told.endswith((".", "?")) else f"{told}."
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        told += f" {instead(first['input'], _choices(model, key))}"
    shown = first["input"] if not isinstance(first["input"], dict | list) else None
    return f"{_joined(words)}{key}{'' if shown is None else f' = {shown!r}'}{': ' if key else ''}{told}"


def _joined(words: list[str]) -> str:
    return f"{', '.join(words)}: " if words else ""


def _choices(model: type[BaseModel], key: str) -> list[str]:
    field = model.model_fields.get(key.partition(".")[0])

    def words(kind: Any) -> Iterator[str]:
        if get_origin(kind) is Literal:
            yield from map(str, get_args(kind))
        else:
            for one in get_args(kind):
                yield from words(one)

    return list(words(field.annotation)) if field is not None else []


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One nested table on top of another."""
    merged = dict(under)
    for key, value in over.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged


def _refuse_inconsistent(plan: Plan) -> None:
    """What is wrong between tables, each of which is right."""
    file = plan.content
    for what, names in {
        "source": [one.name for one in file.source],
        "method": [one.name for one in file.method],
        "prepare": [one.name for one in file.prepare],
    }.items():
        folders = [slug(name).lower() for name in names]
        for i, name in enumerate(names):
            if folders[i] in folders[:i]:
                raise BadSetting(f"{plan.path}, [[{what}]] {name}: another has this name, or the same folder's name.")
    for one in FOLLOWED:
        if one.key in file.metrics and not file.faithfulness:
            raise BadSetting(
                f"{plan.path}, metrics: {one.key!r} is not measured unasked. Say of how many images of each finding, as"
                " in faithfulness = 20."
            )
    if file.main is not None and file.main not in file.shown:
        raise BadSetting(
            f"{plan.path}, main = {file.main!r}: it is none of metrics. {instead(file.main, list(file.shown))}"
        )
    above: list[str] = []
    for step in file.prepare:
        _refuse_places(plan, f"[[prepare]] {step.name}", step.model_dump(), above)
        above.append(step.name)
    for source in file.source:
        where = f"[[source]] {source.name}"
        _refuse_places(plan, where, source.model_dump(), above)
        if not source.folds and "fold" in _all_places(plan, source.model_dump()):
            raise BadSetting(
                f"{plan.path}, {where}: {{fold}} is used, and folds is missing. Write folds = [0, 1, ...]."
            )
        for text in source.by:
            known = By.parse(text).metrics
            if not set(file.metrics) & set(known):
                raise BadSetting(
                    f"{plan.path}, {where}: by = {text!r}, and groups have none of metrics = {', '.join(file.metrics)}."
                    f" Name another there, such as pointing."
                )
    unfolded = [source.name for source in file.source if not source.folds]
    trained: list[str] = []
    for method in file.method:
        where = f"[[method]] {method.name}"
        asked = [method.settings, method.run, method.trained_on, file.settings]
        if unfolded and "fold" in _all_places(plan, asked):
            raise BadSetting(f"{plan.path}, {where}: {{fold}} is used, and source {unfolded[0]} has no folds.")
        _refuse_places(plan, where, asked, above)
        if method.runs_of is not None and method.runs_of not in trained:
            raise BadSetting(
                f"{plan.path}, {where}: runs_of = {method.runs_of!r} is no method above it that is trained or has a"
                f" run. {instead(method.runs_of, trained) if trained else 'Put it above.'}"
            )
        if method.runs_of is None:
            trained.append(method.name)
    for step in file.prepare:
        if isinstance(step, Train):
            _refuse_settings(plan, f"[[prepare]] {step.name}", step.method, step.settings)
    for method in file.method:
        if method.method is not None:
            given = plan.given(method)
            where = f"[[method]] {method.name}" + (" (with [settings])" if file.settings else "")
            _refuse_settings(plan, where, method.method, given)


def _all_places(plan: Plan, value: Any) -> set[str]:
    """Names in braces, and those in the steps they lead to."""
    return {*places(value), *(place for name in plan.needed(value) for place in places(plan.steps[name].model_dump()))}


def _refuse_places(plan: Plan, where: str, value: Any, steps: list[str]) -> None:
    for name in places(value):
        if name not in ("fold", "seed", *steps):
            raise BadSetting(
                f"{plan.path}, {where}: {{{name}}} is no step above it. {instead(name, [*steps, 'fold', 'seed'])}"
            )


def _refuse_settings(plan: Plan, where: str, method: str, given: Mapping[str, Any]) -> None:
    if "seed" in given:
        raise BadSetting(f"{plan.path}, {where}: settings.seed is not a setting here. Write seeds = [...] at the top.")
    weights = given.get("backbone", {}).get("weights", "none") if isinstance(given.get("backbone", {}), dict) else ""
    if given.get("start_from") is not None and weights != "none":
        raise BadSetting(
            f"{plan.path}, {where}: settings have backbone.weights = {weights!r} and start_from: all weights of the"
            " backbone come from the run. Leave one of the two out."
        )
    cell = plan.cells()[0]
    try:
        plan.settings(method, given, cell, 0)
    except (BadSetting, TypeError) as error:
        raise BadSetting(f"{plan.path}, {where}: {error}") from error
