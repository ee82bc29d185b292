"""From the cells that are done to one table: folds pooled, methods compared in pairs, ranks with ties.

Conventions
-----------
- A method is in the table of a source if, for at least one seed, all its folds are done. Folds are pooled, so that
  every image counts once, scored by the run that was not trained on it.
- All methods are held against each other on the pairs of image and finding that all of them have, and on the same draws
  of patients. A pair that is undefined for one counts for none.
- Several seeds: a value is the mean over them, and ``spread`` their standard deviation. A draw then takes patients and,
  of ``k`` seeds, ``k - 1`` with replacement, by which the interval has the spread between trainings in it without bias
  (Rao and Wu, Journal of the American Statistical Association 83, 1988).
- A difference is significant where its p-value, corrected by Holm for all pairs of methods of this source, number and
  finding, is below 0.05. Different numbers and findings are not corrected for each other.
- A rank is one more than the number of methods that are significantly better (:mod:`radtag.metrics.significance`).
- Numbers by group (:mod:`radtag.groups`) are on the same images and draws, too, and so is a gap, which is a group minus
  the reference. Gaps are not corrected for each other.

``benchmark.json`` has all of it; see :func:`write`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import radtag
from radtag import faithfulness as faithful
from radtag import groups
from radtag.benchmark.plan import Cell, Plan, Source, slug
from radtag.benchmark.work import states
from radtag.compare import side_by_side
from radtag.errors import RadtagError
from radtag.evaluate import pool, read_metrics, refuse_mixed
from radtag.gallery import colours, read_fixed
from radtag.metrics import Estimate, Estimates, Replicates, Resampling, bootstrap, significance
from radtag.pairs import PairTable
from radtag.report.benchmark import write_benchmark
from radtag.report.comparison import SideBySide
from radtag.report.definitions import BY_KEY, FOLLOWED
from radtag.report.page import replace_text
from radtag.report.tables import as_csv, as_latex, as_markdown, comparisons_csv, groups_csv
from radtag.summary import PixelCounts, in_common, replicates

LEVEL = 0.05
SIZES = ("small", "medium", "large")
BY_SIZE = ("pointing", "poi_matched", "dice")
"""Numbers of single pairs, which can be taken of small and of large lesions apart."""
PICTURES = 6
"""Images that are shown side by side, and as many healthy ones at most."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Entrant:
    """A method's evaluations on one source.

    Args:
        name: of the method.
        folders: per seed, an evaluation of all folds.
        cells: the folders of its cells.
        trained_as: the method whose runs these are, which draws of seeds are the same for; "" = its own.
    """

    name: str
    folders: Mapping[int, Path]
    cells: Sequence[Path]
    trained_as: str = ""


def write(plan: Plan) -> tuple[Path | None, dict[str, Any]]:
    """Puts together what is done: ``benchmark.json``, ``.html``, ``.csv``, ``.md``, ``.tex``, ``comparisons.csv``.

    Where a source asks for groups, ``by_group.csv`` as well.

    Returns:
        The page and the content of ``benchmark.json``; no page where no method is complete on any source.
    """
    now = states(plan)
    done = {one.cell for one in now if one.state == "done"}
    sources: dict[str, Any] = {}
    shown: dict[str, list[SideBySide]] = {}
    problems: list[str] = []
    for source in plan.content.source:
        entrants, missing = _entrants(plan, source, done, problems)
        if not entrants:
            continue
        try:
            sources[source.name] = {
                **rank(entrants, plan.content.shown, bootstraps=plan.content.bootstraps),
                "missing": missing,
            }
        except RadtagError as error:
            problems.append(f"{source.name}: {error}")
            continue
        shown[source.name] = _pictures(entrants)
    value = {
        "title": plan.content.title,
        "metrics": list(plan.content.shown),
        "main": plan.content.main,
        "level": LEVEL,
        "sources": sources,
        "problems": problems,
        "cells": [one.to_dict() for one in now],
        "about": {
            "file": plan.path.name,
            "version": radtag.__version__,
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            "bootstraps": plan.content.bootstraps,
            "seeds": list(plan.content.seeds),
        },
    }
    if not sources:
        return None, value
    replace_text(plan.out / "benchmark.json", json.dumps(value, indent=1, allow_nan=False) + "\n")
    replace_text(plan.out / "benchmark.csv", as_csv(value))
    replace_text(plan.out / "comparisons.csv", comparisons_csv(value))
    (plan.out / "by_group.csv").unlink(missing_ok=True)
    if any(of["groups"] for of in sources.values()):
        replace_text(plan.out / "by_group.csv", groups_csv(value))
    replace_text(plan.out / "benchmark.md", as_markdown(value))
    replace_text(plan.out / "benchmark.tex", as_latex(value))
    write_benchmark(plan.out / "benchmark.html", value, colours(), shown)
    return plan.out / "benchmark.html", value


