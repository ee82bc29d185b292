"""PNG, JPEG, BMP and PNM by Pillow; TIFF by tifffile.

Rules:

- Integers are divided by their type's maximum (a 12-bit TIFF by 4095); floats and signed integers follow the range rule
  of :mod:`radtag.images.window`, page by page.
- Colour becomes ITU-R 601 luma. Transparency is laid over black. A palette is looked up first. MINISWHITE is inverted.
- The EXIF (or TIFF) orientation is applied, so that "original pixels" are those every viewer shows, and masks and boxes
  drawn in a viewer fit; ``meta["exif_orientation"]`` tells what was done.
- Resolution tags (dpi) tell how large to print, not how large the patient is: ``spacing_mm`` is None.
- Frames are the pages of a TIFF in file order (not its thumbnails, reduced-resolution levels and transparency masks);
  the other formats have one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from radtag.errors import UnreadableImage
from radtag.images import window as windows
from radtag.images.graypng import read_rows
from radtag.images.image import Image
from radtag.images.limits import MAX_PIXELS, check_frame, refuse_bomb
from radtag.images.window import Window

PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "PPM")
STREAMS = (6, 7, 33003, 33004, 33005, 34712)
"""Compressions of TIFF that are JPEG or JPEG 2000."""
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(row, col, ...) turned as the EXIF orientation 1-8 says; any other value leaves it as it is."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _gray(pixels: NDArray[Any], full: float, alpha: Literal["none", "straight", "premultiplied"]) -> NDArray[Any]:
    """(row, col) or (row, col, channel) -> (row, col) in the same values; a last alpha channel is laid over black."""
    if pixels.ndim == 2:
        return pixels
    opacity = None
    if alpha != "none":
        opacity, pixels = pixels[..., -1], pixels[..., :-1]
    gray = pixels[..., 0] if pixels.shape[-1] < 3 else windows.luma(pixels[..., :3])
    if opacity is not None and alpha == "straight" and not (opacity == full).all():
        gray = gray * (opacity / np.float32(full))
    return gray


def _image(
    path: Path,
    gray: NDArray[Any],
    full: float | None,
    *,
    window: Window,
    orientation: int,
    frame: int,
    meta: dict[str, Any],
) -> Image:
    """Scale (row, col) values to 0-1 and turn them upright; ``full`` is the type's maximum, None without one."""
    limits = windows.given(window)
    if isinstance(window, int):
        raise UnreadableImage(path, f"window {window} was asked for and the file stores none", "Leave the window out.")
    if limits is not None:
        rule = f"given: {limits[0]:g} to {limits[1]:g}"
    elif full is not None and window != "minmax":
        limits = (0.0, float(full))
        rule = f"stored range: 0 to {full:g}"
    else:
        if window == "minmax" and gray.dtype.kind == "f":
            finite = gray[np.isfinite(gray)]
            limits = (float(finite.min()), float(finite.max())) if finite.size else windows.value_range(finite)
        else:
            limits = windows.value_range(gray)
        rule = f"minmax: {limits[0]:g} to {limits[1]:g}"
    pixels: NDArray[np.float32] | NDArray[np.uint8]
    if full is not None and gray.dtype.kind == "f" and limits == (0.0, float(full)):
        # Luma of an integer image: float32 already, and rounding may leave it a hair outside.
        pixels = np.clip(gray / np.float32(full), 0, 1).astype(np.float32, copy=False)
    elif gray.dtype == np.uint8 and limits == (0.0, 255.0):
        pixels = gray
    else:
        pixels = windows.to_unit(gray, *limits)
    if orientation != 1:
        pixels = np.ascontiguousarray(upright(pixels, orientation))
        meta = {**meta, "exif_orientation": orientation}
    return Image(pixels, source=str(path), frame=frame, meta={**meta, "window": rule})


def count(path: Path) -> int:
    """Pages of a TIFF; 1 for every other picture."""
    if not _is_tiff(path):
        return 1
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        return len(_planes(path, tiff))


