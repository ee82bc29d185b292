"""Drawn radiographs with lesions known to the pixel: ``phantom:N`` or ``phantom:N?seed=3&side=128``.

They are drawn once, into the cache (``$RADTAG_CACHE``, else ``~/.cache/radtag``), and read from there afterwards. What
they show is said in :mod:`radtag.data.phantom`. 60 % are for training, 15 % for validation and 25 % for scoring.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from radtag.data import phantom
from radtag.data.cache import folder
from radtag.data.sources import csv
from radtag.data.table import Dataset
from radtag.errors import BadSetting

OPTIONS = {
    "seed": "which series of phantoms (default 0)",
    "side": "base side in pixels, around which sizes vary (default 256)",
}


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens N phantoms, and draws them first if the cache does not have them.

    Raises:
        BadSetting: an N, seed or side that is no whole number or cannot be drawn.
    """
    count = _whole("count", str(location), 1, 10_000_000)
    seed = _whole("seed", options.get("seed", "0"), 0, 2**63)
    side = _whole("side", options.get("side", "256"), *phantom.SIDES_PX)
    home = folder() / "phantoms" / f"v{phantom.VERSION}-n{count}-seed{seed}-side{side}"
    if not (home / "table.csv").exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that ask at once: one draws, the other waits and reads.
        with FileLock(home.parent / f"{home.name}.lock"):
            if not (home / "table.csv").exists():
                phantom.write(home, count, seed=seed, side=side)
    name = f"phantom:{location}" + "".join(f"{'&?'[not i]}{k}={v}" for i, (k, v) in enumerate(options.items()))
    note = f"phantoms: drawings, not patients; seed {seed}, side {side} px, version {phantom.VERSION}"
    dataset = csv.load(home, {})
    return replace(dataset, name=name, notes=(note, *dataset.notes))


def _whole(what: str, text: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise BadSetting(
            f"phantom: {what} {text!r} is not a whole number from {low} to {high}. Write phantom:400 or "
            f"phantom:400?seed=3&side=128."
        )
    return value
