"""What needs no training where lungs are diffusely ill: both lungs marked whole, and how bright they are.

    python bench/untrained.py SOURCE --lungs RUN --finding COVID-19

SOURCE needs masks of the finding; RUN outlines lungs (`radtag train student SOURCE --finding lungs`). Printed, over
the outlined test images: precision, PoI and Dice of both lungs as the mask, and the PoI at matched area of the image's
own brightness within them, smoothed by a Gaussian of several widths before they are cut out, so that what borders on
them counts too. Where no lungs are found, the whole image stands for them; how often is printed. A localiser that
ranks no better than that has not shown that it knows more than that the finding is dense.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

from radtag.data import splits
from radtag.data.outlines import read_outline
from radtag.data.prepare import lung_field
from radtag.data.sources import open_source
from radtag.images import read
from radtag.metrics.masks import overlap, poi_at_matched_area
from radtag.train.outline import Outliner

WIDTHS_PX = (0, 2, 6, 12)
"""Standard deviations of the smoothing, in pixels of the image."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--lungs", type=Path, required=True, help="a run that outlines lungs")
    parser.add_argument("--finding", required=True)
    parser.add_argument("--split-seed", type=int, default=0, help="as of radtag evaluate")
    args = parser.parse_args()
    dataset = splits.assign(open_source(args.source), args.split_seed)
    find_lungs = Outliner(args.lungs, "lungs")
    masks: dict[str, list[float]] = {"precision": [], "PoI": [], "Dice": []}
    ranks: dict[int, list[float]] = {width: [] for width in WIDTHS_PX}
    missed = 0
    for record in dataset.only("test").records:
        truth = read_outline(record.masks[args.finding]) if args.finding in record.masks else np.zeros((1, 1), bool)
        if not truth.any():
            continue
        image = read(record.path)
        field = lung_field(image, find_lungs)
        missed += field is None
        lungs = np.ones_like(truth) if field is None else field.lungs
        both = overlap(lungs[None], truth[None])
        for name, value in zip(masks, (both.precision, both.poi, both.dice), strict=True):
            masks[name].append(float(value[0]))
        for width in WIDTHS_PX:
            # Above 0, so that the darkest lung still comes before what lies outside.
            brightness = np.where(lungs, gaussian_filter(image.pixels, width) + 1e-3, 0).astype(np.float32)
            ranks[width].append(float(poi_at_matched_area(brightness[None], truth[None])[0]))
    if not masks["PoI"]:
        parser.error(f"no test image of {args.source} has an outline of {args.finding!r}. Name another finding.")
    table = Table("of the lungs", "mean", "images", caption=f"no lungs found in {missed}")
    for name, values in masks.items():
        table.add_row(f"marked whole: {name}", f"{np.mean(values):.3f}", str(len(values)))
    for width, values in ranks.items():
        table.add_row(
            f"brightness, smoothed by {width} px: PoI at matched area", f"{np.mean(values):.3f}", str(len(values))
        )
    Console().print(table)


if __name__ == "__main__":
    main()
