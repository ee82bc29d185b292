"""What a run outlines, image by image: lungs, for those that are to look at nothing else.

A run that was trained with ``lungs`` keeps the run that outlines them in its own folder, so that it goes wherever the
folder goes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
import uuid
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from radtag import regions
from radtag.data.table import LUNGS
from radtag.errors import BadRun, BadSetting
from radtag.geometry import to_original
from radtag.images import Image
from radtag.models.folded import folded
from radtag.train.run import Run
from radtag.train.settings import Settings

LUNGS_FOLDER = "lungs"
"""Of a run's folder, where it keeps the run that outlines the lungs for it."""

_NEEDED = ("run.toml", "weights.safetensors")


class Outliner:
    """Masks of one finding by a run, image by image, such as of the lungs; safe to call in any thread.

    Args:
        run: that knows the finding.
        finding: what is outlined.
        device: where the network is to be; None = on the GPU, if there is one.

    Attributes:
        digest: of the run.
        name: of the run's folder, with the beginning of its digest, for what is made with the masks.

    Raises:
        BadSetting: the run does not know the finding, or sees the lungs alone itself.
    """

    def __init__(self, run: Run | Path | str, finding: str, device: torch.device | str | None = None) -> None:
        run = Run.load(run) if isinstance(run, str | os.PathLike) else run
        if finding not in run.findings:
            raise BadSetting(f"{run.path} does not know the finding {finding!r}; it knows {', '.join(run.findings)}.")
        if run.settings.lungs is not None:
            raise BadSetting(f"{run.path} is shown the lungs alone, and outlines nothing in a whole image.")
        self._run, self._at = run, run.findings.index(finding)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._model = cheapest(run, self._device)
        self.digest = run_digest(run.path)
        self.name = f"{run.path.name} ({self.digest[:12]})"

    def __call__(self, image: Image) -> NDArray[np.bool_]:
        """Image -> mask (row, col) in its own pixels."""
        run, at = self._run, self._at
        pixels, frame = run.prepare(image)
        with torch.inference_mode():
            output = self._model(run.normalise(torch.from_numpy(pixels[None]).to(self._device)))
        only = run.calibration.only([at])
        cells = only.maps(output.maps[:, [at]].float().cpu().numpy())
        map_ = to_original(cells[0, 0], run.grids[at], frame)
        return regions.find(map_, float(only.mask_threshold[0])).mask


def lungs_for(settings: Settings, out: Path, device: torch.device) -> Outliner | None:
    """What training into a folder confines images to, by its settings; None = nothing.

    A run that has gone since is taken from the folder's copy.

    Raises:
        BadRun, BadSetting: no run, or one that does not outline lungs.
    """
    if settings.lungs is None:
        return None
    gone = not (Path(settings.lungs) / "run.toml").is_file() and (out / LUNGS_FOLDER).is_dir()
    return Outliner(out / LUNGS_FOLDER if gone else settings.lungs, LUNGS, device)


def lungs_of(run: Run, device: torch.device) -> Outliner | None:
    """What a trained run confines images to; None = nothing.

    Raises:
        BadRun: its folder lacks it.
    """
    if run.settings.lungs is None:
        return None
    if not (run.path / LUNGS_FOLDER / "run.toml").is_file():
        raise BadRun(
            f"{run.path} is shown the lungs alone, and its folder lacks {LUNGS_FOLDER}/, the run that outlines them."
            f" Copy that run there (it was {run.settings.lungs})."
        )
    return Outliner(run.path / LUNGS_FOLDER, LUNGS, device)


def keep_lungs(out: Path, settings: Settings) -> None:
    """Copies the run that outlines lungs into the folder of one that needs it, whole or not at all."""
    kept = out / LUNGS_FOLDER
    if settings.lungs is None or not (Path(settings.lungs) / "run.toml").is_file():  # gone: the copy is what there is
        return
    if (kept / "run.toml").is_file() and run_digest(kept) == run_digest(Path(settings.lungs)):  # or is this very folder
        return
    temporary = out / f"{LUNGS_FOLDER}.{uuid.uuid4().hex}.tmp"
    temporary.mkdir(parents=True)
    for name in (*_NEEDED, "card.json", "card.md"):
        shutil.copyfile(Path(settings.lungs) / name, temporary / name)
    shutil.rmtree(kept, ignore_errors=True)  # of a training that was stopped early, with other lungs
    os.replace(temporary, kept)


def run_digest(run: Path) -> str:
    """SHA-256 of what a run's tags depend on."""
    run = Path(run)
    told = tomllib.loads((run / "run.toml").read_text(encoding="utf-8")).get("settings", {})
    folders = [run, *([run / LUNGS_FOLDER] if "lungs" in told else [])]
    digest = hashlib.sha256()
    for name in (folder / needed for folder in folders for needed in _NEEDED):
        with open(name, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def cheapest(run: Run, device: torch.device) -> nn.Module:
    """A run's network on its device, as it is cheapest to run."""
    model = run.build_model().to(device)
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (1, run.size_px, run.size_px), dtype=torch.uint8, generator=random)
    return folded(model, run.normalise(noise.to(device)))
