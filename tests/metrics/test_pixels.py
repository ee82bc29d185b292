"""Streaming pixel measures against scikit-learn on the pooled pixels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from radtag.metrics import bootstrap, classification, pixels


def some(seed: int, pairs: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Maps of 16-bit values and masks they know something about, not square."""
    draw = np.random.default_rng(seed)
    masks = draw.random((pairs, 9, 14)) < 0.15
    maps = np.clip(draw.normal(0.3, 0.2, masks.shape) + 0.3 * masks, 0, 1)
    return (np.rint(maps * 65535) / 65535).astype(np.float32), masks


def test_exact_for_sixteen_bit_maps_in_any_order_and_number_of_pieces() -> None:
    maps, masks = some(0)
    first, second = pixels.PixelHistogram(), pixels.PixelHistogram()
    for i in (3, 1, 5):
        first.update(maps[i], masks[i])
    second.update(maps[[0, 2, 4]], masks[[0, 2, 4]])
    first.merge(second)
    assert first.counts.sum() == maps.size
    assert first.auroc() == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert first.average_precision() == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), abs=1e-12)


def test_undefined_without_both_classes() -> None:
    histogram = pixels.PixelHistogram()
    assert np.isnan(histogram.auroc())
    histogram.update(np.full((2, 3), 0.5), np.zeros((2, 3)))
    assert np.isnan(histogram.auroc())
    assert np.isnan(histogram.average_precision())
    histogram.update(np.full((2, 3), 0.5), np.ones((2, 3)))
    assert histogram.auroc() == 0.5


def test_ends_of_the_scale_and_of_own_levels() -> None:
    histogram = pixels.PixelHistogram()
    histogram.update(np.array([[0.0, 1.0, 0.5]]), np.array([[0, 1, 0]]))
    assert histogram.counts[0, 0] == histogram.counts[1, 65535] == histogram.counts[0, 32768] == 1
    coarse = pixels.PixelHistogram([0, 0.5, 1])
    coarse.update(np.array([[0.0, 0.49, 0.5, 0.99, 1.0]]), np.array([[0, 0, 0, 1, 1]]))
    assert coarse.counts.tolist() == [[2, 1, 0], [0, 1, 1]]


def test_float_maps_take_more_levels_and_sixteen_bit_maps_lose_nothing_by_it() -> None:
    draw = np.random.default_rng(5)
    masks = draw.random((40, 50)) < 0.15
    maps = (10.0 ** draw.uniform(-6, 0, masks.shape) * np.where(masks, 1, 0.7)).astype(np.float32)
    truth = roc_auc_score(masks.ravel(), maps.ravel()), average_precision_score(masks.ravel(), maps.ravel())
    plain, fine = pixels.PixelHistogram(), pixels.PixelHistogram(pixels.FLOAT_LEVELS)
    for histogram in (plain, fine):
        histogram.update(maps, masks)
    far, near = (np.abs(np.subtract((one.auroc(), one.average_precision()), truth)).max() for one in (plain, fine))
    assert near < far / 10
    every = pixels.PixelHistogram(pixels.FLOAT_LEVELS)
    levels = (np.arange(65536) / 65535).astype(np.float32)
    every.update(levels, np.zeros(65536))
    assert every.counts.max() == 1  # no two share one
    with pytest.raises(ValueError, match="same levels"):
        plain.merge(fine)
    with pytest.raises(ValueError, match="got 1"):
        pixels.PixelHistogram(1)


def test_refusals_name_the_value() -> None:
    histogram = pixels.PixelHistogram()
    for bad, shown in ((1.5, "1.5"), (-0.1, "-0.1"), (np.nan, "nan")):
        with pytest.raises(ValueError, match=shown):
            histogram.update(np.array([[0.2, bad]]), np.array([[0, 1]]))
    assert histogram.counts.sum() == 0
    with pytest.raises(ValueError, match="do not lie"):
        histogram.update(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="same levels"):
        histogram.merge(pixels.PixelHistogram([0, 0.5]))
    with pytest.raises(ValueError, match="ascending"):
        pixels.PixelHistogram([0.5, 0.5])


