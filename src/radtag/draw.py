"""Pictures of images, maps, masks and boxes. The only file with a colour map.

Conventions
-----------
- A map is drawn on its absolute scale, 0 to 1, never stretched to its own range: what is drawn over the image is as
  opaque as the map is high, so that a healthy image stays as it is.
- Boxes are xyxy, half-open, original pixels. What is true is blue and solid, what was predicted is orange and
  dashed; the mask's outline is white, the peak a white cross. Blue and orange (Okabe & Ito, "Color Universal
  Design", 2008) are told apart by colour-blind readers, and solid and dashed without colour. Where several findings
  share a picture (:func:`annotated`), outline, boxes, peak and caption of each have a colour of their own; blue stays
  the truth's.
- Pictures are (row, col, 3) uint8, written as PNG or JPEG by the name's ending; maps are 16-bit gray PNGs, 65535 = 1.0;
  masks 1-bit PNGs. Every file is written beside its place and moved there, so that none is ever seen half written.
"""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from radtag.geometry import Interpolated, Lines
from radtag.images.image import to_bytes
from radtag.regions import Mask, Regions

Picture = NDArray[np.uint8]
Gray = NDArray[np.floating[Any]]
Colour = tuple[int, int, int]

COLOUR_MAP = "inferno"
OPACITY = 0.75
"""Of a map value of 1."""
TRUE = (86, 180, 233)
PREDICTED = (230, 159, 0)
OUTLINE = (255, 255, 255)
HALO = (0, 0, 0)
PAPER = (24, 24, 24)
INK = (235, 235, 235)
MARKS: tuple[Colour, ...] = (
    (255, 255, 255),
    (230, 159, 0),
    (0, 225, 165),
    (255, 130, 205),
    (240, 228, 66),
    (175, 155, 255),
    (255, 105, 85),
    (150, 215, 60),
)
"""Of findings that share a picture, bright on a radiograph and on dark paper; begun again where there are more."""
SMALLEST_PX = 512
"""Longest side of an annotated picture at least: a smaller image is enlarged by a whole number, for its captions."""


@dataclass(frozen=True)
class Mark:
    """One finding in a picture.

    Args:
        caption: a line above the picture.
        mask: (row, col), of which the edge is drawn; outside it there is none.
        boxes_xyxy: (n, 4), drawn dashed.
        peak_xy: drawn as a cross.
        colour: number of its colour in :data:`MARKS`.
        corner_rc: where the mask's first pixel lies.
    """

    caption: str
    mask: Mask
    boxes_xyxy: ArrayLike
    peak_xy: tuple[float, float]
    colour: int = 0
    corner_rc: tuple[int, int] = (0, 0)


def gray(pixels: Gray | Picture) -> Picture:
    """An image (row, col), of 0-1 or in bytes, as a picture."""
    return np.repeat(to_bytes(pixels)[..., None], 3, axis=2)


def overlay(pixels: Gray | Picture, map_: Gray, *, opacity: float = OPACITY) -> Picture:
    """A map over its image.

    Args:
        pixels: (row, col), 0-1 or in bytes.
        map_: (row, col) of the same size, on the absolute scale 0-1.
        opacity: of a map value of 1; in between, in proportion.

    Raises:
        ValueError: image and map differ in size.
    """
    blended = _blended(pixels, map_, opacity)
    return np.asarray(_canvas(blended))


