"""Where lungs and body are: phantoms, drawn pictures with known truth, and a few real X-rays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from radtag import anatomy
from radtag.anatomy import estimate, estimate_body, estimate_lungs
from radtag.data.phantom import phantoms


def drawn(size_rc: tuple[int, int] = (240, 200)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A gray trunk with two dark lungs in black air, with its trunk and its lungs; grainy, as no border is."""
    y = (np.arange(size_rc[0])[:, None] + 0.5) / size_rc[0]
    x = (np.arange(size_rc[1])[None] + 0.5) / size_rc[1]
    trunk = np.broadcast_to((np.abs(x - 0.5) < 0.4) & (y > 0.1), size_rc)
    lungs = trunk & (np.hypot((np.abs(x - 0.5) - 0.2) / 0.14, (y - 0.5) / 0.3) < 1)
    image = np.where(trunk, 0.6, 0.02).astype(np.float32)
    image[lungs] = 0.05
    grain = np.repeat(np.repeat(np.random.default_rng(0).random((30, 30)), 40, axis=0), 40, axis=1)
    image += 0.1 * grain[: size_rc[0], : size_rc[1]].astype(np.float32) * trunk
    return image, trunk, lungs


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("size_rc", [(240, 200), (150, 330), (1000, 900)])
def test_the_body_has_its_lungs_and_no_air(size_rc: tuple[int, int]):
    image, trunk, lungs = drawn(size_rc)
    before = image.copy()
    body = estimate_body(image)
    assert body is not None
    assert body.shape == size_rc
    assert iou(body, trunk) > 0.95
    assert body[lungs].all()
    np.testing.assert_array_equal(image, before)


def test_letters_and_borders_are_not_of_the_body():
    image, trunk, _ = drawn((300, 250))
    image[5:20, 2:14] = 1  # a letter in the air
    framed = np.pad(image, ((30, 10), (20, 40)), constant_values=1.0)  # a white collimator
    body = estimate_body(framed)
    assert body is not None
    assert iou(body[30:-10, 20:-40], trunk) > 0.95
    assert not body[:25].any()
    assert not body[:, :15].any()
    assert not body[:, -35:].any()
    assert not body[30:52, 20:36].any()


def test_lungs_that_are_cut_off_by_the_edge_are_of_the_body():
    image, _, lungs = drawn((300, 250))
    cut = slice(150, None)  # the image begins in the middle of the lungs, which are open to its edge
    body = estimate_body(image[cut])
    assert body is not None
    assert body[lungs[cut]].mean() > 0.98


def test_a_pale_image_without_air_is_all_body():
    image, _, _ = drawn((300, 250))
    pale = (0.4 + 0.6 * image[40:, 60:-60]).astype(np.float32)
    body = estimate_body(pale)
    assert body is not None
    assert body.mean() > 0.97


def test_phantoms_have_their_lungs_within_their_body():
    found = 0
    for phantom in phantoms(12, seed=3, side=192):
        body, lungs = estimate_body(phantom.pixels), estimate_lungs(phantom.pixels)
        assert body is not None
        assert body[phantom.lungs].mean() > 0.99
        if lungs is not None:
            found += 1
            assert lungs[phantom.lungs].mean() > 0.4
    assert found >= 8


@pytest.mark.parametrize("shape", [(20, 200), (100, 140)])
def test_nothing_is_found_in_a_flat_or_tiny_image(shape: tuple[int, int]):
    flat = np.full(shape, 0.5, dtype=np.float32)
    assert estimate_lungs(flat) is None
    assert estimate_body(flat) is None


def test_a_few_bright_pixels_are_no_body():
    image = np.zeros((200, 200), dtype=np.float32)
    image[80:110, 80:110] = 1
    assert estimate_body(image) is None


def test_what_is_estimated_is_what_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    image, _, _ = drawn()
    monkeypatch.setattr(anatomy, "estimate_lungs", lambda pixels: ("lungs", pixels))
    monkeypatch.setattr(anatomy, "estimate_body", lambda pixels: ("body", pixels))
    assert estimate("image", image) is None
    assert estimate("lungs", image) == ("lungs", image)
    assert estimate("body", image) == ("body", image)


def _real(shared_data: Path, of_class: str, step: int):
    """X-rays with their outlined lungs."""
    folder = shared_data / "covid_qu_ex" / "Infection Segmentation Data" / "Train" / of_class
    for path in sorted((folder / "images").iterdir())[4::step]:
        lungs = np.asarray(Pillow.open(folder / "lung masks" / f"{path.stem}.png").convert("L")) > 0
        yield np.asarray(Pillow.open(path).convert("L"), dtype=np.float32) / np.float32(255), lungs


def test_estimated_lungs_lie_within_outlined_ones(shared_data: Path):
    """On a few real X-rays; the numbers in the docstring come from every fourth of the 932."""
    inside, dice, missed = [], [], 0
    for pixels, truth in _real(shared_data, "Normal", 30):
        found = estimate_lungs(pixels)
        if found is None:
            missed += 1
            continue
        inside.append((truth & found).sum() / found.sum())
        dice.append(2 * (truth & found).sum() / (truth.sum() + found.sum()))
    assert missed <= 3
    assert np.mean(inside) > 0.88
    assert np.median(dice) > 0.80


@pytest.mark.parametrize("of_class", ["COVID-19", "Normal"])
def test_outlined_lungs_lie_within_the_body(shared_data: Path, of_class: str):
    """On a few real X-rays; the numbers in the docstring come from 465 of them."""
    found = [(estimate_body(pixels), truth) for pixels, truth in _real(shared_data, of_class, 40)]
    assert all(body is not None for body, _ in found)
    within = [body[truth].mean() for body, truth in found if body is not None]
    assert min(within) > 0.95
    assert np.mean(within) > 0.995
    assert np.mean([body.mean() for body, _ in found if body is not None]) < 0.97
