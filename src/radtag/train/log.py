"""What a training run writes about itself: the log, the curves, the card."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radtag.data.cache import content_digests
from radtag.data.table import Dataset
from radtag.train.run import write_text
from radtag.train.settings import Settings
from radtag.words import changes, counted


def digest(value: Mapping[str, Any]) -> str:
    """A short name of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def identity(settings: Settings, data: str, lungs_digest: str | None) -> dict[str, Any]:
    """What makes a training the same as another: its settings, what names its data, and the run that outlines lungs.

    That run is the same wherever it lies, and settings are those of before there was such a run, where there is none.
    """
    told = settings.told()
    told.pop("lungs", None)
    return {"settings": told | ({} if lungs_digest is None else {"lungs": lungs_digest}), "data": data}


def otherwise(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How another run's settings and data differ from these, as "other settings (epochs was 4, now 5)."."""
    settings = changes(was["settings"], now["settings"])
    parts = [f"other settings ({settings})"] if settings else []
    if was["data"] != now["data"]:
        parts.append("other data (images, labels, findings or splits)")
    return f"{' and '.join(parts)}."


def fingerprint(*datasets: Dataset) -> str:
    """A short name of what is trained on: images, labels and findings in order."""
    hashed = hashlib.sha256()
    for dataset in datasets:
        hashed.update(json.dumps([dataset.findings, [record.image for record in dataset.records]]).encode())
        hashed.update(dataset.labels().tobytes())
    return hashed.hexdigest()[:16]


def contents(*datasets: Dataset) -> str:
    """A short name of the image files themselves, in order, wherever they lie; masks are not among them."""
    digests = content_digests([record.path for dataset in datasets for record in dataset.records])
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]


def write(out: Path, history: Sequence[Mapping[str, Any]], *, loss: str = "binary cross-entropy") -> None:
    """The whole log again, as JSON lines, CSV and curves; each file is replaced at once. ``loss`` names it."""
    _write_tables(out, history, "epoch")
    draw_curves(out / "curves.png", history, loss)