def annotated(pixels: Gray | Picture, map_: Gray | Picture, marks: Sequence[Mark] = ()) -> Image.Image:
    """A map over its image, with what was found: outlines below all boxes, crosses above them, captions on top.

    Several times as fast as :func:`overlay`, :func:`outline`, :func:`boxes` and :func:`labelled` one after the other.
    An image smaller than ``SMALLEST_PX`` is enlarged by a whole number; its pixels and the map's are seen as squares.

    Args:
        pixels: (row, col), 0-1 or in bytes.
        map_: (row, col) of the same size, on the absolute scale 0-1 or in bytes.
        marks: a finding each, in pixels of the image.
    """
    zoom = -(-SMALLEST_PX // max(pixels.shape))
    rows, cols = (zoom * side for side in pixels.shape)
    colours = [MARKS[mark.colour % len(MARKS)] for mark in marks]
    strip = _strip([mark.caption for mark in marks], cols, colours)
    above = strip.height if strip is not None else 0
    blended = np.empty((above + rows, cols), dtype=np.uint32)
    below = blended[above:]
    if zoom == 1:
        _blended(pixels, map_, OPACITY, out=below)
    else:
        below[:] = _enlarged(_blended(pixels, map_, OPACITY), zoom)
    width = _stroke((rows, cols))
    inks = [_packed(colour) for colour in colours]
    for mark, ink in zip(marks, inks, strict=True):
        top, left = (zoom * first for first in mark.corner_rc)
        where, edge = _edge(_enlarged(mark.mask, zoom), width)
        below[top:, left:][where][edge] = ink
    for mark, ink in zip(marks, inks, strict=True):
        for box in np.asarray(mark.boxes_xyxy, dtype=np.float64).reshape(-1, 4):
            _box(below, zoom * box, ink, _packed(HALO), width, 6 * width)
    for mark, ink in zip(marks, inks, strict=True):
        x, y = mark.peak_xy
        _cross(below, int(zoom * x), int(zoom * y), width, ink, _packed(HALO))
    canvas = _canvas(blended)
    if strip is not None:
        canvas.paste(strip)
    return canvas


def outline(picture: Picture, mask: Mask, *, colour: Colour = OUTLINE) -> Picture:
    """The inner edge of a mask (row, col), drawn on a copy."""
    drawn = picture.copy()
    where, edge = _edge(mask, _stroke(mask.shape))
    drawn[where][edge] = colour
    return drawn


def boxes(
    picture: Picture,
    *,
    true_xyxy: ArrayLike = (),
    predicted_xyxy: ArrayLike = (),
    peak_xy: tuple[float, float] | None = None,
    width_px: int | None = None,
) -> Picture:
    """True boxes (n, 4), predicted boxes (m, 4) and the peak, drawn on a copy, with lines by the picture's size."""
    drawn = picture.copy()
    width = width_px or _stroke(picture.shape)
    for xyxy, colour, dash in ((true_xyxy, TRUE, 0), (predicted_xyxy, PREDICTED, 6 * width)):
        for box in np.asarray(xyxy, dtype=np.float64).reshape(-1, 4):
            _box(drawn, box, colour, HALO, width, dash)
    if peak_xy is not None:
        _cross(drawn, int(peak_xy[0]), int(peak_xy[1]), width, OUTLINE, HALO)  # the centre of a pixel is that pixel
    return drawn


def labelled(picture: Picture, lines: Sequence[str]) -> Picture:
    """A dark strip with a line of text each, put above a copy of the picture."""
    strip = _strip(lines, picture.shape[1])
    return picture.copy() if strip is None else np.concatenate([np.asarray(strip), picture])


def side_by_side(pictures: Sequence[Picture], *, gap_px: int = 8) -> Picture:
    """Pictures in a row, top-aligned on dark paper."""
    return sheet(pictures, columns=len(pictures), gap_px=gap_px)


def sheet(pictures: Iterable[Picture], *, columns: int = 4, cell_px: int | None = None, gap_px: int = 8) -> Picture:
    """A contact sheet.

    Args:
        pictures: of any sizes, in reading order.
        columns: pictures in a row.
        cell_px: longest side of a picture on the sheet, to which each is reduced; None = as they are.
        gap_px: between pictures.

    Raises:
        ValueError: no picture, or fewer than one column.
    """
    shown = [picture if cell_px is None else reduced(picture, cell_px) for picture in pictures]
    if not shown or columns < 1:
        raise ValueError(f"a sheet needs a picture and a column, got {len(shown)} and {columns}")
    rows = [shown[i : i + columns] for i in range(0, len(shown), columns)]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    widths = [max(row[i].shape[1] for row in rows if i < len(row)) for i in range(len(rows[0]))]
    total = sum(heights) + gap_px * (len(heights) - 1), sum(widths) + gap_px * (len(widths) - 1)
    paper = np.empty((*total, 3), dtype=np.uint8)
    paper[:] = PAPER
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for picture, width in zip(row, widths, strict=False):
            paper[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            left += width + gap_px
        top += height + gap_px
    return paper


def strip(pictures: Gray) -> Picture:
    """Gray pictures (row of the sheet, column of the sheet, row, col) in 0-1, as one sheet."""
    return sheet([gray(one) for line in pictures for one in line], columns=pictures.shape[1], gap_px=2)


def reduced(picture: Picture, longest_px: int) -> Picture:
    """A picture, or a channel of one, whose longest side is at most ``longest_px``; a smaller one as it is."""
    factor = longest_px / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX, reducing_gap=1.0))