def _entrants(plan: Plan, source: Source, done: set[Cell], problems: list[str]) -> tuple[list[Entrant], dict[str, str]]:
    """The methods that are complete, and what the others lack."""
    entrants, missing = [], {}
    for method in plan.content.method:
        cells = [cell for cell in plan.cells() if (cell.source, cell.method) == (source, method)]
        folders: dict[int, Path] = {}
        for seed in plan.content.seeds:
            of_seed = [cell for cell in cells if cell.seed == seed]
            if not all(cell in done for cell in of_seed):
                continue
            parts = [plan.folder(cell) / "evaluation" for cell in of_seed]
            pooled = plan.out / "pooled" / slug(source.name) / slug(method.name) / f"seed{seed}"
            try:
                folders[seed] = parts[0] if len(parts) == 1 else _pooled(parts, pooled, plan.content.bootstraps)
            except RadtagError as error:
                problems.append(f"{source.name}, {method.name}, seed {seed}: {error}")
        lacking = sum(cell not in done for cell in cells)
        if folders:
            kept = [plan.folder(cell) for cell in cells if cell.seed in folders]
            entrants.append(Entrant(method.name, folders, kept, plan.run_cell(cells[0]).method.name))
        if lacking:
            missing[method.name] = f"{lacking} of {len(cells)} cells are not done"
    return entrants, missing


def _pooled(parts: Sequence[Path], out: Path, bootstraps: int) -> Path:
    """Folds as one evaluation; pooled once."""
    digest = hashlib.sha256(b"".join((part / "pairs.csv").read_bytes() for part in parts)).hexdigest()[:16]
    abouts = [read_metrics(part)["about"] for part in parts]
    followed, _, _ = faithful.pooled(parts, [one.get("faithfulness", 0) for one in abouts])
    by, values, _ = groups.pooled(parts, [one.get("by", []) for one in abouts])
    wanted = {"bootstraps": bootstraps, "faithfulness": followed, "by": by}
    try:
        about = {"faithfulness": 0, "by": [], **read_metrics(out)["about"]}
        same = about["digests"]["pairs"] == digest and {key: about[key] for key in wanted} == wanted
        if same and groups.read_values(out) == values:
            return out
    except (RadtagError, KeyError):
        pass
    pool(parts, out, bootstraps=bootstraps, overwrite=True)
    return out


