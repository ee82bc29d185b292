#!/usr/bin/env bash
# PYLON, the guided TagGAN and TagGAN together, on lesions planted in the normal images of COVID-QU-Ex: each learns from the
# labels alone; their joint maps propose masks for the training images; and one network, PYLON's own, learns from these.
# docs/results.md has what it gives and what it costs.
#
#   COVID=path/to/covid_qu_ex OUT=runs/out/together runs/together.sh
#
# On a CPU as it is. On a GPU:  SIZE=256 STEPS=20000 BATCH=16 PRECISION=bf16 COVID=... runs/together.sh
set -euo pipefail
: "${COVID:?the folder of COVID-QU-Ex}"
OUT=${OUT:-runs/out/together}
SIZE=${SIZE:-128} # of the two games
STEPS=${STEPS:-2500}
WARM_UP=${WARM_UP:-450}
BATCH=${BATCH:-6}
PRECISION=${PRECISION:-no}
WEIGHTS=(--backbone tf_efficientnet_lite0 --weights package --mixed-precision "$PRECISION")
source=csv:$OUT/images/table.csv
[ -e "$OUT/images/table.csv" ] || radtag data plant "covid_qu_ex:$COVID" --out "$OUT/images" --share 0.5 --seed 0 --times 5

# 1. Three that learn from labels.
radtag train pylon "$source" --out "$OUT/pylon" "${WEIGHTS[@]}" --size 256 --preset small --epochs 12 \
    --set options.pool=lse --set options.sharpness=2
for method in guided taggan; do
    radtag train $method "$source" --out "$OUT/$method" "${WEIGHTS[@]}" --size "$SIZE" --steps "$STEPS" \
        --batch-size "$BATCH" --set "options.warm_up=$WARM_UP"
done
together=("$OUT/guided" "$source" --with "$OUT/taggan" --with "$OUT/pylon")
radtag evaluate "${together[@]}" --out "$OUT/together"

# 2. What they propose together, and networks that learn from it.
radtag tag "${together[@]}" --as-dataset "$OUT/proposed"
radtag train student "csv:$OUT/proposed" --out "$OUT/unet" "${WEIGHTS[@]}" --size 128 --epochs 8
radtag train student "csv:$OUT/proposed" --out "$OUT/student" "${WEIGHTS[@]}" --size 256 --epochs 8 \
    --set options.architecture=pylon
for run in pylon guided taggan unet student; do
    [ -e "$OUT/$run/evaluation/metrics.json" ] || radtag evaluate "$OUT/$run" "$source" --out "$OUT/$run/evaluation"
done
radtag compare "$OUT/pylon/evaluation" "$OUT"/{guided,taggan,unet,student}/evaluation "$OUT/together" --out "$OUT/comparison" \
    --name PYLON --name guided --name TagGAN --name "U-Net student" --name "PYLON student" --name together
