"""What a training step costs when freed memory goes back to the system, and when the process keeps it (radtag.process).

    python bench/memory.py [--backbone tf_efficientnet_lite0] [--side 256] [--batches 8 16 32] [--rounds 2]

Forward pass, backward pass and step of PYLON on random images, on the CPU. Each of the two has a process of its own in
every round, in turns. Printed are milliseconds an image, and the median ratio.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

STEPS = 4


def measure(keep: bool, backbone: str, side: int, batches: list[int]) -> list[float]:
    """Milliseconds an image for each size of batch, and the highest memory in MB."""
    from radtag import process

    if keep and not process.keep_memory():
        raise SystemExit("this C library, or GLIBC_TUNABLES or MALLOC_..., leaves nothing to tell")
    import torch

    from radtag.models import build
    from radtag.train.settings import TrainSettings

    settings = TrainSettings.model_validate(
        {"method": "pylon", "size_px": side, "backbone": {"name": backbone, "weights": "none", "channels": 1}}
    )
    took = []
    for batch in batches:
        torch.manual_seed(0)
        model = build(settings.method, 14, settings.backbone, settings.options).to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(model.train().parameters())
        images, labels = torch.randn(batch, 1, side, side), torch.rand(batch, 14).round()
        for i in range(2 + STEPS):
            if i == 2:  # the first two warm up
                start = time.perf_counter()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images).logits, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        took.append((time.perf_counter() - start) / STEPS / batch * 1e3)
    return [*took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", choices=("given back", "kept"), help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.one == "kept", options.backbone, options.side, options.batches)))
        return
    print("ms an image, by batch" + "".join(f"{batch:8}" for batch in options.batches) + "   highest MB")
    took: dict[str, list[list[float]]] = {"given back": [], "kept": []}
    for _ in range(options.rounds):
        for what, rounds in took.items():
            done = subprocess.run(
                [sys.executable, *sys.argv, "--one", what], stdout=subprocess.PIPE, text=True, check=True
            )
            rounds.append(json.loads(done.stdout))
            print(f"{what:21}" + "".join(f"{value:8.1f}" for value in rounds[-1]), flush=True)
    ratio = np.median(took["given back"], axis=0) / np.median(took["kept"], axis=0)
    print(f"{'given back / kept':21}" + "".join(f"{value:8.2f}" for value in ratio))


if __name__ == "__main__":
    main()
