"""PNG, JPEG, TIFF, BMP and PNM: exact values of small files on non-square arrays."""

import io
import zlib

import numpy as np
import PIL.Image
import pytest
import tifffile

from radtag.errors import UnreadableImage
from radtag.images import count_frames, files, read, read_all, read_mask
from radtag.images.limits import MAX_PIXELS
from radtag.images.size import size_of

GRAY = np.array([[0, 51, 102], [153, 204, 255]], dtype=np.uint8)  # fifths of the full range
FIFTHS = np.array([[0, 0.2, 0.4], [0.6, 0.8, 1]], dtype=np.float32)
RGB = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[51, 51, 51], [255, 255, 255], [0, 0, 0]]], dtype=np.uint8)
LUMA = np.array([[0.299, 0.587, 0.114], [0.2, 1, 0]], dtype=np.float32)
# The full image when the EXIF orientation 1-8 is applied to [[a, b, c], [d, e, f]], by the EXIF 2.3 table.
TURNED = {
    1: "abc/def", 2: "cba/fed", 3: "fed/cba", 4: "def/abc", 5: "ad/be/cf", 6: "da/eb/fc", 7: "fc/eb/da", 8: "cf/be/ad",
}  # fmt: skip


def save(array, path, **options):
    PIL.Image.fromarray(array).save(path, **options)
    return path


def chunk(kind, body):
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def png(tmp_path, header, rows, name="hand.png", extra=b""):
    """A PNG by hand: the header's 13 bytes and unfiltered rows."""
    path = tmp_path / name
    data = b"".join(b"\0" + row for row in rows)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )
    return path


def ihdr(cols, rows, depth, colour):
    return cols.to_bytes(4, "big") + rows.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])


# -- PNG and friends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["none", "cut", "bits"])
def test_a_gray_png_is_read_by_libpng_as_pillow_reads_or_refuses_it(tmp_path, monkeypatch, damage):
    random = np.random.default_rng(0)
    whole = save(random.integers(0, 256, (37, 53)).astype(np.uint8), tmp_path / "a.png").read_bytes()
    assert files._plain_gray_png(tmp_path / "a.png", whole[:100], io.BytesIO(whole[100:])) is not None

    def outcome(path):
        try:
            return read(path).pixels.tolist()
        except UnreadableImage as error:
            return str(error)

    for _ in range(1 if damage == "none" else 40):
        data = bytearray(whole)
        if damage == "cut":
            data = data[: random.integers(20, len(data))]
        elif damage == "bits":
            data[random.integers(8, len(data))] ^= 1 << random.integers(8)
        (tmp_path / "a.png").write_bytes(data)
        ours = outcome(tmp_path / "a.png")
        with monkeypatch.context() as patched:
            patched.setattr(files, "_plain_gray_png", lambda path, start, rest: None)
            assert ours == outcome(tmp_path / "a.png")


