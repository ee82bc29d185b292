#!/usr/bin/env bash
# Two runs of the guided TagGAN and a network that one of them teaches, together, on lesions planted in the normal images of
# COVID-QU-Ex: guided learns from the labels, shown the lungs alone and told which way each lesion goes, once in more steps
# and once in fewer; its masks for the training images teach PYLON's network; and what they have learned is heard together,
# with the mirrored image. No outline of a lesion is read but by `evaluate`. docs/results.md has what it gives and costs.
#
#   COVID=path/to/covid_qu_ex OUT=runs/out/together runs/together.sh
#
# On a CPU as it is. On a GPU:  SIZE=256 STUDENT_SIZE=256 STEPS=20000 FEWER=8000 EPOCHS=12 BATCH=16 PRECISION=bf16 COVID=... runs/together.sh
set -euo pipefail
: "${COVID:?the folder of COVID-QU-Ex}"
OUT=${OUT:-runs/out/together}
SIZE=${SIZE:-128} # of guided
STEPS=${STEPS:-3000}
FEWER=${FEWER:-1200} # of its second run
WARM_UP=${WARM_UP:-450}
BATCH=${BATCH:-6}
STUDENT_SIZE=${STUDENT_SIZE:-192}
EPOCHS=${EPOCHS:-5} # of the student
PRECISION=${PRECISION:-no}
WEIGHTS=(--backbone tf_efficientnet_lite0 --weights package --mixed-precision "$PRECISION")
source=csv:$OUT/images/table.csv
[ -e "$OUT/images/table.csv" ] || radtag data plant "covid_qu_ex:$COVID" --out "$OUT/images" --share 0.5 --seed 0 --times 5

# 1. Where lungs are, and guided in them.
radtag train student "$source" --finding lungs --out "$OUT/lungs" "${WEIGHTS[@]}" --size 128 --epochs 2
guided() { # run, steps
    radtag train guided "$source" --out "$1" "${WEIGHTS[@]}" --size "$SIZE" --steps "$2" --batch-size "$BATCH" \
        --lungs "$OUT/lungs" --set "options.warm_up=$WARM_UP" --set options.sign.pneumothorax=removes \
        --set options.sign.nodule=adds --set options.sign.consolidation=adds --set options.sign.effusion=adds
}
guided "$OUT/guided" "$STEPS"
guided "$OUT/fewer" "$FEWER"

# 2. What it proposes, and the network that learns from it.
radtag tag "$OUT/guided" "$source" --as-dataset "$OUT/proposed" --tta flip
radtag train student "csv:$OUT/proposed/table.csv" --out "$OUT/student" "${WEIGHTS[@]}" --size "$STUDENT_SIZE" --epochs "$EPOCHS" \
    --lungs "$OUT/lungs" --set options.architecture=pylon

# 3. Each alone, and together.
score() { # folder, run, what is heard with it
    [ -e "$1/metrics.json" ] || radtag evaluate "$2" "$source" --out "$1" --tta flip "${@:3}"
}
for run in guided fewer student; do
    score "$OUT/$run/evaluation" "$OUT/$run"
done
score "$OUT/two" "$OUT/guided" --with "$OUT/fewer"
score "$OUT/together" "$OUT/guided" --with "$OUT/fewer" --with "$OUT/student"
radtag compare "$OUT"/{guided,fewer,student}/evaluation "$OUT/two" "$OUT/together" --out "$OUT/comparison" \
    --name guided --name "guided, fewer steps" --name "PYLON student" --name "two of guided" --name together