def images(path: Path, frame: int | Literal["all"] | None, window: Window) -> Iterator[Image]:
    """The frame asked for (None = the first), or all of them in order."""
    with path.open("rb") as stream:
        start = stream.read(64 * 1024)
        plain = _plain_gray_png(path, start, stream) if not isinstance(frame, int) or frame == 0 else None
    if plain is not None:
        meta = {"format": "png", "frames": 1, "mode": "L"}
        yield _image(path, plain, 255.0, window=window, orientation=1, frame=0, meta=meta)
    elif start[:4] in TIFF:
        yield from _tiff(path, frame, window)
    else:
        check_frame(path, frame, 1)
        yield _picture(path, start, window)


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in TIFF


# -- Pillow -----------------------------------------------------------------------------------------------------------


def _picture(path: Path, start: bytes, window: Window) -> Image:
    """All but TIFF and plain gray PNGs; ``start`` is what the file begins with."""
    from PIL import Image as Pillow

    deep_png = start.startswith(b"\x89PNG") and start[24:25] == b"\x10"
    if deep_png and (start[25] in (2, 4, 6) or b"tRNS" in start):
        return _deep(path, window, "png")  # Pillow drops the low byte of colours and knows no transparency of 16 bits
    if start.startswith(b"\xff\xd8"):
        from radtag.images.jpeg import header

        told = header(start)
        if told is not None and told.bits > 8:
            return _deep(path, window, "jpeg")
    try:
        picture = Pillow.open(path, formats=PILLOW_FORMATS)
    except Pillow.DecompressionBombError as error:
        raise UnreadableImage(
            path, f"it declares more than {MAX_PIXELS} pixels", "Crop or shrink it first; it may also be damaged."
        ) from error
    with picture:
        refuse_bomb(path, picture.height, picture.width)
        meta: dict[str, Any] = {"format": str(picture.format).lower(), "frames": 1, "mode": picture.mode}
        if picture.format == "JPEG" and picture.mode == "RGB":
            picture.draft("L", picture.size)  # the file's own luma channel, without a way through RGB
        picture.load()
        orientation = int(picture.getexif().get(0x0112, 1) or 1)
        full: float | None = 255.0
        alpha: Literal["none", "straight"] = "none"
        mode = picture.mode
        if mode == "1":
            full = 1.0
        elif mode.startswith("I;16"):
            full = 65535.0
        elif mode == "I":
            full = 65535.0  # Pillow's way of holding 16-bit PNM
        elif mode == "F":
            full = None
        shown: Pillow.Image = picture
        if full == 255.0 and picture.has_transparency_data:
            shown, alpha = picture.convert("LA" if mode in ("L", "LA", "La") else "RGBA"), "straight"
        elif full == 255.0 and mode not in ("L", "RGB"):
            shown = picture.convert("RGB")
        values = np.asarray(shown)
        if mode == "1":
            values = values.astype(np.uint8)  # what follows asks integers for their range
        elif mode == "I":
            values = values.astype(np.uint16)
    gray = _gray(values, full or 1.0, alpha)
    return _image(path, gray, full, window=window, orientation=orientation, frame=0, meta=meta)


def bits(path: Path) -> NDArray[np.bool_] | None:
    """A plain gray PNG of one bit a pixel (row, col), without a way through grays; None for any other file."""
    found = read_rows(path, 1)
    if found is not None and not found.further:
        return np.unpackbits(found.values, axis=1, count=found.cols).view(np.bool_)
    from PIL import Image as Pillow

    with path.open("rb") as stream:
        start = stream.read(33)
        if not (start.startswith(b"\x89PNG") and start[12:16] == b"IHDR" and start[24:26] == b"\x01\x00"):
            return None
        refuse_bomb(path, int.from_bytes(start[20:24], "big"), int.from_bytes(start[16:20], "big"))
        stream.seek(0)
        with Pillow.open(stream, formats=("PNG",)) as picture:
            picture.load()
            turned = int(picture.getexif().get(0x0112, 1) or 1) != 1
            return None if turned or picture.has_transparency_data or picture.mode != "1" else np.asarray(picture)


