"""Grad-CAM and its kin for any torch model: every finding of a batch in one call, on one absolute scale.

    python explain_any_model.py         # writes out/explained.png

The model is of no library. In a few seconds it learns to tell squares and rings in made-up images that have one, both
or neither.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from radtag import draw
from radtag.metrics import perturbation, points
from radtag.saliency import Explainer

torch.manual_seed(0)
numbers = np.random.default_rng(0)


def made_up() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image (64, 64), labels (2,) of a square on the left and a ring on the right, and masks (2, 64, 64) of them."""
    labels = numbers.integers(2, size=2).astype(np.float32)
    (y, v), (x, u) = np.indices((64, 64))[:, None] - numbers.integers(12, [[52, 52], [20, 20]])[..., None, None]
    masks = np.stack([np.maximum(abs(y), abs(x)) < 7, np.hypot(v, u - 32) < 8])
    shown = masks & (labels == 1)[:, None, None]
    shown[1] &= np.hypot(v, u - 32) > 5
    return numbers.normal(0.3 + 0.4 * shown.any(axis=0), 0.08).astype(np.float32), labels, masks


stages = [
    (nn.Conv2d(i, o, 3, stride=2, padding=1), nn.BatchNorm2d(o), nn.ReLU()) for i, o in ((1, 16), (16, 32), (32, 32))
]
model = nn.Sequential(
    *(part for stage in stages for part in stage), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 2)
)
optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(60):
    images, labels, masks = map(np.stack, zip(*(made_up() for _ in range(32)), strict=True))
    loss = F.binary_cross_entropy_with_logits(model(torch.from_numpy(images[:, None])), torch.from_numpy(labels))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

explainer = Explainer(model, "layercam")  # or gradcam, scorecam, occlusion, rise ...: docs/explaining.md
explained = explainer(torch.from_numpy(images[:8, None]))
# The highest value of a map is the image's score: where the model sees nothing, the map is dark.
maps = F.interpolate(explained.maps(), size=(64, 64), mode="bilinear").numpy()  # image, finding, row, col

present = [(i, k) for i in range(8) for k in range(2) if labels[i, k] == 1]
hits = [points.pointing_hit_mask(maps[i, k], masks[i, k]) for i, k in present]
print(f"layer {explained.layer}: of {len(hits)} squares and rings, {int(np.sum(hits))} maps point at theirs")

# Does the score follow the map? Pixels are put onto the blurred image in the map's order; 1 is the best.
i, k = present[0]


def scores(batch: np.ndarray) -> torch.Tensor:
    """Of images (batch, 64, 64) the finding's probabilities (batch,)."""
    return model.eval()(torch.from_numpy(batch[:, None])).sigmoid()[:, k].detach()


print(f"insertion of the first: {perturbation.insertion(scores, images[i], maps[i, k], steps=16).area:.2f}")

draw.write_picture(Path("out/explained.png"), draw.sheet([draw.overlay(images[i], maps[i, k]) for i, k in present]))
print("-> out/explained.png")