def encode_picture(picture: Picture | Image.Image, kind: str = "jpeg") -> bytes:
    """A picture as a JPEG (quality 90) or a PNG file."""
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    if kind == "jpeg":
        image.save(buffer, "JPEG", quality=90)
    elif kind == "png":
        image.save(buffer, "PNG", compress_level=1)
    else:
        raise ValueError(f"a picture is written as jpeg or png, not {kind!r}")
    return buffer.getvalue()


def encode_map(map_: Gray) -> bytes:
    """A map (row, col) of 0-1 as a 16-bit gray PNG file, 65535 = 1.0."""
    rows, cols = map_.shape

    def blocks() -> Iterator[NDArray[np.uint8]]:
        for top in range(0, rows, step := _rows_at_once(2 * cols)):
            yield _high_byte_first(_levels(map_[top : top + step]))

    return _gray_png(blocks(), (rows, cols), 16)


MOST_STEPS = 16
"""Rows that differ by equal steps in :func:`encode_laid_map`: of n, none is off by more than (n - 1) / 2 of 1/65535."""


def encode_laid_map(laid: Interpolated) -> bytes:
    """As :func:`encode_map`, of a map that is made while it is packed, to within 8/65535.

    Between two cells a bilinear map changes from row to row by the same amount. Here that is a whole number of levels,
    and the row in the middle is the exact one: whole numbers are added in a tenth of the time that interpolation takes,
    and the differences from row to row, being the same again and again, are packed in two thirds of it, into half.

    Args:
        laid: the map (row, col), nowhere outside 0-1.
    """
    return _gray_png((_high_byte_first(levels) for levels in _level_blocks(laid)), laid.size_rc, 16)


def _level_blocks(laid: Interpolated) -> Iterator[NDArray[np.uint16]]:
    """A map of 0-1 in levels, 65535 = 1.0, some rows at a time, as :func:`encode_laid_map` makes them."""
    rows, cols = laid.size_rc
    at_once = _rows_at_once(2 * cols)
    lines = laid.lines(MOST_STEPS)
    if len(lines.starts) > rows // 4:  # cells as fine as pixels
        for top in range(0, rows, at_once):
            yield _levels(laid.rows(top, min(top + at_once, rows)))
        return
    bases, steps = _whole_steps(lines)
    piece = np.repeat(np.arange(len(lines.starts)), lines.further.astype(np.int64) + 1)
    number = (np.arange(rows) - lines.starts[piece]).astype(np.uint16)[:, None]
    for top in range(0, rows, at_once):
        some = slice(top, top + at_once)
        levels = steps[piece[some]]
        levels *= number[some]
        levels += bases[piece[some]]
        yield levels


