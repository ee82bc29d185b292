#!/usr/bin/env bash
# Lesions planted in the normal images of COVID-QU-Ex: half of them planted, a fifth held out. The lesion is all that
# tells ill from healthy, and its place is known to the pixel. The training images are planted TIMES times, each time
# with other lesions. docs/results.md has what it gives and what it costs.
#
#   COVID=path/to/covid_qu_ex OUT=runs/out/planted runs/planted.sh
set -euo pipefail
: "${COVID:?the folder of COVID-QU-Ex}"
OUT=${OUT:-runs/out/planted}
METHODS=${METHODS:-pylon cam_max}
TIMES=${TIMES:-5}
EPOCHS=${EPOCHS:-12}
[ -e "$OUT/images/table.csv" ] || radtag data plant "covid_qu_ex:$COVID" --out "$OUT/images" --share 0.5 --seed 0 --times "$TIMES"

for method in $METHODS; do
    case $method in
    pylon) settings=(pylon --set options.pool=lse --set options.sharpness=2) ;;
    pylon_lse5) settings=(pylon --set options.pool=lse --set options.sharpness=5) ;;
    pylon_max) settings=(pylon --set options.pool=max) ;;
    cam_avg) settings=(cam --set options.pool=avg) ;;
    cam_max) settings=(cam --set options.pool=max) ;;
    *) echo "$method is no method of this script" >&2 && exit 2 ;;
    esac
    radtag train "${settings[0]}" "csv:$OUT/images/table.csv" --out "$OUT/$method" --preset small --size 256 \
        --backbone tf_efficientnet_lite0 --weights package --epochs "$EPOCHS" "${settings[@]:1}"
    for grid in measured tiles; do
        [ -e "$OUT/$method/$grid/metrics.json" ] ||
            radtag evaluate "$OUT/$method" "csv:$OUT/images/table.csv" --out "$OUT/$method/$grid" --grid $grid
    done
    [ -e "$OUT/$method/mirrored/metrics.json" ] ||
        radtag evaluate "$OUT/$method" "csv:$OUT/images/table.csv" --out "$OUT/$method/mirrored" --tta flip
done
