"""CheXlocalize, MaxBoxAcc, FROC, COCO's average precision and boundary distances against other people's evaluators.

What is not here: OpenCV's cubic resizing (`wsol.box.cubic224`); surface-distance's corner points weighed by contour
length (`surface.deepmind.*`, MONAI's subvoxels) and SimpleITK's distances over all pixels, which are other definitions;
VA-GAN's NCC without the mean taken away, which is not bounded; torchmetrics' Hausdorff distance on images that are not
square, which is wrong.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from radtag.geometry import boxes_to_mask
from radtag.metrics import (
    bootstrap,
    boundaries,
    chexlocalize,
    classification,
    detections,
    froc,
    masks,
    pixels,
    points,
    wsol,
)
from radtag.metrics.resize import bilinear

nan = float("nan")
SPACING_MM = (0.5, 0.8)


def map_of(pair, source: str) -> np.ndarray:
    """The map as cheXlocalize was fed it."""
    return pair.map if source == "fullmap" else bilinear(pair.logits, pair.map.shape)


# ---- CheXlocalize --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["fullmap", "lowres"])
def test_chexlocalize_tunes_the_same_thresholds(golden, source) -> None:
    expected = golden.values(f"chexlocalize.tuned_threshold.{source}")
    for i, name in enumerate(golden.findings):
        pairs = [(map_of(pair, source), pair.mask) for pair in golden.pairs if pair.finding == i]
        assert chexlocalize.best_threshold(pairs) == pytest.approx(expected[name])


@pytest.mark.parametrize("source", ["fullmap", "lowres"])
@pytest.mark.parametrize("rule", ["otsu", "fixed0.5", "tuned"])
def test_chexlocalize_masks_and_miou(golden, source, rule) -> None:
    areas = golden.values(f"chexlocalize.segmentation_area.{source}.{rule}")
    tuned = golden.values(f"chexlocalize.tuned_threshold.{source}")
    ious: dict[str, dict[str, float]] = {"true_positive_only": {}, "all": {}}
    for pair in golden.pairs:
        cut = {"otsu": "otsu", "fixed0.5": 0.5, "tuned": tuned[golden.findings[pair.finding]]}[rule]
        mask = chexlocalize.segmentation(map_of(pair, source), cut)
        assert np.count_nonzero(mask) == areas[pair.key], pair.key
        for name, over in (("true_positive_only", "true_positives"), ("all", "all")):
            ious[name][pair.key] = float(chexlocalize.mask_iou(mask, pair.mask, over=over))
    for name, found in ious.items():
        expected = golden.values(f"chexlocalize.miou.{source}.{rule}.{name}")
        for pair in golden.pairs:
            want = float(expected["per_pair"].get(pair.key, nan))
            assert found[pair.key] == pytest.approx(want, abs=1e-9, nan_ok=True), pair.key
        for i, finding in enumerate(golden.findings):
            values = [found[pair.key] for pair in golden.pairs if pair.finding == i]
            assert np.nanmean(values) == pytest.approx(expected["per_finding"][finding]["sample_mean"], abs=1e-9)
            assert np.count_nonzero(~np.isnan(values)) == expected["per_finding"][finding]["n"]


def test_chexlocalize_hit_rate_of_maps_it_resizes(golden) -> None:
    expected = golden.values("chexlocalize.hitrate.lowres")
    for i, finding in enumerate(golden.findings):
        own = [pair for pair in golden.pairs if pair.finding == i]
        hits = [points.pointing_hit_mask(map_of(pair, "lowres"), pair.mask) for pair in own]
        assert np.nanmean(hits) == expected["per_finding"][finding]["sample_mean"]


@pytest.mark.parametrize("source", ["fullmap", "lowres"])
def test_chexlocalize_pools_pixels_for_precision_and_recall(golden, source) -> None:
    expected = golden.values(f"chexlocalize.pixel_precision_recall.{source}.fixed0.5")
    for i, finding in enumerate(golden.findings):
        own = [pair for pair in golden.pairs if pair.finding == i]
        counts = [masks.overlap(chexlocalize.segmentation(map_of(pair, source), 0.5), pair.mask) for pair in own]
        shared, predicted, true = (
            sum(int(getattr(one, name)) for one in counts) for name in ("shared_px", "predicted_px", "true_px")
        )
        want = expected[finding]
        assert (shared, predicted, true) == (want["tp"], want["tp"] + want["fp"], want["tp"] + want["fn"])
        pooled = masks.MaskOverlap(*(np.array(one) for one in (shared, predicted, true)))
        assert (pooled.precision, pooled.poi) == pytest.approx((want["precision"], want["recall"]), abs=1e-9)


def test_otsu_level_is_that_of_opencv_and_scikit_image(golden) -> None:
    from radtag.regions import otsu_level

    expected = golden.values("otsu.cv2_level.fullmap")
    also = golden.values("otsu.skimage_level.fullmap")["same_uint8_image"]
    for pair in golden.pairs:
        if np.ptp(pair.map) > 0:
            levels = (np.float32(255) * chexlocalize.stretched(pair.map)).astype(np.uint8)
            assert otsu_level(levels) == expected[pair.key] == also[pair.key]


# ---- wsolevaluation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frame", "contours"), [("native", "largest"), ("native", "all"), ("bilinear224", "all")])
def test_max_box_acc(golden, frame, contours) -> None:
    kind = {"largest": "largest_contour", "all": "multi_contour"}[contours]
    expected = golden.values(f"wsol.box.{frame}.{kind}.step0.01")
    # Of two findings, in the large frame of one: 100 masks a map take their time.
    pairs = [pair for pair in golden.annotated if pair.finding == 1 or (frame == "native" and pair.finding == 3)]
    if frame == "native":
        maps, boxes = [pair.map for pair in pairs], [pair.boxes_xyxy for pair in pairs]
    else:
        maps = [pair_224(pair) for pair in pairs]
        # Their code cuts true boxes to whole pixels before it scales them.
        sides = [np.array([224 / pair.map.shape[1], 224 / pair.map.shape[0]] * 2) for pair in pairs]
        boxes = [np.trunc(pair.boxes_xyxy) * side for pair, side in zip(pairs, sides, strict=True)]
    together = wsol.box_accuracy(maps, boxes, contours=contours)
    for name, own in golden.groups(pairs):
        if not own or name == "pooled":
            continue
        at = [i for i, pair in enumerate(pairs) if any(pair is one for one in own)]
        found, want = wsol.BoxAccuracy(together.iou[at], together.thresholds), expected[name]
        for percent in (30, 50, 70):
            assert 100 * found.accuracy(percent / 100) == pytest.approx(want[f"iou{percent}"], abs=1e-9)
            assert found.best_threshold(percent / 100) == pytest.approx(want["best_threshold"][str(percent)])
        assert 100 * found.v2() == pytest.approx(want["mean"], abs=1e-9)


def pair_224(pair) -> np.ndarray:
    """Its normalize_scoremap of the upsampled sigmoid, float64."""
    import torch

    grown = bilinear(torch.sigmoid(torch.from_numpy(pair.logits)).numpy(), (224, 224)).astype(np.float64)
    low, high = grown.min(), grown.max()
    return (grown - low) / (high - low) if high > low else np.zeros_like(grown)


def test_contour_boxes(golden) -> None:
    expected = golden.values("wsol.boxes_from_map.native")
    checked = 0
    for pair in golden.annotated:
        levels = (255 * pair.map.astype(np.float64)).astype(np.uint8)
        for threshold in (0.2, 0.5):
            for kind in ("largest", "all"):
                want = expected[pair.key][f"t{threshold}_{kind}"]
                boxes = wsol.contour_boxes(levels > int(threshold * levels.max()), kind)
                assert sorted(boxes.tolist()) == want["boxes_x0y0x1y1"]
                iou = wsol.inclusive_iou(boxes, np.trunc(pair.boxes_xyxy)).max()
                assert iou == pytest.approx(want["best_iou"], abs=1e-9)
                checked += 1
    assert checked == 160


def test_pxap_in_the_frame_of_224(golden) -> None:
    expected = golden.values("wsol.pxap.bilinear224.annotated.step0.01")
    for name, pairs in golden.groups(golden.annotated):
        histogram = pixels.PixelHistogram(np.append(np.arange(0, 1, 0.01), 1))
        for pair in pairs:
            # OpenCV's nearest pixel, with its rounding.
            rows, cols = (np.floor(np.arange(224) * (1 / (224 / side))).astype(int) for side in pair.map.shape)
            histogram.update(pair_224(pair), pair.mask[np.ix_(rows, cols)])
        # A value of the upsampled map may lie on the other side of a level by its rounding.
        assert 100 * histogram.average_precision() == pytest.approx(expected[name], abs=1e-4)


# ---- detections ----------------------------------------------------------------------------------------------------


def evaluable(golden):
    for name, pairs in golden.groups([pair for pair in golden.pairs if pair.evaluable]):
        yield name, pairs, [detections.detections(pair.map, 0.5) for pair in pairs]


def gathered(kinds, found):
    return np.concatenate(kinds), np.concatenate([one.scores for one in found])


@pytest.mark.parametrize("iou", [0.1, 0.25, 0.3, 0.5, 0.75])
def test_coco_average_precision(golden, iou) -> None:
    ours, nndet = {}, golden.values("nndetection.coco_ap")
    for name, pairs, found in evaluable(golden):
        kinds = [
            froc.match_boxes(one.boxes_xyxy, one.scores, pair.boxes_xyxy, iou)
            for one, pair in zip(found, pairs, strict=True)
        ]
        ours[name] = froc.average_precision(
            *gathered(kinds, found), lesions=sum(len(pair.boxes_xyxy) for pair in pairs)
        )
    expected = golden.values("coco.pycocotools")[str(iou)]
    for name in golden.findings:
        assert ours[name] == pytest.approx(expected["per_finding"][name], abs=1e-9)
        key = f"{name}_AP_IoU_{iou:.2f}_MaxDet_100"
        assert key not in nndet or ours[name] == pytest.approx(nndet[key], abs=1e-9)
        torch_value = golden.values("coco.torchmetrics_map")["by_iou"][str(iou)]["per_finding"][name]
        assert ours[name] == pytest.approx(torch_value, abs=1e-2)  # its recall grid is float32
    assert np.mean([ours[name] for name in golden.findings]) == pytest.approx(expected["map"], abs=1e-9)


@pytest.mark.parametrize("iou", [0.3, 0.5])
def test_the_values_that_intervals_are_of_are_the_same(golden, iou) -> None:
    pairs = [pair for pair in golden.pairs if pair.evaluable]
    found = [detections.detections(pair.map, 0.5) for pair in pairs]
    kinds = [
        froc.match_boxes(one.boxes_xyxy, one.scores, pair.boxes_xyxy, iou)
        for one, pair in zip(found, pairs, strict=True)
    ]
    cases = froc.Cases(
        *gathered(kinds, found),
        np.repeat(np.arange(len(pairs)), [len(one) for one in found]),
        np.array([len(pair.boxes_xyxy) for pair in pairs]),
        np.array([pair.finding for pair in pairs]),
    )
    resampling = bootstrap.Resampling([pair.patient for pair in pairs], replicates=50)
    precision = bootstrap.detection_precision(cases, len(golden.findings), resampling)
    expected = golden.values("coco.pycocotools")[str(iou)]
    for i, name in enumerate(golden.findings):
        assert precision.value[i] == pytest.approx(expected["per_finding"][name], abs=1e-9)
    assert precision.estimates().macro.value == pytest.approx(expected["map"], abs=1e-9)
    rates = bootstrap.froc(cases, len(golden.findings), resampling)
    for i in range(len(golden.findings)):
        np.testing.assert_allclose([one.value[i] for one in rates], cases.of(i).at(), atol=1e-12)


@pytest.mark.parametrize("iou", ["0.10", "0.30", "0.50"])
def test_froc_of_nndetection(golden, iou) -> None:
    expected = golden.values("nndetection.froc")
    for name, pairs, found in evaluable(golden):
        if name == "pooled":  # it averages the findings there
            continue
        kinds = [
            froc.match_boxes(one.boxes_xyxy, one.scores, pair.boxes_xyxy, float(iou))
            for one, pair in zip(found, pairs, strict=True)
        ]
        lesions = sum(len(pair.boxes_xyxy) for pair in pairs)
        drawn = froc.curve(*gathered(kinds, found), lesions=lesions, images=len(pairs))
        want = expected[name]
        assert len(pairs) == want["n_images"]
        np.testing.assert_allclose(drawn.at(read="linear"), want["curves"][f"FROC_curve_IoU_{iou}"], atol=1e-9)
        assert drawn.score(read="linear") == pytest.approx(want["scores"][f"FROC_score_IoU_{iou}"], abs=1e-9)


@pytest.mark.parametrize("truth", ["boxes", "mask"])
def test_froc_of_monai(golden, truth) -> None:
    expected = golden.values(f"monai.froc.{truth}")
    for name, pairs, found in evaluable(golden):
        kinds, lesions = [], 0
        for one, pair in zip(found, pairs, strict=True):
            on = np.zeros(pair.map.shape, dtype=int)
            if truth == "boxes":
                for k, box in enumerate(pair.boxes_xyxy, start=1):
                    on[boxes_to_mask(box[None], pair.map.shape)] = k
            else:
                on = pair.instances.astype(int)
            lesions += int(on.max())
            kinds.append(froc.match_points(on[one.peaks_rc[:, 0], one.peaks_rc[:, 1]], one.scores))
        drawn = froc.curve(*gathered(kinds, found), lesions=lesions, images=len(pairs))
        want = expected[name]
        assert lesions == want["n_targets"]
        assert sum(int((one == froc.FALSE).sum()) for one in kinds) == want["n_fp"]
        assert sum(int((one == froc.HIT).sum()) for one in kinds) == want["n_hit"]
        for rate, value in want["sensitivity_at"].items():
            assert drawn.at([float(rate)], read="linear")[0] == pytest.approx(value, abs=1e-6)
        assert drawn.score((0.25, 0.5, 1, 2, 4, 8), read="linear") == pytest.approx(want["score"], abs=1e-6)


def test_the_lowest_score_is_an_operating_point_of_ours_and_none_of_monais(golden) -> None:
    want = golden.values("monai.froc.edge")["all_lesions_hit"]
    scores, kinds = [0.9, 0.6, 0.3], [froc.HIT, froc.HIT, froc.FALSE]
    drawn = froc.curve(kinds, scores, lesions=2, images=2)
    assert drawn.false_per_image.tolist() == [0, 0, 0.5]
    assert max(want["fps_per_image"]) == 0


def test_froc_of_picai_by_pixels(golden) -> None:
    """Its matching of components to lesions is written here: ours takes any overlap."""
    expected = golden.values("picai.froc_mask_iou0.1")
    for name, pairs, found in evaluable(golden):
        if name == "pooled":
            continue
        kinds, lesions = [], 0
        for one, pair in zip(found, pairs, strict=True):
            parts, count = ndimage.label(pair.map > 0.5, structure=np.ones((3, 3)))
            true, of_truth = ndimage.label(pair.mask, structure=np.ones((3, 3)))
            lesions += of_truth
            order = [parts[tuple(peak)] for peak in one.peaks_rc]
            iou = np.array(
                [[float(masks.overlap(parts == part, true == k).iou) for k in range(1, of_truth + 1)] for part in order]
            ).reshape(count, of_truth)
            hits = froc.match(iou, iou.max(axis=1, initial=0.0), 0.1)
            kinds.append(np.where((hits == 0) & (iou >= 0.1).any(axis=1), froc.NEUTRAL, hits))
        drawn = froc.curve(*gathered(kinds, found), lesions=lesions, images=len(pairs))
        want = expected[name]
        assert lesions == want["n_lesions"]
        for rate, value in want["sensitivity_at"].items():
            assert drawn.at([float(rate)])[0] == pytest.approx(value, abs=1e-6), (name, rate)


# ---- boundaries ----------------------------------------------------------------------------------------------------


def special(golden, key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Proposed and true mask of a key of the entries surface.*."""
    pairs = {pair.key: pair for pair in golden.pairs}
    kind, _, name = key.rpartition(":")
    if key in pairs:
        return pairs[key].map > 0.5, pairs[key].mask > 0
    if kind == "identical":
        return pairs[name].mask > 0, pairs[name].mask > 0
    if key == "single_pixels_(2,3)_and_(7,9)_of_12x10":
        a, b = np.zeros((2, 12, 10), dtype=bool)
        a[2, 3] = b[7, 9] = True
        return a, b
    if kind.startswith("empty"):
        truth = pairs[name].mask > 0
        return (np.zeros_like(truth), truth) if "prediction" in kind else (pairs[name].map > 0.5, np.zeros_like(truth))
    return None


