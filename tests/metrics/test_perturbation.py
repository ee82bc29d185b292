"""Insertion and deletion by hand."""

from __future__ import annotations

import numpy as np
import pytest

from radtag.metrics import perturbation

IMAGE = np.array([[4.0, 1.0], [3.0, 2.0]])


def total(images: np.ndarray) -> np.ndarray:
    return images.sum(axis=(1, 2))


def test_deletion_takes_the_highest_pixels_first() -> None:
    curve = perturbation.deletion(total, IMAGE, IMAGE, steps=4, batch=2)
    assert curve.share.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.scores.tolist() == [10, 6, 3, 1, 0]
    assert curve.area == pytest.approx((5 + 6 + 3 + 1 + 0) / 4)
    assert IMAGE[0, 0] == 4  # left as it was


def test_insertion_puts_them_back() -> None:
    curve = perturbation.insertion(total, IMAGE, IMAGE, baseline=0.0, steps=2)
    assert curve.scores.tolist() == [0, 7, 10]
    worse = perturbation.insertion(total, IMAGE, -IMAGE, baseline=0.0, steps=2)
    assert worse.area < curve.area


def test_insertion_begins_with_the_image_blurred() -> None:
    image = np.zeros((40, 30))
    image[20, 15] = 1
    curve = perturbation.insertion(lambda images: images.max(axis=(1, 2)), image, image, steps=1200)
    assert curve.scores[0] < 0.1
    assert (curve.scores[1:] == 1).all()


def test_colours_go_together_and_equal_values_in_raster_order() -> None:
    image = np.stack([IMAGE, 10 * IMAGE], axis=-1)
    curve = perturbation.deletion(lambda x: x.sum(axis=(1, 2, 3)), image, np.zeros((2, 2)), steps=4)
    assert curve.scores.tolist() == [110, 66, 55, 22, 0]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="does not lie on"):
        perturbation.deletion(total, IMAGE, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="gave 1 scores for"):
        perturbation.deletion(lambda images: [1.0], IMAGE, IMAGE)
