"""Pixel AUROC and average precision of 100 million pixels: radtag's streamed, scikit-learn's over all of them at once.

    python bench/pixels.py [--millions 100] [--kind levels] [--kind floats]

Maps of 1,024 x 1,024 pixels are made one at a time, from cells of 64 x 64 as a network gives them: an elliptic lesion,
and a map that points at it more or less well. ``levels`` are maps as `radtag tag` writes them, of 16 bits; ``floats``
are float32 as they come, for which the histogram has ``FLOAT_LEVELS``. Both programs are given the same pixels: radtag
map by map, where its time is that of :class:`radtag.metrics.PixelHistogram` alone; scikit-learn all of them in one
array, ``roc_auc_score`` and ``average_precision_score``. Said are the processor's seconds of both, by how much each
made the process's greatest memory grow, and how far the answers are apart.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Iterator

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from radtag.metrics import PixelHistogram
from radtag.metrics.pixels import FLOAT_LEVELS, LEVELS
from radtag.metrics.resize import bilinear

SIDE, CELLS = 1024, 64
KINDS = ("levels", "floats")
GOAL = 1e-6


def pairs(count: int, kind: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Maps (row, col) float32 of 0-1 with their masks (row, col) bool."""
    random = np.random.default_rng(0)
    cells, pixels = np.arange(CELLS) + 0.5, (np.arange(SIDE) + 0.5) * CELLS / SIDE
    for _ in range(count):
        centre, radius = random.uniform(10, 54, 2), random.uniform(3, 9, 2)
        seen = centre + random.normal(0, 4, 2)
        row, col = (np.exp(-(((cells - c) / r) ** 2)) for c, r in zip(seen, 1.2 * radius, strict=True))
        logits = (
            random.uniform(2, 8) * np.outer(row, col) - random.uniform(3, 8) + random.normal(0, 0.4, (CELLS, CELLS))
        )
        map_ = bilinear((1 / (1 + np.exp(-logits))).astype(np.float32), (SIDE, SIDE))
        if kind == "levels":
            map_ = np.rint(map_ * np.float32(65535)) / np.float32(65535)
        down, across = (((pixels - c) / r) ** 2 for c, r in zip(centre, radius, strict=True))
        yield map_, np.add.outer(down, across) < 1


def peak_mib() -> float:
    """The greatest memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Times both and compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=100)
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: both")
    options = parser.parse_args()
    from sklearn.metrics import average_precision_score, roc_auc_score

    count = int(np.ceil(options.millions * 1e6 / SIDE**2))
    for kind in options.kind or KINDS:
        levels = LEVELS if kind == "levels" else FLOAT_LEVELS
        warm = PixelHistogram()
        for map_, mask in pairs(2, kind):
            warm.update(map_, mask)
        warm.auroc(), warm.average_precision()
        before, seconds = peak_mib(), 0.0
        histogram = PixelHistogram(levels)
        for map_, mask in pairs(count, kind):
            start = time.process_time()
            histogram.update(map_, mask)
            seconds += time.process_time() - start
        start = time.process_time()
        ours = {"AUROC": histogram.auroc(), "AP": histogram.average_precision()}
        seconds += time.process_time() - start
        grown = peak_mib() - before
        print(f"{kind}: {count} maps, {count * SIDE**2 / 1e6:.0f} million pixels", flush=True)
        print(f"  radtag        {seconds:6.2f} s, memory grows by {grown:.1f} MiB", flush=True)

        values, truth = np.empty((count, SIDE * SIDE), dtype=np.float32), np.empty((count, SIDE * SIDE), dtype=bool)
        for i, (map_, mask) in enumerate(pairs(count, kind)):
            values[i], truth[i] = map_.ravel(), mask.ravel()
        before, slow = peak_mib(), 0.0
        for name, measure in (("AUROC", roc_auc_score), ("AP", average_precision_score)):
            start = time.process_time()
            theirs = float(measure(truth.ravel(), values.ravel()))
            slow += time.process_time() - start
            apart = abs(ours[name] - theirs)
            verdict = "equal to 1e-6" if apart <= GOAL else "NOT equal to 1e-6"
            print(f"  {name}: radtag {ours[name]:.9f}, scikit-learn {theirs:.9f}", flush=True)
            print(f"  apart by {apart:.1e}: {verdict}", flush=True)
        grown = peak_mib() - before
        print(f"  scikit-learn  {slow:6.2f} s, memory grows by {grown:.0f} MiB more; {slow / seconds:.0f} times")


if __name__ == "__main__":
    main()