BOUNDARIES = {
    "surface.monai.hd95": lambda d: d.hausdorff_95,
    "surface.monai.hd100": lambda d: d.hausdorff,
    "surface.monai.hd95_directed_pred_to_truth": lambda d: np.percentile(d.to_truth, 95),
    "surface.monai.asd_symmetric": lambda d: d.mean,
    "surface.monai.asd_pred_to_truth": lambda d: d.to_truth.mean(),
    "surface.monai.surface_dice_1mm": lambda d: d.share_within(1.0),
    "surface.medpy.hd": lambda d: d.hausdorff,
    "surface.medpy.hd95": lambda d: d.hausdorff_95_together,
    "surface.medpy.assd": lambda d: d.mean,
    "surface.torchmetrics.hd100_padded_square": lambda d: d.hausdorff,
}


@pytest.mark.parametrize("entry", BOUNDARIES)
def test_boundary_distances(golden, entry) -> None:
    checked = 0
    for key, want in golden.values(entry).items():
        given = special(golden, key)
        if given is None:
            continue
        found = boundaries.boundary_distances(*given, spacing_mm=SPACING_MM)
        if not given[0].any() or not given[1].any():  # inf, NaN, 0 or an exception there
            assert np.isnan([found.mean, found.hausdorff, found.hausdorff_95, found.share_within(1.0)]).all()
            continue
        assert BOUNDARIES[entry](found) == pytest.approx(float(want), abs=1e-5), key
        checked += 1
    assert checked >= 15


