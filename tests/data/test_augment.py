"""Image, boxes and masks follow one warp; the draw is the generator's alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from radtag.data.augment import AugmentOptions, Warp, draw, take

SIDE = 96
STILL = {"rotate_p": 0, "area": (1.0, 1.0), "ratio": (1.0, 1.0), "flip_p": 0, "tone_p": 0}


def drawn(count: int, seed: int = 0, **options) -> Warp:
    return draw(count, AugmentOptions(**options), torch.Generator().manual_seed(seed))


def rectangles(count: int, seed: int = 0, rows: int = SIDE, cols: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright rectangles around the middle, as images (count, row, col) and boxes (count, 1, 4)."""
    random = np.random.default_rng(seed)
    images = torch.zeros(count, rows, cols)
    boxes = torch.zeros(count, 1, 4)
    for i in range(count):
        x1, y1 = random.integers(cols // 4, cols // 2), random.integers(rows // 4, rows // 2)
        x2, y2 = x1 + random.integers(8, cols // 4), y1 + random.integers(8, rows // 4)
        images[i, y1:y2, x1:x2] = 1
        boxes[i, 0] = torch.tensor([x1, y1, x2, y2])
    return images, boxes


def around(mask: torch.Tensor) -> list[float]:
    rows, cols = torch.nonzero(mask > 0.5, as_tuple=True)
    return [int(cols.min()), int(rows.min()), int(cols.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("rows", "cols"), [(SIDE, SIDE), (64, 128)])
def test_without_rotation_box_mask_and_image_agree_within_a_pixel(interpolation, rows, cols):
    images, boxes = rectangles(40, rows=rows, cols=cols)
    warp = drawn(40, rotate_p=0, tone_p=0, area=(0.5, 1.0), interpolation=interpolation)
    moved = warp.boxes(boxes, (rows, cols))[:, 0]
    masks, warped = warp.masks(images), warp.images(images)
    seen = 0
    for box, mask, image in zip(moved, masks, warped, strict=True):
        if (box[2] - box[0]) * (box[3] - box[1]) < 4:
            continue  # cropped away
        seen += 1
        np.testing.assert_allclose(around(mask), box, atol=1.0)
        np.testing.assert_allclose(around(image), box, atol=1.0)
    assert seen >= 35
    assert not torch.allclose(moved, boxes[:, 0], atol=3)  # something moved at all


def test_a_rotated_box_contains_the_rotated_mask_and_touches_it():
    images, boxes = rectangles(40)
    warp = drawn(40, rotate_p=1, rotate_deg=90, tone_p=0)
    for box, mask in zip(warp.boxes(boxes, (SIDE, SIDE))[:, 0], warp.masks(images), strict=True):
        found = around(mask)
        assert found[0] >= box[0] - 1
        assert found[1] >= box[1] - 1
        assert found[2] <= box[2] + 1
        assert found[3] <= box[3] + 1
        np.testing.assert_allclose(found, box, atol=2.5)  # the corners of a rectangle reach the sides of its box


def test_rotation_keeps_angles_and_lengths_and_turns_about_the_centre():
    warp = drawn(64, **{**STILL, "rotate_p": 1, "rotate_deg": 90})
    linear = warp.to_source[:, :, :2]
    torch.testing.assert_close(linear @ linear.mT, torch.eye(2).expand(64, 2, 2), atol=1e-6, rtol=0)
    assert torch.all(warp.to_source[:, :, 2] == 0)
    angles = torch.atan2(linear[:, 1, 0], linear[:, 0, 0]) * 180 / math.pi
    assert angles.abs().max() <= 90
    assert angles.min() < -60
    assert angles.max() > 60


def test_a_quarter_turn_by_hand():
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])  # output (x, y) is read at (-y, x)
    warp = Warp(quarter, torch.ones(1), torch.zeros(1), "bilinear")
    image = torch.zeros(1, 8, 8)
    image[0, 1:3, 0:4] = 1  # rows 1-3, columns 0-4
    # Read at source column 7 - i (i: output row) and source row j: rows 4 to 7, columns 1 and 2 are bright.
    out = warp.masks(image)[0]
    assert around(out) == [1, 4, 3, 8]
    assert out.sum() == 8
    assert warp.boxes(torch.tensor([[[0.0, 1, 4, 3]]]), (8, 8)).tolist() == [[[1.0, 4.0, 3.0, 8.0]]]
    torch.testing.assert_close(out, torch.rot90(image[0], 1))


def test_a_flip_mirrors_columns_alone():
    images = torch.rand(3, 32, 48)
    warp = drawn(3, **{**STILL, "flip_p": 1})
    torch.testing.assert_close(warp.images(images), images.flip(-1), atol=1e-5, rtol=0)
    boxes = torch.tensor([[[4.0, 6, 10, 20]]]).expand(3, 1, 4)
    torch.testing.assert_close(warp.boxes(boxes, (32, 48)), torch.tensor([[[38.0, 6, 44, 20]]]).expand(3, 1, 4))
    half = drawn(2000, **{**STILL, "flip_p": 0.5}).to_source[:, 0, 0]
    assert set(half.tolist()) == {-1.0, 1.0}
    assert 900 < int((half < 0).sum()) < 1100


def test_nothing_asked_for_changes_nothing():
    images = torch.rand(2, 33, 20)
    torch.testing.assert_close(drawn(2, **STILL).images(images), images, atol=1e-5, rtol=0)


def test_a_crop_stays_inside_the_image():
    """No black comes in: every corner of every crop is read inside the source; and areas and ratios are as asked."""
    warp = drawn(500, rotate_p=0, tone_p=0, area=(0.4, 0.7))
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
    read_at = torch.einsum("bij,kj->bki", warp.to_source, corners)
    assert read_at.abs().max() <= 1 + 1e-6
    assert (
        warp.images(torch.ones(500, 16, 16))[:, 2:-2, 2:-2].min() > 0.999
    )  # the very edge blends with what is outside
    wide, high = warp.to_source[:, 0, 0].abs(), warp.to_source[:, 1, 1]
    assert 0.39 < (wide * high).min() < 0.45
    assert 0.65 < (wide * high).max() <= 0.7 + 1e-6
    assert 0.74 < (wide / high).min() < 0.8
    assert 1.25 < (wide / high).max() < 4 / 3 + 1e-3
    assert warp.to_source[:, :, 2].abs().max() > 0.2  # the crop wanders


def test_a_crop_turns_with_its_image():
    """The same crop and flip with and without rotation: turned back, the window is the straight one, place and all."""
    turned, straight = (drawn(64, rotate_p=1, rotate_deg=deg, tone_p=0).to_source for deg in (90, 0))
    down = turned[:, :, 1] / turned[:, :, 1].norm(dim=1, keepdim=True)  # the output's downward direction: (-sin, cos)
    back = torch.stack([torch.stack([down[:, 1], -down[:, 0]], -1), down], dim=1)  # by the angle, the other way
    torch.testing.assert_close(back @ turned, straight, atol=1e-6, rtol=0)
    assert straight[:, :, 2].abs().max() > 0.05


def test_what_rotation_uncovers_is_black():
    warp = Warp(
        torch.tensor([[[0.0, -1.0, 1.0], [1.0, 0.0, 0.0]]]), torch.ones(1), torch.zeros(1), "bilinear"
    )  # a quarter turn, and half of the view beyond the right edge
    out = warp.images(torch.ones(1, 8, 8))[0]
    assert torch.all(out[:4] == 0)  # source x = 1 - y > 1 in the upper half
    assert torch.all(out[4:] == 1)


def test_brightness_and_contrast_by_hand():
    identity = torch.eye(3)[None, :2].expand(3, 2, 3)
    warp = Warp(identity, torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.25, -0.5, 0.0]), "bilinear")
    image = torch.tensor([[0.0, 0.25], [0.5, 1.0]]).expand(3, 2, 2)
    expected = [
        [[0.25, 0.5], [0.75, 1.0]],  # + 1/4, cut at 1
        [[0.0, 0.0], [0.5, 1.0]],  # x 2 - 1/2, cut at 0 and 1
        [[0.0, 0.125], [0.25, 0.5]],  # halved
    ]
    torch.testing.assert_close(warp.images(image), torch.tensor(expected))
    torch.testing.assert_close(warp.masks((image > 0.3).float()), (image > 0.3).float())  # masks have no tone