def test_a_gray_png_that_tells_of_transparency_or_orientation_is_pillows(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned = read(save(GRAY, tmp_path / "a.png", exif=exif))
    assert (turned.size_rc, turned.meta["exif_orientation"]) == ((3, 2), 6)
    for key in ("XML:com.adobe.xmp", "Raw profile type exif"):  # Pillow looks for an orientation in these too
        told = PIL.PngImagePlugin.PngInfo()
        told.add_itxt(key, '<x:xmpmeta tiff:Orientation="6"/>')
        path = save(GRAY, tmp_path / "c.png", pnginfo=told)
        with path.open("rb") as stream:
            assert files._plain_gray_png(path, stream.read(33), stream) is None
    clear = read(save(GRAY, tmp_path / "b.png", transparency=255))
    np.testing.assert_array_equal(clear.pixels, np.where(GRAY == 255, 0, FIFTHS))  # over black


@pytest.mark.parametrize("suffix", ["png", "bmp", "pgm", "tif"])
def test_8_bit_gray_is_divided_by_255(tmp_path, suffix):
    image = read(save(GRAY, tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(image.pixels, FIFTHS)
    assert image.pixels.dtype == np.float32
    assert image.size_rc == (2, 3)
    assert image.spacing_mm is None
    assert image.meta["window"] == "stored range: 0 to 255"


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_gray_is_divided_by_65535(tmp_path, suffix):
    values = GRAY.astype(np.uint16) * 257
    values[0, 0] = 1  # would be lost at 8 bits
    image = read(save(values, tmp_path / f"a.{suffix}"))
    assert image.pixels[0, 0] == np.float32(1 / 65535)
    np.testing.assert_array_equal(image.pixels.ravel()[1:], FIFTHS.ravel()[1:])


def test_16_bit_pnm(tmp_path):
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 3 2 65535\n" + (GRAY.astype(">u2") * 257).tobytes())
    np.testing.assert_array_equal(read(path).pixels, FIFTHS)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_colour_becomes_luma(tmp_path, suffix):
    np.testing.assert_allclose(read(save(RGB, tmp_path / f"a.{suffix}")).pixels, LUMA, atol=1e-7)


def test_16_bit_colour_png_keeps_its_low_bytes(tmp_path):
    values = np.array([[1, 1, 1], [0x0102, 0x0102, 0x0102]], dtype=">u2")
    path = png(tmp_path, ihdr(1, 2, 16, 2), [row.tobytes() for row in values])
    np.testing.assert_allclose(read(path).pixels, [[1 / 65535], [258 / 65535]], rtol=1e-6)


def test_16_bit_gray_with_alpha_png(tmp_path):
    values = np.array([[[65535, 0], [65535, 32768], [1000, 65535]]], dtype=">u2")
    path = png(tmp_path, ihdr(3, 1, 16, 4), [row.tobytes() for row in values])
    np.testing.assert_allclose(read(path).pixels, [[0, 32768 / 65535, 1000 / 65535]], rtol=1e-6)


@pytest.mark.parametrize(("depth", "row", "expected"), [
    (1, b"\xa0", [1, 0, 1]), (2, b"\x6c", [1 / 3, 2 / 3, 1]), (4, b"\x3f\x00", [0.2, 1, 0])
])  # fmt: skip
def test_png_of_fewer_bits_fills_0_to_1(tmp_path, depth, row, expected):
    np.testing.assert_allclose(read(png(tmp_path, ihdr(3, 1, depth, 0), [row])).pixels, [expected], rtol=1e-6)


def test_a_16_bit_png_may_be_transparent_and_turned(tmp_path):
    gray = [b"\x00\x00\x80\x00\xff\xff", b"\xff\xff\x00\x00\x40\x00"]
    path = png(tmp_path, ihdr(3, 2, 16, 0), gray, extra=chunk(b"tRNS", b"\x80\x00"))
    np.testing.assert_allclose(read(path).pixels, [[0, 0, 1], [1, 0, 0x4000 / 65535]], rtol=1e-6)
    red, blue = b"\xff\xff\x00\x00\x00\x00", b"\x00\x00\x00\x00\xff\xff"
    path = png(tmp_path, ihdr(2, 1, 16, 2), [red + blue], extra=chunk(b"tRNS", red))
    np.testing.assert_allclose(read(path).pixels, [[0, 0.114]], rtol=1e-6)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    path = png(tmp_path, ihdr(2, 1, 16, 2), [red + blue], extra=chunk(b"eXIf", exif.tobytes()[6:]))
    np.testing.assert_allclose(read(path).pixels, [[0.299], [0.114]], rtol=1e-6)
    assert size_of(path) == (2, 1)


def test_palette_is_looked_up(tmp_path):
    picture = PIL.Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8), mode="P")
    picture.putpalette([255, 255, 255, 255, 0, 0, 51, 51, 51])
    picture.save(tmp_path / "a.png")
    np.testing.assert_allclose(read(tmp_path / "a.png").pixels, [[1, 0.299, 0.2], [0.2, 0.299, 1]], rtol=1e-6)


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_laid_over_black(tmp_path, channels):
    values = np.full((1, 3, channels), 255, dtype=np.uint8)
    values[0, :, -1] = [0, 51, 255]
    np.testing.assert_allclose(read(save(values, tmp_path / "a.png")).pixels, [[0, 0.2, 1]], rtol=1e-6)


def test_an_opaque_alpha_channel_changes_nothing(tmp_path):
    # Several hundred ChestX-ray14 files are gray saved as RGBA.
    rgba = np.concatenate([np.repeat(GRAY[..., None], 3, -1), np.full((2, 3, 1), 255, dtype=np.uint8)], -1)
    np.testing.assert_array_equal(read(save(rgba, tmp_path / "a.png")).pixels, FIFTHS)


def test_a_window_in_stored_values(tmp_path):
    path = save(GRAY, tmp_path / "a.png")
    np.testing.assert_allclose(read(path, window=(102.0, 204.0)).pixels, [[0, 0.25, 0.5], [0.75, 1, 1]])
    with pytest.raises(UnreadableImage, match=r"stores none"):
        read(path, window=0)


def test_minmax_stretches(tmp_path):
    path = save(np.array([[10, 20], [15, 10]], dtype=np.uint8), tmp_path / "a.png")
    np.testing.assert_allclose(read(path, window="minmax").pixels, [[0, 1], [0.5, 0]])


# -- JPEG --------------------------------------------------------------------------------------------------------------


def smooth(rows, cols):
    return np.add.outer(np.linspace(0, 120, rows), np.linspace(0, 130, cols)).astype(np.uint8)


@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_is_close_to_what_was_saved(tmp_path, colour):
    values = smooth(24, 40)
    array = np.repeat(values[..., None], 3, -1) if colour else values
    image = read(save(array, tmp_path / "a.jpg", quality=98))
    np.testing.assert_allclose(image.pixels, values / 255, atol=2 / 255)


def test_a_coloured_jpeg_gives_the_luma_pillow_gives(tmp_path):
    path = save(np.repeat(np.repeat(RGB, 16, 0), 16, 1), tmp_path / "a.jpg", quality=95, subsampling=0)
    oracle = np.asarray(PIL.Image.open(path).convert("RGB").convert("L")) / 255
    np.testing.assert_allclose(read(path).pixels, oracle, atol=3 / 255)


def test_12_bit_jpeg(tmp_path):
    imagecodecs = pytest.importorskip("imagecodecs")
    values = (np.arange(16 * 24).reshape(16, 24) * 10).astype(np.uint16)
    path = tmp_path / "a.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(values, level=100, bitspersample=12))
    np.testing.assert_allclose(read(path).pixels, values / 4095, atol=4 / 4095)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, suffix, orientation):
    letters = {letter: 40 * k for k, letter in enumerate("abcdef")}
    values = np.array([[letters[letter] for letter in row] for row in ("abc", "def")], dtype=np.uint8)
    values = np.kron(values, np.ones((16, 16), dtype=np.uint8))  # whole JPEG blocks keep their values
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, values, extratags=[(274, 3, 1, orientation, True)])
    else:
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        save(values, path, exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    image = read(path)
    expected = np.array([[letters[letter] for letter in row] for row in TURNED[orientation].split("/")]) / 255
    np.testing.assert_allclose(image.pixels[8::16, 8::16], expected, atol=1.5 / 255)
    assert image.size_rc == tuple(16 * side for side in expected.shape)
    assert image.pixels.flags.c_contiguous


# -- TIFF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_tiff_of_every_unsigned_type_and_lossless_compression(tmp_path, dtype, compression):
    values = (GRAY.astype(np.float64) / 255 * np.iinfo(dtype).max).round().astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, compression=compression)
    np.testing.assert_allclose(read(tmp_path / "a.tif").pixels, FIFTHS, atol=1e-7)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_tiff_byte_orders_and_bigtiff(tmp_path, byteorder, bigtiff):
    tifffile.imwrite(tmp_path / "a.tif", GRAY.astype(np.uint16) * 257, byteorder=byteorder, bigtiff=bigtiff)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").pixels, FIFTHS)


