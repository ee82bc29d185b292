"""Values to 0-1: the three window functions and the range rule, by hand."""

import numpy as np
import pytest

from radtag.images import window


def test_linear_reaches_its_ends_at_half_pixels_as_the_standard_says():
    # PS3.3 C.11.2.1.2: centre 40 width 100: below -10 -> 0, above 89 -> 1 (40 - 0.5 -+ 99 / 2).
    values = np.array([-11.0, -10.0, 39.5, 89.0, 90.0])
    np.testing.assert_allclose(window.linear(values, 40, 100), [0, 0, 0.5, 1, 1], atol=1e-12)


def test_linear_of_width_one_is_a_step_above_centre_minus_half():
    np.testing.assert_array_equal(window.linear(np.array([9.0, 9.5, 9.6, 10.0]), 10, 1), [0, 0, 1, 1])


def test_linear_exact_is_centred_on_the_centre():
    np.testing.assert_allclose(window.linear_exact(np.array([-10.0, 15.0, 40.0, 90.0]), 40, 100), [0, 0.25, 0.5, 1])


def test_sigmoid_by_its_formula_and_without_overflow():
    values = np.array([40.0, 65.0, -1e9, 1e9])
    np.testing.assert_allclose(window.sigmoid(values, 40, 100), [0.5, 1 / (1 + np.exp(-1)), 0, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        (np.array([-3, 5], dtype=np.int16), (-3.0, 5.0)),
        (np.array([0.25, 0.75], dtype=np.float32), (0.0, 1.0)),
        (np.array([0.25, 1.5], dtype=np.float32), (0.25, 1.5)),
        (np.array([np.nan, -2.0, np.inf, 4.0]), (-2.0, 4.0)),
    ],
)
def test_range_rule_keeps_floats_within_0_and_1_and_stretches_the_rest(values, limits):
    assert window.value_range(values) == limits


def test_range_rule_refuses_values_of_which_none_is_finite():
    with pytest.raises(ValueError, match=r"finite"):
        window.value_range(np.array([np.nan, np.inf]))


def test_a_constant_becomes_0_and_not_nan():
    np.testing.assert_array_equal(window.to_unit(np.full((2, 3), -7, dtype=np.int16), -7, -7), np.zeros((2, 3)))


def test_what_is_not_finite_becomes_0():
    np.testing.assert_array_equal(window.to_unit(np.array([np.nan, 1.0, 3.0]), 1, 3), [0, 0, 1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_luma_keeps_gray_exactly_and_weighs_colour_by_itu_601(dtype):
    rgb = np.array([[[200, 200, 200], [100, 0, 0], [0, 100, 0], [0, 0, 100]]], dtype=dtype)
    gray = window.luma(rgb)
    assert gray[0, 0] == 200
    np.testing.assert_allclose(gray[0, 1:], [29.9, 58.7, 11.4], rtol=1e-6)


@pytest.mark.parametrize("asked", [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0)])
def test_a_window_without_width_is_refused(asked):
    with pytest.raises(ValueError, match=r"width above 0"):
        window.given(asked)
