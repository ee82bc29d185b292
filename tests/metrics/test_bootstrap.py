"""Intervals by bootstrap over patients: against re-indexing the drawn rows, and against scipy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from radtag.metrics import bootstrap, froc
from radtag.metrics.classification import calibration_error

nan = float("nan")


def made(seed: int = 0, images: int = 60, findings: int = 3):
    draw = np.random.default_rng(seed)
    patients = draw.integers(0, 25, images).tolist()
    labels = (draw.random((images, findings)) < 0.3).astype(float)
    labels[draw.random(labels.shape) < 0.15] = nan
    scores = (draw.random(labels.shape) + 0.4 * np.nan_to_num(labels)).round(1)  # many ties
    return patients, labels, scores


def test_draws_are_of_whole_patients_and_repeatable() -> None:
    patients = ["b", "a", "b", "c", "b"]
    resampling = bootstrap.Resampling(patients, replicates=500, seed=3)
    assert resampling.row.tolist() == [0, 1, 0, 2, 0]
    assert resampling.patients == 3
    assert (resampling.counts.sum(axis=0) == 3).all()
    assert resampling.counts.mean(axis=1) == pytest.approx([1, 1, 1], abs=0.15)
    np.testing.assert_array_equal(resampling.counts, bootstrap.Resampling(patients, replicates=500, seed=3).counts)
    assert (resampling.counts != bootstrap.Resampling(patients, replicates=500, seed=4).counts).any()
    assert resampling.of(["c", "c", "a"]).row.tolist() == [2, 2, 1]
    assert resampling.of(["c"]).counts is resampling.counts
    with pytest.raises(ValueError, match="'z' is not among the 3"):
        resampling.of(["a", "z"])
    with pytest.raises(ValueError, match="0 replicates of 5 rows"):
        bootstrap.Resampling(patients, replicates=0)


def test_means_equal_re_indexing() -> None:
    draw = np.random.default_rng(1)
    patients = draw.integers(0, 12, 40)
    finding, values = draw.integers(0, 3, 40), draw.random(40)
    values[::7] = nan
    resampling = bootstrap.Resampling(patients, replicates=50)
    result = bootstrap.mean(values, finding, 4, resampling)  # the fourth finding has no pair
    for replicate in range(50):
        rows = np.repeat(np.arange(40), resampling.counts[resampling.row, replicate])
        for f in range(3):
            own = values[rows][finding[rows] == f]
            assert result.drawn[f, replicate] == pytest.approx(np.nanmean(own))
        assert np.isnan(result.drawn[3, replicate])
        assert result.drawn[4, replicate] == pytest.approx(np.nanmean(values[rows]))
    estimates = result.estimates()
    each = [np.nanmean(values[finding == f]) for f in range(3)]
    assert [e.value for e in estimates.per_finding[:3]] == pytest.approx(each)
    assert estimates.macro.value == pytest.approx(np.mean(each))
    assert estimates.micro.value == pytest.approx(np.nanmean(values))
    assert (estimates.macro.n, estimates.macro.undefined) == (3, 1)
    assert (estimates.micro.n, estimates.micro.undefined) == (34, 6)
    assert sum(e.undefined for e in estimates.per_finding) == 6
    macro = result.drawn[:3].mean(axis=0)
    assert (estimates.macro.low, estimates.macro.high) == pytest.approx(tuple(np.quantile(macro, [0.025, 0.975])))


@pytest.mark.parametrize(
    ("measure", "exact"), [("auroc", roc_auc_score), ("average_precision", average_precision_score)]
)
def test_rankings_equal_re_indexing_with_scikit_learn(measure, exact) -> None:
    patients, labels, scores = made()
    resampling = bootstrap.Resampling(patients, replicates=60, seed=1)
    result = bootstrap.ranking(labels, scores, resampling, measure)
    for replicate in range(60):
        rows = np.repeat(np.arange(len(labels)), resampling.counts[resampling.row, replicate])
        y, s = labels[rows], scores[rows]
        for f in range(3):
            known = ~np.isnan(y[:, f])
            assert result.drawn[f, replicate] == pytest.approx(exact(y[known, f], s[known, f]), abs=1e-12)
        known = ~np.isnan(y)
        assert result.drawn[3, replicate] == pytest.approx(exact(y[known], s[known]), abs=1e-12)
    assert result.n.tolist() == [*(~np.isnan(labels)).sum(axis=0), (~np.isnan(labels)).sum()]


def test_many_blocks_equal_one(monkeypatch) -> None:
    patients, labels, scores = made()
    resampling = bootstrap.Resampling(patients, replicates=70)
    whole = [bootstrap.ranking(labels, scores, resampling, m).drawn for m in ("auroc", "average_precision")]
    mean = bootstrap.mean(scores[:, 0], np.zeros(60, int), 1, resampling).drawn
    monkeypatch.setattr(bootstrap, "_CHUNK", 1)
    monkeypatch.setattr(bootstrap, "_IN_CACHE", 1)
    blocks = [bootstrap.ranking(labels, scores, resampling, m).drawn for m in ("auroc", "average_precision")]
    np.testing.assert_allclose(blocks, whole)
    np.testing.assert_allclose(bootstrap.mean(scores[:, 0], np.zeros(60, int), 1, resampling).drawn, mean)


def test_a_replicate_without_a_class_is_left_out() -> None:
    labels = np.array([[1.0], [0.0], [0.0], [0.0]])
    result = bootstrap.ranking(labels, np.array([[0.9], [0.1], [0.2], [0.95]]), bootstrap.Resampling("abcd"), "auroc")
    assert 0.2 < np.isnan(result.drawn[0]).mean() < 0.45  # (3/4)^4 = .32 of the draws miss the only positive
    estimate = result.estimates().per_finding[0]
    assert estimate.value == pytest.approx(2 / 3)
    assert estimate.low <= estimate.value <= estimate.high


def test_one_class_alone_is_undefined_for_the_auroc_only() -> None:
    labels, scores = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.3, 0.1], [0.2, 0.4]])
    resampling = bootstrap.Resampling(["a", "b"], replicates=10)
    auroc = bootstrap.ranking(labels, scores, resampling, "auroc").estimates()
    assert np.isnan([e.value for e in auroc.per_finding]).all()
    assert np.isnan(auroc.macro.value)
    assert np.isnan(auroc.macro.low)
    assert auroc.macro.undefined == 2
    ap = bootstrap.ranking(labels, scores, resampling, "average_precision").estimates()
    assert [ap.per_finding[0].value, ap.per_finding[0].low] == [1, 1]
    assert np.isnan(ap.per_finding[1].value)


def test_one_patient_says_nothing_about_spread() -> None:
    estimate = bootstrap.mean([0.1, 0.9], [0, 0], 1, bootstrap.Resampling(["a", "a"])).estimates().micro
    assert estimate.value == 0.5
    assert np.isnan(estimate.low)
    assert np.isnan(estimate.high)


def test_scipy_finds_the_same_interval() -> None:
    draw = np.random.default_rng(7)
    patients = draw.integers(0, 40, 120)
    values = draw.random(120) ** 2
    resampling = bootstrap.Resampling(patients, replicates=4000, seed=5)
    estimate = bootstrap.mean(values, np.zeros(120, int), 1, resampling).estimates().micro
    sums = np.bincount(resampling.row, weights=values)
    counts = np.bincount(resampling.row)
    interval = stats.bootstrap(
        (sums, counts),
        lambda s, c, axis: s.sum(axis=axis) / c.sum(axis=axis),
        paired=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high), abs=0.006)


def test_patients_and_not_images_are_drawn() -> None:
    """Ten images of each patient that all agree: the interval must be that of the patients, not ten times as sure."""
    per_patient = np.random.default_rng(0).random(15)
    values, patients = np.repeat(per_patient, 10), np.repeat(np.arange(15), 10)
    estimate = bootstrap.mean(values, np.zeros(150, int), 1, bootstrap.Resampling(patients)).estimates().micro
    one_each = bootstrap.mean(per_patient, np.zeros(15, int), 1, bootstrap.Resampling(np.arange(15))).estimates().micro
    assert (estimate.low, estimate.high) == pytest.approx((one_each.low, one_each.high))


def test_differences_are_paired() -> None:
    draw = np.random.default_rng(2)
    patients, finding = draw.integers(0, 30, 90), draw.integers(0, 2, 90)
    hard = draw.random(90)
    a, b = hard + 0.05, hard.copy()
    a[0], b[1] = nan, nan
    resampling = bootstrap.Resampling(patients)
    apart = bootstrap.paired_difference(a, b, finding, 2, resampling)
    assert (apart.micro.value, apart.micro.low, apart.micro.high) == pytest.approx((0.05, 0.05, 0.05))
    assert (apart.micro.n, apart.micro.undefined) == (88, 2)
    b[2:40] -= 0.1
    changed = bootstrap.paired_difference(a, b, finding, 2, resampling)
    both = ~(np.isnan(a) | np.isnan(b))
    masked = [np.where(both, x, nan) for x in (a, b)]
    first, second = (bootstrap.mean(x, finding, 2, resampling) for x in masked)
    by_replicate = bootstrap.difference(first, second).estimates()
    assert changed.micro.low == pytest.approx(by_replicate.micro.low)
    assert changed.macro.high == pytest.approx(by_replicate.macro.high)
    assert changed.micro.low > 0


def test_difference_of_aurocs() -> None:
    patients, labels, scores = made(3)
    resampling = bootstrap.Resampling(patients, replicates=200)
    better = bootstrap.ranking(labels, np.nan_to_num(labels) + scores, resampling)
    worse = bootstrap.ranking(labels, scores, resampling)
    estimates = bootstrap.difference(better, worse).estimates()
    assert estimates.micro.value == pytest.approx(better.value[-1] - worse.value[-1])
    assert estimates.micro.low > 0
    with pytest.raises(ValueError, match="cannot be paired"):
        bootstrap.difference(better, bootstrap.ranking(labels, scores, bootstrap.Resampling(patients, replicates=9)))


def test_an_estimate_is_json_without_nan() -> None:
    written = bootstrap.Estimate(0.5, nan, nan, 3, 1).to_dict()
    assert json.loads(json.dumps(written, allow_nan=False)) == {
        "value": 0.5,
        "low": None,
        "high": None,
        "n": 3,
        "undefined": 1,
    }


def test_refusals_name_the_value() -> None:
    resampling = bootstrap.Resampling(["a", "b"], replicates=5)
    with pytest.raises(ValueError, match="3 rows do not fit a resampling of 2"):
        bootstrap.mean([1, 2, 3], [0, 0, 0], 1, resampling)
    with pytest.raises(ValueError, match="each from 0 to 0"):
        bootstrap.mean([1, 2], [0, 1], 1, resampling)
    with pytest.raises(ValueError, match="got 'auc'"):
        bootstrap.ranking(np.eye(2), np.eye(2), resampling, "auc")
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap.mean([1, 2], [0, 0], 1, resampling).estimates(level=95)


def detected(seed: int = 0, ties: bool = True):
    """Cases of three findings and 12 patients, the third without lesions, with detections of few scores."""
    draw = np.random.default_rng(seed)
    cases = 60
    finding, lesions = draw.integers(0, 3, cases), draw.integers(0, 3, cases)
    lesions[finding == 2] = 0
    kinds, scores, case = [], [], []
    for i in range(cases):
        found = draw.integers(0, lesions[i] + 1)
        own = [froc.HIT] * found + [froc.FALSE] * draw.integers(0, 3) + [froc.NEUTRAL] * draw.integers(0, 2)
        kinds += own
        scores += (draw.random(len(own)) + 0.2 * (np.array(own) == 1)).round(1 if ties else 9).tolist()
        case += [i] * len(own)
    patients = draw.integers(0, 12, cases)
    arrays = np.array(kinds, dtype=np.int8), np.array(scores), np.array(case)
    return froc.Cases(*arrays, lesions, finding), patients


def redrawn(cases: froc.Cases, own: np.ndarray, counts: np.ndarray):
    """What a loop would score: every detection of a drawn case, as often as it is drawn."""
    times = np.where(own, counts, 0)
    again = np.repeat(np.arange(len(cases.case)), times[cases.case])
    return cases.kinds[again], cases.scores[again], int((times * cases.lesions).sum()), int(times.sum())


def test_froc_equals_scoring_every_draw_anew() -> None:
    cases, patients = detected()
    resampling = bootstrap.Resampling(patients, replicates=40)
    rates = (0.125, 0.5, 1.0)
    found = bootstrap.froc(cases, 3, resampling, at=rates)
    together = bootstrap.mean_of(found)
    for scope in range(4):
        own = cases.finding == scope if scope < 3 else np.ones(60, dtype=bool)
        for replicate in range(-1, 40):
            counts = resampling.counts[resampling.row, replicate] if replicate >= 0 else np.ones(60, dtype=int)
            kinds, scores, lesions, images = redrawn(cases, own, counts)
            want = froc.curve(kinds, scores, lesions=lesions, images=images)
            got = [one.drawn[scope, replicate] if replicate >= 0 else one.value[scope] for one in found]
            np.testing.assert_allclose(got, want.at(rates), rtol=0, atol=1e-12)
            mean = together.drawn[scope, replicate] if replicate >= 0 else together.value[scope]
            assert mean == pytest.approx(want.score(rates), nan_ok=True)
    assert np.isnan(together.value[2])  # a finding without lesions
    assert together.n.tolist() == [
        int(cases.lesions[cases.finding == 0].sum()), int(cases.lesions[cases.finding == 1].sum()), 0,
        int(cases.lesions.sum()),
    ]  # fmt: skip
    assert together.estimates().macro.n == 2


def test_detection_precision_equals_scoring_every_draw_anew() -> None:
    cases, patients = detected(1, ties=False)
    kept = cases.kinds != froc.NEUTRAL
    cases = froc.Cases(cases.kinds[kept], cases.scores[kept], cases.case[kept], cases.lesions, cases.finding)
    resampling = bootstrap.Resampling(patients, replicates=40)
    found = bootstrap.detection_precision(cases, 3, resampling)
    for scope in range(4):
        own = cases.finding == scope if scope < 3 else np.ones(60, dtype=bool)
        for replicate in range(-1, 40):
            counts = resampling.counts[resampling.row, replicate] if replicate >= 0 else np.ones(60, dtype=int)
            kinds, scores, lesions, _ = redrawn(cases, own, counts)
            got = found.drawn[scope, replicate] if replicate >= 0 else found.value[scope]
            assert got == pytest.approx(froc.average_precision(kinds, scores, lesions=lesions), nan_ok=True, abs=1e-12)


def test_ties_of_detections_count_in_the_order_given() -> None:
    case = np.zeros(3, dtype=int)
    for kinds, want in (([1, 0, 1], 51 / 101 + 50 / 101 * 2 / 3), ([0, 1, 1], 2 / 3)):
        cases = froc.Cases(np.array(kinds, dtype=np.int8), np.full(3, 0.5), case, np.array([2]), np.array([0]))
        found = bootstrap.detection_precision(cases, 1, bootstrap.Resampling(["a"], replicates=1))
        assert found.value[0] == pytest.approx(want)
        assert found.value[0] == pytest.approx(froc.average_precision(kinds, [0.5] * 3, lesions=2))
        assert bootstrap.froc(cases, 1, bootstrap.Resampling(["a"], replicates=1), at=(0.5,))[0].value[0] == 0


def test_nothing_found_and_nothing_to_find() -> None:
    empty = np.zeros(0, dtype=np.int8), np.zeros(0), np.zeros(0, dtype=int)
    resampling = bootstrap.Resampling(["a", "b"], replicates=5)
    cases = froc.Cases(*empty, np.array([2, 1]), np.array([0, 0]))
    assert bootstrap.detection_precision(cases, 1, resampling).value.tolist() == [0, 0]
    assert bootstrap.froc(cases, 1, resampling, at=(1,))[0].value.tolist() == [0, 0]
    none = froc.Cases(*empty, np.array([0, 0]), np.array([0, 0]))
    assert np.isnan(bootstrap.detection_precision(none, 1, resampling).drawn).all()
    assert np.isnan(bootstrap.froc(none, 1, resampling)[0].drawn).all()
    with pytest.raises(ValueError, match=r"1, 0 or -1, got \{2\}"):
        froc.Cases(np.array([2], dtype=np.int8), np.ones(1), np.zeros(1, dtype=int), np.ones(1, dtype=int), np.zeros(1))


def test_calibration_error_of_every_draw() -> None:
    patients, labels, scores = made()
    scores = np.clip(scores, 0, 1)
    finding = np.tile(np.arange(3), len(labels))
    resampling = bootstrap.Resampling(np.repeat(patients, 3).tolist(), replicates=30)
    y, s = labels.ravel(), scores.ravel()
    found = bootstrap.calibration_error(y, s, finding, 3, resampling)
    for scope in range(4):
        own = finding == scope if scope < 3 else np.ones(len(y), dtype=bool)
        value = calibration_error(y[own], s[own])
        assert found.value[scope] == pytest.approx(value)
        plain = []
        for replicate in range(30):
            rows = np.repeat(np.arange(len(y)), np.where(own, resampling.counts[resampling.row, replicate], 0))
            plain.append(calibration_error(y[rows], s[rows]))
        # Moved as a whole, so that they lie about the value.
        np.testing.assert_allclose(found.drawn[scope], np.maximum(np.array(plain) + value - np.mean(plain), 0))
    assert found.n.tolist() == [*(~np.isnan(labels)).sum(axis=0), (~np.isnan(labels)).sum()]
    assert found.undefined.tolist() == [*np.isnan(labels).sum(axis=0), np.isnan(labels).sum()]
