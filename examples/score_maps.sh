#!/usr/bin/env bash
# Score maps that somebody else's program made: a folder of files, FINDING/NAME.png (.npy, .nii.gz, .pkl).
#
#   bash score_maps.sh        # writes out/scored
#
# The maps are made up here from drawn radiographs whose lesions are known: the true outline, blurred and moved, by 3
# pixels for one method and by 9 for the other, on a floor of noise.
set -euo pipefail
mkdir -p out/scored
cd out/scored
[ -e phantoms/table.csv ] || radtag data phantom --out phantoms --count 120 --side 64

python - <<'PYTHON'
from pathlib import Path

import numpy as np
from scipy import ndimage

import radtag
from radtag.data.sources import open_source
from radtag.images import read_mask

numbers = np.random.default_rng(0)
for record in open_source("csv:phantoms").records:
    size_rc = radtag.read(record.path).size_rc
    for method, moved_px in {"near": 3, "far": 9}.items():
        for finding in ("consolidation", "effusion"):
            values = 0.5 * ndimage.gaussian_filter(numbers.random(size_rc), 3)  # about 0.25, everywhere
            if finding in record.masks:
                blurred = ndimage.gaussian_filter(np.float32(read_mask(record.masks[finding])), 3)
                values = np.maximum(values, np.roll(blurred, moved_px, axis=1))
            file = Path(f"maps/{method}/{finding}/{record.path.stem}.npy")
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, values)
PYTHON

# Thresholds of scores and of masks are chosen on the validation images, and numbers are of the test images.
for method in near far; do
    radtag score maps/$method csv:phantoms --out $method --finding consolidation --finding effusion \
        --thresholds-from maps/$method csv:phantoms --bootstraps 200
done
radtag compare far near --name far --name near --bootstraps 200