def test_a_jpeg_turned_by_xmp_alone_has_the_size_it_is_shown_in(tmp_path):
    path = save(GRAY, tmp_path / "a.jpg")
    xmp = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6"/>'
    whole = path.read_bytes()
    path.write_bytes(whole[:2] + b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + whole[2:])
    assert size_of(path) == read(path).size_rc == GRAY.shape[::-1]


def test_tiff_floats_within_0_and_1_are_kept(tmp_path):
    values = np.array([[0.25, 0.5, np.nan]], dtype=np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(read(tmp_path / "a.tif").pixels, [[0.25, 0.5, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int16, np.int32])
def test_tiff_other_values_are_stretched(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[-100, 0, 300]], dtype=dtype))
    image = read(tmp_path / "a.tif")
    np.testing.assert_allclose(image.pixels, [[0, 0.25, 1]])
    assert image.meta["window"] == "minmax: -100 to 300"


def test_bilevel_tiff_and_min_is_white(tmp_path):
    bits = np.array([[True, False, True], [False, False, True]])
    tifffile.imwrite(tmp_path / "black.tif", bits, photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", bits, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "gray.tif", GRAY, photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "black.tif").pixels, bits)
    np.testing.assert_array_equal(read(tmp_path / "white.tif").pixels, ~bits)
    np.testing.assert_allclose(read(tmp_path / "gray.tif").pixels, 1 - FIFTHS, atol=1e-7)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_colour_in_both_planar_configurations(tmp_path, planar):
    values = RGB.astype(np.uint16) * 257
    if planar == "separate":
        values = np.moveaxis(values, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", planarconfig=planar)
    np.testing.assert_allclose(read(tmp_path / "a.tif").pixels, LUMA, atol=1e-7)


def test_tiff_palette_and_12_bits_and_ink(tmp_path):
    colours = np.zeros((3, 256), dtype=np.uint16)
    colours[:, 1] = 65535
    colours[:, 2] = [65535, 0, 0]
    tifffile.imwrite(tmp_path / "p.tif", np.array([[0, 1, 2]], dtype=np.uint8), photometric="palette", colormap=colours)
    np.testing.assert_allclose(read(tmp_path / "p.tif").pixels, [[0, 1, 0.299]], rtol=1e-6)
    imagecodecs = pytest.importorskip("imagecodecs")
    packed = imagecodecs.packints_encode(np.array([0, 2047, 4095, 1], dtype=np.uint16), 12)
    tifffile.imwrite(
        tmp_path / "12.tif", iter([packed]), shape=(1, 4), dtype=np.uint16, bitspersample=12, compression=1
    )
    np.testing.assert_allclose(read(tmp_path / "12.tif").pixels, [[0, 2047 / 4095, 1, 1 / 4095]], rtol=1e-6)
    ink = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 0]]], dtype=np.uint8)
    tifffile.imwrite(tmp_path / "k.tif", ink, photometric="separated")
    np.testing.assert_allclose(read(tmp_path / "k.tif").pixels, [[1, 0, 1 - 0.299]], rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"), [("unassalpha", [[0.1, 1]]), ("assocalpha", [[0.5, 1]]), ("unspecified", [[0.5, 1]])]
)
def test_tiff_extra_samples(tmp_path, kind, expected):
    values = np.array([[[127.5, 51], [255, 255]]]).round().astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", extrasamples=[kind], planarconfig="contig")
    np.testing.assert_allclose(read(tmp_path / "a.tif").pixels, expected, atol=0.003)


