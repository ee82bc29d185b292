"""Our measures against other people's evaluators, wherever the definition is the same (../shared/golden)."""

from __future__ import annotations

import numpy as np
import pytest

from radtag.metrics import bootstrap, boxes, classification, detections, masks, pixels, points, resize

nan = float("nan")
FRAMES = ("square256", "native_lowres", "native_fullmap")


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """In float32, as torch's."""
    import torch

    return torch.sigmoid(torch.from_numpy(logits)).numpy()


def scored_at(pair, frame: str) -> tuple[np.ndarray, np.ndarray]:
    """Map and boxes of a pair in one of the three frames PYLON's evaluator was run in."""
    if frame == "native_fullmap":
        return pair.map, pair.boxes_xyxy
    size = (256, 256) if frame == "square256" else pair.map.shape
    return resize.bilinear(sigmoid(pair.logits), size), pair.scaled(size)


def check_groups(golden, expected: dict, values: dict[str, float]) -> None:
    """Per finding, macro and micro of 0/1 values, against PYLON's and through our own bootstrap."""
    pairs = golden.annotated
    resampling = bootstrap.Resampling([pair.patient for pair in pairs], replicates=2)
    estimates = bootstrap.mean(
        [values[pair.key] for pair in pairs], [pair.finding for pair in pairs], len(golden.findings), resampling
    ).estimates()
    for name, estimate in zip(golden.findings, estimates.per_finding, strict=True):
        assert estimate.value == pytest.approx(expected["per_finding"][name], abs=1e-12)
        assert estimate.n == expected["n"][name]
    assert estimates.macro.value == pytest.approx(expected["macro"], abs=1e-12)
    assert estimates.micro.value == pytest.approx(expected["weighted"], abs=1e-12)


@pytest.mark.parametrize("frame", FRAMES)
def test_pylon_pointing(golden, frame) -> None:
    expected = golden.values(f"pylon.point_loc_acc.{frame}")
    found = {pair.key: points.pointing_hit(*scored_at(pair, frame)) for pair in golden.annotated}
    assert found == expected["per_pair"]
    where = {pair.key: points.first_maximum(scored_at(pair, frame)[0]).tolist() for pair in golden.annotated}
    assert where == expected["argmax_row_col"]
    check_groups(golden, expected, found)
    unannotated = next(pair for pair in golden.pairs if not pair.annotated)
    assert np.isnan(points.pointing_hit(*scored_at(unannotated, frame)))


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("by", ["iobb", "either"])
@pytest.mark.parametrize("threshold", [0.1, 0.25, 0.5])
def test_pylon_iobb(golden, frame, by, threshold) -> None:
    name = "iobb_or_iou" if by == "either" else by
    entry = golden.entries[f"pylon.iobb_acc.{frame}.{name}.T{threshold}"]
    found = {}
    for pair in golden.annotated:
        score_map, boxes_xyxy = scored_at(pair, frame)
        owner = np.zeros(len(boxes_xyxy), dtype=int)
        overlap = boxes.union_overlap(boxes.above_share_of_maximum(score_map)[None], boxes_xyxy, owner)
        found[pair.key] = overlap.found(threshold, by=by)[0]
        if "raw_iobb" in entry["values"]:
            within = {"abs": entry["tolerance"]["raw_abs"], "nan_ok": True}
            assert overlap.iobb[0] == pytest.approx(float(entry["values"]["raw_iobb"][pair.key]), **within)
            assert overlap.iou[0] == pytest.approx(float(entry["values"]["raw_iou"][pair.key]), **within)
            assert boxes.iobb(score_map, boxes_xyxy) == pytest.approx(overlap.iobb[0], nan_ok=True)
            assert boxes.iou_with_union(score_map, boxes_xyxy) == pytest.approx(overlap.iou[0], nan_ok=True)
    assert found == entry["values"]["per_pair"]
    check_groups(golden, entry["values"], found)


def test_chexlocalize_hit_rate(golden) -> None:
    expected = golden.values("chexlocalize.hitrate.fullmap")["per_pair"]
    for pair in golden.pairs:
        hit = points.pointing_hit_mask(pair.map, pair.mask)
        assert hit == pytest.approx(float(expected.get(pair.key, nan)), nan_ok=True), pair.key


@pytest.mark.parametrize("truth", ["mask", "boxes"])
def test_quantus_pointing_counts_any_of_equal_maxima(golden, truth) -> None:
    expected = golden.values(f"quantus.pointing_game.{truth}")["per_pair"]
    checked = 0
    for pair in golden.annotated:
        if isinstance(expected[pair.key], str):  # it refuses constant maps
            continue
        mask = pair.mask if truth == "mask" else drawn(pair)
        assert points.pointing_hit_mask(pair.map, mask, ties="any") == expected[pair.key]
        checked += 1
    assert checked >= 30


