"""How long scoring takes: radtag's evaluation against the loop one would write first, with equal answers.

    python bench/evaluation.py [--images 1000] [--replicates 1000]

The task: 1,000 images of 700 patients, 14 findings, maps of 64 x 64 cells and 1,000 boxes (one finding of each image),
scored at 256 x 256: PYLON's point localisation accuracy, T(IoBB) and T(IoU) accuracy at .1, .25 and .5, and AUROC; per
finding, micro and macro; each with a 95 % interval from 1,000 replicates over patients.

The loop does what published evaluators do: each annotated map through ``torch.nn.functional.interpolate`` by itself,
once for both kinds of measure; the boxes drawn in it; and in every replicate the drawn rows indexed out, their means
taken and scikit-learn's ``roc_auc_score`` called per finding. It is given radtag's draws, so that the answers must be
equal, and they are asserted to be. Both run on one thread, and processor time is counted.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from radtag.metrics import bootstrap, boxes, points, resize

SIDE_PX, CELLS, FINDINGS = 256, 64, 14
HITS = ("pointing", *(f"T({by}) {t}" for by in ("IoBB", "IoU") for t in boxes.IOBB_THRESHOLDS))
Answers = dict[str, np.ndarray]  # measure -> (finding + micro + macro, value + low + high)


@dataclass(frozen=True)
class Task:
    """Model output and truth of a made-up test set."""

    maps: np.ndarray  # (image, finding, row, col) 0-1
    scores: np.ndarray  # (image, finding)
    labels: np.ndarray  # (image, finding) 1, 0, NaN
    boxes_xyxy: np.ndarray  # (box, 4) in SIDE_PX pixels
    box_image: np.ndarray  # (box,)
    box_finding: np.ndarray  # (box,)
    patients: np.ndarray  # (image,)


def make(images: int) -> Task:
    """Smooth blobs, half of them on their box."""
    draw = np.random.default_rng(0)
    cells = np.arange(CELLS) + 0.5
    maps = np.empty((images, FINDINGS, CELLS, CELLS), dtype=np.float32)
    for i in range(images):
        centre, width = draw.uniform(4, 60, (2, FINDINGS, 1)), draw.uniform(3, 12, (2, FINDINGS, 1))
        row, col = np.exp(-(((cells - centre) / width) ** 2))
        maps[i] = draw.uniform(0.1, 0.9, (FINDINGS, 1, 1)) * row[:, :, None] * col[:, None, :]
        maps[i] += draw.random((FINDINGS, CELLS, CELLS), dtype=np.float32) / 20
    labels = (draw.random((images, FINDINGS)) < 0.1).astype(np.float64)
    finding = np.arange(images) % FINDINGS
    labels[np.arange(images), finding] = 1
    labels[draw.random(labels.shape) < 0.02] = np.nan
    peak = points.first_maximum(maps[np.arange(images), finding])[:, ::-1] * (SIDE_PX / CELLS)
    low = peak - draw.uniform(0, 60, (images, 2)) + np.where(draw.random((images, 1)) < 0.5, 0, 70)
    low = np.clip(low, 0, SIDE_PX - 70)
    corners = np.hstack([low, low + draw.uniform(20, 70, (images, 2))])
    scores = maps.max(axis=(2, 3)).astype(np.float64) + 0.3 * np.nan_to_num(labels)
    patients = draw.integers(int(0.7 * images), size=images)
    return Task(maps, scores, labels, corners, np.arange(images), finding, patients)


def with_radtag(task: Task, replicates: int) -> tuple[Answers, dict[str, float]]:
    """The evaluation as radtag does it."""
    seconds = {}
    start = time.process_time()
    pairs = len(task.boxes_xyxy)
    owner = np.arange(pairs)
    hits = np.empty((len(HITS), pairs))
    step = 64  # maps at a time, so that they stay in the cache
    for first in range(0, pairs, step):
        own = slice(first, first + step)
        maps = resize.bilinear(task.maps[task.box_image[own], task.box_finding[own]], (SIDE_PX, SIDE_PX))
        number = owner[own] - first
        hits[0, own] = points.pointing_hits(maps, task.boxes_xyxy[own], number)
        overlap = boxes.union_overlap(boxes.above_share_of_maximum(maps), task.boxes_xyxy[own], number)
        hits[1:4, own] = [overlap.found(t, by="iobb") for t in boxes.IOBB_THRESHOLDS]
        hits[4:7, own] = [overlap.found(t, by="iou") for t in boxes.IOBB_THRESHOLDS]
    seconds["localisation"] = time.process_time() - start
    start = time.process_time()
    by_image = bootstrap.Resampling(task.patients, replicates=replicates)
    by_pair = by_image.of(task.patients[task.box_image])
    results = {name: bootstrap.mean(hits[i], task.box_finding, FINDINGS, by_pair) for i, name in enumerate(HITS)}
    results["AUROC"] = bootstrap.ranking(task.labels, task.scores, by_image, "auroc")
    answers = {}
    for name, result in results.items():
        estimates = result.estimates()
        every = (*estimates.per_finding, estimates.micro, estimates.macro)
        answers[name] = np.array([(e.value, e.low, e.high) for e in every])
    seconds["intervals"] = time.process_time() - start
    return answers, seconds


def with_a_loop(task: Task, replicates: int) -> tuple[Answers, dict[str, float]]:
    """The evaluation as one would write it first."""
    import torch
    from sklearn.metrics import roc_auc_score

    torch.set_num_threads(1)
    seconds = {}
    start = time.process_time()
    hits = np.empty((len(HITS), len(task.boxes_xyxy)))
    for i, (image, finding) in enumerate(zip(task.box_image, task.box_finding, strict=True)):
        score_map = torch.from_numpy(task.maps[image, finding][None, None])
        score_map = torch.nn.functional.interpolate(score_map, size=(SIDE_PX, SIDE_PX), mode="bilinear")[0, 0]
        x1, y1, x2, y2 = task.boxes_xyxy[i]
        row, col = divmod(int(score_map.argmax()), SIDE_PX)
        hits[0, i] = x1 <= col <= x2 and y1 <= row <= y2
        predicted = score_map / score_map.max() > 0.5
        truth = torch.zeros(SIDE_PX, SIDE_PX, dtype=torch.bool)
        truth[int(y1) : int(y1) + int(y2 - y1), int(x1) : int(x1) + int(x2 - x1)] = True
        shared = float((predicted & truth).sum())
        iobb, iou = shared / float(predicted.sum()), shared / float((predicted | truth).sum())
        hits[1:4, i] = [iobb > t for t in boxes.IOBB_THRESHOLDS]
        hits[4:7, i] = [iou > t for t in boxes.IOBB_THRESHOLDS]
    seconds["localisation"] = time.process_time() - start
    start = time.process_time()

    def means(values: np.ndarray, finding: np.ndarray) -> list[float]:
        each = [values[finding == f].mean() if (finding == f).any() else np.nan for f in range(FINDINGS)]
        return [*each, values.mean(), float(np.nanmean(each))]

    def aurocs(labels: np.ndarray, scores: np.ndarray) -> list[float]:
        each = []
        for f in range(FINDINGS):
            known = ~np.isnan(labels[:, f])
            each.append(roc_auc_score(labels[known, f], scores[known, f]))
        known = ~np.isnan(labels)
        return [*each, roc_auc_score(labels[known], scores[known]), float(np.nanmean(each))]

    resampling = bootstrap.Resampling(task.patients, replicates=replicates)
    images_of = [np.flatnonzero(resampling.row == patient) for patient in range(resampling.patients)]
    pairs_of = [np.flatnonzero(resampling.row[task.box_image] == patient) for patient in range(resampling.patients)]
    drawn: dict[str, list[list[float]]] = {name: [] for name in (*HITS, "AUROC")}
    for replicate in range(replicates):
        chosen = np.repeat(np.arange(resampling.patients), resampling.counts[:, replicate])
        rows = np.concatenate([images_of[patient] for patient in chosen])
        pairs = np.concatenate([pairs_of[patient] for patient in chosen])
        for i, name in enumerate(HITS):
            drawn[name].append(means(hits[i, pairs], task.box_finding[pairs]))
        drawn["AUROC"].append(aurocs(task.labels[rows], task.scores[rows]))
    values = {name: means(hits[i], task.box_finding) for i, name in enumerate(HITS)}
    values["AUROC"] = aurocs(task.labels, task.scores)
    answers = {}
    for name, replicated in drawn.items():
        low, high = np.nanquantile(np.array(replicated), [0.025, 0.975], axis=0)
        answers[name] = np.stack([values[name], low, high], axis=1)
    seconds["intervals"] = time.process_time() - start
    return answers, seconds


def main() -> None:
    """Times both and compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=1000)
    options = parser.parse_args()
    task = make(options.images)
    with_radtag(task, 2)  # once to load everything
    ours, fast = with_radtag(task, options.replicates)
    theirs, slow = with_a_loop(task, options.replicates)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-9, err_msg=name)
        value, low, high = ours[name][-2]
        print(f"{name:12}  micro {value:.3f} ({low:.3f} to {high:.3f})")
    for part in fast:
        print(f"{part:12}  radtag {fast[part]:8.3f} s  loop {slow[part]:8.3f} s  {slow[part] / fast[part]:6.1f} times")
    total, loop = sum(fast.values()), sum(slow.values())
    print(f"{'all':12}  radtag {total:8.3f} s  loop {loop:8.3f} s  {loop / total:6.1f} times, answers equal")


if __name__ == "__main__":
    main()