def test_jpeg_tiff_in_ycbcr_comes_out_as_the_picture(tmp_path):
    values = smooth(32, 48)
    rgb = np.repeat(values[..., None], 3, -1)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", compression="jpeg", compressionargs={"level": 98})
    np.testing.assert_allclose(read(tmp_path / "a.tif").pixels, values / 255, atol=3 / 255)


@pytest.mark.parametrize("layout", ["pages", "imagej", "one page for all", "different sizes"])
def test_tiff_pages_are_frames(tmp_path, layout):
    path = tmp_path / "a.tif"
    first, second = GRAY, (255 - GRAY)
    if layout == "pages":
        tifffile.imwrite(path, np.stack([first, second]), photometric="minisblack", metadata=None)
    elif layout == "imagej":
        tifffile.imwrite(path, np.stack([first, second]), imagej=True, photometric="minisblack")
    elif layout == "one page for all":
        tifffile.imwrite(path, np.stack([first, second]), truncate=True, photometric="minisblack")
    else:
        second = second[:, :2]
        with tifffile.TiffWriter(path) as writer:
            writer.write(first, metadata=None)
            writer.write(second, metadata=None)
    frames = list(read_all(path))
    assert count_frames(path) == len(frames) == 2
    assert [frame.frame for frame in frames] == [0, 1]
    np.testing.assert_array_equal(frames[0].pixels, first / np.float32(255))
    np.testing.assert_array_equal(frames[1].pixels, second / np.float32(255))
    np.testing.assert_array_equal(read(path, frame=1).pixels, frames[1].pixels)
    np.testing.assert_array_equal(read(path).pixels, frames[0].pixels)
    with pytest.raises(UnreadableImage, match=r"frame 2 was asked for. It has 2 frames"):
        read(path, frame=2)