@pytest.mark.parametrize("measure", ["auroc", "average_precision"])
def test_replicates_are_those_of_the_drawn_patients_pixels(measure) -> None:
    maps, masks = some(1, pairs=10)
    maps = np.rint(maps * 1000) * 64 / 65535  # one level a bin of the patients' histograms: their replicates are exact
    patients = ["a", "b", "c", "a", "d", "e", "b", "f", "a", "c"]
    findings = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    resampling = bootstrap.Resampling(patients, replicates=40, seed=2)
    ranking = pixels.PixelRanking(2)
    for i in range(10):
        ranking.update(int(resampling.row[i]), int(findings[i]), maps[i], masks[i])
    result = ranking.replicates(resampling, measure)
    exact = getattr(classification, measure)
    for slot, chosen in ((0, findings == 0), (1, findings == 1), (2, findings >= 0)):
        assert result.value[slot] == pytest.approx(float(exact(masks[chosen].ravel(), maps[chosen].ravel())), abs=1e-12)
        assert result.n[slot] == chosen.sum()
        for replicate in range(40):
            times = resampling.counts[resampling.row, replicate] * chosen
            own = np.repeat(np.arange(10), times)
            expected = float(exact(masks[own].ravel().astype(float), maps[own].ravel())) if len(own) else np.nan
            # 1,024 bins, moved by what they lose on the data: what remains is that loss's own variation.
            assert result.drawn[slot, replicate] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_coarse_intervals_are_near_the_exact_ones() -> None:
    draw = np.random.default_rng(4)
    masks = draw.random((12, 60, 90)) < 0.1
    maps = np.clip(draw.normal(0.3, 0.15, masks.shape) + 0.2 * masks * draw.random((12, 1, 1)), 0, 1)
    resampling = bootstrap.Resampling(np.arange(12), replicates=30)
    ranking = pixels.PixelRanking(1)
    for i in range(12):
        ranking.update(i, 0, maps[i], masks[i])
    drawn = ranking.replicates(resampling).drawn[0]
    for replicate in range(30):
        own = np.repeat(np.arange(12), resampling.counts[:, replicate])
        assert drawn[replicate] == pytest.approx(
            average_precision_score(masks[own].ravel(), maps[own].ravel()), abs=5e-4
        )


def test_counts_can_be_kept_and_taken_up_again() -> None:
    maps, masks = some(2)
    whole, first = pixels.PixelRanking(2), pixels.PixelRanking(2)
    for i in range(6):
        for ranking in (whole, first) if i < 3 else (whole,):
            ranking.update(i % 2, i % 3 % 2, maps[i], masks[i])
    second = pixels.PixelRanking.from_arrays(*first.arrays())
    for i in range(3, 6):
        second.update(i % 2, i % 3 % 2, maps[i], masks[i])
    resampling = bootstrap.Resampling("ab", replicates=10)
    kept, expected = second.replicates(resampling), whole.replicates(resampling)
    np.testing.assert_array_equal(kept.value, expected.value)
    np.testing.assert_array_equal(kept.drawn, expected.drawn)
    np.testing.assert_array_equal(kept.n, expected.n)


def test_an_absent_finding_is_undefined() -> None:
    maps, masks = some(1, pairs=2)
    resampling = bootstrap.Resampling(["a", "b"], replicates=20)
    ranking = pixels.PixelRanking(2)
    for i in range(2):
        ranking.update(i, 0, maps[i], masks[i])
    estimates = ranking.replicates(resampling).estimates()
    assert np.isnan(estimates.per_finding[1].value)
    assert np.isnan(estimates.per_finding[1].low)
    assert estimates.per_finding[1].n == 0
    assert (estimates.macro.n, estimates.macro.undefined) == (1, 1)
    assert estimates.macro.value == estimates.per_finding[0].value
