"""The square a network takes, against Pillow's own resize and by hand."""

from __future__ import annotations

import numpy as np
import PIL.Image

from radtag.data.prepare import prepare
from radtag.images import Image


def image(pixels: np.ndarray) -> Image:
    return Image(pixels.astype(np.float32), "here.png")


def test_a_stretch_is_pillows_bicubic():
    gray = np.random.default_rng(0).integers(0, 256, (50, 90), dtype=np.uint8)
    square, frame = prepare(image(gray / np.float32(255)), 32, "stretch")
    oracle = PIL.Image.fromarray(gray).resize((32, 32), PIL.Image.Resampling.BICUBIC)
    assert square.dtype == np.uint8
    np.testing.assert_array_equal(square, np.asarray(oracle))
    assert frame.original_size_rc == (50, 90)
    assert frame.scale_rc == (32 / 50, 32 / 90)


def test_an_image_of_the_right_size_is_left_as_it_is():
    gray = np.arange(256, dtype=np.uint8).repeat(4).reshape(32, 32)
    square, _ = prepare(image(gray / np.float32(255)), 32, "stretch")
    np.testing.assert_array_equal(square, gray)


def test_a_letterbox_pads_with_black_where_the_frame_says():
    square, frame = prepare(image(np.ones((20, 40))), 40, "letterbox")
    assert frame.placed_rc == (10, 0, 20, 40)
    assert np.all(square[10:30] == 255)
    assert not square[:10].any()
    assert not square[30:].any()
    tall, _ = prepare(image(np.ones((40, 20))), 40, "letterbox")
    np.testing.assert_array_equal(tall, square.T)


def test_a_bright_spot_lands_where_the_frame_puts_it():
    pixels = np.zeros((60, 120))
    pixels[42:48, 90:102] = 1
    for fit in ("stretch", "letterbox"):
        square, frame = prepare(image(pixels), 64, fit)
        rows, cols = np.nonzero(square > 127)
        found = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(frame.boxes_to_frame([[90, 42, 102, 48]])[0], found, atol=0.75)


def test_the_image_is_not_written_into():
    pixels = np.full((8, 6), 0.5, np.float32)
    pixels.setflags(write=False)
    prepare(image(pixels), 32, "stretch")
    assert np.all(pixels == 0.5)