def _whole_steps(lines: Lines) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Of lines between 0 and 1 the levels (piece, col) they begin at, and go on by; a step down wraps around."""
    slope = lines.slope * np.float32(65535)
    middle = lines.middle * np.float32(65535)
    further = lines.further[:, None]
    step = np.rint(slope)
    base = _first_levels(middle, step, further)
    last = step * further
    last += base
    if min(base.min(), last.min()) < 0 or max(base.max(), last.max()) > 65535:
        # No row may leave the range: where one would, a step that is not larger than the slope keeps it inside.
        outside = (np.minimum(base, last) < 0) | (np.maximum(base, last) > 65535)
        step[outside] = np.trunc(slope[outside])
        base = _first_levels(middle, step, further)
    return base.astype(np.uint16), step.astype(np.int32).astype(np.uint16)


def _first_levels(middle: Gray, step: Gray, further: Gray) -> Gray:
    """Whole levels from which so many further steps lead past the middle, as nearly as can be."""
    base = step * (-further / 2)
    base += middle
    return np.rint(base, out=base)


def highest(laid: Sequence[Interpolated]) -> Picture:
    """The highest of several maps (row, col) of 0-1 at each pixel, in bytes."""
    return np.concatenate(
        [
            _rounded_to_bytes(reduce(np.maximum, levels))
            for levels in zip(*(_level_blocks(one) for one in laid), strict=True)
        ]
    )


def _rounded_to_bytes(levels: NDArray[np.uint16]) -> Picture:
    """65535 as 255."""
    scaled = levels - (levels >> 8)  # by 255 / 256
    scaled += 128
    scaled >>= 8
    return scaled.astype(np.uint8)


def encode_mask(mask: Mask) -> bytes:
    """A mask (row, col) as a 1-bit PNG file, white inside."""
    rows, cols = mask.shape
    step = _rows_at_once(-(-cols // 8))
    return _gray_png((np.packbits(mask[top : top + step], axis=1) for top in range(0, rows, step)), (rows, cols), 1)


def encode_regions(found: Regions) -> bytes:
    """:func:`encode_mask` of what is known to lie in a part of the image."""
    (rows, cols), part = found.part.size_rc, found.part
    bits = np.zeros((rows, -(-cols // 8)), dtype=np.uint8)
    first = part.cols.start // 8
    inside = np.pad(found.inside, ((0, 0), (part.cols.start - 8 * first, 0)))
    packed = np.packbits(inside, axis=1)
    bits[part.rows, first : first + packed.shape[1]] = packed
    return _gray_png([bits], (rows, cols), 1)


def _levels(map_: Gray) -> NDArray[np.uint16]:
    """Values of 0-1, clipped to that, in levels."""
    levels: Gray = np.clip(map_, 0, 1) * np.float32(65535) + np.float32(0.5)
    return levels.astype(np.uint16, order="C")


def _rows_at_once(bytes_of_row: int) -> int:
    """So many that an image of a megapixel is done at once, and a larger one does not take much memory.

    Less would stay in a smaller cache, and yet take longer: after every call into numpy a thread waits for the others.
    """
    return max(1, 2**21 // bytes_of_row)


def _high_byte_first(levels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Of rows of 16-bit levels their bytes in PNG's order."""
    return levels.astype(">u2", copy=False).view(np.uint8)


def _gray_png(blocks: Iterable[NDArray[np.uint8]], size_rc: tuple[int, int], bits: int) -> bytes:
    """A gray PNG file.

    Smooth maps and blobs alike are best told by the differences from row to row (PNG's filter 2), which spares choosing
    a filter for each row. ISA-L packs them faster than zlib-ng, into less.

    Args:
        blocks: bytes (row, byte) of rows that follow each other.
        size_rc: rows and columns.
        bits: of a pixel.
    """
    from isal import isal_zlib  # its crc32 is several times as fast, too

    rows, cols = size_rc
    packer = isal_zlib.compressobj(0)
    parts = []
    last: NDArray[np.uint8] | int = 0
    for block in blocks:
        lines = np.empty((block.shape[0], 1 + block.shape[1]), dtype=np.uint8)
        lines[:, 0] = 2
        np.subtract(block[0], last, out=lines[0, 1:])
        np.subtract(block[1:], block[:-1], out=lines[1:, 1:])
        last = block[-1]
        parts.append(packer.compress(lines))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", cols, rows, bits, 0, 0, 0, 0)),
        (b"IDAT", b"".join([*parts, packer.flush()])),
        (b"IEND", b""),
    )
    file = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in chunks:
        check = isal_zlib.crc32(body, isal_zlib.crc32(kind))
        file += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", check)]
    return b"".join(file)


