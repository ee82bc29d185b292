"""Bilinear resizing against torch and against geometry's own interpolation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radtag.geometry import Frame, Grid, to_original
from radtag.metrics import resize

side = st.integers(1, 40)


@given(side, side, side, side, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_torch_within_rounding(rows, cols, rows_out, cols_out, seed) -> None:
    import torch

    maps = np.random.default_rng(seed).random((2, 3, rows, cols), dtype=np.float32)
    ours = resize.bilinear(maps, (rows_out, cols_out))
    theirs = torch.nn.functional.interpolate(torch.from_numpy(maps), size=(rows_out, cols_out), mode="bilinear")
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)


def test_maps_as_geometry_sees_tiles() -> None:
    maps = np.random.default_rng(0).random((3, 7, 5), dtype=np.float32)
    frame = Frame.stretch((61, 83), (64, 32))
    np.testing.assert_allclose(
        resize.bilinear(maps, (61, 83)), to_original(maps, Grid.tiles((7, 5), (64, 32)), frame), atol=2e-6
    )


def test_by_hand_and_edges_are_kept() -> None:
    assert resize.bilinear(np.array([[0.0, 1.0]]), (1, 4)).tolist() == [[0, 0.25, 0.75, 1]]
    assert resize.bilinear(np.array([[0.0], [1.0]]), (4, 2)).tolist() == [[0, 0], [0.25, 0.25], [0.75, 0.75], [1, 1]]


def test_many_chunks_equal_one_map_at_a_time_and_nothing_is_written_into_the_input() -> None:
    maps = np.random.default_rng(0).random((9, 13, 8), dtype=np.float32)
    before = maps.copy()
    together = resize.bilinear(maps, (150, 130))
    for one, alone in zip(together, maps, strict=True):
        np.testing.assert_array_equal(one, resize.bilinear(alone, (150, 130)))
    np.testing.assert_array_equal(maps, before)
    assert resize.bilinear(maps[:0], (4, 6)).shape == (0, 4, 6)


def test_a_size_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(0, 4\)"):
        resize.bilinear(np.zeros((3, 3)), (0, 4))
