"""The headers of JPEG, JPEG-LS and JPEG 2000 streams, and a decoder plug-in for pydicom.

Pillow and gdcm's binding stop at 8-bit DCT; imagecodecs (BSD; libjpeg-turbo 3) also has 12-bit JPEG Extended and JPEG
Lossless to 16 bits. pylibjpeg-libjpeg, the usual choice, is under the GPL and is not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pydicom import uid

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

DECODER_DEPENDENCIES = {
    uid.JPEGExtended12Bit: ("imagecodecs",),
    uid.JPEGLossless: ("imagecodecs",),
    uid.JPEGLosslessSV1: ("imagecodecs",),
}


class Header(NamedTuple):
    """What a coded picture says of itself."""

    rows: int
    cols: int
    bits: int
    components: int


def header(stream: bytes) -> Header | None:
    """The size a JPEG, JPEG-LS or JPEG 2000 stream declares, or None if its start is none of them."""
    if stream[:2] == b"\xff\xd8":
        return _frame_header(stream)
    boxed = stream[4:8] == b"jP  "  # a JP2 file, in which boxes of any length come before SOC and SIZ
    at = stream.find(b"\xff\x4f\xff\x51", 0, None if boxed else 4)
    if at < 0 or len(stream) < at + 43:
        return None

    def number(offset: int, length: int = 4) -> int:
        return int.from_bytes(stream[at + offset : at + offset + length], "big")

    return Header(
        rows=number(12) - number(20),
        cols=number(8) - number(16),
        bits=(stream[at + 42] & 0x7F) + 1,
        components=number(40, 2),
    )


def _frame_header(stream: bytes) -> Header | None:
    at = 2
    while at + 9 < len(stream):
        if stream[at] != 0xFF:
            at += 1
            continue
        marker = stream[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in (0x01, *range(0xD0, 0xD9)):
            at += 2
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, cols = (int.from_bytes(stream[at + k : at + k + 2], "big") for k in (5, 7))
            return Header(rows, cols, bits=stream[at + 4], components=stream[at + 9])
        if marker == 0xDA:
            return None
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def is_available(syntax: str) -> bool:
    """Part of pydicom's plug-in contract."""
    return syntax in DECODER_DEPENDENCIES


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame: part of pydicom's plug-in contract.

    Colours are left as they were coded, as pydicom expects of a plug-in; it converts YBR itself.
    """
    import imagecodecs
    import numpy as np

    space = "YCBCR" if runner.samples_per_pixel == 3 else None
    pixels = np.asarray(imagecodecs.jpeg8_decode(source, colorspace=space, outcolorspace=space))
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    runner.set_option("planar_configuration", 0)
    return pixels.tobytes()


def register() -> None:
    """Make the plug-in known to pydicom's decoders; doing so again changes nothing."""
    from pydicom.pixels.decoders.base import get_decoder

    for syntax in DECODER_DEPENDENCIES:
        decoder = get_decoder(syntax)
        if "imagecodecs" not in decoder.available_plugins:
            decoder.add_plugin("imagecodecs", ("radtag.images.jpeg", "decode_frame"))
