"""An image as a network takes it: uint8, square, with the frame that leads back.

A network may be confined to the lungs: it is then shown the lungs' *field* alone, cut out and all else black, and its
maps are 0 outside the lungs. What tells one hospital's images from another's (letters, collimators, the position of
the arms) is mostly there, and so is what a map had better not be drawn to.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from scipy import ndimage

from radtag.anatomy import split_lungs
from radtag.geometry import Frame
from radtag.images import Image

Mask = NDArray[np.bool_]
Fit = Literal["stretch", "letterbox"]

FIELD_MARGIN = 1 / 64
"""How far the field reaches beyond the lungs that were found, as a share of the image's longer side: an outline is
right to a hundredth of it."""

DARKEST = 2
"""Least value of a pixel within the field, of 255: what is 0 lies outside, in the network's square too."""


class LungFinder(Protocol):
    """What finds the lungs (row, col) of an image; its name, and what tells it from all others wherever it lies."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def __call__(self, image: Image) -> Mask: ...


class LungField(NamedTuple):
    """Where a network that is confined to the lungs may look, and where it may find something; both (row, col).

    An outline is not exact, and what is shown has a margin, lest the edge of a lung be missing. A map has none: on
    lesions that end where the lungs do, the wall of the chest, which it lit up there, cost more than the lung's last
    pixels gave (docs/log.md).
    """

    seen: Mask
    lungs: Mask


def lung_field(image: Image, find_lungs: LungFinder) -> LungField | None:
    """Both lungs without holes, and with a margin; None where none are found, and the whole image counts."""
    lungs = split_lungs(find_lungs(image))
    if not lungs:
        return None
    found: Mask = np.logical_or.reduce(lungs)
    margin = max(round(FIELD_MARGIN * max(image.size_rc)), 1)
    rows, cols = (_extent(np.asarray(found.any(axis=axis)), margin) for axis in (1, 0))
    field = LungField(np.zeros_like(found), np.zeros_like(found))
    field.lungs[rows, cols] = ndimage.binary_fill_holes(found[rows, cols])
    field.seen[rows, cols] = ndimage.distance_transform_edt(~field.lungs[rows, cols]) <= margin
    return field


def prepare(image: Image, size_px: int, fit: Fit, field: Mask | None = None) -> tuple[NDArray[np.uint8], Frame]:
    """Resize to a square, antialiased bicubic (Pillow's).

    Args:
        image: any image.
        size_px: side of the square.
        fit: "stretch" fills the square, "letterbox" keeps the aspect and pads with black.
        field: (row, col) all that is to be seen of the image, see :attr:`LungField.seen`; None = all of it.

    Returns:
        (size_px, size_px) uint8, and the frame from the original's pixels to the square's.
    """
    # Rounding to 8 bits before the resize costs at most half a grey level and makes the resize several times faster.
    pixels = image.gray8
    part = slice(None), slice(None)
    first_rc = (0, 0)
    if field is not None:
        part = _extent(np.asarray(field.any(axis=1))), _extent(np.asarray(field.any(axis=0)))
        pixels = np.where(field[part], np.maximum(pixels[part], DARKEST), 0).astype(np.uint8)
        first_rc = (part[0].start, part[1].start)
    size_rc = (pixels.shape[0], pixels.shape[1])
    frame = (Frame.stretch if fit == "stretch" else Frame.letterbox)(size_rc, (size_px, size_px))
    gray = PIL.Image.fromarray(pixels)
    row, col, rows, cols = frame.placed_rc
    if gray.size != (cols, rows):
        gray = gray.resize((cols, rows), PIL.Image.Resampling.BICUBIC)
    square = np.zeros((size_px, size_px), dtype=np.uint8)
    placed = square[row : row + rows, col : col + cols]
    placed[:] = np.asarray(gray)
    if field is None:
        return square, frame
    # Beside a bright edge the resize may undershoot to 0, which is for what lies outside.
    seen = PIL.Image.fromarray(field[part].astype(np.uint8) * 255).resize((cols, rows), PIL.Image.Resampling.BOX)
    np.maximum(placed, 1, out=placed, where=np.asarray(seen) > 127)
    return square, frame.of_whole(image.size_rc, first_rc)


def _extent(there: NDArray[Any], margin: int = 0) -> slice:
    """From the first to the last True of a line, and so much more on both sides, as far as it goes."""
    at = np.flatnonzero(there)
    return slice(max(int(at[0]) - margin, 0), min(int(at[-1]) + 1 + margin, len(there)))
