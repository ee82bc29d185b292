"""Compare evaluations of the same data: paired differences with intervals, and one page to look at.

Both are taken on the same pairs of image and finding and on the same draws of patients, so what makes an image hard for
both cancels out, and the interval is that of the difference itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radtag.errors import BadData, BadSetting
from radtag.evaluate import read_metrics, refuse_mixed, refuse_other
from radtag.gallery import FixedCase, colours, read_fixed
from radtag.pairs import PairTable
from radtag.report.comparison import Shown, SideBySide, write_comparison
from radtag.report.page import replace_text
from radtag.summary import PixelCounts, differences


def compare(a: Path | str, b: Path | str, *, bootstraps: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Evaluation a minus evaluation b, on the pairs both have.

    Args:
        a: a folder that ``radtag evaluate`` (or pool) wrote.
        b: another, of the same data.
        bootstraps: draws of patients, at least 1.
        seed: of the draws.

    Returns:
        As ``metrics.json``, every value a difference; an interval without 0 is a difference at the 95 % level.
        ``about`` names what was compared.

    Raises:
        BadData: a folder that is no evaluation, or two that share no image or disagree about a label.
        BadSetting: no draws.
    """
    if bootstraps < 1:
        raise BadSetting(f"a difference needs at least one bootstrap for its interval, got {bootstraps}.")
    paths = [Path(a), Path(b)]
    tables = [PairTable.read(path / "pairs.csv") for path in paths]
    refuse_mixed(paths, [read_metrics(path)["about"] for path in paths])
    pixels = [PixelCounts.read(path / "pixels.npz") for path in paths]
    first, second = pixels
    both = (first, second) if first is not None and second is not None else None
    result = differences(*tables, pixels=both, bootstraps=bootstraps, seed=seed)
    shared = np.isin(tables[0]["image"], tables[1]["image"])
    result["about"] = {
        "a": str(paths[0]),
        "b": str(paths[1]),
        "images": len(set(tables[0]["image"][shared].tolist())),
        "patients": len(set(tables[0]["patient"][shared].tolist())),
        "bootstraps": bootstraps,
        "seed": seed,
    }
    return result


def comparison(
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    names: Sequence[str] = (),
    bootstraps: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Several evaluations of the same data side by side: ``comparison.json`` and ``comparison.html``.

    Differences are each evaluation minus the first.

    Args:
        folders: what ``radtag evaluate`` wrote, two or more; the first is what the others are compared with.
        out: a folder; an earlier comparison of the same folders with the same options is replaced.
        names: what to call them; left out, their methods, or their folders where the methods are the same.
        bootstraps: draws of patients, at least 1.
        seed: of the draws.
        overwrite: any other comparison in the folder is replaced as well, where it is otherwise refused.

    Returns:
        ``{"names", "evaluations": [metrics.json ...], "differences": [compare(...) ...], "about"}``.

    Raises:
        BadData: as :func:`compare`.
        BadSetting: fewer than two folders, another number of names, or a folder that holds another comparison.
    """
    paths, out = [Path(folder) for folder in folders], Path(out)
    if len(paths) < 2:
        raise BadSetting(f"a comparison takes at least two evaluations, got {len(paths)}. Name another folder.")
    if names and len(names) != len(paths):
        raise BadSetting(f"{len(names)} names for {len(paths)} evaluations. Give one name for each.")
    results = [read_metrics(path) for path in paths]
    called = list(names) or _names(paths, results)
    about = {
        "folders": [os.path.relpath(path, out) for path in paths],  # wherever both may be moved to
        "names": called,
        "bootstraps": bootstraps,
        "seed": seed,
    }
    if not overwrite:
        refuse_other(out / "comparison.json", about)
    apart = [compare(path, paths[0], bootstraps=bootstraps, seed=seed) for path in paths[1:]]
    value = {"names": called, "evaluations": results, "differences": apart, "about": about}
    kept = [read_fixed(path) for path in paths]
    replace_text(out / "comparison.json", json.dumps(value, indent=1, allow_nan=False) + "\n")
    write_comparison(
        out / "comparison.html",
        called,
        results,
        apart,
        colours(),
        side_by_side(called, kept, healthy=False),
        side_by_side(called, kept, healthy=True),
    )
    return value


def _names(paths: Sequence[Path], results: Sequence[dict[str, Any]]) -> list[str]:
    runs = [str(result["about"]["run"]) for result in results]
    if len(set(runs)) == len(runs):
        return runs
    folders = [path.resolve().name for path in paths]
    if len(set(folders)) == len(folders):
        return folders
    parents = [f"{path.resolve().parent.name}/{path.resolve().name}" for path in paths]
    if len(set(parents)) < len(parents):
        raise BadData(f"{', '.join(parents)}: an evaluation is named twice. Name each once.")
    return parents


def side_by_side(names: Sequence[str], kept: Sequence[list[FixedCase]], *, healthy: bool) -> list[SideBySide]:
    """The cases all evaluations keep: the image as it came, then each one's map."""
    found = []
    others = [{(case.image, case.finding, case.rank): case for case in cases} for cases in kept]
    # A healthy image is shown with the finding that peaks highest in it, which differs between runs.
    if healthy:
        others = [{(case.image, "", case.rank): case for case in cases if case.rank == "Healthy"} for cases in kept]
    for key, case in others[0].items():
        if (key[2] == "Healthy") != healthy or not all(key in one for one in others):
            continue
        cases = [one[key] for one in others]
        found.append(
            SideBySide(
                finding=key[1],
                image=case.image,
                note="" if healthy else f"{case.rank.lower()} lesion",
                shown=(
                    Shown("The image as it came", "", case.plain),
                    *(Shown(name, one.caption, one.shown) for name, one in zip(names, cases, strict=True)),
                ),
            )
        )
    return found
