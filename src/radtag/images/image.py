"""The Image noun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Image:
    """One image, ready for a model: valid once constructed.

    Args:
        stored: (row, col) float32 in 0-1, after the file's own windowing; colour has become luma. Or uint8, 255 = 1:
            most files are of bytes, and what only needs bytes is spared the way there and back.
        source: the file it came from.
        spacing_mm: distance between the centres of neighbouring rows and of neighbouring columns, or None.
        frame: number of the frame or slice within the file, from 0.
        meta: what else the file told (modality, body part, SOP instance UID ...), for reports and DICOM output.

    Raises:
        ValueError: pixels that are not a two-dimensional, non-empty array of bytes or of finite float32 within 0-1.
    """

    stored: NDArray[np.float32] | NDArray[np.uint8]
    source: str
    spacing_mm: tuple[float, float] | None = None
    frame: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stored.ndim != 2 or self.stored.size == 0:
            raise ValueError(f"{self.source}: an image is rows x columns, got an array of shape {self.stored.shape}")
        if self.stored.dtype == np.uint8:
            return
        if self.stored.dtype != np.float32:
            raise ValueError(f"{self.source}: pixels are float32 or uint8, got {self.stored.dtype}")
        low, high = float(self.stored.min()), float(self.stored.max())
        if not (low >= 0.0 and high <= 1.0):  # also catches NaN
            raise ValueError(f"{self.source}: pixels lie within 0-1, got {low} to {high}")

    @cached_property
    def pixels(self) -> NDArray[np.float32]:
        """(row, col) float32 in 0-1."""
        if self.stored.dtype == np.float32:
            return self.stored.astype(np.float32, copy=False)
        return np.divide(self.stored, np.float32(255), dtype=np.float32)

    @cached_property
    def gray8(self) -> NDArray[np.uint8]:
        """(row, col) the pixels as 0-255, rounded: what networks are fed from and pictures drawn on."""
        return to_bytes(self.stored)

    @property
    def size_rc(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.stored.shape[0]), int(self.stored.shape[1])


def to_bytes(values: NDArray[np.floating[Any]] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """0-1 as 0-255, rounded; what lies outside is clipped. Bytes stay as they are."""
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    flat = values.reshape(-1)
    rounded = np.empty(flat.shape, dtype=np.uint8)
    for start in range(0, len(flat), 2**16):  # so many at a time stay in the processor's cache
        scaled: NDArray[np.floating[Any]] = np.clip(flat[start : start + 2**16], 0, 1)
        scaled *= np.float32(255)
        scaled += np.float32(0.5)
        rounded[start : start + 2**16] = scaled
    return rounded.reshape(values.shape)