def rank(entrants: Sequence[Entrant], metrics: Sequence[str], *, bootstraps: int = 1000) -> dict[str, Any]:
    """One source's methods side by side: values, differences, ranks, sizes, cost.

    Args:
        entrants: at least one, of the same data.
        metrics: keys of :data:`radtag.report.definitions.BY_KEY`; those that are undefined for all are left out.
        bootstraps: draws, at least; more where Holm's correction needs them.

    Raises:
        BadData: evaluations that share no image, disagree about labels or count different pixels.
    """
    places = [(at, folder) for at, one in enumerate(entrants) for folder in one.folders.values()]
    abouts = [read_metrics(folder)["about"] for _, folder in places]
    refuse_mixed([folder for _, folder in places], abouts)
    given = [PairTable.read(folder / "pairs.csv") for _, folder in places]
    tables = in_common(given)
    first = tables[0]
    # Pixels cannot be taken apart: they count where all hold the same images.
    whole = all(len(one) == len(first) for one in given) and all(one.findings == first.findings for one in given)
    pixels = [PixelCounts.read(folder / "pixels.npz") if whole else None for _, folder in places]
    pixels = [counts and counts.renamed(table, given[0]) for counts, table in zip(pixels, given, strict=True)]
    if any(one is None for one in pixels):
        pixels = [None] * len(places)
    comparisons = math.comb(len(entrants), 2)
    draws = max(bootstraps, significance.enough_replicates(comparisons, level=LEVEL) if comparisons else 0)

    measured: list[dict[str, Replicates]] = []
    spread: list[dict[str, dict[str, float]]] = []
    sizes: list[dict[str, Replicates]] = []
    edges, size = _sizes(first)
    followed = _followed([folder for _, folder in places], first, metrics, draws)
    trainings: dict[str, int] = {}
    trained = [trainings.setdefault(one.trained_as or one.name, len(trainings)) for one in entrants]
    for at in range(len(entrants)):
        own = [i for i, (owner, _) in enumerate(places) if owner == at]
        runs = [
            dict(replicates(tables[i], pixels[i], bootstraps=draws, seed=0, wanted=metrics)) | followed[i] for i in own
        ]
        measured.append({key: _over_seeds([run[key] for run in runs], trained[at]) for key in runs[0]})
        spread.append({key: _spread([run[key] for run in runs], first.findings) for key in runs[0]})
        of_size = [_by_size(tables[i], size, draws) for i in own] if edges else [{}]
        sizes.append({key: _over_seeds([run[key] for run in of_size], trained[at]) for key in of_size[0]})

    divided, of_groups = _by_group(places, abouts, tables, metrics, draws)
    keys = [key for key in metrics if any(not np.isnan(one[key].value).all() for one in measured if key in one)]
    total = "macro" if len(first.findings) > 1 else "micro"
    scopes = ["", *first.findings]  # "" = all findings
    names = [one.name for one in entrants]
    numbers: list[dict[str, dict[str, Any]]] = [{scope: {} for scope in scopes} for _ in entrants]
    apart: list[dict[str, Any]] = []
    for key in keys:
        each = [_Measured.of(one[key]) for one in measured]
        pairs = {
            (a, b): _Measured.of(bootstrap.difference(each[a].values, each[b].values))
            for a, b in combinations(range(len(names)), 2)
        }
        for scope in scopes:
            entries, differences = _ranked(each, pairs, key, scope, first.findings, names)
            for at, entry in enumerate(entries):
                numbers[at][scope][key] = {**entry, "spread": _known(spread[at][key][scope])}
            apart += differences
    images = {str(name) for name in first["image"].tolist()}
    return {
        "data": " and ".join(dict.fromkeys(str(about["data"]) for about in abouts)),
        "split": " and ".join(dict.fromkeys(str(about["split"]) for about in abouts)),
        "inside": abouts[0].get("inside", "image"),
        "faithfulness": max(int(about.get("faithfulness", 0)) for about in abouts) if followed[0] else 0,
        "folds": max(int(about.get("folds", 1)) for about in abouts),
        "images": len(images),
        "left_out": max(len(set(one["image"].tolist())) for one in given) - len(images),
        "patients": len(set(first["patient"].tolist())),
        "findings": list(first.findings),
        "total": total,
        "metrics": keys,
        "draws": draws,
        "methods": {
            one.name: {
                "total": numbers[at][""],
                "findings": {finding: numbers[at][finding] for finding in first.findings},
                "mean_rank": _mean_rank(numbers[at][""]),
                "seeds": list(one.folders),
                "sizes": {key: _per_size(value) for key, value in sizes[at].items()},
                "groups": of_groups[at],
                "cost": _cost(one.cells),
            }
            for at, one in enumerate(entrants)
        },
        "size_edges": edges,
        "groups": divided,
        "comparisons": apart,
        "notes": list(dict.fromkeys(note for about in abouts for note in about["notes"])),
    }


