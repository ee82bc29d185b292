"""A published checkpoint becomes a run that tags."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import torch

from radtag.calibration import Calibration
from radtag.data.cache import open_cache
from radtag.data.seen import SeenImages
from radtag.data.sources.nih14 import FINDINGS
from radtag.data.table import Dataset
from radtag.errors import BadData, BadRun
from radtag.models import BackboneOptions, build
from radtag.models.checkpoint import read_published_pylon
from radtag.models.evidence import measure_evidence, measure_grid
from radtag.train.loop import predict_maps, start_accelerator
from radtag.train.run import Run, normalise
from radtag.train.settings import TrainSettings

MEAN, SD = 0.4984, 0.2483  # data/transform.py of the authors' code
SIZE_PX = 256


def import_pylon(file: Path | str, out: Path | str, *, calibrate_on: Dataset | None = None) -> Run:
    """Turn the authors' checkpoint (ResNet-50, 14 findings of ChestX-ray14) into a run.

    Args:
        file: the checkpoint.
        out: the run folder to write.
        calibrate_on: images whose ``val`` split calibrates scores, maps and thresholds; without them, scores and maps
            are plain sigmoids, thresholds are 0.5, and the card says so.

    Raises:
        BadData: a file that is not that checkpoint.
        BadRun: ``out`` is a run already.
    """
    out = Path(out)
    if (out / "run.toml").exists():
        raise BadRun(f"{out} is a run already. Give another --out.")
    state = read_published_pylon(file)
    up = "2layer" if "up16.skip.1.0.weight" in state else "1layer"
    settings = TrainSettings(
        method="pylon", options={"up": up}, backbone=BackboneOptions(weights="none"), size_px=SIZE_PX, mean=MEAN, sd=SD
    )
    model = build(settings.method, len(FINDINGS), settings.backbone, settings.options)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise BadData(f"{file} is not the published PYLON (ResNet-50, 1 channel, 14 findings): {detail}") from error
    model = model.to(memory_format=torch.channels_last).eval()

    calibration = Calibration.identity(len(FINDINGS))
    notes = ["Not calibrated: scores and maps are plain sigmoids, thresholds are 0.5. Import with --calibrate-on."]
    if calibrate_on is not None:
        val_set = calibrate_on.only("val").with_findings(FINDINGS)
        cache = open_cache([record.path for record in val_set.records], SIZE_PX, settings.fit)
        labels = val_set.labels()[cache.readable]
        accelerator = start_accelerator("no")
        model = model.to(accelerator.device)
        looked = predict_maps(model, cache.kept, torch.from_numpy(labels), settings, MEAN, SD, accelerator)
        calibration = Calibration.fit(
            looked.logits, looked.maps, labels, findings=FINDINGS, peaks=looked.peaks, kept=looked.kept
        )
        about = f"Calibrated on {len(labels)} validation images of {calibrate_on.name}."
        notes = [about, *looked.notes, *calibration.notes]
        grids = measure_evidence(
            model,
            cache.kept.only(looked.kept),
            lambda pixels: normalise(pixels.float() / 255, MEAN, SD, 1),
            looked.maps,
            labels[looked.kept],
            looks=8,
        )
    else:
        # Without images, noise of natural range shows the network's geometry.
        sample = torch.rand(8, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(0))
        grids = (measure_grid(model, normalise(sample, MEAN, SD, 1), passes=4),) * len(FINDINGS)
    run = Run(
        path=out,
        settings=settings,
        findings=FINDINGS,
        mean=MEAN,
        sd=SD,
        grids=grids,
        calibration=calibration,
        card={
            "method": "pylon",
            "findings": list(FINDINGS),
            "trained_on": "ChestX-ray14, by the authors of PYLON",
            "backbone": settings.backbone.name,
            "weights_from": f"published checkpoint {Path(file).name}",
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "limits": ["For research use; not a medical device.", *notes],
        },
    )
    if calibrate_on is not None:  # what the authors trained on is not known
        out.mkdir(parents=True, exist_ok=True)
        SeenImages.of((), [record.path for record in val_set.records]).write(out)
    run.save(model.state_dict())
    return Run.load(out)