def test_boundary_distances_by_direction_and_in_pixels(golden) -> None:
    directed, means = golden.values("surface.scipy.hd100"), golden.values("surface.medpy.asd")
    unit = golden.values("surface.skimage.unit_spacing")
    for pair in golden.annotated:
        if pair.key not in directed or pair.key not in unit:
            continue
        found = boundaries.boundary_distances(pair.map > 0.5, pair.mask, spacing_mm=SPACING_MM)
        for way, ours in (("pred_to_truth", found.to_truth), ("truth_to_pred", found.to_proposed)):
            assert ours.max() == pytest.approx(directed[pair.key][way], abs=1e-9)
            assert ours.mean() == pytest.approx(means[pair.key][way], abs=1e-9)
        pixels_apart = boundaries.boundary_distances(pair.map > 0.5, pair.mask)
        assert pixels_apart.hausdorff == pytest.approx(unit[pair.key]["hd"], abs=1e-9)
        greater = max(pixels_apart.to_truth.mean(), pixels_apart.to_proposed.mean())
        assert greater == pytest.approx(unit[pair.key]["modified"], abs=1e-9)


# ---- Quantus -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", ["mask", "boxes"])
def test_quantus_area_and_mass(golden, truth) -> None:
    """Its AUC is the pixel AUROC of one map; its attribution localisation is our mass in the mask."""
    areas = golden.values(f"quantus.auc.{truth}")["per_pair"]
    mass = golden.values(f"quantus.attribution_localisation.{truth}")["per_pair"]
    for pair in golden.annotated:
        mask = pair.mask if truth == "mask" else boxes_to_mask(pair.boxes_xyxy, pair.map.shape)
        if not isinstance(areas[pair.key], str):
            ours = classification.auroc(mask.ravel().astype(float), pair.map.ravel())
            assert ours == pytest.approx(areas[pair.key], abs=1e-9)
        if not isinstance(mass[pair.key], str):
            assert masks.mass_in_mask(pair.map, mask) == pytest.approx(mass[pair.key], abs=1e-5)
