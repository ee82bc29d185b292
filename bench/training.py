"""What the input pipeline costs a training step.

    python bench/training.py [--backbone resnet50] [--method pylon] [--batch 16] [--side 256] [--steps 6] [--rounds 3]

The whole step is the one of ``radtag.train.classify``: images gathered from the memory-mapped cache, brought to the
device, augmented (rotation, crop, flip and tone by the paper's settings), normalised, then forward, loss, backward and
the optimiser. The bare step is forward, loss, backward and the optimiser on one batch that lies ready in memory. Both
alternate in every round. Printed are the images a second of each round, the median and the spread of both, and the
ratio of the medians; the aim is 0.9. The ratio "of work" is that of the processors' time, which other programs on the
machine disturb less than the clock's; it says nothing where a GPU does the work.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from radtag.data import augment
from radtag.data.augment import AugmentOptions
from radtag.data.cache import open_cache
from radtag.models import BackboneOptions, build
from radtag.train.classify import masked_bce
from radtag.train.run import normalise

MEAN, SD = 0.4984, 0.2483


def write_images(folder: Path, count: int, side: int) -> list[Path]:
    """Gray PNGs of smooth noise."""
    random = np.random.default_rng(0)
    files = []
    for i in range(count):
        coarse = PIL.Image.fromarray(random.integers(0, 256, (side // 16, side // 16), dtype=np.uint8))
        files.append(folder / f"{i:04}.png")
        coarse.resize((side, side), PIL.Image.Resampling.BICUBIC).save(files[-1])
    return files


def spread(rates: list[float]) -> str:
    return f"median {statistics.median(rates):.2f} images/s ({min(rates):.2f} to {max(rates):.2f})"


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    return f"{name}, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--method", default="pylon")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--findings", type=int, default=14)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6, help="steps of each kind in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    torch.manual_seed(0)
    backbone = BackboneOptions(name=asked.backbone, weights="none")
    model = build(asked.method, asked.findings, backbone, {}).to(memory_format=torch.channels_last).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    options, positive_weight = AugmentOptions(), torch.ones(asked.findings, device=device)
    labels = (torch.rand(asked.images, asked.findings) < 0.1).float()

    def learn(inputs: torch.Tensor, target: torch.Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=asked.precision == "bf16"):
            output = model(inputs)
        loss = masked_bce(output.logits, target, positive_weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    with tempfile.TemporaryDirectory() as scratch:
        files = write_images(Path(scratch), asked.images, asked.side)
        pixels = open_cache(files, asked.side, "stretch", root=Path(scratch)).pixels
        order = np.random.default_rng(0)
        ready = normalise(torch.rand(asked.batch, asked.side, asked.side, device=device), MEAN, SD, 1)
        ready_target = labels[: asked.batch].to(device)

        def bare(step: int) -> None:
            learn(ready, ready_target)

        def whole(step: int) -> None:
            chosen = order.permutation(asked.images)[: asked.batch]
            warp = augment.draw(len(chosen), options, torch.Generator().manual_seed(step))
            images = torch.from_numpy(pixels[chosen]).to(device, non_blocking=True).float().div_(255)
            images = warp.images(images)
            target = labels[torch.from_numpy(chosen)].to(device)
            learn(normalise(images, MEAN, SD, 1), target)

        def rate(act: Callable[[int], None]) -> tuple[float, float]:
            """Images a second on the clock, and for a second of processors' work."""
            start, work = time.perf_counter(), time.process_time()
            for step in range(asked.steps):
                act(step)
            if device.type == "cuda":
                torch.cuda.synchronize()
            images = asked.steps * asked.batch
            return images / (time.perf_counter() - start), images / (time.process_time() - work)

        print(f"{hardware(device)}, torch {torch.__version__}, precision {asked.precision}")
        print(
            f"{asked.method}, {asked.backbone}, {asked.side} px, batches of {asked.batch}, {asked.steps} steps a round"
        )
        whole(0), bare(0)  # the first ones are slower
        own, bound = [], []
        for _ in range(asked.rounds):
            own.append(rate(whole))
            bound.append(rate(bare))
            ratio, work = (own[-1][i] / bound[-1][i] for i in (0, 1))
            print(f"whole {own[-1][0]:.2f} images/s   bare {bound[-1][0]:.2f}   ratio {ratio:.2f}, of work {work:.2f}")
    print(f"whole step: {spread([clock for clock, _ in own])}")
    print(f"bare step:  {spread([clock for clock, _ in bound])}")
    ratio, work = (statistics.median(r[i] for r in own) / statistics.median(r[i] for r in bound) for i in (0, 1))
    print(f"ratio {ratio:.2f}, of work {work:.2f}")


if __name__ == "__main__":
    main()