def _followed(
    folders: Sequence[Path], first: PairTable, wanted: Sequence[str], draws: int
) -> list[dict[str, Replicates]]:
    """Insertion and deletion of each evaluation, on the pairs that were followed in all of them."""
    keys = [one.key for one in FOLLOWED if one.key in wanted]
    each = [{(one.image, one.finding): one.values() for one in faithful.read(folder)} for folder in folders if keys]
    names = zip(first["image"].tolist(), first["finding"].tolist(), strict=True)
    kept = {i: pair for i, pair in enumerate(names) if each and all(pair in of for of in each)}
    if not kept:
        return [{} for _ in folders]
    rows = np.array(list(kept))
    finding = [first.findings.index(name) for _, name in kept.values()]
    resampling = Resampling(first["patient"].tolist(), replicates=draws, seed=0).of(first["patient"][rows].tolist())
    return [
        {
            key: bootstrap.mean([of[pair][key] for pair in kept.values()], finding, len(first.findings), resampling)
            for key in keys
        }
        for of in each
    ]


def _by_group(
    places: Sequence[tuple[int, Path]],
    abouts: Sequence[Mapping[str, Any]],
    tables: Sequence[PairTable],
    metrics: Sequence[str],
    draws: int,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What all evaluations are grouped by, and each method's numbers of the groups, with their gaps.

        {COLUMN: {"reference": NAME, "unknown": N, "cuts": ..., "metrics": [KEY ...],
                  "parts": {GROUP: {"images", "patients"}}}}
        {COLUMN: {GROUP: {"total": {KEY: ESTIMATE}, "findings": {NAME: {KEY: ESTIMATE}}, "gap": {"total", "findings"}}}}

    The reference has no gap: null.

    Args:
        places: of each evaluation the number of its method, and its folder.
        abouts: of the evaluations.
        tables: theirs, of the same pairs in the same order.
        metrics: those wanted; groups have not all of them.
        draws: of patients.
    """
    first, methods = tables[0], max(owner for owner, _ in places) + 1
    about: dict[str, Any] = {}
    numbers: list[dict[str, Any]] = [{} for _ in range(methods)]
    shared = [text for text in abouts[0].get("by", []) if all(text in one.get("by", []) for one in abouts)]
    asked = [groups.By.parse(text) for text in shared]
    values = groups.read_values(places[0][1], asked)
    for by in asked:
        found = groups.divided(first, values, by)
        wanted = [key for key in metrics if key in by.metrics]
        resampling = Resampling(first["patient"].tolist(), replicates=draws, seed=0)
        for at in range(methods):
            own = [i for i, (owner, _) in enumerate(places) if owner == at]
            measured: dict[str, dict[str, Replicates]] = {}
            for name in found.rows:
                parts = [found.part(tables[i], name) for i in own]
                runs = [
                    dict(replicates(part, None, bootstraps=draws, seed=0, wanted=wanted, draws=resampling))
                    for part in parts
                ]
                measured[name] = {key: _over_seeds([run[key] for run in runs], at) for key in wanted if key in runs[0]}
            reference = measured.get(found.reference, {})
            numbers[at][by.column] = {
                name: {
                    **_entries(of, first.findings),
                    "gap": None
                    if name == found.reference
                    else _entries(
                        {key: bootstrap.difference(of[key], reference[key]) for key in of if key in reference},
                        first.findings,
                    ),
                }
                for name, of in measured.items()
            }
        all_of_it = [part for of in numbers for part in of[by.column].values()]
        about[by.column] = {
            **found.about(),
            "metrics": [key for key in wanted if any(_is_measured(part, key) for part in all_of_it)],
            "parts": {name: found.counts(found.part(first, name)) for name in found.rows},
        }
    return about, numbers


def _entries(measured: Mapping[str, Replicates], findings: Sequence[str]) -> dict[str, Any]:
    """``{"total": {KEY: ESTIMATE}, "findings": {NAME: {KEY: ESTIMATE}}}``; in total, the mean over several findings."""
    estimates = {key: value.estimates() for key, value in measured.items()}
    return {
        "total": {key: (one.macro if len(findings) > 1 else one.micro).to_dict() for key, one in estimates.items()},
        "findings": {
            name: {key: one.per_finding[i].to_dict() for key, one in estimates.items()}
            for i, name in enumerate(findings)
        },
    }


def _is_measured(part: Mapping[str, Any], key: str) -> bool:
    """Whether a group has a value of a number, of any finding."""
    return any(key in of and of[key]["value"] is not None for of in part["findings"].values())


def _over_seeds(runs: Sequence[Replicates], number: int) -> Replicates:
    """The mean over seeds, whose draws take seeds as well as patients.

    The draws are those of a number: each training's own, which has nothing to do with another's, and the same for
    methods that share runs.
    """
    if len(runs) == 1:
        return runs[0]
    k, draws = len(runs), runs[0].drawn.shape[1]
    taken = np.random.default_rng((len(runs), number)).integers(k, size=(k - 1, draws))
    weight = np.stack([(taken == seed).sum(axis=0) for seed in range(k)]) / (k - 1)  # (seed, replicate)
    drawn = np.sum([np.where(w > 0, run.drawn * w, 0.0) for run, w in zip(runs, weight, strict=True)], axis=0)
    return Replicates(
        np.mean([run.value for run in runs], axis=0), drawn, runs[0].n, runs[0].undefined, runs[0].patients
    )


def _spread(runs: Sequence[Replicates], findings: Sequence[str]) -> dict[str, float]:
    """Per finding, and of all (""), the standard deviation of the value between seeds."""
    estimates = [run.estimates() for run in runs]
    total = [(one.macro if len(findings) > 1 else one.micro).value for one in estimates]
    values = {"": total, **{name: [one.per_finding[i].value for one in estimates] for i, name in enumerate(findings)}}
    return {name: float(np.std(of, ddof=1)) if len(of) > 1 else math.nan for name, of in values.items()}


@dataclass(frozen=True)
class _Measured:
    """A number, or a difference of two, with what follows from its replicates."""

    values: Replicates
    estimates: Estimates

    @classmethod
    def of(cls, values: Replicates) -> _Measured:
        return cls(values, values.estimates())

    def at(self, scope: str, findings: Sequence[str]) -> tuple[Estimate, Values]:
        """Of one finding, or ("") of all: the mean over several, or the one there is."""
        if scope:
            number = list(findings).index(scope)
            return self.estimates.per_finding[number], self.values.drawn[number]
        if len(findings) > 1:
            return self.estimates.macro, _mean_defined(self.values.drawn[:-1])
        return self.estimates.micro, self.values.drawn[-1]


def _ranked(
    measured: Sequence[_Measured],
    pairs: Mapping[tuple[int, int], _Measured],
    key: str,
    scope: str,
    findings: Sequence[str],
    names: Sequence[str],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One number of one finding (or of all): each method's entry, and every pair's difference."""
    better = BY_KEY[key].better
    apart = [pair.at(scope, findings) for pair in pairs.values()]
    p = np.array([significance.p_value(drawn) if not math.isnan(one.low) else math.nan for one, drawn in apart])
    corrected = significance.holm(p)
    ahead = np.zeros((len(names), len(names)), dtype=bool)
    rows = []
    for (a, b), (estimate, _), raw, held in zip(pairs, apart, p.tolist(), corrected.tolist(), strict=True):
        sure = held < LEVEL
        if sure and better != "neither":
            first_wins = (estimate.value > 0) == (better == "higher")
            ahead[(a, b) if first_wins else (b, a)] = True
        rows.append(
            {
                "metric": key,
                "finding": scope or None,
                "a": names[a],
                "b": names[b],
                **estimate.to_dict(),
                "p": _known(raw),
                "p_holm": _known(held),
                "significant": bool(sure),
            }
        )
    estimates = [one.at(scope, findings)[0] for one in measured]
    defined = [not math.isnan(one.value) for one in estimates]
    ranks = significance.ranks(ahead, defined) if better != "neither" else [None] * len(names)
    return [{**one.to_dict(), "rank": rank} for one, rank in zip(estimates, ranks, strict=True)], rows


def _mean_defined(values: Values) -> Values:
    """(finding, replicate) -> (replicate,): the mean of the findings that have a value."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    return np.divide(
        np.where(known, values, 0).sum(axis=0), count, out=np.full(values.shape[1], np.nan), where=count > 0
    )


def _sizes(table: PairTable) -> tuple[list[float], Values]:
    """The two limits between small, medium and large, and (pair,) each lesion's share of its image; NaN = unknown."""
    outlined, boxed = table["mask_share"], table["box_share"]
    size = np.where(np.isnan(outlined), boxed, outlined)
    size = np.where(table["located"] == 1, size, np.nan)
    known = size[~np.isnan(size)]
    if len(known) < 3:
        return [], size
    low, high = np.quantile(known, [1 / 3, 2 / 3]).tolist()
    return ([low, high] if low < high else []), size


def _by_size(table: PairTable, size: Values, draws: int) -> dict[str, Replicates]:
    """Some numbers of small, medium and large lesions; thirds of all lesions with a known size."""
    known = ~np.isnan(size)
    edges = np.quantile(size[known], [1 / 3, 2 / 3])
    third = np.searchsorted(edges, size[known], side="left")
    resampling = Resampling(table["patient"].tolist(), replicates=draws, seed=0).of(table["patient"][known].tolist())
    return {
        key: bootstrap.mean(table[key][known], third, len(SIZES), resampling)
        for key in BY_SIZE
        if not np.isnan(table[key][known]).all()
    }


def _per_size(value: Replicates) -> dict[str, Any]:
    estimates = value.estimates().per_finding
    return {name: estimates[i].to_dict() for i, name in enumerate(SIZES)}


def _mean_rank(numbers: Mapping[str, Mapping[str, Any]]) -> float | None:
    ranks = [entry["rank"] for entry in numbers.values() if entry["rank"] is not None]
    return sum(ranks) / len(ranks) if ranks else None


def _cost(cells: Sequence[Path]) -> dict[str, Any]:
    """Minutes of training a run, and images a second read, tagged and scored, as cards and evaluations have them."""
    abouts = [read_metrics(folder / "evaluation")["about"] for folder in cells]
    minutes = [float(about["card"]["minutes"]) for about in abouts if about["card"].get("minutes") is not None]
    speeds = [
        (int(about["images"]), float(about["images_per_second"])) for about in abouts if "images_per_second" in about
    ]
    return {
        "training_minutes": round(sum(minutes) / len(minutes), 2) if minutes else None,
        "images_per_second": (
            float(f"{sum(n for n, _ in speeds) / sum(n / speed for n, speed in speeds):.3g}") if speeds else None
        ),
        "hardware": sorted({str(about["hardware"]) for about in abouts}),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _pictures(entrants: Sequence[Entrant]) -> list[SideBySide]:
    """Images that all methods were shown, chosen by their truth; of each method its first seed."""
    kept = [read_fixed(next(iter(one.folders.values()))) for one in entrants]
    names = [one.name for one in entrants]
    ill, dark = (side_by_side(names, kept, healthy=healthy) for healthy in (False, True))
    return [*_evenly(ill, PICTURES), *_evenly(dark, PICTURES // 3)]


def _evenly(found: Sequence[SideBySide], most: int) -> list[SideBySide]:
    """At most so many, of as many findings as there are."""
    by_finding: dict[str, list[SideBySide]] = {}
    for one in found:
        by_finding.setdefault(one.finding, []).append(one)
    turns = [
        of[(1 + turn) % len(of)] for turn in range(3) for of in by_finding.values() if turn < len(of)
    ]  # the middle lesion of each first
    return turns[:most]
