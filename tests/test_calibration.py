"""Calibration: probabilities, thresholds that need no outline, and what happens when the labels do not suffice."""

import tomllib

import numpy as np
import pytest
import tomli_w

from radtag.calibration import Calibration, platt, smallest_level, youden_threshold


def made(images: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image logits (n, 2), map logits (n, 2, 5, 7) and labels (n, 2) of two findings, the second rare."""
    random = np.random.default_rng(seed)
    labels = (random.random((images, 2)) < [0.5, 0.1]).astype(np.float64)
    maps = random.normal(-4, 1, size=(images, 2, 5, 7)).astype(np.float32)
    maps[:, :, 2, 3] += 4.5 * labels.astype(np.float32)
    return maps.max(axis=(2, 3)), maps, labels


def test_platt_is_scikit_learns_sigmoid_calibration():
    calibration = pytest.importorskip("sklearn.calibration")
    logits, _, labels = made()
    oracle = calibration._SigmoidCalibration().fit(logits[:, 1].astype(np.float64), labels[:, 1])
    (slope, bias), rises = platt(logits[:, 1].astype(np.float64), labels[:, 1] == 1)
    assert rises
    # It fits with a quasi-Newton method, which stops earlier than ours.
    assert (slope, bias) == pytest.approx((-oracle.a_, -oracle.b_), rel=2e-3)


def test_platt_of_two_values_is_the_closed_form():
    # Two distinct logits can be given any two probabilities: the smoothed mean target of each.
    logits = np.array([-1.0, -1.0, -1.0, 2.0, 2.0])
    positive = np.array([False, False, True, True, True])
    low, high = 4 / 5, 1 / 4  # (3 + 1) / (3 + 2) for the positive, 1 / (2 + 2) for the negative
    at_low, at_high = (high + high + low) / 3, low
    (slope, bias), _ = platt(logits, positive)
    assert 1 / (1 + np.exp(-(slope * -1 + bias))) == pytest.approx(at_low, abs=1e-6)
    assert 1 / (1 + np.exp(-(slope * 2 + bias))) == pytest.approx(at_high, abs=1e-6)


def test_separable_classes_keep_a_finite_slope():
    (slope, bias), rises = platt(np.array([-1e4, -9e3, 5e3, 6e3]), np.array([False, False, True, True]))
    assert rises
    assert np.isfinite([slope, bias]).all()
    assert 0 < slope < 1e-2


def test_scores_are_calibrated():
    logits, maps, labels = made(4000)
    fitted = Calibration.fit(logits, maps, labels)
    assert fitted.notes == ()
    scores = fitted.scores(logits)
    for i in range(2):
        assert scores[:, i].mean() == pytest.approx(labels[:, i].mean(), abs=0.01)
        middle = (scores[:, i] > 0.3) & (scores[:, i] < 0.7)
        assert labels[middle, i].mean() == pytest.approx(scores[middle, i].mean(), abs=0.1)


def test_where_whole_maps_are_of_some_images_only_what_needs_them_changes():
    logits, maps, labels = made()
    labels[::9, 0] = np.nan
    peaks, options = maps.max(axis=(2, 3)), {"healthy_share": 0.01, "peak_share": 0.0}
    whole = Calibration.fit(logits, maps, labels, **options)
    every = np.arange(len(labels))
    assert Calibration.fit(logits, maps, labels, peaks=peaks, kept=every, **options) == whole
    kept = every[1::5]
    some = Calibration.fit(logits, maps[kept], labels, peaks=peaks, kept=kept, **options)
    for name in ("score_slope", "score_bias", "map_slope", "map_bias", "score_threshold"):
        assert getattr(some, name) == getattr(whole, name)
    for i in range(2):  # the value that a hundredth of the cells of the negative images that are kept exceeds
        cells = maps[kept[labels[kept, i] == 0], i].ravel()
        level = smallest_level(cells, 0.01)
        expected = 1 / (1 + np.exp(-(some.map_slope[i] * level + some.map_bias[i])))
        assert some.mask_threshold[i] == pytest.approx(expected, rel=1e-6)
        assert some.mask_threshold[i] != whole.mask_threshold[i]
    positives = np.flatnonzero(labels[:, 1] == 1)
    none = Calibration.fit(logits, maps[positives], labels, peaks=peaks, kept=positives)
    assert none.mask_threshold[1] == 0.5
    assert "finding 1: no negative validation image; the mask threshold is 0.5" in none.notes
    with pytest.raises(ValueError, match="maps of some images are given, and no peaks of all of them"):
        Calibration.fit(logits, maps[kept], labels, kept=kept)
    with pytest.raises(ValueError, match="do not belong together"):
        Calibration.fit(logits, maps, labels, peaks=peaks, kept=kept)


def test_a_map_reads_as_the_score_of_an_image_with_this_strongest_cell():
    logits, maps, labels = made()  # the image logit is the maximum of the map, as in PYLON
    fitted = Calibration.fit(logits, maps, labels)
    np.testing.assert_allclose(fitted.maps(maps).max(axis=(2, 3)), fitted.scores(logits), rtol=1e-5)


def test_mask_threshold_is_the_smallest_that_keeps_healthy_images_clear():
    logits, maps, labels = made()
    fitted = Calibration.fit(logits, maps, labels, healthy_share=0.01, peak_share=0)
    assert fitted.notes == ()
    for i in range(2):
        healthy = fitted.maps(maps)[labels[:, i] == 0, i].ravel()
        assert (healthy > fitted.mask_threshold[i]).mean() <= 0.01
        next_lower = healthy[healthy < fitted.mask_threshold[i]].max()
        assert (healthy > next_lower).mean() > 0.01


def test_a_weak_classifier_does_not_leave_positive_images_empty():
    _, maps, labels = made()
    maps[:, 0] = np.random.default_rng(1).normal(-4, 1, size=maps[:, 0].shape)
    maps[:, 0, 2, 3] += 1.5 * labels[:, 0].astype(np.float32)
    fitted = Calibration.fit(
        maps.max(axis=(2, 3)), maps, labels, healthy_share=0.0005, peak_share=0, findings=("Mass", "Hernia")
    )
    scores = fitted.scores(maps.max(axis=(2, 3)))
    inside = fitted.maps(maps) > np.array(fitted.mask_threshold)[:, None, None]
    # The image's logit is the strongest cell: positive images have a mask, negative ones have none.
    np.testing.assert_array_equal(inside[:, 0].any(axis=(1, 2)), scores[:, 0] >= fitted.score_threshold[0])
    (note,) = [note for note in fitted.notes if note.startswith("Mass")]
    assert "of healthy validation images, not 0.05%" in note


def test_a_mask_ends_at_half_of_a_typical_peak_where_healthy_images_are_darker_than_that():
    # One cell of each positive image is a certain lesion, its four neighbours are on its slope.
    labels = np.repeat([[1.0], [0.0]], 50, axis=0)
    maps = np.full((100, 1, 5, 5), -8.0, dtype=np.float32)
    maps[:50, 0, 2, 1:4] = maps[:50, 0, 1:4, 2] = -3.0
    maps[:50, 0, 2, 2] = 8.0
    wide, half = (Calibration.fit(maps.max(axis=(2, 3)), maps, labels, peak_share=share) for share in (0.0, 0.5))
    values = half.maps(maps)[:50, 0]
    assert (values > wide.mask_threshold[0]).sum(axis=(1, 2)).tolist() == [5] * 50
    assert (values > half.mask_threshold[0]).sum(axis=(1, 2)).tolist() == [1] * 50
    assert half.mask_threshold[0] == pytest.approx(0.5 * values.max(), rel=1e-5)


@pytest.mark.parametrize(("brightest", "noted"), [(1.0, ["0.50%"]), (-8.0, [])])
def test_the_note_on_healthy_images_is_of_the_threshold_that_is_used(brightest, noted):
    # Four healthy images have a cell above the faintest ill ones, but below half of a typical peak.
    labels = np.repeat([[1.0], [0.0]], 100, axis=0)
    maps = np.full((200, 1, 2, 2), -8.0, dtype=np.float32)
    maps[:100, 0, 0, 0] = np.repeat([4.0, 0.0, -5.0], [60, 32, 8])
    maps[100:150, 0, 0, 0] = [brightest] * 2 + [-4.6] * 4 + [-5.5] * 44

    def notes(share: float) -> list[str]:
        fitted = Calibration.fit(maps.max(axis=(2, 3)), maps, labels, healthy_share=0.001, peak_share=share)
        return [note.partition(" cover ")[2].split()[0] for note in fitted.notes]

    assert notes(0.0) == [f"{(6 if noted else 4) / 400:.2%}"]
    assert notes(0.5) == noted


def test_the_peaks_share_leaves_at_most_a_tenth_of_the_positive_images_empty():
    _, maps, labels = made()
    faint = np.flatnonzero(labels[:, 0] == 1)[::3]  # a third of the lesions is much fainter than the others
    maps[faint, 0] -= 6
    fitted = Calibration.fit(maps.max(axis=(2, 3)), maps, labels, healthy_share=1.0, peak_share=1.0)
    marked = (fitted.maps(maps)[labels[:, 0] == 1, 0] > fitted.mask_threshold[0]).any(axis=(1, 2))
    assert marked.mean() == pytest.approx(0.9, abs=0.01)


def test_smallest_level_by_hand():
    values = np.array([5, 1, 4, 2, 3], dtype=np.float32)
    assert [smallest_level(values, share) for share in (0, 0.2, 0.39, 0.4, 1)] == [5, 4, 4, 3, 1]


def test_youden_threshold_by_hand():
    logits = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    assert youden_threshold(logits, np.array([False, False, True, False, True])) == 1.5  # J: 2/3 at 2, 1/2 at 4
    assert youden_threshold(logits, np.array([False, False, False, True, True])) == 2.5
    # J = 1/2 - 0 at 4 and 1 - 1/2 at 1: the higher one
    assert youden_threshold(np.array([0.0, 1, 3, 4]), np.array([False, True, False, True])) == 3.5


def test_unknown_labels_move_nothing():
    logits, maps, labels = made()
    with_unknown = labels.copy()
    with_unknown[:100, 0] = np.nan
    fitted = Calibration.fit(logits, maps, with_unknown)
    without = Calibration.fit(logits[100:], maps[100:], labels[100:])
    assert fitted.score_slope[0] == without.score_slope[0]
    assert fitted.mask_threshold[0] == without.mask_threshold[0]
    assert fitted.score_threshold[1] == Calibration.fit(logits, maps, labels).score_threshold[1]
    assert np.isnan(with_unknown[0, 0]), "the labels given were written into"


@pytest.mark.parametrize(("value", "words"), [(0.0, "0 positive"), (1.0, "no negative"), (np.nan, "0 positive and 0")])
def test_a_finding_of_one_class_falls_back_and_says_so(value, words):
    logits, maps, labels = made()
    labels[:, 1] = value
    fitted = Calibration.fit(logits, maps, labels, findings=("Mass", "Hernia"))
    assert (fitted.score_slope[1], fitted.score_bias[1], fitted.score_threshold[1]) == (1.0, 0.0, 0.5)
    assert any(note.startswith("Hernia") and words in note for note in fitted.notes)
    assert not any("Mass" in note for note in fitted.notes)
    if value == 0:
        assert (fitted.maps(maps)[:, 1] > fitted.mask_threshold[1]).mean() == pytest.approx(0.005, abs=1e-3)
    else:
        assert fitted.mask_threshold[1] == 0.5


def test_a_classifier_worse_than_chance_keeps_a_positive_slope():
    logits, maps, labels = made()
    fitted = Calibration.fit(-logits, maps, labels, findings=("Mass", "Hernia"))
    assert fitted.score_slope == (1.0, 1.0)
    assert len(fitted.notes) == 2
    assert fitted.scores(-logits)[:, 0].mean() == pytest.approx(labels[:, 0].mean(), abs=0.02)


def test_survives_toml():
    fitted = Calibration.fit(*made())
    assert Calibration.from_dict(tomllib.loads(tomli_w.dumps(fitted.to_dict()))) == fitted
    assert fitted.only([1]).mask_threshold == fitted.mask_threshold[1:]


def amounts(peak: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two healthy images of 10 x 10 cells, in which three cells change a little, and three ill ones."""
    maps = np.zeros((5, 1, 10, 10), np.float16)
    maps[0, 0, 0, :2], maps[1, 0, 4, 7] = (0.0625, 0.03125), 0.09375
    maps[2:, 0, 3, 3] = peak
    return maps.max(axis=(2, 3)).astype(np.float32), maps, np.array([[0.0], [0.0], [1.0], [1.0], [1.0]])


@pytest.mark.parametrize(("peak", "threshold"), [(0.125, 0.0625), (0.5, 0.25), (0.0625, 0.03125)])
def test_amounts_stay_as_they_are_and_their_threshold_is_half_a_peak(peak, threshold):
    logits, maps, labels = amounts(peak)
    # At most 2 of the 200 healthy cells exceed 0.03125.
    fitted = Calibration.fit(logits, maps, labels, healthy_share=0.01, scale="amount")
    assert fitted.scale == "amount"
    assert (fitted.map_slope, fitted.map_bias) == ((1.0,), (0.0,))
    laid = fitted.maps(maps)
    assert laid.dtype == np.float32
    np.testing.assert_array_equal(laid, maps)
    assert fitted.mask_threshold == pytest.approx((threshold,))
    assert 0 < fitted.score_threshold[0] < 1


@pytest.mark.parametrize(("share", "threshold"), [(0.01, 0.03125), (0.005, 0.0625), (0.0, 0.09375)])
def test_the_threshold_of_amounts_is_set_by_healthy_images_where_they_change_more(share, threshold):
    fitted = Calibration.fit(*amounts(0.125), healthy_share=share, peak_share=0.25, scale="amount")
    assert fitted.mask_threshold == (threshold,)  # which 2, 1 and none of their 200 cells exceed


def test_the_scale_survives_toml_and_the_choice_of_findings():
    logits, maps, labels = made()
    fitted = Calibration.fit(logits, 1 / (1 + np.exp(-maps)), labels, scale="amount")
    again = Calibration.from_dict(tomllib.loads(tomli_w.dumps(fitted.to_dict())))
    assert again == fitted
    assert again.scale == fitted.only([1]).scale == "amount"
    older = {key: value for key, value in Calibration.identity(2).to_dict().items() if key != "scale"}
    assert Calibration.from_dict(older).scale == "logit"  # a run from before there was another


def test_large_logits_do_not_overflow():
    with np.errstate(all="raise"):
        scores = Calibration.identity(2).scores(np.array([[-1e4, 1e4]]))
    np.testing.assert_array_equal(scores, [[0, 1]])


def test_refuses_what_cannot_be():
    logits, maps, labels = made(10)
    with pytest.raises(ValueError, match="do not belong together"):
        Calibration.fit(logits[:9], maps, labels)
    with pytest.raises(ValueError, match="peak_share"):
        Calibration.fit(logits, maps, labels, peak_share=-1)
    with pytest.raises(ValueError, match="healthy_share"):
        Calibration.fit(logits, maps, labels, healthy_share=2)
    with pytest.raises(ValueError, match="positive"):
        Calibration((0.0,), (0.0,), (1.0,), (0.0,), (0.5,), (0.5,))
    with pytest.raises(ValueError, match="finite"):
        Calibration((1.0,), (0.0,), (1.0,), (0.0,), (float("nan"),), (0.5,))


def test_a_class_that_is_missing_leaves_amounts_as_they_are_and_the_note_says_no_more():
    logits, maps, labels = amounts(0.125)
    fitted = Calibration.fit(logits, maps, np.ones_like(labels), scale="amount")
    np.testing.assert_array_equal(fitted.maps(maps), maps)
    assert "one class only, so scores are plain sigmoids and the score threshold is 0.5" in fitted.notes[0]
    plain = Calibration.fit(logits, maps, np.ones_like(labels))
    assert "one class only, so scores and maps are plain sigmoids and" in plain.notes[0]