def test_tiff_pages_of_other_kinds_do_not_change_the_order(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in (GRAY, GRAY[:, :2], 255 - GRAY, RGB):
            writer.write(page, metadata=None)
    shown = [frame.pixels for frame in read_all(tmp_path / "a.tif")]
    for got, wanted in zip(shown, (FIFTHS, FIFTHS[:, :2], 1 - FIFTHS, LUMA), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-7)


def test_a_thumbnail_or_mask_in_a_tiff_is_no_frame(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(GRAY[:, :2], subfiletype=1, metadata=None)
        writer.write(GRAY, metadata=None)
        writer.write(GRAY > 0, subfiletype=4, photometric="mask", metadata=None)
    frames = list(read_all(tmp_path / "a.tif"))
    assert len(frames) == count_frames(tmp_path / "a.tif") == 1
    np.testing.assert_array_equal(frames[0].pixels, FIFTHS)
    tifffile.imwrite(tmp_path / "alone.tif", GRAY, subfiletype=1)
    np.testing.assert_array_equal(read(tmp_path / "alone.tif").pixels, FIFTHS)


def test_a_tiff_of_an_unknown_colour_space_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="cielab")
    with pytest.raises(UnreadableImage, match=r"CIELAB"):
        read(tmp_path / "a.tif")


# -- what is no image --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "pgm"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused_by_name(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    path = save(noise, tmp_path / f"cut.{suffix}")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UnreadableImage, match=rf"cut\.{suffix}: .+\. [A-Z]"):
        read(path)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "pgm", "jpg"])
def test_one_pixel_is_an_image(tmp_path, suffix):
    image = read(save(np.full((1, 1), 255, dtype=np.uint8), tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(image.pixels, [[1]])


def test_a_png_of_no_size_is_refused(tmp_path):
    with pytest.raises(UnreadableImage, match=r"hand\.png"):
        read(png(tmp_path, ihdr(0, 3, 8, 0), []))


@pytest.mark.parametrize("side", [20_000, 1_000_000])
@pytest.mark.parametrize("kind", ["png", "png16", "tif", "bmp", "pgm", "jpg", "jpg in tif"])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path, kind, side):
    assert side * side > MAX_PIXELS
    if kind == "png":
        path = png(tmp_path, ihdr(side, side, 8, 0), [])
    elif kind == "png16":
        path = png(tmp_path, ihdr(side, side, 16, 2), [])
    elif kind == "tif":
        path = save(GRAY, tmp_path / "a.tif")
        data = bytearray(path.read_bytes())
        with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
            at = [tiff.pages[0].tags[tag].offset for tag in (256, 257)]
        for place in at:  # type 4 (32-bit), one value
            data[place + 2 : place + 12] = (
                (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + side.to_bytes(4, "little")
            )
        path.write_bytes(bytes(data))
    elif kind == "bmp":
        path = save(GRAY, tmp_path / "a.bmp")
        data = bytearray(path.read_bytes())
        data[18:26] = side.to_bytes(4, "little") * 2
        path.write_bytes(bytes(data))
    elif kind.startswith("jpg"):
        if side > 65535:
            pytest.skip("a JPEG cannot say so")
        path = tmp_path / "a.jpg"
        if kind == "jpg":
            save(GRAY, path)
        else:
            tifffile.imwrite(path, GRAY, compression="jpeg")
        data = bytearray(path.read_bytes())
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = side.to_bytes(2, "big") * 2
        path.write_bytes(bytes(data))
    else:
        path = tmp_path / "a.pgm"
        path.write_bytes(f"P5 {side} {side} 255\n".encode() + b"\0" * 10)
    with pytest.raises(UnreadableImage, match=r"pixels.*Crop"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, world", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\xff\xd8\xff\xe0", "damaged"),
    ],
)
def test_what_is_no_image_is_refused_with_a_next_step(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableImage, match=message):
        read(tmp_path / "a.png")


