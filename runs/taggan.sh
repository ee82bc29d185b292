#!/usr/bin/env bash
# TagGAN, the guided TagGAN and their rivals on images whose lesions are known to the pixel, or outlined.
#
#   planted   lesions planted in the normal images of COVID-QU-Ex (as runs/planted.sh)
#   phantoms  2,000 phantoms of 128 px
#   covid     COVID-19 against normal, COVID-QU-Ex's own outlines; other pneumonia is on neither side
#   joint     one model for COVID-19 and tuberculosis against the normal images of both sources (TB: a folder with the
#             sub-folders normal and tuberculosis); the methods of two sides alone
#
#   COVID=path/to/covid_qu_ex TB=path/to/tb OUT=runs/out/taggan runs/taggan.sh planted phantoms covid joint
#
# With LUNGS=yes every network is shown the lungs alone, as a student of the source's lung masks outlines them (phantoms
# are as they are: an enlarged heart lies outside). With SIGNS=yes guided and taggan are told which way the
# lesions of planted and phantoms go: air in the chest takes density away, all else adds it; and of phantoms, that a
# large heart is the whole heart, unless WHOLE=no. Give runs with and without them an OUT each.
#
# On a CPU as it is (128 px). On a GPU:  SIZE=256 STEPS=20000 BATCH=16 PRECISION=bf16 COVID=... runs/taggan.sh planted covid
# docs/results.md has what it gives and what it costs.
set -euo pipefail
OUT=${OUT:-runs/out/taggan}
SIZE=${SIZE:-128}
STEPS=${STEPS:-2500}
WARM_UP=${WARM_UP:-450}
BATCH=${BATCH:-6}
EPOCHS=${EPOCHS:-12}
PRECISION=${PRECISION:-no}
METHODS=${METHODS:-guided taggan vagan pylon cam_avg}
LUNGS=${LUNGS:-no}
SIGNS=${SIGNS:-no}
WHOLE=${WHOLE:-yes}
WEIGHTS=(--backbone tf_efficientnet_lite0 --weights package --mixed-precision "$PRECISION")
by_kind=(--set options.sign.pneumothorax=removes)
for adds in nodule consolidation effusion; do by_kind+=(--set "options.sign.$adds=adds"); done

for set in "${@:-planted}"; do
    only=() also=() spare=() lungs=() signs=() methods=$METHODS
    case $set in
    planted)
        : "${COVID:?the folder of COVID-QU-Ex}"
        source=csv:$OUT/planted/images/table.csv
        [ -e "$OUT/planted/images/table.csv" ] ||
            radtag data plant "covid_qu_ex:$COVID" --out "$OUT/planted/images" --share 0.5 --seed 0 --times 5
        signs=("${by_kind[@]}")
        ;;
    phantoms)
        source=csv:$OUT/phantoms/images/table.csv
        [ -e "$OUT/phantoms/images/table.csv" ] || radtag data phantom --out "$OUT/phantoms/images" --count 2000 --side 128
        signs=("${by_kind[@]}" --set options.sign.cardiomegaly=adds)
        [ "$WHOLE" = no ] || signs+=(--set options.whole.cardiomegaly=true)
        ;;
    covid)
        : "${COVID:?the folder of COVID-QU-Ex}"
        source=covid_qu_ex:$COVID
        only=(--finding COVID-19)
        spare=(--set options.sparsity=2 --set options.identity=5) # it covers a third of the lungs
        ;;
    joint)
        : "${COVID:?the folder of COVID-QU-Ex}" "${TB:?the folder of normal and tuberculosis}"
        source=covid_qu_ex:$COVID
        also=(--also "folder:$TB")
        only=(--finding COVID-19 --finding tuberculosis)
        spare=(--set options.sparsity=2 --set options.identity=5)
        methods=$(tr ' ' '\n' <<<"$METHODS" | grep -xE 'guided|taggan|vagan' || true) # the others know no normal
        ;;
    *) echo "$set is no set of this script" >&2 && exit 2 ;;
    esac
    [ "$SIGNS" = yes ] || signs=()
    if [ "$LUNGS" = yes ] && [ "$set" != phantoms ]; then
        lungs=(--lungs "$OUT/$set/lungs")
        radtag train student "$source" --finding lungs --out "$OUT/$set/lungs" "${WEIGHTS[@]}" --size 128 --epochs 2
    fi
    for method in $methods; do
        case $method in
        guided | taggan)
            settings=("$method" --steps "$STEPS" --batch-size "$BATCH" --set "options.warm_up=$WARM_UP" ${spare[@]+"${spare[@]}"} ${signs[@]+"${signs[@]}"})
            ;;
        vagan) settings=(vagan --steps "$STEPS" --batch-size "$BATCH") ;;
        pylon) settings=(pylon --preset small --epochs "$EPOCHS" --set options.pool=lse --set options.sharpness=2) ;;
        cam_avg) settings=(cam --preset small --epochs "$EPOCHS" --set options.pool=avg) ;; # Grad-CAM's map is this one's
        *) echo "$method is no method of this script" >&2 && exit 2 ;;
        esac
        radtag train "${settings[0]}" "$source" --out "$OUT/$set/$method" "${WEIGHTS[@]}" --size "$SIZE" "${settings[@]:1}" ${lungs[@]+"${lungs[@]}"} ${also[@]+"${also[@]}"} ${only[@]+"${only[@]}"}
        radtag evaluate "$OUT/$set/$method" "$source" --out "$OUT/$set/$method/evaluation" ${also[@]+"${also[@]}"} ${only[@]+"${only[@]}"}
    done
done
