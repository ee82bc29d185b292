"""The quasi-concave envelope of a map, against scipy's hull of every height and what must hold of any map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull

from radtag.models.envelope import quasiconcave_envelope


def hull_of(mask: np.ndarray) -> np.ndarray:
    """The pixels whose centres lie in the convex hull of the mask's centres."""
    sides = ConvexHull(np.argwhere(mask)).equations
    centres = np.argwhere(np.ones_like(mask))
    return (centres @ sides[:, :2].T + sides[:, 2] <= 1e-9).all(axis=1).reshape(mask.shape)


def test_bars_that_face_each_other_are_filled_to_the_height_of_the_lower():
    bars = torch.zeros(20, 30)
    bars[5:15, 5:8] = 0.4
    bars[5:15, 22:25] = 0.9
    filled = torch.zeros(20, 30)
    filled[5:15, 5:22] = 0.4
    filled[5:15, 22:25] = 0.9
    assert torch.equal(quasiconcave_envelope(bars), filled)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_height_is_the_hull_of_what_is_as_high(seed):
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :40]
    blobs = zip(random.uniform(8, 32, (4, 2)), random.uniform(2, 6, 4), random.uniform(0.3, 1, 4), strict=True)
    bumps = [high * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / wide**2) for at, wide, high in blobs]
    one = np.max(bumps, axis=0).astype(np.float32)
    envelope = quasiconcave_envelope(torch.from_numpy(one)).numpy()
    assert (envelope >= one).all()
    for height in (0.05, 0.1, 0.2, 0.3):
        hull = hull_of(one >= height)
        assert not (hull & (envelope < height)).any()  # the whole hull,
        assert (envelope >= height).sum() <= 1.06 * hull.sum()  # and, around it, what so many directions cannot see


def test_of_a_convex_map_nothing_changes_but_by_rounding():
    y, x = np.mgrid[-20:21, -20:21]
    cone = torch.from_numpy(1 - np.hypot(y, x) / 30).float()
    envelope = quasiconcave_envelope(cone)
    assert (envelope - cone).abs().max() < 0.012  # a polygon of 32 sides around a circle of 20: .1 pixels, of 1/30
    torch.testing.assert_close(quasiconcave_envelope(envelope), envelope)  # and the second time nothing at all


def test_maps_are_apart_and_their_shape_is_kept():
    torch.manual_seed(0)
    maps = torch.rand(2, 3, 9, 14) ** 8
    together = quasiconcave_envelope(maps)
    assert together.shape == maps.shape
    for image in range(2):
        for finding in range(3):
            assert torch.equal(together[image, finding], quasiconcave_envelope(maps[image, finding]))
    assert torch.equal(quasiconcave_envelope(torch.zeros(1, 1, 5, 5)), torch.zeros(1, 1, 5, 5))


def test_gradients_pass_after_the_first_map_was_seen_without_them():
    maps = torch.rand(7, 11)  # of a size of its own: tables of others are there already
    with torch.inference_mode():
        quasiconcave_envelope(maps)
    asked = maps.clone().requires_grad_()
    quasiconcave_envelope(asked).sum().backward()
    assert asked.grad.sum() == pytest.approx(7 * 11)  # each pixel's value is one pixel's of the map


def test_a_mirrored_map_has_the_mirrored_envelope():
    torch.manual_seed(1)
    one = torch.rand(17, 12) ** 6
    torch.testing.assert_close(quasiconcave_envelope(one.flip(-1)).flip(-1), quasiconcave_envelope(one))
    torch.testing.assert_close(quasiconcave_envelope(one.T).T, quasiconcave_envelope(one))
