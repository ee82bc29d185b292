"""NIfTI-1 and NIfTI-2, single file, plain or gzipped.

Rules:

- Frames are the slices along the third stored axis, as converters write them; with a fourth axis, volume by volume.
  Read without a frame, the middle slice of the first volume is taken.
- A slice is shown as radiologists see it: head or front up, the patient's right on the left (rows run to posterior or
  inferior, columns to the patient's left, or to posterior in a sagittal slice). Without an orientation in the header,
  the first stored axis runs along the columns and the second along the rows, as ITK writes them.
- The file's own window is ``cal_min`` to ``cal_max``; without one, unscaled 8-bit values are divided by 255 and all
  others follow the range rule of :mod:`radtag.images.window` over the whole file, so that slices stay comparable.
- ``spacing_mm`` is the voxel size in the slice, brought to mm from the header's unit (mm if it names none).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from radtag.errors import UnreadableImage
from radtag.images import window as windows
from radtag.images.image import Image
from radtag.images.limits import MAX_VOXELS, check_frame, refuse_bomb
from radtag.images.window import Window

MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}


def _open(path: Path, stream: Any) -> tuple[Any, tuple[int, int, int, int]]:
    """The file, not yet its data, and its (i, j, slices, volumes)."""
    size = int.from_bytes(stream.peek(4)[:4], "little")
    kind = nib.Nifti2Image if size in (540, 0x1C020000) else nib.Nifti1Image
    volume = kind.from_stream(stream)
    shape = tuple(int(side) for side in volume.shape)
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 4 or not shape:
        raise UnreadableImage(path, f"its shape is {shape}", "Save volumes of at most four axes: i, j, slice, time.")
    shape = shape + (1,) * (4 - len(shape))
    refuse_bomb(path, shape[1], shape[0])
    total = int(np.prod(shape, dtype=np.float64))
    if total > MAX_VOXELS or min(shape) < 1:
        raise UnreadableImage(
            path, f"it declares {shape} voxels, over the limit of {MAX_VOXELS}", "Crop it; it may be damaged."
        )
    return volume, shape  # type: ignore[return-value]


def _stream(path: Path) -> Any:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else path.open("rb")


def count(path: Path) -> int:
    """Slices times volumes."""
    with _stream(path) as stream:
        _, shape = _open(path, stream)
    return shape[2] * shape[3]


def images(path: Path, frame: int | Literal["all"] | None, window: Window) -> Iterator[Image]:
    """The slice asked for (None = the middle of the first volume), or all of them in order."""
    with _stream(path) as stream:
        volume, shape = _open(path, stream)
        slices, frames = shape[2], shape[2] * shape[3]
        check_frame(path, frame, frames)
        if isinstance(window, int):
            raise UnreadableImage(
                path, f"window {window} was asked for and the file stores no list", "Leave the window out."
            )
        limits, rule = _own_window(volume, window)
        if limits is None or frame == "all":
            data = np.asanyarray(volume.dataobj).reshape(shape)
        else:
            first, time = (frame if frame is not None else slices // 2) % slices, (frame or 0) // slices
            data = np.asanyarray(volume.dataobj[_index(volume.shape, first, time)])
        if data.dtype.names:  # RGB and RGBA are structures of bytes
            data = windows.luma(np.stack([data[name] for name in data.dtype.names[:3]], axis=-1)) / np.float32(255)
            limits, rule = (0.0, 1.0), "stored range: 0 to 255"
        if data.dtype.kind == "c":
            raise UnreadableImage(path, "its values are complex numbers", "Save their magnitude.")
        if limits is None:
            if window == "minmax":
                finite = data[np.isfinite(data)]
                limits = (float(finite.min()), float(finite.max())) if finite.size else windows.value_range(finite)
            else:
                limits = windows.value_range(data)
            rule = f"minmax: {limits[0]:g} to {limits[1]:g}"
        for index in range(frames) if frame == "all" else [frame if frame is not None else slices // 2]:
            plane = data[:, :, index % slices, index // slices] if data.ndim == 4 else data
            rows_cols, spacing_mm, axes = _as_seen(volume, plane)
            meta = {"format": "nifti", "frames": frames, "window": rule, "axes": axes}
            pixels = np.ascontiguousarray(windows.to_unit(rows_cols, *limits))
            yield Image(pixels, source=str(path), spacing_mm=spacing_mm, frame=index, meta=meta)


def _index(shape: tuple[int, ...], slice_: int, time: int) -> tuple[Any, ...]:
    """An index of one plane for a file of any number of axes."""
    return (slice(None),) * min(len(shape), 2) + (slice_, time, 0, 0, 0)[: max(len(shape) - 2, 0)]


def _own_window(volume: Any, window: Window) -> tuple[tuple[float, float] | None, str]:
    """The limits to show between, where they can be told without the data."""
    limits = windows.given(window)
    if limits is not None:
        return limits, f"given: {limits[0]:g} to {limits[1]:g}"
    if window == "minmax":
        return None, ""
    low, high = float(volume.header["cal_min"]), float(volume.header["cal_max"])
    if np.isfinite([low, high]).all() and high > low:
        return (low, high), f"cal_min {low:g} to cal_max {high:g}"
    slope, intercept = volume.dataobj.slope, volume.dataobj.inter
    if volume.get_data_dtype() == np.uint8 and (slope, intercept) == (1, 0):
        return (0.0, 255.0), "stored range: 0 to 255"
    return None, ""


def _as_seen(volume: Any, plane: NDArray[Any]) -> tuple[NDArray[Any], tuple[float, float] | None, str]:
    """A plane (i, j) as (row, col), its spacing, and where its rows and columns run to (R L A P S I; "" = unknown)."""
    plane = plane.reshape(plane.shape[0], -1)
    header = volume.header
    unit = header.get_xyzt_units()[0]
    zooms = [float(abs(zoom)) * MM_PER_UNIT.get(unit, 1.0) for zoom in header.get_zooms()[:2]]
    spacing = (zooms[0], zooms[1]) if len(zooms) == 2 and all(np.isfinite(z) and z > 0 for z in zooms) else None
    world = io_orientation(volume.affine)
    if (int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0) or np.isnan(world).any():
        return plane.T, (spacing[1], spacing[0]) if spacing else None, ""
    letters = ["", ""]
    for axis in (0, 1):
        to, sign = int(world[axis, 0]), world[axis, 1]
        # All three are read against the world's direction: to the left, to the back, to the feet.
        letters[axis] = "LPI"[to]
        if sign > 0:
            plane = np.flip(plane, axis)
    if world[0, 0] < world[1, 0]:  # rows run along the later of x, y, z
        return plane.T, (spacing[1], spacing[0]) if spacing else None, letters[1] + letters[0]
    return plane, spacing, letters[0] + letters[1]


def values(path: Path) -> NDArray[Any]:
    """The values of a file of one slice (row, col), laid as an image of it is shown, as stored and without any window.

    Raises:
        UnreadableImage: several slices, or values that are no real numbers.
    """
    with _stream(path) as stream:
        volume, shape = _open(path, stream)
        if shape[2] * shape[3] != 1:
            raise UnreadableImage(path, f"{shape[2] * shape[3]} slices where one is wanted", "Save one slice a file.")
        data = np.asanyarray(volume.dataobj).reshape(shape[:2])
        if data.dtype.names or data.dtype.kind == "c":
            raise UnreadableImage(path, "its values are colours or complex numbers", "Save one real number a pixel.")
        return _as_seen(volume, data)[0]
