#!/usr/bin/env bash
# ChestX-ray14 by four folds: CAM (average), CAM (max) and PYLON, trained on labels, scored on boxes. docs/results.md has
# what it gives and what it costs.
#
#   NIH14=path/to/nih14 COVID=path/to/covid_qu_ex OUT=runs/out/nih14 runs/nih14.sh
#
# FOLDS and METHODS choose a part, so that several processes can share the work. Every step that is done is passed over.
set -euo pipefail
: "${NIH14:?the folder of Data_Entry_2017_v2020.csv and folds.csv}" "${COVID:?the folder of COVID-QU-Ex}"
OUT=${OUT:-runs/out/nih14}
FOLDS=${FOLDS:-0 1 2 3}
METHODS=${METHODS:-pylon cam_max cam_avg}
mkdir -p "$OUT"

# Planted lesions under the names of ChestX-ray14's findings, with a blank where a radiologist could call it either way.
kinds=(
    --kind nodule --name nodule=Nodule --unsure nodule=Mass
    --kind mass --name mass=Mass --unsure mass=Nodule
    --kind consolidation --name consolidation=Infiltration+Pneumonia+Consolidation
    --unsure consolidation=Atelectasis+Mass+Edema
    --kind atelectasis --name atelectasis=Atelectasis --unsure atelectasis=Infiltration+Fibrosis
    --kind effusion --name effusion=Effusion --unsure effusion=Atelectasis+Pleural_Thickening
    --kind pneumothorax --name pneumothorax=Pneumothorax --unsure pneumothorax=Emphysema
)
network=(--preset small --backbone tf_efficientnet_lite0 --weights package --size 256)

planted() { # NAME SOURCE SEED SHARE [more]: a planted set, once
    [ -e "$OUT/planted/$1/table.csv" ] ||
        radtag data plant "$2" --out "$OUT/planted/$1" --seed "$3" --share "$4" "${@:5}" "${kinds[@]}"
}

# 1. Learn what local evidence looks like, on planted lesions alone: healthy images of another source, three times each.
for seed in 9 10 11; do planted "covid$seed" "covid_qu_ex:$COVID" "$seed" 0.7; done
radtag train pylon "csv:$OUT/planted/covid9/table.csv" \
    --also "csv:$OUT/planted/covid10/table.csv" --also "csv:$OUT/planted/covid11/table.csv" \
    --out "$OUT/planted_first" "${network[@]}" --epochs 7 --set options.pool=lse --set options.sharpness=5

# 2. Each method on each fold: its labels, and planted lesions in its own healthy training images.
for fold in $FOLDS; do
    planted "fold$fold" "nih14:$NIH14?fold=$fold" "$fold" 0.6 --only train
    for method in $METHODS; do
        case $method in
        pylon) settings=(pylon --set options.pool=lse --set options.sharpness=5) ;;
        pylon_max) settings=(pylon --set options.pool=max) ;;
        cam_avg) settings=(cam --set options.pool=avg) ;;
        cam_max) settings=(cam --set options.pool=max) ;;
        esac
        run=$OUT/$method/fold$fold
        radtag train "${settings[0]}" "nih14:$NIH14?fold=$fold" --also "csv:$OUT/planted/fold$fold/table.csv" \
            --out "$run" "${network[@]}" "${settings[@]:1}" --start-from "$OUT/planted_first" --epochs 5 --batch-size 8 --lr 4e-4
        for grid in measured tiles; do
            [ -e "$run/$grid/metrics.json" ] ||
                radtag evaluate "$run" "nih14:$NIH14?fold=$fold" --out "$run/$grid" --grid $grid
        done
        [ -e "$run/mirrored/metrics.json" ] ||
            radtag evaluate "$run" "nih14:$NIH14?fold=$fold" --out "$run/mirrored" --tta flip
    done
done
