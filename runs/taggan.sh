#!/usr/bin/env bash
# TagGAN, the guided TagGAN and their rivals on images whose lesions are known to the pixel, or outlined.
#
#   planted   lesions planted in the normal images of COVID-QU-Ex (as runs/planted.sh)
#   phantoms  2,000 phantoms of 128 px
#   covid     COVID-19 against normal, COVID-QU-Ex's own outlines; other pneumonia is on neither side
#
#   COVID=path/to/covid_qu_ex OUT=runs/out/taggan runs/taggan.sh planted phantoms covid
#
# On a CPU as it is (128 px). On a GPU:  SIZE=256 STEPS=20000 BATCH=16 PRECISION=bf16 COVID=... runs/taggan.sh planted covid
# docs/results.md has what it gives and what it costs.
set -euo pipefail
OUT=${OUT:-runs/out/taggan}
SIZE=${SIZE:-128}
STEPS=${STEPS:-1500}
WARM_UP=${WARM_UP:-450}
BATCH=${BATCH:-6}
EPOCHS=${EPOCHS:-12}
PRECISION=${PRECISION:-no}
METHODS=${METHODS:-guided taggan vagan pylon cam_avg}
WEIGHTS=(--backbone tf_efficientnet_lite0 --weights package --size "$SIZE" --mixed-precision "$PRECISION")

for set in "${@:-planted}"; do
    only=()
    case $set in
    planted)
        : "${COVID:?the folder of COVID-QU-Ex}"
        source=csv:$OUT/planted/images/table.csv
        [ -e "$OUT/planted/images/table.csv" ] ||
            radtag data plant "covid_qu_ex:$COVID" --out "$OUT/planted/images" --share 0.5 --seed 0 --times 5
        ;;
    phantoms)
        source=csv:$OUT/phantoms/images/table.csv
        [ -e "$OUT/phantoms/images/table.csv" ] || radtag data phantom --out "$OUT/phantoms/images" --count 2000 --side 128
        ;;
    covid)
        : "${COVID:?the folder of COVID-QU-Ex}"
        source=covid_qu_ex:$COVID
        only=(--finding COVID-19)
        ;;
    esac
    for method in $METHODS; do
        case $method in
        guided | taggan) settings=("$method" --steps "$STEPS" --batch-size "$BATCH" --set "options.warm_up=$WARM_UP") ;;
        vagan) settings=(vagan --steps "$STEPS" --batch-size "$BATCH") ;;
        pylon) settings=(pylon --preset small --epochs "$EPOCHS" --set options.pool=lse --set options.sharpness=2) ;;
        cam_avg) settings=(cam --preset small --epochs "$EPOCHS" --set options.pool=avg) ;; # Grad-CAM's map is this one's
        esac
        radtag train "${settings[0]}" "$source" --out "$OUT/$set/$method" "${WEIGHTS[@]}" "${settings[@]:1}" "${only[@]}"
        radtag evaluate "$OUT/$set/$method" "$source" --out "$OUT/$set/$method/evaluation" "${only[@]}"
    done
done