def drawn(pair) -> np.ndarray:
    from radtag.geometry import boxes_to_mask

    return boxes_to_mask(pair.boxes_xyxy, pair.map.shape)


def test_image_auroc_and_average_precision(golden) -> None:
    for name, measure in (("auroc", classification.auroc), ("ap", classification.average_precision)):
        values = measure(golden.labels, golden.scores)
        expected = golden.values(f"sklearn.image_{name}")
        np.testing.assert_allclose(values, [expected[f] for f in golden.findings], atol=1e-9, rtol=0)
        assert values.mean() == pytest.approx(expected["macro"], abs=1e-9)
        torch_values = golden.values(f"torchmetrics.image_{name}")
        np.testing.assert_allclose(values, [torch_values[f] for f in golden.findings], atol=1e-6, rtol=0)
        multilabel = golden.values("torchmetrics.image_multilabel_ignore")
        np.testing.assert_allclose(values, multilabel[f"{name}_none"], atol=1e-6, rtol=0)
        micro = measure(golden.labels.ravel(), golden.scores.ravel())
        assert micro == pytest.approx(multilabel[f"{name}_micro"], abs=1e-6)
        # ... and the same three through the bootstrap.
        resampling = bootstrap.Resampling([golden.patients[image] for image in golden.images], replicates=20)
        kind = "auroc" if name == "auroc" else "average_precision"
        estimates = bootstrap.ranking(golden.labels, golden.scores, resampling, kind).estimates()
        assert [e.value for e in estimates.per_finding] == values.tolist()
        assert [e.n for e in estimates.per_finding] == [expected["n"][f] for f in golden.findings]
        assert [e.undefined for e in estimates.per_finding] == [len(golden.images) - e.n for e in estimates.per_finding]
        assert estimates.macro.value == pytest.approx(expected["macro"], abs=1e-9)
        assert estimates.micro.value == pytest.approx(multilabel[f"{name}_micro"], abs=1e-6)


@pytest.mark.parametrize("group", ["annotated", "evaluable"])
def test_pixel_auroc_and_average_precision(golden, group) -> None:
    chosen = [pair for pair in golden.pairs if getattr(pair, group)]
    for name, pairs in golden.groups(chosen):
        truth = np.concatenate([pair.mask.ravel() for pair in pairs]).astype(float)
        scores = np.concatenate([pair.map.ravel() for pair in pairs])
        histogram = pixels.PixelHistogram()
        for pair in pairs:
            histogram.update(pair.map, pair.mask)
        auroc, ap = classification.auroc(truth, scores), classification.average_precision(truth, scores)
        assert auroc == pytest.approx(golden.values(f"sklearn.pixel_auroc.{group}")[name], abs=1e-9)
        assert ap == pytest.approx(golden.values(f"sklearn.pixel_ap.{group}")[name], abs=1e-9)
        assert auroc == pytest.approx(golden.values(f"torchmetrics.pixel_auroc.{group}")[name], abs=1e-5)
        assert ap == pytest.approx(golden.values(f"torchmetrics.pixel_ap.{group}")[name], abs=1e-5)
        # The histogram is exact for 16-bit maps; these are float32, and many of their low values share a level.
        assert histogram.auroc() == pytest.approx(golden.values(f"sklearn.pixel_auroc.{group}")[name], abs=1e-5)
        assert histogram.average_precision() == pytest.approx(
            golden.values(f"sklearn.pixel_ap.{group}")[name], abs=5e-5
        )
        written = np.rint(scores.astype(np.float64) * 65535)
        assert histogram.auroc() == pytest.approx(float(classification.auroc(truth, written)), abs=1e-12)
        assert histogram.average_precision() == pytest.approx(
            float(classification.average_precision(truth, written)), abs=1e-12
        )


def test_pixel_measures_of_one_pair(golden) -> None:
    expected = golden.values("sklearn.pixel_per_pair")
    for pair in golden.annotated:
        truth, scores = pair.mask.ravel().astype(float), pair.map.ravel()
        assert classification.auroc(truth, scores) == pytest.approx(expected["auroc"][pair.key], abs=1e-9)
        assert classification.average_precision(truth, scores) == pytest.approx(expected["ap"][pair.key], abs=1e-9)


@pytest.mark.parametrize("group", ["annotated", "evaluable"])
@pytest.mark.parametrize("step", [0.001, 0.01])
def test_pxap_of_wsolevaluation(golden, group, step) -> None:
    expected = golden.values(f"wsol.pxap.native.{group}.step{step}")
    for name, pairs in golden.groups([pair for pair in golden.pairs if getattr(pair, group)]):
        histogram = pixels.PixelHistogram(np.append(np.arange(0, 1, step), 1))
        for pair in pairs:
            histogram.update(pair.map, pair.mask)
        assert 100 * histogram.average_precision() == pytest.approx(expected[name], abs=1e-7)


