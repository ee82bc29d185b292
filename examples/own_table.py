"""Your images and your list of findings, as a table that every command reads.

    python own_table.py                 # writes out/mine

Here the images are made up: noise, some with a bright disc, which is the finding "opacity". docs/data/csv.md has every
column there can be.
"""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from radtag.data.check import check
from radtag.data.sources import open_source

folder = Path("out/mine")
(folder / "images").mkdir(parents=True, exist_ok=True)
(folder / "masks").mkdir(exist_ok=True)

numbers = np.random.default_rng(0)
rows, cols = np.mgrid[:80, :64]  # 80 rows, 64 columns

with open(folder / "table.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["image", "patient", "opacity", "mask:opacity", "attr:sex"])
    for i in range(60):
        pixels = numbers.normal(90, 12, rows.shape)
        disc = np.hypot(rows - numbers.integers(15, 65), cols - numbers.integers(15, 49)) < numbers.integers(5, 12)
        ill = i % 3 == 0
        if ill:
            pixels[disc] += 70
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"images/{i:03}.png")
        label = "" if i % 10 == 7 else int(ill)  # nobody knows: blank. It is not the same as 0.
        outlined = ill and i % 2 == 0  # outlines are for measuring only, and need not be of all images
        if outlined:
            Image.fromarray(disc).save(folder / f"masks/{i:03}.png")
        patient = f"patient {i // 2}"  # two images each: a patient's images are never parted into training and test
        mask = f"masks/{i:03}.png" if outlined else ""
        table.writerow([f"images/{i:03}.png", patient, label, mask, "FM"[i % 4 // 2]])

# What is in it, and what is wrong with it? The same: radtag data check csv:out/mine
report = check("csv:out/mine")
print(*report.lines(), sep="\n")
assert report.ok

dataset = open_source("csv:out/mine")
print({split: len(dataset.only(split)) for split in ("train", "val", "test")}, "images of each split")
print("label of the first image:", dataset.records[0].labels[0], "- of the eighth:", dataset.records[7].labels[0])
print("next: radtag train pylon csv:out/mine --out runs/mine --preset small")