def write_map(path: Path, map_: Gray) -> None:
    """:func:`encode_map` into a file, whole or not at all."""
    write_bytes(path, encode_map(map_))


def write_mask(path: Path, mask: Mask) -> None:
    """:func:`encode_mask` into a file, whole or not at all."""
    write_bytes(path, encode_mask(mask))


def write_regions(path: Path, found: Regions) -> None:
    """:func:`encode_regions` into a file, whole or not at all."""
    write_bytes(path, encode_regions(found))


def write_picture(path: Path, picture: Picture | Image.Image) -> None:
    """A picture into a .png, .jpg or .jpeg file, whole or not at all."""
    ending = path.suffix.lower()
    kinds = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
    if ending not in kinds:
        raise ValueError(f"{path}: a picture is written as .png, .jpg or .jpeg")
    write_bytes(path, encode_picture(picture, kinds[ending]))


def read_map(path: Path) -> NDArray[np.float32]:
    """A map written by :func:`write_map`: (row, col) float32, 0-1."""
    with Image.open(path) as image:
        return np.asarray(image, dtype=np.float32) / np.float32(65535)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, in a folder that is made if need be."""
    # Names cut to a length that any disk takes may be alike, hence the thread.
    beside = path.with_name(f".{path.name[:40]}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        try:
            beside.write_bytes(data)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(data)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@cache
def _blends(opacity: float) -> NDArray[np.uint32]:
    """Every blend of a map value with a gray value, at 256 * map + gray: red, green, blue and an unused byte in one.

    Looking up one number a pixel is four times as fast as looking up three.
    """
    from matplotlib import colormaps  # slow to import

    values = np.arange(256) / 255
    colours = 255 * np.asarray(colormaps[COLOUR_MAP](values))[:, None, :3]
    alpha = (opacity * values)[:, None, None]
    table = (1 - alpha) * np.arange(256)[None, :, None] + alpha * colours
    packed = np.zeros((256 * 256, 4), dtype=np.uint8)
    packed[:, :3] = np.rint(table).reshape(-1, 3)
    return packed.view(np.uint32)[:, 0]


def _blended(
    pixels: Gray | Picture, map_: Gray | Picture, opacity: float, out: NDArray[np.uint32] | None = None
) -> NDArray[np.uint32]:
    """A map over its image (row, col): red, green, blue and an unused byte in one number."""
    if pixels.shape != map_.shape:
        raise ValueError(f"a map of {map_.shape} pixels does not lie over an image of {pixels.shape}")
    index = to_bytes(map_).astype(np.uint16)
    index <<= 8
    index |= to_bytes(pixels)
    return _blends(opacity).take(index, out=out, mode="clip")  # no index is out of range; "raise" would copy out


def _enlarged(values: NDArray[Any], zoom: int) -> NDArray[Any]:
    """Every value (row, col) as a square of ``zoom`` pixels a side."""
    return values if zoom == 1 else values.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _canvas(blended: NDArray[np.uint32]) -> Image.Image:
    """The picture that such numbers (row, col) are, to be drawn on."""
    return Image.frombytes("RGB", (blended.shape[1], blended.shape[0]), blended.data, "raw", "RGBX")


def _strip(lines: Sequence[str], width: int, colours: Sequence[Colour] = ()) -> Image.Image | None:
    """Lines of text on dark paper of this width, broken where they do not fit; None without any."""
    if not lines:
        return None
    size = int(np.clip(width / 32, 10, 32))
    font = _font(size)
    step = round(size * 1.35)
    shown = [
        (part, colour)
        for line, colour in zip(lines, colours or [INK] * len(lines), strict=True)
        for part in _broken(line, font, width - size)
    ]
    strip = Image.new("RGB", (width, step * len(shown) + size // 3), PAPER)
    pen = ImageDraw.Draw(strip)
    for i, (part, colour) in enumerate(shown):
        pen.text((size // 2, i * step + size // 6), part, fill=colour, font=font)
    return strip


@cache
def _font(size_px: int) -> Any:
    """DejaVu Sans, which knows more alphabets than Pillow's own font; matplotlib brings it."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)


