"""An image as a network takes it: uint8, square, with the frame that leads back."""

from __future__ import annotations

from typing import Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from radtag.geometry import Frame
from radtag.images import Image

Fit = Literal["stretch", "letterbox"]


def prepare(image: Image, size_px: int, fit: Fit) -> tuple[NDArray[np.uint8], Frame]:
    """Resize to a square, antialiased bicubic (Pillow's).

    Args:
        image: any image.
        size_px: side of the square.
        fit: "stretch" fills the square, "letterbox" keeps the aspect and pads with black.

    Returns:
        (size_px, size_px) uint8, and the frame from the original's pixels to the square's.
    """
    frame = (Frame.stretch if fit == "stretch" else Frame.letterbox)(image.size_rc, (size_px, size_px))
    # Rounding to 8 bits before the resize costs at most half a grey level and makes the resize several times faster.
    gray = PIL.Image.fromarray(image.gray8)
    row, col, rows, cols = frame.placed_rc
    if gray.size != (cols, rows):
        gray = gray.resize((cols, rows), PIL.Image.Resampling.BICUBIC)
    square = np.zeros((size_px, size_px), dtype=np.uint8)
    square[row : row + rows, col : col + cols] = np.asarray(gray)
    return square, frame