def test_tone_is_drawn_within_its_bounds_and_share():
    warp = drawn(4000, brightness=0.2, contrast=0.3, tone_p=0.25)
    toned = (warp.gain != 1) | (warp.shift != 0)
    assert 900 < int(toned.sum()) < 1100
    assert warp.gain.min() >= 0.7
    assert warp.gain.max() <= 1.3
    assert warp.shift.abs().max() <= 0.2
    assert torch.all(warp.shift[~toned] == 0)


def test_a_box_gone_from_view_has_no_area():
    half = torch.tensor([[[0.5, 0.0, -0.5], [0.0, 1.0, 0.0]]])  # the left half of the image
    warp = Warp(half, torch.ones(1), torch.zeros(1), "bilinear")
    out = warp.boxes(torch.tensor([[[70.0, 10, 90, 20], [10, 10, 20, 20], [40, 0, 90, 5]]]), (SIDE, SIDE))[0]
    assert out[0, 0] == out[0, 2] == SIDE
    assert out[1].tolist() == [20, 10, 40, 20]
    assert out[2].tolist() == [80, 0, 96, 5]  # cut at the edge


def test_the_draw_is_the_generators_alone():
    torch.manual_seed(1)
    first = drawn(8, seed=5)
    torch.manual_seed(2)
    second, other = drawn(8, seed=5), drawn(8, seed=6)
    for name in ("to_source", "gain", "shift"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.to_source, other.to_source)


def test_the_slices_of_two_processes_are_the_whole_draw():
    images = torch.rand(7, 24, 24)
    warp = drawn(7)
    parts = [take(drawn(7), part).images(images[part]) for part in (slice(0, 4), slice(4, 7))]
    assert torch.equal(torch.cat(parts), warp.images(images))


def test_images_and_boxes_are_not_written_into():
    images, boxes = rectangles(4)
    before, before_boxes = images.clone(), boxes.clone()
    warp = drawn(4, tone_p=1)
    warp.images(images)
    warp.masks(images)
    warp.boxes(boxes, (SIDE, SIDE))
    assert torch.equal(images, before)
    assert torch.equal(boxes, before_boxes)


def test_an_unknown_option_is_refused():
    with pytest.raises(ValidationError, match="rotate_degrees"):
        AugmentOptions.model_validate({"rotate_degrees": 3})
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        AugmentOptions(flip_p=1.5)