@pytest.mark.parametrize("group", ["annotated", "evaluable"])
def test_average_precision_at_200_thresholds_of_torchmetrics(golden, group) -> None:
    expected = golden.values(f"torchmetrics.pixel_binned200.{group}")["ap"]
    for name, pairs in golden.groups([pair for pair in golden.pairs if getattr(pair, group)]):
        histogram = pixels.PixelHistogram(np.linspace(0, 1, 200, dtype=np.float32))
        for pair in pairs:
            histogram.update(pair.map, pair.mask)
        assert histogram.average_precision() == pytest.approx(expected[name], abs=1e-5)


# Which of the rivals' answers are ours where a mask is empty; the others differ there on purpose (see masks.py).
OVERLAPS = {
    "overlap.sk.f1_nan": ("dice", "always"),
    "overlap.sk.precision_nan": ("precision", "always"),
    "overlap.tm.dice_score": ("dice", "always"),
    "overlap.medpy.dc": ("dice", "always"),
    "overlap.medpy.precision": ("precision", "always"),
    "overlap.medpy.recall": ("poi", "always"),
    "overlap.monai.dice.ignore_empty_True": ("dice", "truth"),
    "overlap.monai.iou.ignore_empty_True": ("iou", "truth"),
    "overlap.monai.dice.ignore_empty_False": ("dice", "either"),
    "overlap.monai.iou.ignore_empty_False": ("iou", "either"),
    "overlap.medpy.jc": ("iou", "either"),
    "overlap.tm.jaccard": ("iou", "either"),
    "overlap.tm.f1": ("dice", "either"),
    "overlap.tm.precision": ("precision", "predicted"),
    "overlap.tm.recall": ("poi", "truth"),
    "overlap.sk.jaccard": ("iou", "either"),
    "overlap.sk.f1": ("dice", "either"),
    "overlap.sk.precision": ("precision", "predicted"),
}


@pytest.mark.parametrize("entry", OVERLAPS)
def test_mask_overlap(golden, entry) -> None:
    measure, agreed = OVERLAPS[entry]
    checked = 0
    for pair in golden.pairs:
        predicted = pair.map > 0.5
        comparable = {
            "always": True,
            "truth": pair.mask.any(),
            "predicted": predicted.any(),
            "either": predicted.any() or pair.mask.any(),
        }[agreed]
        ours = getattr(masks.overlap(predicted, pair.mask), measure)
        if comparable:
            assert ours == pytest.approx(float(golden.values(entry)[pair.key]), abs=1e-6, nan_ok=True), pair.key
            checked += 1
        else:
            assert np.isnan(ours) or (measure in ("dice", "iou") and ours == 0)
    assert checked >= 40


def test_chexlocalize_iou(golden) -> None:
    """Its own function on unnormalised maps: NaN where both are empty, or where either is."""
    expected = golden.values("chexlocalize.calculate_iou.unnormalised_gt0.5")
    for pair in golden.pairs:
        predicted = pair.map > 0.5
        ours = float(masks.overlap(predicted, pair.mask).iou)
        assert ours == pytest.approx(float(expected["all"][pair.key]), abs=1e-9, nan_ok=True)
        both = predicted.any() and pair.mask.any()
        assert (ours if both else nan) == pytest.approx(
            float(expected["true_positive_only"][pair.key]), abs=1e-9, nan_ok=True
        )


def test_poi_at_matched_area(golden) -> None:
    expected = golden.values("quantus.tie_interval")
    for pair in golden.annotated:
        for name, mask in (("mask", pair.mask), ("boxes", drawn(pair))):
            area = masks.matched_area(pair.map, mask)
            want = expected[pair.key][name]
            assert np.count_nonzero(mask) == want["k"]
            assert (area.expected, area.low, area.high) == pytest.approx(
                (want["expected"], want["low"], want["high"]), abs=1e-9
            )
            theirs = golden.values(f"quantus.relevance_rank_accuracy.{name}")["per_pair"][pair.key]
            if not isinstance(theirs, str):
                assert area.low - 1e-9 <= theirs <= area.high + 1e-9


@pytest.mark.parametrize("truth", ["mask", "boxes"])
def test_mass_in_mask(golden, truth) -> None:
    expected = golden.values(f"quantus.relevance_mass_accuracy.{truth}")["per_pair"]
    for pair in golden.annotated:
        if not isinstance(expected[pair.key], str):
            mask = pair.mask if truth == "mask" else drawn(pair)
            assert masks.mass_in_mask(pair.map, mask) == pytest.approx(expected[pair.key], abs=1e-5)


