"""What a map is when another disease is asked for than the one that is there.

A map that follows the question is faint when the wrong one is asked. Of images that have a finding, the mean map
(``map_mean`` of :mod:`radtag.pairs`) is taken for every finding in turn, and so it is of images that have none:

    {"findings": {PRESENT: {ASKED: {"map_mean": ESTIMATE, "own_minus": ESTIMATE}}},
     "none": {ASKED: {"map_mean": ESTIMATE}}}

ESTIMATE is as in :mod:`radtag.summary`, with intervals by patient. ``own_minus`` is the mean, over the same images, of
the map of PRESENT minus that of ASKED: above 0, the wrong question gives less. An image that is known to have ASKED too
does not count there; one of which that is unknown does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from radtag.data.healthy import is_normal
from radtag.metrics import Resampling, bootstrap
from radtag.pairs import PairTable


def asked(table: PairTable, *, bootstraps: int = 1000, seed: int = 0) -> dict[str, Any]:
    """``{"asked": {...}}`` of a table of pairs, or nothing where there is one disease alone.

    A finding called normal is none: nothing can be asked for.

    Args:
        table: pairs, image by image, every image with every finding in one order.
        bootstraps: draws of patients for the intervals; 0 gives values without intervals.
        seed: of the draws.
    """
    diseases = [at for at, name in enumerate(table.findings) if not is_normal(name)]
    findings = [table.findings[at] for at in diseases]
    count = len(findings)
    if count < 2:
        return {}
    each = len(table.findings)
    label, amount = (table[name].reshape(-1, each)[:, diseases] for name in ("label", "map_mean"))
    patients = table["patient"][::each]
    resampling = Resampling(patients.tolist(), replicates=max(bootstraps, 1), seed=seed)

    def means(values: NDArray[np.float64], counts: NDArray[np.bool_]) -> list[dict[str, Any]]:
        """Per finding asked for, the mean over the images that count; both (image, finding)."""
        image, finding = np.nonzero(counts)
        own = resampling.of(patients[image])
        found = bootstrap.mean(values[image, finding], finding, count, own).estimates().per_finding
        empty = {} if bootstraps else {"low": None, "high": None}
        return [{**one.to_dict(), **empty} for one in found]

    present = {}
    for at, name in enumerate(findings):
        has = label[:, at] == 1
        if not has.any():
            continue
        counts = has[:, None] & (label != 1)
        counts[:, at] = has
        maps = means(amount, counts)
        less = means(amount[:, at, None] - amount, counts)
        present[name] = {
            other: {"map_mean": maps[i], **({"own_minus": less[i]} if i != at else {})}
            for i, other in enumerate(findings)
        }
    healthy = (label == 0).any(axis=1) & ((label == 0) | np.isnan(label)).all(axis=1)
    nothing = means(amount, np.repeat(healthy[:, None], count, axis=1)) if healthy.any() else []
    return {"asked": {"findings": present, "none": {findings[i]: {"map_mean": one} for i, one in enumerate(nothing)}}}
