"""What is too large to be an image, and what is no frame of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from radtag.errors import UnreadableImage

MAX_PIXELS = 178_956_970
"""Pixels of one image: Pillow's own limit, for every format. Radiographs have below 40 million."""

MAX_VOXELS = 2**29
"""Values of one volume or decompressed file: 2 GiB as float32."""


def refuse_bomb(path: Path, rows: int, cols: int, samples: int = 1) -> None:
    """Refuse sizes that are no image, before anything of that size is allocated.

    Raises:
        UnreadableImage: a side below one pixel, more than ``MAX_PIXELS`` pixels or more than 16 samples a pixel.
    """
    if rows < 1 or cols < 1:
        raise UnreadableImage(path, f"it has {rows} rows and {cols} columns", "The file is damaged; export it again.")
    if rows * cols > MAX_PIXELS:
        raise UnreadableImage(
            path,
            f"it declares {rows} x {cols} pixels, over the limit of {MAX_PIXELS}",
            "Crop or shrink it first; it may also be damaged.",
        )
    if not 1 <= samples <= 16:
        raise UnreadableImage(path, f"it has {samples} samples a pixel", "Save it as gray or RGB.")


def check_frame(path: Path, frame: int | Literal["all"] | None, frames: int) -> None:
    """Refuse a frame the file does not have.

    Raises:
        UnreadableImage: naming the frames there are.
    """
    if isinstance(frame, int) and not 0 <= frame < frames:
        raise UnreadableImage(path, f"frame {frame} was asked for", f"It has {frames} frames, counted from 0.")
