"""Measure anybody's maps with numpy alone: places, masks, and intervals by patient.

    python metrics_from_numpy.py

Nothing here imports torch, and no file is read. The truth and the two methods' maps are made up: both maps are blobs,
and the second method's lie closer to the lesion.
"""

import numpy as np

from radtag import regions
from radtag.metrics import bootstrap, masks, points

numbers = np.random.default_rng(0)
rows, cols = np.mgrid[:96, :128]  # images need not be square
IMAGES, PATIENTS = 80, 40


def blob(row: float, col: float, spread: float) -> np.ndarray:
    """A map (96, 128), 0-1, highest at (row, col)."""
    return np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / (2 * spread**2))


lesions = [(numbers.uniform(20, 76), numbers.uniform(20, 108), numbers.uniform(5, 12)) for _ in range(IMAGES)]
truth = [np.hypot(rows - row, cols - col) < radius for row, col, radius in lesions]
patient = np.arange(IMAGES) % PATIENTS  # two images each
finding = np.arange(IMAGES) // PATIENTS  # 0 or 1; numbers are taken for each, and for all pairs together


def measured(away_px: float) -> dict[str, np.ndarray]:
    """Per image, the numbers of maps that are off by about so much."""
    maps = [blob(row + numbers.normal(0, away_px), col + numbers.normal(0, away_px), 8) for row, col, _ in lesions]
    return {
        "pointing": np.array([points.pointing_hit_mask(m, t) for m, t in zip(maps, truth, strict=True)]),
        "Dice": np.array([float(masks.overlap(m > 0.5, t).dice) for m, t in zip(maps, truth, strict=True)]),
        "found at equal area": np.array(
            [float(masks.poi_at_matched_area(m, t)) for m, t in zip(maps, truth, strict=True)]
        ),
    }


# One resampling serves every number: a patient is drawn with all images, and both methods have the same draws.
draws = bootstrap.Resampling(patient, replicates=1000, seed=0)
first, second = measured(away_px=8), measured(away_px=4)
for name in first:
    one, two = (bootstrap.mean(values[name], finding, 2, draws) for values in (first, second))
    gap = bootstrap.difference(two, one).estimates().micro
    told = [f"{e.value:.2f} ({e.low:.2f}-{e.high:.2f})" for e in (one.estimates().micro, two.estimates().micro)]
    print(f"{name:20} {told[0]}   {told[1]}   difference {gap.value:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})")

# A map as a mask with boxes: parts above a threshold, the strongest first; half-open x1, y1, x2, y2.
found = regions.find(blob(40, 60, 8) + 0.8 * blob(70, 20, 5), 0.5, min_area_px=20)
print("boxes:", found.boxes_xyxy, "- pixels:", found.area_px)
