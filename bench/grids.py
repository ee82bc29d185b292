"""What laying maps where their cells look is worth: CAM, Grad-CAM and PYLON, as tiles and on the measured grid.

    python bench/grids.py SOURCE RUN [RUN ...] [--limit 200] [--picture grids.png]

SOURCE needs masks (a planted set, phantoms). For every run its own maps, and for CAM runs also Grad-CAM on the same
feature (:mod:`radtag.saliency`), whose cells look at the same places. Printed: pointing accuracy on the mask and PoI at
matched area over all positive (image, finding) pairs of the test split.

The picture shows, for the first run and the first test image of each finding that has no other, what the strongest
cell listens to (its squared gradient), and the map laid by both grids, with its peak.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

from radtag import draw
from radtag.data.sources import open_source
from radtag.data.table import Dataset
from radtag.geometry import Grid, to_original
from radtag.images import read, read_mask
from radtag.metrics.masks import poi_at_matched_area
from radtag.metrics.points import first_maximum
from radtag.models.cam import Cam
from radtag.saliency import Explainer
from radtag.train.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=None, help="score at most so many images")
    parser.add_argument("--picture", type=Path, default=None, help="draw one, of the first run")
    args = parser.parse_args()
    dataset = open_source(args.source, only=["test"])
    records = [record for record in dataset.records if record.masks][: args.limit]

    table = Table("run", "map", "cells", "grid", "pointing", "PoI at matched area", "pairs")
    for path in args.runs:
        run = Run.load(path)
        model = run.build_model()
        explainer = Explainer(model, "gradcam")
        kinds = ["own", "Grad-CAM"] if isinstance(model, Cam) else ["own"]
        scores: dict[tuple[str, str], list[tuple[bool, float]]] = {}
        for record in records:
            pixels, frame = run.prepare(read(record.path))
            images = run.normalise(torch.from_numpy(pixels)[None])
            for kind in kinds:
                with torch.no_grad():
                    if kind == "Grad-CAM":
                        raw = explainer(images).values[0].relu()
                    else:
                        raw = model(images).maps[0]
                for finding, file in record.masks.items():
                    truth, at = read_mask(file), run.findings.index(finding)
                    grids: dict[str, Grid] = {"tiles": run.tile_grid, "measured": run.grids[at]}
                    for name, grid in grids.items():
                        of_finding = to_original(raw[at].numpy().astype(np.float32), grid, frame)
                        row, col = first_maximum(of_finding)
                        area = float(poi_at_matched_area(of_finding, truth))
                        scores.setdefault((kind, name), []).append((bool(truth[row, col]), area))
        cells = "x".join(str(side) for side in run.tile_grid.size_rc)
        for (kind, name), values in scores.items():
            hits, areas = np.array(values, dtype=float).T
            table.add_row(
                path.name, kind, cells, name, f"{hits.mean():.3f}", f"{np.nanmean(areas):.3f}", str(len(hits))
            )
    Console().print(table)
    if args.picture is not None:
        draw_picture(args.picture, Run.load(args.runs[0]), dataset)


def draw_picture(file: Path, run: Run, dataset: Dataset) -> None:
    """A row per finding: image and truth, what the strongest cell listens to, the map as tiles and as measured."""
    model, cells = run.build_model(), []
    for at, finding in enumerate(run.findings):
        column = dataset.findings.index(finding)
        alone = (r for r in dataset.records if r.labels[column] == 1 and sum(label == 1 for label in r.labels) == 1)
        record = next(alone, None)
        if record is None or finding not in record.masks:
            continue
        image, truth = read(record.path), read_mask(record.masks[finding])
        pixels, frame = run.prepare(image)
        inputs = run.normalise(torch.from_numpy(pixels)[None]).requires_grad_(True)
        raw = model(inputs).maps[0, at]
        (gradient,) = torch.autograd.grad(raw.max(), inputs)
        heard = gaussian_filter(gradient[0].square().sum(dim=0).numpy(), 2)
        values = run.calibration.only([at]).maps(raw.detach().numpy()[None])[0]
        heard = to_original(heard / heard.max(), Grid.tiles(heard.shape, heard.shape), frame)
        views: list[tuple[str, np.ndarray, tuple[float, float] | None]] = [("listens to", heard, None)]
        for name, grid in (("as tiles", run.tile_grid), ("measured", run.grids[at])):
            laid = to_original(values, grid, frame)
            row, col = first_maximum(laid)
            views.append((name, laid, (float(col) + 0.5, float(row) + 0.5)))
        shown = draw.outline(draw.gray(image.pixels), truth, colour=draw.TRUE)
        cells.append(draw.labelled(shown, [f"truth: {finding}"]))
        for name, map_, peak in views:
            over = draw.outline(draw.overlay(image.pixels, map_), truth, colour=draw.TRUE)
            cells.append(draw.labelled(draw.boxes(over, peak_xy=peak) if peak else over, [name]))
    draw.write_picture(file, draw.sheet(cells, columns=4))


if __name__ == "__main__":
    main()
