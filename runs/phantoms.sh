#!/usr/bin/env bash
# Two thousand phantoms, labels only: PYLON and CAM (max) with ImageNet weights. docs/results.md has what it gives and
# what it costs.
#
#   OUT=runs/out/phantoms runs/phantoms.sh
set -euo pipefail
OUT=${OUT:-runs/out/phantoms}
EPOCHS=${EPOCHS:-12}

for method in pylon cam_max; do
    case $method in
    pylon) settings=(pylon --set options.pool=lse --set options.sharpness=5) ;;
    cam_max) settings=(cam --set options.pool=max) ;;
    esac
    radtag train "${settings[0]}" phantom:2000 --out "$OUT/$method" --preset small --size 256 \
        --backbone tf_efficientnet_lite0 --weights package --epochs "$EPOCHS" "${settings[@]:1}"
    for grid in measured tiles; do
        [ -e "$OUT/$method/$grid/metrics.json" ] ||
            radtag evaluate "$OUT/$method" phantom:2000 --out "$OUT/$method/$grid" --grid $grid
    done
done