def _broken(text: str, font: Any, width_px: float) -> list[str]:
    """The text in lines that fit; a word that is wider than a line is shortened."""
    if font.getlength(text) <= width_px:  # as most do, and each further measurement costs as much
        return [text]
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(_fitting(word, font, width_px))
    return lines


def _fitting(text: str, font: Any, width_px: float) -> str:
    """The text, shortened with an ellipsis if it is wider."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text + "…"


def _stroke(shape: tuple[int, ...]) -> int:
    """Line width in pixels: seen on a thumbnail, not in the way at full size."""
    return max(1, round(max(shape[:2]) / 400))


def _packed(colour: Colour) -> int:
    """As :func:`_blends` has it."""
    return int(np.array([*colour, 0], dtype=np.uint8).view(np.uint32)[0])


Canvas = NDArray[Any]
"""Pictures (row, col, 3) or packed ones (row, col), which are painted on in place."""
Ink = Colour | int


def _fill(canvas: Canvas, x1: int, y1: int, x2: int, y2: int, ink: Ink) -> None:
    """A rectangle, half-open, as far as it lies on the canvas."""
    canvas[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = ink


def _cross(canvas: Canvas, x: int, y: int, width: int, colour: Ink, halo: Ink) -> None:
    """A cross on dark lines."""
    arm = 6 * width
    for ink, thick in ((halo, width + 2), (colour, width)):
        first, past = -(thick // 2), thick - thick // 2
        _fill(canvas, x - arm, y + first, x + arm + 1, y + past, ink)
        _fill(canvas, x + first, y - arm, x + past, y + arm + 1, ink)


def _box(canvas: Canvas, box: NDArray[np.float64], colour: Ink, halo: Ink, width: int, dash: int) -> None:
    """A box whose lines lie within it, on a dark line one pixel wider; dashes of ``dash`` pixels, 0 = solid."""
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    _frame(canvas, x1 - 1, y1 - 1, x2 + 1, y2 + 1, width + 2, halo)
    if not dash:
        _frame(canvas, x1, y1, x2, y2, width, colour)
        return
    rows, cols = canvas.shape[:2]
    across, down = _dashes(x1, x2, dash, cols), _dashes(y1, y2, dash, rows)
    for at in (y1, y2 - width):
        canvas[max(at, 0) : max(at + width, 0), across] = colour
    for at in (x1, x2 - width):
        canvas[down, max(at, 0) : max(at + width, 0)] = colour


def _frame(canvas: Canvas, x1: int, y1: int, x2: int, y2: int, width: int, ink: Ink) -> None:
    """The inner border of a rectangle, half-open."""
    _fill(canvas, x1, y1, x2, min(y1 + width, y2), ink)
    _fill(canvas, x1, max(y2 - width, y1), x2, y2, ink)
    _fill(canvas, x1, y1, min(x1 + width, x2), y2, ink)
    _fill(canvas, max(x2 - width, x1), y1, x2, y2, ink)


def _dashes(first: int, past: int, dash: int, size: int) -> NDArray[np.int64]:
    """The pixels along a line that are in a dash, as far as they lie on a canvas of so many."""
    along = np.arange(first, past)
    return along[((along - first) // dash % 2 == 0) & (along >= 0) & (along < size)]


def _edge(mask: Mask, width: int) -> tuple[tuple[slice, slice], Mask]:
    """Where a mask (row, col) lies, and its inner edge there, so many pixels wide."""
    rows = np.flatnonzero(np.any(mask, axis=1))
    if len(rows) == 0:
        return (slice(0, 0), slice(0, 0)), mask[:0, :0]
    cols = np.flatnonzero(np.any(mask[rows[0] : rows[-1] + 1], axis=0))
    where = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    inside = mask[where]
    core = inside
    for _ in range(width):
        core = _eroded(core)
    return where, inside & ~core


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose four neighbours are inside too; beyond the array counts as outside."""
    core = np.zeros_like(mask)
    core[1:-1, 1:-1] = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return core