def test_ncc_of_vagan(golden) -> None:
    expected = golden.values("vagan.ncc.zero_norm")["per_pair"]
    maps_of = {pair.key: pair for pair in golden.pairs}
    assert len(expected) >= 40
    for key, value in expected.items():
        ours = masks.ncc(maps_of[key].map, maps_of[key].mask)
        if np.isfinite(float(value)):
            assert ours == pytest.approx(value, abs=1e-9)
        else:
            assert np.isnan(ours)


def test_detections(golden) -> None:
    expected = golden.values("derived.detections")
    for pair in golden.pairs:
        found = detections.detections(pair.map, 0.5)
        ours = sorted(
            zip(
                found.boxes_xyxy.tolist(),
                found.scores.tolist(),
                found.peaks_rc.tolist(),
                found.areas_px.tolist(),
                strict=True,
            )
        )
        assert ours == sorted((d["box"], d["score"], d["peak"], d["pixels"]) for d in expected[pair.key])
        assert (np.diff(found.scores) <= 0).all()


def test_what_is_undefined(golden) -> None:
    """We say NaN where the rivals disagree, and agree with the majority that stays within its formula."""
    edge = golden.values("edge.empty_and_single_class")
    ones, zeros, scores = np.ones(5), np.zeros(5), np.arange(1, 6) / 10
    assert np.isnan(classification.auroc(ones, scores))
    assert np.isnan(classification.auroc(zeros, scores))
    assert edge["all_positive"]["sklearn.roc_auc_score"] == edge["all_negative"]["sklearn.roc_auc_score"] == "nan"
    assert classification.average_precision(ones, scores) == edge["all_positive"]["sklearn.average_precision_score"]
    assert np.isnan(classification.average_precision(zeros, scores))  # scikit-learn: 0 with a warning
    ties = edge["ties"]
    assert classification.auroc(ties["labels"], ties["scores"]) == pytest.approx(ties["sklearn.roc_auc_score"])
    assert classification.average_precision(ties["labels"], ties["scores"]) == pytest.approx(
        ties["sklearn.average_precision_score"]
    )
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    assert np.isnan(masks.overlap(empty, empty).dice)
    assert edge["both_empty"]["torchmetrics.dice_score"] == edge["both_empty"]["medpy.dc"] == "nan"
    assert masks.overlap(empty, full).dice == edge["prediction_empty"]["torchmetrics.dice_score"] == 0
    assert masks.overlap(full, empty).dice == edge["truth_empty"]["torchmetrics.dice_score"] == 0
    assert np.isnan(masks.overlap(empty, full).precision)
    assert edge["prediction_empty"]["medpy.precision"] == "nan"


@pytest.mark.parametrize("measure", ["pointing", "iou"])
def test_patient_bootstrap(golden, measure) -> None:
    entry = golden.entries[f"scipy.patient_bootstrap.{measure}"]
    pairs = golden.annotated
    value = {
        "pointing": lambda pair: points.pointing_hit_mask(pair.map, pair.mask),
        "iou": lambda pair: float(masks.overlap(pair.map > 0.5, pair.mask).iou),
    }[measure]
    within = entry["tolerance"]["abs"]

    def check(own, want, patients) -> None:
        rows = [pair.patient for pair in own]
        # A patient without a pair of this finding takes part through a pair of no finding: its value is undefined.
        extra = sorted(set(patients) - set(rows))
        resampling = bootstrap.Resampling(rows + extra, replicates=4000, seed=1)
        values = [value(pair) for pair in own] + [nan] * len(extra)
        assert resampling.patients == want["n_patients"]
        replicates = bootstrap.mean(values, [0] * len(values), 1, resampling)
        low, high = (float(end) for end in want["percentile95"])
        if np.isnan(low):  # scipy: one replicate without a pair makes the interval NaN; ours leaves it out
            return
        # 4,000 draws place the 97.5th percentile within .75 of a point (three standard errors). The mean of ten hits
        # moves in steps, so the ends are compared with the percentiles that far to either side.
        narrow, wide = (replicates.estimates(level=level).per_finding[0] for level in (0.935, 0.965))
        assert wide.low - within / 10 <= low <= narrow.low + within / 10
        assert narrow.high - within / 10 <= high <= wide.high + within / 10
        spread = np.nanstd(replicates.drawn[0], ddof=1)
        assert spread == pytest.approx(want["standard_error"], rel=0.05)

    for name, own in golden.groups(pairs):
        want = entry["values"][name]
        assert np.mean([value(pair) for pair in own]) == pytest.approx(want["mean"], abs=1e-12)
        assert len(own) == want["n_pairs"]
        check(own, want["patients_with_a_pair"], [pair.patient for pair in own])
        check(own, want["all_patients"], list(golden.patients.values()))
