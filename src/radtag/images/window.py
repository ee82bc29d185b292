"""From a file's own values to 0-1: the windows of DICOM PS3.3 C.11.2.1, and the range rules where a file has none.

One rule for every format that stores no window of its own:

1. unsigned integers that fill a picture (PNG, JPEG, integer TIFF, 8-bit DICOM without rescale): 0 to the type's
   maximum;
2. floats that all lie within 0-1: kept as they are;
3. everything else: minimum to maximum of the finite, non-padding pixels. A constant image is 0 throughout.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Window: TypeAlias = tuple[float, float] | int | Literal["minmax"] | None
"""What a caller may ask for: ``(centre, width)`` in the file's values, which of the file's windows (from 0), the plain
range of the pixels, or None = the file's own choice."""

Floats: TypeAlias = NDArray[np.float64]


def linear(values: Floats, centre: float, width: float) -> Floats:
    """LINEAR: 0 up to ``centre - 0.5 - (width - 1) / 2``, 1 above ``centre - 0.5 + (width - 1) / 2``; width >= 1."""
    middle = centre - 0.5
    if width == 1:
        return (values > middle).astype(values.dtype)
    return np.clip((values - middle) / (width - 1) + 0.5, 0, 1)


def linear_exact(values: Floats, centre: float, width: float) -> Floats:
    """LINEAR_EXACT: 0 up to ``centre - width / 2``, 1 above ``centre + width / 2``; width > 0."""
    return np.clip((values - centre) / width + 0.5, 0, 1)


def sigmoid(values: Floats, centre: float, width: float) -> Floats:
    """SIGMOID: ``1 / (1 + exp(-4 (value - centre) / width))``; width > 0."""
    return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))


def between(values: Floats, low: float, high: float) -> Floats:
    """``low`` becomes 0 and ``high`` 1; a range of no width gives 0."""
    if not high > low:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0, 1)


def value_range(values: NDArray[Any]) -> tuple[float, float]:
    """The range rule for values without a window (rules 2 and 3 above).

    Args:
        values: any shape; non-finite values are passed over.

    Raises:
        ValueError: no value is finite.
    """
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            values = values[finite]
    if values.size == 0:
        raise ValueError("no pixel has a finite value")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high


def given(window: Window) -> tuple[float, float] | None:
    """The limits a caller's ``(centre, width)`` stands for (LINEAR_EXACT), or None if no such window was given.

    Raises:
        ValueError: a width that is not above 0.
    """
    if not isinstance(window, tuple):
        return None
    centre, width = (float(part) for part in window)
    if not (np.isfinite(centre) and np.isfinite(width) and width > 0):
        raise ValueError(f"a window is (centre, width) with a width above 0, got {window}")
    return centre - width / 2, centre + width / 2


def to_unit(values: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Values of any type as float32 in 0-1, where ``low`` is 0 and ``high`` is 1; what is not finite becomes 0."""
    if values.dtype == np.bool_ or (values.dtype.kind == "u" and values.dtype.itemsize <= 2 and low == 0 and high > 0):
        unit = np.divide(values, np.float32(high), dtype=np.float32)  # the way of nearly every file: one pass
        largest = 1 if values.dtype == np.bool_ else np.iinfo(values.dtype).max
        return unit if high >= largest else np.minimum(unit, np.float32(1))
    exact = values.astype(np.float64)
    return np.nan_to_num(between(exact, low, high), nan=0.0).astype(np.float32)


def luma(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """ITU-R 601 luma of (row, col, 3), in the values of ``rgb``; a gray pixel keeps its value exactly."""
    green = rgb[..., 1].astype(np.float32)
    red_over = rgb[..., 0] - green
    blue_over = rgb[..., 2] - green
    return green + np.float32(0.299) * red_over + np.float32(0.114) * blue_over
