"""What a step of TagGAN or guided costs beside the networks, how fast its run tags, and how much memory both take.

    python bench/adversarial.py [--method guided taggan] [--size 128] [--batch 6] [--backbone tf_efficientnet_lite0]

The whole step is that of ``radtag.train.adversarial``: batches of both sides drawn from the memory-mapped cache and
augmented, the critics' turn and the generators', each with clipped gradients and its optimiser, the running average,
the losses noted. The bare step is the forward and backward pass of the same losses on one batch that lies ready in
memory, and nothing else. Both alternate in every round, over as many steps of each kind; the aim is that the bare step
is 0.85 of the whole. The ratio "of work" is that of the processors' time, which other programs on the machine disturb
less than the clock's; it says nothing where a GPU does the work.

Tagging is :class:`radtag.tag.Tagger` on PNG files of twice the network's side: decoding, network, and for every image
the map, mask and normal counterpart in original pixels. Memory is the peak of resident memory of a process that does
that alone, ``import`` what it is before anything is loaded.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from rich.console import Console

from radtag.data.cache import open_cache
from radtag.data.table import Dataset, Record
from radtag.models import new_game
from radtag.models.backbone import normalisation
from radtag.models.game import Seen
from radtag.tag import Tagger
from radtag.train.adversarial import Batches, Side, State, play, train
from radtag.train.loop import start_accelerator
from radtag.train.settings import AdversarialSettings, settings_from


def write_images(folder: Path, count: int, side: int) -> list[Path]:
    """Gray PNGs of smooth noise; every other one has a bright disc."""
    random = np.random.default_rng(0)
    rows, cols = np.mgrid[:side, :side]
    files = []
    for i in range(count):
        coarse = PIL.Image.fromarray(random.integers(60, 140, (side // 16, side // 16), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((side, side), PIL.Image.Resampling.BICUBIC)).astype(np.float64)
        if i % 2:
            row, col = random.integers(side // 4, 3 * side // 4, 2)
            pixels += 80 * np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / (side / 12) ** 2)
        files.append(folder / f"{i:04}.png")
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(files[-1])
    return files


def made_settings(method: str, asked: argparse.Namespace, **changes: object) -> AdversarialSettings:
    settings = settings_from(
        "small",
        method=method,
        backbone={"name": asked.backbone, "weights": "none"},
        size_px=asked.size,
        batch_size=asked.batch,
        mixed_precision=asked.precision,
        **changes,
    )
    assert isinstance(settings, AdversarialSettings)
    return settings


def measure_steps(method: str, asked: argparse.Namespace, files: list[Path], scratch: Path) -> None:
    """Prints the ratio of the bare step to the whole, round by round and as medians."""
    settings = made_settings(method, asked)
    accelerator = start_accelerator(settings.mixed_precision)
    torch.manual_seed(0)
    mean, sd = normalisation(settings.backbone)
    game = new_game(method, asked.findings, settings.backbone, settings.options, Seen(mean, sd, 1))
    game = game.to(memory_format=torch.channels_last).to(accelerator.device).train()
    averaged = type(game)(asked.findings, settings.backbone, game.options, Seen(mean, sd, 1)).localiser  # type: ignore[call-arg, arg-type]
    averaged = averaged.to(accelerator.device).requires_grad_(False).eval()
    state = State(game, averaged, settings)
    critics = accelerator.prepare(Side(game.critics, game.critic_terms))
    generators = accelerator.prepare(Side(game.generators, game.generator_terms))
    state.prepare(accelerator)
    state.begin()
    labels = torch.zeros(len(files), asked.findings)
    labels[torch.arange(1, len(files), 2), torch.arange(len(files) // 2) % asked.findings] = 1
    pixels = open_cache(files, asked.size, "stretch", root=scratch).pixels
    batches = Batches(pixels, labels, settings, 0, 1, accelerator.device)
    ready = batches.draw(0, turn=0)

    def whole(step: int) -> None:
        play(game, critics, generators, state, batches, settings.lr, settings, accelerator)

    def bare(step: int) -> None:
        for side, moved, others in ((critics, game.critics, True), (generators, game.generators, False)):
            game.critics.requires_grad_(others)
            terms = side(ready, step)
            accelerator.backward(torch.stack([value.float() for value in terms.values()]).sum())
            moved.zero_grad(set_to_none=True)

    def seconds(act: Callable[[int], None]) -> tuple[float, float]:
        """A step on the clock, and of processors' work."""
        start, work = time.perf_counter(), time.process_time()
        for step in range(asked.steps):
            act(step)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / asked.steps, (time.process_time() - work) / asked.steps

    whole(0), bare(0), whole(0), bare(0)  # the first ones are slower
    state.step = 0
    own, bound = [], []
    for _ in range(asked.rounds):
        own.append(seconds(whole))
        bound.append(seconds(bare))
        clock, work = (bound[-1][i] / own[-1][i] for i in (0, 1))
        print(f"  whole {own[-1][0]:.3f} s a step   bare {bound[-1][0]:.3f}   ratio {clock:.2f}, of work {work:.2f}")
    medians = [[statistics.median(one[i] for one in times) for times in (own, bound)] for i in (0, 1)]
    (clock, bare_clock), (work, bare_work) = medians
    print(
        f"{method}: whole {clock:.3f} s a step ({2 * asked.batch / clock:.1f} images/s), bare {bare_clock:.3f}:"
        f" ratio {bare_clock / clock:.2f}, of work {bare_work / work:.2f}"
    )