def _plain_gray_png(path: Path, start: bytes, rest: BinaryIO) -> NDArray[np.uint8] | None:
    """An 8-bit gray PNG (row, col) by libpng, which takes a quarter less time than Pillow over the same pixels.

    Args:
        path: the file.
        start: its first bytes.
        rest: what is left of it.

    Returns:
        None for any other file, for one that may tell of transparency or orientation, and for one that libpng does not
        take: these are Pillow's, which says what is wrong.

    Raises:
        UnreadableImage: a size that is none.
    """
    plain = start[24:29] == b"\x08\x00\x00\x00\x00"  # 8 bits, gray; libpng is loud about interlaced files
    if not (start.startswith(b"\x89PNG") and start[12:16] == b"IHDR" and plain):
        return None
    import imagecodecs

    refuse_bomb(path, int.from_bytes(start[20:24], "big"), int.from_bytes(start[16:20], "big"))
    data = start + rest.read()
    if any(word in data for word in (b"tRNS", b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")):
        return None
    try:
        values: NDArray[np.uint8] = imagecodecs.png_decode(data)
    except imagecodecs.PngError:
        return None
    return values


def _deep(path: Path, window: Window, kind: Literal["png", "jpeg"]) -> Image:
    """16-bit colour or transparent PNG and 12-bit JPEG, which Pillow reads at 8 bits or not at all."""
    import imagecodecs
    from PIL import Image as Pillow

    data, orientation = path.read_bytes(), 1
    if kind == "png":
        refuse_bomb(path, int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big"))
        values, full = imagecodecs.png_decode(data), 65535.0
        with Pillow.open(path, formats=("PNG",)) as picture:
            orientation = int(picture.getexif().get(0x0112, 1) or 1)
    else:
        from radtag.images.jpeg import header

        told = header(data)
        assert told is not None  # the caller read it
        refuse_bomb(path, told.rows, told.cols)
        values, full = imagecodecs.jpeg8_decode(data), float(2**told.bits - 1)
    channels = values.shape[2] if values.ndim == 3 else 1
    gray = _gray(values, full, "straight" if channels in (2, 4) else "none")
    meta = {"format": kind, "frames": 1, "mode": f"{channels}x{values.dtype}"}
    return _image(path, gray, full, window=window, orientation=orientation, frame=0, meta=meta)


# -- TIFF -------------------------------------------------------------------------------------------------------------


def _planes(path: Path, tiff: Any) -> list[tuple[Any, int | None]]:
    """(page, None) for a plane with its own page; (series, index) for one of many behind a single page (ImageJ)."""
    found: list[tuple[tuple[int, ...], Any, int | None]] = []
    for series in tiff.series:
        page = series.keyframe
        inside = int(np.prod(page.shape, dtype=np.int64))
        whole = int(np.prod(series.shape, dtype=np.int64))
        if inside < 1 or whole < 1:
            raise UnreadableImage(path, f"a page has the size {page.shape}", "The file is damaged; export it again.")
        number = whole // inside
        if number == len(series.pages):
            found += [(one.treeindex, one, None) for one in series.pages]
        else:
            found += [(page.treeindex, series, k) for k in range(number)]
    if not found:
        raise UnreadableImage(path, "the TIFF has no page", "The file is damaged; export it again.")
    found.sort(key=lambda plane: plane[0])  # a series has pages of one kind, and pages of another may lie between
    planes = [(holder, inside) for _, holder, inside in found]
    return [plane for plane in planes if not _is_aside(plane[0])] or planes


def _is_aside(page: Any) -> bool:
    """Whether a page is a thumbnail or a lower resolution of another one, or its transparency mask."""
    return bool(getattr(page, "is_reduced", False) or getattr(page, "is_mask", False))


def _refuse_bombs_inside(path: Path, tiff: Any, page: Any) -> None:
    """JPEG and JPEG 2000 streams within a page say their own size, and a decoder believes them."""
    from radtag.images.jpeg import header

    if int(page.compression) not in STREAMS:
        return
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=False):
        tiff.filehandle.seek(offset)
        told = header(tiff.filehandle.read(min(length, 4096)))
        if told is not None:
            refuse_bomb(path, told.rows, told.cols)


def _tiff(path: Path, frame: int | Literal["all"] | None, window: Window) -> Iterator[Image]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        planes = _planes(path, tiff)
        check_frame(path, frame, len(planes))
        wanted = range(len(planes)) if frame == "all" else [frame or 0]
        for index in wanted:
            holder, inside = planes[index]
            page = holder if inside is None else holder.keyframe
            page = page.aspage() if hasattr(page, "aspage") else page
            _refuse_bombs_inside(path, tiff, page)
            yield _tiff_page(path, page, holder, inside, window, index, len(planes))


def _tiff_page(
    path: Path, page: Any, holder: Any, inside: int | None, window: Window, index: int, frames: int
) -> Image:
    import tifffile

    rows, cols = int(page.imagelength), int(page.imagewidth)
    refuse_bomb(path, rows, cols, int(page.samplesperpixel))
    if page.axes not in ("YX", "YXS", "SYX"):
        raise UnreadableImage(
            path, f"a page has the axes {page.axes}", "Save each plane as a page of rows and columns."
        )
    photometric = tifffile.PHOTOMETRIC(page.photometric)
    kinds = tifffile.PHOTOMETRIC
    known = (kinds.MINISBLACK, kinds.MINISWHITE, kinds.RGB, kinds.PALETTE, kinds.SEPARATED, kinds.YCBCR)
    jpeg = int(page.compression) in (6, 7)
    if photometric not in known or (photometric == kinds.YCBCR and not jpeg):
        raise UnreadableImage(path, f"its photometric interpretation is {photometric.name}", "Save it as gray or RGB.")
    if inside is None:
        values = page.asarray()
    else:
        series = holder.asarray(out="memmap") if holder.dataoffset is None else holder.asarray()
        values = series.reshape(-1, *page.shape)[inside].copy()  # or each page would keep the whole series
    if page.axes == "SYX":
        values = np.moveaxis(values, 0, -1)

    bits = int(page.bitspersample)
    full: float | None = float(2**bits - 1) if values.dtype.kind in "ub" else None
    if values.dtype.kind == "c":
        raise UnreadableImage(path, "its values are complex numbers", "Save their magnitude.")
    if values.dtype == np.bool_:
        full = 1.0
    extra = [int(sample) for sample in page.extrasamples]
    colours = {kinds.RGB: 3, kinds.YCBCR: 3, kinds.SEPARATED: 4}.get(photometric, 1)
    if photometric == kinds.PALETTE:
        values, full = np.moveaxis(np.asarray(page.colormap)[:, values], 0, -1), 65535.0
        if page.colormap.max() < 256:  # a common mistake of writers: 8-bit entries in the 16-bit table
            full = 255.0
        extra = []
    elif values.ndim == 3 and values.shape[-1] > colours:
        keep = colours + 1 if extra and extra[0] in (1, 2) else colours
        values = values[..., :keep]
        extra = extra[:1] if keep > colours else []
    if photometric == kinds.SEPARATED:
        if full is None:
            raise UnreadableImage(path, "it is CMYK in floats or signed integers", "Save it as gray or RGB.")
        ink = values[..., :4] / np.float32(full)
        rgb = (1 - ink[..., :3]) * (1 - ink[..., 3:]) * np.float32(full)
        values, extra = rgb, []
    if photometric in (kinds.RGB, kinds.YCBCR) and values.ndim != 3:
        raise UnreadableImage(path, f"it says {photometric.name} and has one sample a pixel", "Save it as gray or RGB.")
    # Only 1 (premultiplied) and 2 (straight) are transparency; 0 is data of an unknown kind and is left out.
    alpha: Literal["none", "straight", "premultiplied"] = "none"
    if values.ndim == 3 and values.shape[-1] in (2, 4) and extra:
        alpha = "premultiplied" if extra[0] == 1 else "straight"
    gray = _gray(values, full or 1.0, alpha)
    if photometric == kinds.MINISWHITE:
        gray = (full - gray).astype(gray.dtype) if full is not None else -gray.astype(np.float64)
    tag = page.tags.get(274)
    orientation = int(tag.value) if tag is not None else 1
    meta = {"format": "tiff", "frames": frames, "mode": f"{photometric.name} {bits}-bit"}
    return _image(path, gray, full, window=window, orientation=orientation, frame=index, meta=meta)
