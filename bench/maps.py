"""All maps of a batch in one forward pass, against Grad-CAM's one call a finding.

    python bench/maps.py [--backbone resnet50] [--batch 8] [--side 256] [--findings 14] [--rounds 3]

PYLON gives the maps of every finding at once. Grad-CAM, as most people use it (the package ``grad-cam``, class
GradCAM), takes one target an image, so every finding costs a forward and a backward pass; its classifier here is our
CAM network of the same backbone, explained at the coarsest feature. Both run on the CPU in one process, one
after another in every round, with random weights, which cost the same as trained ones. Printed are the seconds of each
round, the median and the spread of both, and the ratio of the medians; the aim is 30. The ratio "of work" is that of
the processors' time, which other programs on the machine disturb less than the clock's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from radtag.models import BackboneOptions, build


class Classifier(nn.Module):
    """CAM's network as the package wants it: images in, logits out, and a layer to look at."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.coarsest = nn.Identity()  # the backbone's last feature, the layer that Grad-CAM's authors recommend

    def forward(self, images: Tensor) -> Tensor:
        return self.model.head(self.coarsest(self.model.backbone(images)[-1])).mean(dim=(2, 3))


def arguments(description: str | None) -> argparse.Namespace:
    """What is asked of a comparison of maps: of which network, how many, how often."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--findings", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def seconds(act: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of processors' work."""
    start, work = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - start, time.process_time() - work


def spread(times: list[float]) -> str:
    return f"median {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def main() -> None:
    asked = arguments(__doc__)
    torch.manual_seed(0)
    backbone = BackboneOptions(name=asked.backbone, weights="none")
    images = torch.rand(asked.batch, 1, asked.side, asked.side).contiguous(memory_format=torch.channels_last)

    pylon = build("pylon", asked.findings, backbone, {}).to(memory_format=torch.channels_last).eval()
    classifier = Classifier(build("cam", asked.findings, backbone, {})).to(memory_format=torch.channels_last).eval()

    def ours() -> Tensor:
        with torch.inference_mode():
            return pylon(images).maps

    def theirs() -> None:
        with GradCAM(model=classifier, target_layers=[classifier.coarsest]) as explainer:
            for finding in range(asked.findings):
                maps = explainer(input_tensor=images, targets=[ClassifierOutputTarget(finding)] * asked.batch)
                assert maps.shape == (asked.batch, asked.side, asked.side)

    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{asked.findings} maps of {asked.batch} images of {asked.side} px, {asked.backbone}")
    shape = tuple(ours().shape)  # also the first call, which is slower
    assert shape[:2] == (asked.batch, asked.findings)
    own, other = [], []
    for _ in range(asked.rounds):
        own.append(min(seconds(ours), seconds(ours)))
        other.append(seconds(theirs))
        ratio, work = (other[-1][i] / own[-1][i] for i in (0, 1))
        print(f"PYLON {own[-1][0]:.2f} s   Grad-CAM {other[-1][0]:.2f} s   ratio {ratio:.1f}, of work {work:.1f}")
    print(f"PYLON, maps of {shape[2]} x {shape[3]} cells: {spread([clock for clock, _ in own])}")
    print(f"Grad-CAM, {asked.findings} calls: {spread([clock for clock, _ in other])}")
    ratio, work = (statistics.median(t[i] for t in other) / statistics.median(t[i] for t in own) for i in (0, 1))
    print(f"ratio {ratio:.1f}, of work {work:.1f}")


if __name__ == "__main__":
    main()