def peak_mib() -> float:
    """Of this process's resident memory, so far."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says may be its parent's
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def act_alone(method: str, what: str, folder: Path, asked: argparse.Namespace) -> None:
    """Trains, or tags, and prints as JSON what that took; in a process of its own."""
    first = peak_mib()
    if what == "train":
        files = sorted((folder / "small").iterdir())
        names = tuple(f"finding {i}" for i in range(asked.findings))
        records = tuple(
            Record(
                file.name,
                file,
                tuple(float(i % 2 and i // 2 % len(names) == j) for j in range(len(names))),
                split="val" if i % 8 < 2 * len(names) and i < len(files) // 4 else "train",
            )
            for i, file in enumerate(files)
        )
        settings = made_settings(method, asked, steps=8, look_every=8, options={"warm_up": 4})
        train(settings, Dataset("noise", names, records), folder / method, console=Console(quiet=True))
        print(json.dumps({"import": first, "peak": peak_mib()}))
        return
    tagger = Tagger.load(folder / method, batch_size=asked.tag_batch)
    files = [str(file) for file in sorted((folder / "large").iterdir())]
    list(tagger.tag(files[: asked.tag_batch]))
    start, work = time.perf_counter(), time.process_time()
    for tag in tagger.tag(files):
        tag.map, tag.mask, tag.counterpart  # noqa: B018
    took = time.perf_counter() - start, time.process_time() - work
    rates = [len(files) / one for one in took]
    print(json.dumps({"import": first, "peak": peak_mib(), "rate": rates[0], "rate_of_work": rates[1]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", default=["guided", "taggan"])
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=6, help="ill images a step, and as many healthy ones")
    parser.add_argument("--tag-batch", type=int, default=8)
    parser.add_argument("--findings", type=int, default=2)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="of each kind in a round; a multiple of options.every")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    parser.add_argument("--alone", nargs=2, metavar=("WHAT", "DIR"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone is not None:
        act_alone(asked.method[0], asked.alone[0], Path(asked.alone[1]), asked)
        return
    print(f"{asked.backbone}, {asked.size} px, {asked.batch} + {asked.batch} images a step, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, side in (("small", asked.size), ("large", 2 * asked.size)):
            (folder / name).mkdir()
            write_images(folder / name, asked.images, side)
        for method in asked.method:
            measure_steps(method, asked, sorted((folder / "small").iterdir()), folder / "cache")
            for what in ("train", "tag"):
                given = [word for word in sys.argv[1:] if word not in asked.method and word != "--method"]
                command = [sys.executable, __file__, *given, "--method", method, "--alone", what, str(folder)]
                done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                rate = ""
                if what == "tag":
                    rate = f"{done['rate']:.1f} images/s, {done['rate_of_work']:.1f} a second of processor time; "
                print(f"{method}, {what}: {rate}peak memory {done['peak']:.0f} MiB ({done['import']:.0f} on import)")


if __name__ == "__main__":
    main()
