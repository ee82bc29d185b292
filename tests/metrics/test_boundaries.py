"""Boundary distances by hand."""

from __future__ import annotations

import numpy as np
import pytest

from radtag.metrics import boundaries


def test_the_boundary_is_what_erosion_takes_and_the_images_edge() -> None:
    mask = np.ones((4, 5), bool)
    assert np.count_nonzero(boundaries.boundary(mask)) == 14
    assert not boundaries.boundary(mask)[1:3, 1:4].any()


def test_distances_in_millimetres_and_pixels() -> None:
    a, b = np.zeros((2, 3, 9), bool)
    a[1, 1] = b[1, 4] = b[1, 5] = True
    apart = boundaries.boundary_distances(a, b)
    assert (apart.to_truth.tolist(), apart.to_proposed.tolist()) == ([3], [3, 4])
    assert apart.mean == pytest.approx(10 / 3)
    assert apart.hausdorff == 4
    assert apart.hausdorff_95 == pytest.approx(3.95)
    assert apart.hausdorff_95_together == pytest.approx(3.9)
    assert apart.share_within(3) == pytest.approx(2 / 3)
    assert boundaries.boundary_distances(a, b, spacing_mm=(7.0, 0.5)).mean == pytest.approx(5 / 3)


def test_an_empty_mask_has_no_boundary() -> None:
    apart = boundaries.boundary_distances(np.zeros((3, 4)), np.ones((3, 4)))
    assert np.isnan([apart.mean, apart.hausdorff, apart.hausdorff_95, apart.share_within(9)]).all()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) does not lie on \(4, 3\)"):
        boundaries.boundary_distances(np.zeros((3, 4)), np.ones((4, 3)))
    with pytest.raises(ValueError, match="positive"):
        boundaries.boundary_distances(np.zeros((3, 4)), np.ones((3, 4)), spacing_mm=(0.0, 1.0))