def write_adversarial(out: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """The same for a game, whose rows are looks at the validation images."""
    _write_tables(out, history, "step")
    draw_adversarial_curves(out / "curves.png", history)


def _write_tables(out: Path, history: Sequence[Mapping[str, Any]], at: str) -> None:
    write_text(out / "log.jsonl", "".join(json.dumps(undefined_as_none(row)) + "\n" for row in history))
    flat = [{key: value for key, value in row.items() if not isinstance(value, Mapping)} for row in history]
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    write_text(out / "log.csv", table.getvalue())
    if find_spec("tensorboard") is not None:
        _tensorboard(out / "tensorboard", flat[-1], at)


def undefined_as_none(value: Any) -> Any:
    """Plain values with None for NaN, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: undefined_as_none(one) for key, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def draw_curves(file: Path, history: Sequence[Mapping[str, Any]], loss: str = "binary cross-entropy") -> None:
    """Losses on the left; on the right the mean AUROC over each finding's."""
    epochs = [row["epoch"] for row in history]
    with _figure(file, columns=2) as (losses, areas):
        losses.plot(epochs, [row["train_loss"] for row in history], marker=".", color="#777777", label="training")
        losses.plot(epochs, [row["val_loss"] for row in history], marker=".", color="#c1440e", label="validation")
        losses.set(xlabel="epoch", ylabel=loss)
        losses.legend(frameon=False)
        _draw_areas(areas, epochs, history, "epoch")


def draw_adversarial_curves(file: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """The losses of each side; what is taken from ill and from healthy images; AUROC of the map's score."""
    steps = [row["step"] for row in history]
    names = [name for name in history[-1] if name.startswith(("critic ", "generator "))]
    with _figure(file, columns=4) as (critics, generators, amounts, areas):
        for name in names:
            side, loss = name.split(" ", 1)
            axes = critics if side == "critic" else generators
            axes.plot(steps, [row.get(name, math.nan) for row in history], marker=".", label=loss)
        for axes, side in ((critics, "critics"), (generators, "generators")):
            axes.set(xlabel="step", ylabel=f"weighted losses of the {side}")
            axes.legend(frameon=False, fontsize="small")
        amounts.plot(steps, [row["map_of_ill"] for row in history], marker=".", color="#c1440e", label="ill")
        amounts.plot(steps, [row["map_of_healthy"] for row in history], marker=".", color="#00467f", label="healthy")
        amounts.set(xlabel="step", ylabel="mean |map| of validation images", ylim=(0, None))
        amounts.legend(frameon=False)
        _draw_areas(areas, steps, history, "step")


def _draw_areas(areas: Any, at: Sequence[int], history: Sequence[Mapping[str, Any]], label: str) -> None:
    for name in history[-1]["val_auroc_of"]:
        areas.plot(at, [row["val_auroc_of"][name] for row in history], color="#b8c4cc", linewidth=0.8)
    areas.plot(at, [row["val_auroc"] for row in history], marker=".", color="#00467f", label="mean over findings")
    areas.plot([], [], color="#b8c4cc", linewidth=0.8, label="each finding")
    areas.set(xlabel=label, ylabel="validation AUROC")
    areas.legend(frameon=False, loc="lower right")


@contextmanager
def _figure(file: Path, *, columns: int) -> Iterator[Any]:
    """Axes side by side, written to the file at the end, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.5 * columns, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, columns)
    yield all_axes
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    temporary = file.with_name(file.name + ".tmp")
    figure.savefig(temporary, dpi=110, format="png")
    temporary.replace(file)


def _tensorboard(folder: Path, row: Mapping[str, Any], at: str) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for key, value in row.items():
            if key != at:
                writer.add_scalar(key, value, row[at])


def validation(history: Sequence[Mapping[str, Any]], keep: str) -> dict[str, Any]:
    """What the card says of a classifier's validation: the numbers of the epoch that was kept."""
    kept = {
        "loss": min(history, key=lambda row: row["val_loss"]),
        "auroc": max(history, key=lambda row: row["val_auroc"]),
        "last": history[-1],
    }[keep]
    return {
        "epochs": len(history),
        "kept_epoch": kept["epoch"],
        "loss": round(kept["val_loss"], 5),
        **_areas(kept),
    }


def adversarial_validation(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of the last look at the validation images; maps in shares of the image's range."""
    return {
        "steps": row["step"],
        **_areas(row),
        "mean_map_of_ill": round(row["map_of_ill"], 6),
        "mean_map_of_healthy": round(row["map_of_healthy"], 6),
    }


def _areas(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "mean_auroc": undefined_as_none(round(row["val_auroc"], 4)),
        "auroc": undefined_as_none({name: round(value, 4) for name, value in row["val_auroc_of"].items()}),
    }


def card(
    *,
    settings: Settings,
    identity: str,
    contents: str,
    train_set: Dataset,
    val_set: Dataset,
    weights_from: str,
    validation: Mapping[str, Any],
    minutes: float,
    failures: Sequence[tuple[str, str]],
    notes: Sequence[str],
    warnings: Sequence[str],
    processes: int,
    device: str,
) -> dict[str, Any]:
    """What data, what numbers, what limits."""
    return {
        "method": settings.method,
        **({"warnings": list(warnings)} if warnings else {}),
        "findings": list(train_set.findings),
        "trained_on": train_set.name,
        "backbone": settings.backbone.name,
        "weights_from": weights_from,
        "identity": identity,
        "contents": contents,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "minutes": round(minutes, 1),
        "hardware": _hardware(device, processes),
        "software": {name: version(name) for name in ("radtag", "torch", "timm", "accelerate", "numpy")},
        "data": {
            "train_images": len(train_set),
            "train_patients": len(set(train_set.patients())),
            "val_images": len(val_set),
            "val_patients": len(set(val_set.patients())),
            "train_positives": _positives(train_set),
            "val_positives": _positives(val_set),
            "unreadable": [f"{path}: {cause}" for path, cause in failures],
            "notes": list(train_set.notes),
        },
        "validation": dict(validation),
        "limits": [
            "For research use; not a medical device.",
            "Learned from image labels alone: no outline of a finding was seen, and a map shows evidence for the "
            "label, which may be something that goes with the disease.",
            *(
                ["It is shown the lungs alone, as the run in its folder lungs/ outlines them."]
                if settings.lungs is not None
                else []
            ),
            "Scores and thresholds are calibrated on the validation images named here; check them on your own.",
            *notes,
        ],
    }


def _positives(dataset: Dataset) -> dict[str, int]:
    return {name: int(np.sum(column == 1)) for name, column in zip(dataset.findings, dataset.labels().T, strict=True)}


def _hardware(device: str, processes: int) -> str:
    if device.startswith("cuda"):
        return f"{processes} x {torch.cuda.get_device_name()}"
    threads = counted(torch.get_num_threads(), "CPU thread[s]")
    return f"{counted(processes, 'process[es]')}, {threads} each, {_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
