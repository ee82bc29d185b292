"""The square a network takes, against Pillow's own resize and by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import pytest

from radtag.data.prepare import lung_field, prepare
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


# Confined to the lungs ------------------------------------------------------------------------------------------------


@dataclass
class Lungs:
    """Finds what it is told to."""

    mask: np.ndarray
    name: str = "lungs (0123)"

    def __call__(self, image: Image) -> np.ndarray:
        return self.mask


def lungs(size_rc: tuple[int, int] = (128, 192)) -> np.ndarray:
    """Two of them: rows 32 to 96, columns 40 to 72 and 112 to 152."""
    mask = np.zeros(size_rc, bool)
    mask[32:96, 40:72] = mask[32:96, 112:152] = True
    return mask


def test_a_field_is_both_lungs_without_holes_and_a_margin():
    mask = lungs()
    mask[50:70, 50:60] = False  # a dense part, which an outline may leave out
    mask[2:5, 2:5] = True  # too small for a lung
    field, filled = lung_field(image(np.zeros(mask.shape)), Lungs(mask))
    expected = np.zeros(mask.shape, bool)  # 192 / 64 pixels to each side
    expected[29:99, 37:75] = expected[29:99, 109:155] = True
    assert not (field & ~expected).any()
    # Corners are round: of their 3 x 3 pixels, 5 are further than 3 from the lung.
    assert (expected & ~field).sum() == 8 * 5
    assert not (expected & ~field)[32:96].any()
    assert not mask[50:70, 50:60].any()  # what was given is as it was
    np.testing.assert_array_equal(filled, lungs())  # what a map may mark: no margin, and no speck


def test_a_field_ends_where_the_image_does():
    mask = np.zeros((40, 60), bool)
    mask[0:40, 0:20] = True
    field = lung_field(image(np.zeros((40, 60))), Lungs(mask)).seen
    assert field[:, :21].all()
    assert not field[:, 21:].any()


def test_where_no_lungs_are_found_there_is_no_field():
    nothing = np.zeros((40, 60), bool)
    assert lung_field(image(np.zeros((40, 60))), Lungs(nothing)) is None
    speck = nothing.copy()
    speck[3:8, 3:8] = True
    assert lung_field(image(np.zeros((40, 60))), Lungs(speck)) is None


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_of_an_image_its_field_alone_is_shown_and_the_frame_leads_back(fit):
    pixels = np.full((128, 192), 0.5)
    pixels[:20, :20] = 1  # a letter
    pixels[50:60, 120:140] = 1
    pixels[70:80, 50:60] = 0  # black within the field
    field = lungs()
    square, frame = prepare(image(pixels), 224, fit, field)
    assert (frame.original_size_rc, frame.size_rc) == ((128, 192), (224, 224))
    # 64 x 112 pixels are shown: stretched by 3.5 and 2, or all by 2, with 48 rows of black above and below.
    assert frame.scale_rc == ((3.5, 2) if fit == "stretch" else (2, 2))
    corners = [0, 0, 224, 224] if fit == "stretch" else [0, 48, 224, 176]
    assert frame.boxes_to_frame([[40, 32, 152, 96]])[0].tolist() == corners
    rows, cols = np.nonzero(square > 200)
    bright = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(frame.boxes_to_original([bright])[0], [120, 50, 140, 60], atol=0.5)
    assert not square[:, 68:140].any()  # between the lungs
    if fit == "letterbox":
        assert not square[:48].any()
        assert not square[176:].any()
    left, top, right, bottom = frame.boxes_to_frame([[52, 72, 58, 78]])[0].astype(int)
    assert np.all(square[top:bottom, left:right] == 2)  # what is 0 lies outside


def test_a_field_of_everything_shows_everything():
    gray = np.random.default_rng(0).integers(60, 200, (50, 90), dtype=np.uint8)
    for fit in ("stretch", "letterbox"):
        whole = prepare(image(gray / np.float32(255)), 64, fit)
        field = prepare(image(gray / np.float32(255)), 64, fit, np.ones((50, 90), bool))
        np.testing.assert_array_equal(field[0], whole[0])
        assert field[1] == whole[1]


def test_what_is_dark_beside_a_bright_edge_is_still_within_the_field():
    pixels = np.zeros((64, 64))
    pixels[:, ::3] = 1  # so that the resize undershoots
    assert not prepare(image(pixels), 96, "stretch")[0].all()
    assert prepare(image(pixels), 96, "stretch", np.ones((64, 64), bool))[0].all()