def test_no_such_file_and_a_folder(tmp_path):
    with pytest.raises(UnreadableImage, match=r"No such file"):
        read(tmp_path / "nothing.png")
    with pytest.raises(UnreadableImage, match=r"it is a folder"):
        read(tmp_path)


def test_the_content_decides_and_not_the_name(tmp_path):
    path = save(GRAY, tmp_path / "a.png")
    path.rename(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read(tmp_path / "a.dcm").pixels, FIFTHS)


# -- masks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", [1, 255])
@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_a_mask_is_what_is_not_black(tmp_path, suffix, on):
    mask = np.array([[0, 1, 1], [0, 0, 1]], dtype=np.uint8)
    loaded = read_mask(save(mask * np.uint8(on), tmp_path / f"m.{suffix}"))
    assert loaded.dtype == bool
    np.testing.assert_array_equal(loaded, mask == 1)


def test_a_one_bit_mask(tmp_path):
    mask = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)
    np.testing.assert_array_equal(read_mask(save(mask, tmp_path / "m.png")), mask)


def test_a_jpeg_mask_is_cut_at_half(tmp_path):
    mask = np.zeros((32, 48), dtype=np.uint8)
    mask[8:24, 16:40] = 255
    loaded = read_mask(save(mask, tmp_path / "m.jpg", quality=70))
    np.testing.assert_array_equal(loaded, mask > 0)


def test_a_constant_float_mask_is_not_emptied_by_a_stretch(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.array([[5.0, 7.0, 0.0]], dtype=np.float32))
    tifffile.imwrite(tmp_path / "n.tif", np.full((2, 3), -3, dtype=np.int16))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif"), [[True, True, False]])
    assert read_mask(tmp_path / "n.tif").all()


@pytest.mark.parametrize("value", [1, 7, -7])
def test_what_is_no_number_in_a_mask_is_outside(tmp_path, value):
    mask = np.array([[np.nan, 0, value], [np.nan, value, 0]], dtype=np.float32)
    tifffile.imwrite(tmp_path / "m.tif", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif"), mask == value)


def test_a_mask_of_several_frames_must_be_chosen(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.stack([GRAY, GRAY * 0]), photometric="minisblack", metadata=None)
    with pytest.raises(UnreadableImage, match=r"2 frames. Choose one"):
        read_mask(tmp_path / "m.tif")
    assert not read_mask(tmp_path / "m.tif", frame=1).any()


def test_pages_of_a_stack_do_not_each_keep_the_whole_of_it(tmp_path):
    stack = np.random.default_rng(0).integers(0, 256, (20, 30, 40)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, truncate=True)
    pages = list(read_all(tmp_path / "stack.tif"))
    for page, wanted in zip(pages, stack, strict=True):
        np.testing.assert_array_equal(page.gray8, wanted)
        assert page.stored.base is None or page.stored.base.nbytes <= wanted.nbytes
