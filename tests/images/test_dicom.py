"""DICOM objects written tag by tag: exact values of every step from the stored value to 0-1."""

import struct

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from radtag.errors import UnreadableImage
from radtag.images import count_frames, read, read_all, read_mask
from radtag.images.dicom import PLUGINS

STORED = np.array([[0, 10, 20], [30, 40, 100]], dtype=np.uint16)
HUNDREDTHS = STORED.astype(np.float64) / 100
WIDE = np.hstack([STORED, STORED[:, :2]])  # five columns, so that a stack of frames is not taken for colours


def dataset(values, *, bits=None, syntax=uid.ExplicitVRLittleEndian, pixel_data=None, **tags):
    """An object around (row, col), (frame, row, col) or (row, col, 3) values; tags given override, None removes."""
    values = np.asarray(values)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    colour = values.ndim == 3 and values.shape[-1] == 3
    data.SOPClassUID, data.SOPInstanceUID, data.PatientID = uid.DigitalXRayImageStorageForPresentation, "1.2.3.4", "P 1"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2.3", "1.2.3.1", "DX"
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.Rows, data.Columns = values.shape[:2] if colour or values.ndim == 2 else values.shape[1:]
    if values.ndim == 3 and not colour:
        data.NumberOfFrames = values.shape[0]
    data.SamplesPerPixel = 3 if colour else 1
    if colour:
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    data.BitsAllocated = 8 * values.dtype.itemsize
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    if pixel_data is None:
        pixel_data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    data.PixelData = pixel_data + b"\0" * (len(pixel_data) % 2)
    if syntax.is_encapsulated:
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
    else:
        data["PixelData"].VR = "OB" if data.BitsAllocated == 8 else "OW"
    for keyword, value in tags.items():
        if value is None:
            del data[keyword]
        else:
            setattr(data, keyword, value)
    return data


def save(data, path):
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def shown(tmp_path):
    """Read an object back and give its pixels."""
    return lambda *args, window=None, **tags: read(save(dataset(*args, **tags), tmp_path / "a.dcm"), window=window)


def item(**tags):
    one = Dataset()
    for keyword, value in tags.items():
        setattr(one, keyword, value)
    return one


def lut(first, table, bits=16, *, order="<", entries=None, **more):
    one = item(**more)
    one.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries or len(table), first, bits])
    one.add_new("LUTData", "OW", np.array(table, dtype=f"{order}u2").tobytes())
    return one


# -- range, rescale, window -------------------------------------------------------------------------------------------


def test_without_a_window_16_bits_go_from_minimum_to_maximum(shown):
    image = shown(STORED)
    np.testing.assert_allclose(image.pixels, HUNDREDTHS, atol=1e-7)
    assert image.meta["window"] == "minmax: 0 to 100"


def test_without_a_window_8_bits_are_divided_by_255(shown):
    image = shown(STORED.astype(np.uint8))
    np.testing.assert_allclose(image.pixels, STORED / 255, atol=1e-7)
    assert image.meta["window"] == "stored range: 0 to 255"


def test_8_bits_with_a_rescale_are_no_longer_a_picture(shown):
    image = shown(STORED.astype(np.uint8), RescaleSlope="2", RescaleIntercept="-50")
    assert image.meta["window"] == "minmax: -50 to 150"


@pytest.mark.parametrize("syntax", [
    uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian
])  # fmt: skip
def test_every_uncompressed_syntax(shown, syntax):
    np.testing.assert_allclose(shown(STORED - np.uint16(0), syntax=syntax).pixels, HUNDREDTHS, atol=1e-7)


def test_window_is_applied_after_rescale(shown):
    # Values 2 v - 100: -100 -80 -60 / -40 -20 100; LINEAR centre 0.5 width 101 runs from -50 to 50.
    image = shown(STORED, RescaleSlope="2", RescaleIntercept="-100", WindowCenter="0.5", WindowWidth="101")
    np.testing.assert_allclose(image.pixels, [[0, 0, 0], [0.1, 0.3, 1]], atol=1e-7)
    assert image.meta["window"] == "LINEAR centre 0.5 width 101"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (None, [0, (30 - 39.5) / 39 + 0.5, 0.5 + 0.5 / 39]),
        ("LINEAR_EXACT", [0, 0.25, 0.5]),
        ("SIGMOID", [1 / (1 + np.exp(4.0)), 1 / (1 + np.exp(1.0)), 0.5]),
    ],
)
def test_the_three_window_functions(shown, function, expected):
    tags = {"VOILUTFunction": function} if function else {}
    image = shown(np.array([[0, 30, 40]], dtype=np.uint16), WindowCenter="40", WindowWidth="40", **tags)
    np.testing.assert_allclose(image.pixels, [expected], atol=1e-7)


def test_of_several_windows_the_first_is_taken_and_others_can_be_chosen(shown):
    tags = {"WindowCenter": ["50", "10"], "WindowWidth": ["100", "20"], "VOILUTFunction": "LINEAR_EXACT"}
    np.testing.assert_allclose(shown(STORED, **tags).pixels, HUNDREDTHS, atol=1e-7)
    np.testing.assert_allclose(shown(STORED, window=1, **tags).pixels, [[0, 0.5, 1], [1, 1, 1]])
    with pytest.raises(UnreadableImage, match=r"window 2 was asked for. It has 2 usable windows"):
        shown(STORED, window=2, **tags)


def test_a_linear_window_below_one_wide_is_exact(shown):
    # LINEAR would divide by width - 1 < 0 and turn the image over.
    image = shown(STORED, RescaleSlope="0.005", WindowCenter="0.25", WindowWidth="0.5")
    np.testing.assert_allclose(image.pixels, HUNDREDTHS, atol=1e-7)


@pytest.mark.parametrize(("centre", "width"), [("50", "0"), ("50", "-3"), ("", ""), (["", "50"], ["", "100"])])
def test_windows_that_are_none_are_passed_over(shown, centre, width):
    image = shown(STORED, WindowCenter=centre, WindowWidth=width, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(image.pixels, HUNDREDTHS, atol=1e-7)


def test_a_window_given_and_minmax_override_the_file(shown):
    tags = {"WindowCenter": "5", "WindowWidth": "2"}
    np.testing.assert_allclose(shown(STORED, window=(30.0, 40.0), **tags).pixels, [[0, 0, 0.25], [0.5, 0.75, 1]])
    np.testing.assert_allclose(shown(STORED, window="minmax", **tags).pixels, HUNDREDTHS, atol=1e-7)


def test_a_slope_of_0_is_nonsense_and_left_out(shown):
    image = shown(STORED, RescaleSlope="0", RescaleIntercept="7")
    np.testing.assert_allclose(image.pixels, HUNDREDTHS, atol=1e-7)
    assert "rescale ignored: slope" in image.meta["notes"][0]


def test_monochrome1_is_inverted_after_its_window(shown):
    image = shown(STORED, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    np.testing.assert_allclose(image.pixels, 1 - HUNDREDTHS, atol=1e-7)


def test_a_constant_image_is_0(shown):
    np.testing.assert_array_equal(shown(np.full((2, 3), 700, dtype=np.uint16)).pixels, np.zeros((2, 3)))


# -- look-up tables ---------------------------------------------------------------------------------------------------


def test_modality_lut_before_the_window(shown):
    # Entries for stored 10, 11, 12; what lies outside takes the nearest.
    table = Sequence([lut(10, [100, 200, 400], ModalityLUTType="US")])
    image = shown(np.array([[9, 10, 11, 12, 13]], dtype=np.uint16), ModalityLUTSequence=table)
    np.testing.assert_allclose(image.pixels, [[0, 0, 1 / 3, 1, 1]], atol=1e-7)


def test_voi_lut_is_scaled_by_its_bits_and_goes_before_a_window(shown):
    table = Sequence([lut(0, [0, 1023, 4095], 12, LUTExplanation="NORMAL"), lut(0, [0, 0, 0], 12)])
    values = np.array([[0, 1, 2]], dtype=np.uint16)
    image = shown(values, VOILUTSequence=table, WindowCenter="1", WindowWidth="2")
    np.testing.assert_allclose(image.pixels, [[0, 1023 / 4095, 1]], atol=1e-7)
    assert image.meta["window"] == "VOI LUT NORMAL"
    assert (
        shown(values, VOILUTSequence=table, WindowCenter="1", WindowWidth="2", window=0)
        .meta["window"]
        .startswith("LINEAR")
    )


def test_a_lut_in_a_big_endian_file(shown):
    table = Sequence([lut(0, [0, 256, 4095], 12, order=">")])
    image = shown(np.array([[0, 1, 2]], dtype=np.uint16), VOILUTSequence=table, syntax=uid.ExplicitVRBigEndian)
    np.testing.assert_allclose(image.pixels, [[0, 256 / 4095, 1]], atol=1e-7)


def test_voi_lut_of_negative_values(shown):
    table = Sequence([lut(-1, [0, 100, 255], 8)])
    values = np.array([[-2, -1, 0, 1]], dtype=np.int16)
    np.testing.assert_allclose(shown(values, VOILUTSequence=table).pixels, [[0, 0, 100 / 255, 1]], atol=1e-7)


def test_a_lut_whose_data_are_too_short_is_left_out_and_said(shown):
    table = Sequence([lut(0, [1, 2], entries=9)])
    image = shown(STORED, VOILUTSequence=table)
    np.testing.assert_allclose(image.pixels, HUNDREDTHS, atol=1e-7)
    assert image.meta["notes"] == ("VOI LUT Sequence ignored: its descriptor and data disagree",)


# -- bits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12])
def test_bits_above_those_stored_are_left_out(shown, bits):
    overlay = STORED | np.uint16(1 << bits)  # an embedded overlay in the first unused bit
    np.testing.assert_allclose(shown(overlay, bits=bits).pixels, HUNDREDTHS, atol=1e-7)


def test_signed_values_of_12_bits_are_sign_extended(shown):
    values = np.array([[-2048, 0, 2047]], dtype=np.int16)
    unextended = (values & 0x0FFF).astype(np.int16)
    image = shown(unextended, bits=12)
    assert image.meta["window"] == "minmax: -2048 to 2047"
    np.testing.assert_allclose(image.pixels, (values + 2048) / 4095, atol=1e-7)


def test_a_high_bit_above_the_lowest_is_shifted_down(shown):
    signed = np.array([[-100, 0, 300]], dtype=np.int16)
    for values in (STORED, signed):
        image = shown(values << values.dtype.type(4), bits=12, HighBit=15)
        assert image.meta["window"] == f"minmax: {values.min()} to {values.max()}"
        np.testing.assert_allclose(image.pixels, (values - values.min()) / np.ptp(values), atol=1e-7)


def test_32_bits_keep_their_precision(shown):
    values = np.array([[2**31, 2**31 + 1, 2**31 + 4]], dtype=np.uint32)
    np.testing.assert_allclose(shown(values).pixels, [[0, 0.25, 1]])


def test_one_bit(tmp_path):
    # 2 x 5 pixels, first pixel in the lowest bit: 1 0 1 1 0 / 0 0 1 0 1.
    data = dataset(
        np.zeros((2, 5), np.uint8), pixel_data=bytes([0b10001101, 0b00000010]), BitsAllocated=1, BitsStored=1, HighBit=0
    )
    path = save(data, tmp_path / "a.dcm")
    expected = [[1, 0, 1, 1, 0], [0, 0, 1, 0, 1]]
    np.testing.assert_array_equal(read(path).pixels, expected)
    np.testing.assert_array_equal(read_mask(path), np.array(expected, dtype=bool))


def test_float_pixel_data(tmp_path):
    data = dataset(np.zeros((1, 3), np.uint32), PixelData=None, BitsStored=None, HighBit=None, PixelRepresentation=None)
    data.FloatPixelData = np.array([0.25, np.nan, 0.75], dtype="<f4").tobytes()
    np.testing.assert_allclose(read(save(data, tmp_path / "a.dcm")).pixels, [[0.25, 0, 0.75]])


# -- padding ----------------------------------------------------------------------------------------------------------


def test_padding_is_0_and_left_out_of_the_range(shown):
    values = np.array([[-2000, 0, 50, 100]], dtype=np.int16)
    np.testing.assert_allclose(shown(values, PixelPaddingValue=-2000).pixels, [[0, 0, 0.5, 1]])


def test_padding_of_monochrome1_is_black_too(shown):
    values = np.array([[4095, 0, 50, 100]], dtype=np.uint16)
    image = shown(values, PixelPaddingValue=4095, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(image.pixels, [[0, 1, 0.5, 0]])


def test_a_padding_range_in_either_order(shown):
    values = np.array([[1, 2, 3, 10, 20]], dtype=np.uint16)
    for value, limit in [(1, 3), (3, 1)]:
        np.testing.assert_allclose(
            shown(values, PixelPaddingValue=value, PixelPaddingRangeLimit=limit).pixels, [[0, 0, 0, 0, 1]]
        )


def test_padding_written_as_unsigned_in_a_signed_image(tmp_path):
    data = dataset(np.array([[-2000, 0, 50, 100]], dtype=np.int16))
    data.add_new("PixelPaddingValue", "US", 65536 - 2000)
    np.testing.assert_allclose(read(save(data, tmp_path / "a.dcm")).pixels, [[0, 0, 0.5, 1]])


def test_nothing_but_padding_is_black(shown):
    image = shown(np.full((2, 3), 9, dtype=np.uint16), PixelPaddingValue=9)
    np.testing.assert_array_equal(image.pixels, np.zeros((2, 3)))


# -- colour -----------------------------------------------------------------------------------------------------------

RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [51, 51, 51]], [[255, 255, 255], [0, 0, 0]]], dtype=np.uint8)
LUMA = [[0.299, 0.587], [0.114, 0.2], [1, 0]]


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_in_both_planar_configurations(shown, planar):
    raw = (np.moveaxis(RGB, -1, 0) if planar else RGB).tobytes()
    np.testing.assert_allclose(shown(RGB, pixel_data=raw, PlanarConfiguration=planar).pixels, LUMA, atol=1e-6)


def test_rgb_of_16_bits(shown):
    np.testing.assert_allclose(shown(RGB.astype(np.uint16) * 257).pixels, LUMA, atol=1e-6)


def test_ybr_full_gives_back_the_colours(shown):
    # PS3.3 C.7.6.3.1.2: pure red is Y 76.245, Cb 84.97, Cr 255.5; a gray has Cb = Cr = 128.
    ybr = np.array([[[76, 85, 255], [51, 128, 128]]], dtype=np.uint8)
    np.testing.assert_allclose(shown(ybr, PhotometricInterpretation="YBR_FULL").pixels, [[0.299, 0.2]], atol=0.003)


def test_ybr_full_422(shown):
    raw = bytes([51, 102, 128, 128, 153, 204, 128, 128])  # Y1 Y2 Cb Cr, twice: four grays
    image = shown(np.zeros((1, 4, 3), np.uint8), pixel_data=raw, PhotometricInterpretation="YBR_FULL_422")
    np.testing.assert_allclose(image.pixels, [[0.2, 0.4, 0.6, 0.8]], atol=0.003)


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_color(shown, bits):
    full = 2**bits - 1
    tags = {}
    for colour, entries in {"Red": [full, full], "Green": [0, full], "Blue": [0, full]}.items():
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 5, bits]
        tags[f"{colour}PaletteColorLookupTableData"] = struct.pack("<2H" if bits == 16 else "<2B", *entries)
    values = np.array([[4, 5, 6]], dtype=np.uint8)
    image = shown(values, PhotometricInterpretation="PALETTE COLOR", **tags)
    np.testing.assert_allclose(image.pixels, [[0.299, 0.299, 1]], atol=1e-6)


@pytest.mark.parametrize(("brightest", "expected"), [(65535, 200 / 65535), (255, 200 / 255)])
def test_a_16_bit_palette_of_8_bit_entries_is_told_by_its_brightest_entry_and_not_by_the_picture(
    shown, brightest, expected
):
    tags = {}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = struct.pack("<3H", 0, 200, brightest)
    image = shown(np.array([[0, 1]], dtype=np.uint8), PhotometricInterpretation="PALETTE COLOR", **tags)
    np.testing.assert_allclose(image.pixels, [[0, expected]], rtol=1e-6)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PhotometricInterpretation": "YBR_PARTIAL_420"}, "YBR_PARTIAL_420"),
        ({"PhotometricInterpretation": "MONOCHROME2"}, "MONOCHROME2 with 3 samples"),
        ({"PhotometricInterpretation": None}, "absent"),
    ],
)
def test_colours_that_cannot_be_told_are_refused(shown, tags, message):
    with pytest.raises(UnreadableImage, match=message):
        shown(RGB, **tags)


def test_a_window_for_colour_is_refused(shown):
    with pytest.raises(UnreadableImage, match=r"not defined for RGB"):
        shown(RGB, window=(1.0, 2.0))


# -- frames -----------------------------------------------------------------------------------------------------------


def test_frames_are_windowed_one_by_one(tmp_path):
    path = save(dataset(np.stack([WIDE, WIDE * 2 + 5])), tmp_path / "a.dcm")
    frames = list(read_all(path))
    assert count_frames(path) == 2
    assert [frame.frame for frame in frames] == [0, 1]
    for frame in frames:
        np.testing.assert_allclose(frame.pixels, WIDE / 100, atol=1e-7)
    assert frames[1].meta["window"] == "minmax: 5 to 205"
    np.testing.assert_array_equal(read(path).pixels, frames[0].pixels)
    assert read(path, frame=1).meta["window"] == "minmax: 5 to 205"
    with pytest.raises(UnreadableImage, match=r"frame 2 was asked for. It has 2 frames, counted from 0"):
        read(path, frame=2)


def test_enhanced_objects_have_rescale_window_and_spacing_per_frame(tmp_path):
    data = dataset(np.stack([WIDE, WIDE]))

    def group(slope, centre):
        return item(
            PixelValueTransformationSequence=Sequence(
                [item(RescaleSlope=slope, RescaleIntercept="0", RescaleType="US")]
            ),
            FrameVOILUTSequence=Sequence([item(WindowCenter=centre, WindowWidth="100", VOILUTFunction="LINEAR_EXACT")]),
        )

    data.PerFrameFunctionalGroupsSequence = Sequence([group("1", "50"), group("2", "150")])
    measures = item(PixelSpacing=["0.25", "0.5"])
    data.SharedFunctionalGroupsSequence = Sequence([item(PixelMeasuresSequence=Sequence([measures]))])
    data.PixelSpacing = ["9", "9"]
    first, second = read_all(save(data, tmp_path / "a.dcm"))
    np.testing.assert_allclose(first.pixels, WIDE / 100, atol=1e-7)
    np.testing.assert_allclose(second.pixels, np.clip(WIDE / 50 - 1, 0, 1), atol=1e-7)  # 2 v from 100 to 200
    assert first.spacing_mm == second.spacing_mm == (0.25, 0.5)
    assert first.meta["spacing_from"] == "PixelMeasuresSequence"


# -- compressed -------------------------------------------------------------------------------------------------------


def encoded(values, syntax, **tags):
    """The streams of every frame by imagecodecs, the syntax's own coder where it has one."""
    imagecodecs = pytest.importorskip("imagecodecs")
    frames = values[None] if values.ndim == 2 or values.shape[-1] == 3 else values
    bits = tags.get("bits", 8 * values.dtype.itemsize)

    def one(frame):
        if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
            return imagecodecs.jpeg8_encode(frame, lossless=True, bitspersample=bits)
        if syntax == uid.JPEGExtended12Bit:
            return imagecodecs.jpeg8_encode(frame, level=100, bitspersample=bits)
        if syntax == uid.JPEGBaseline8Bit:
            return imagecodecs.jpeg8_encode(frame, level=100)
        if syntax == uid.JPEGLSLossless:
            return imagecodecs.jpegls_encode(frame)
        return imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k", reversible=True, bitspersample=bits)

    return dataset(values, syntax=syntax, pixel_data=encapsulate([one(frame) for frame in frames]), **tags)


RAMP = (np.arange(12 * 20).reshape(12, 20) * 17 % 4096).astype(np.uint16)
RAMP8 = np.add.outer(np.arange(16) * 4, np.arange(24) * 5).astype(np.uint8)


@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("frames", [1, 3])
def test_lossless_syntaxes_give_back_every_value(tmp_path, syntax, frames):
    values = RAMP if frames == 1 else np.stack([np.roll(RAMP, k, 1) for k in range(frames)])
    path = save(encoded(values, syntax, bits=12), tmp_path / "a.dcm")
    for k, image in enumerate(read_all(path, window=(2047.5, 4095.0))):
        expected = (values if frames == 1 else values[k]) / 4095
        np.testing.assert_allclose(image.pixels, expected, atol=1e-7)
    assert image.frame == frames - 1


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEG2000Lossless])
def test_signed_lossless(tmp_path, syntax):
    pytest.importorskip("imagecodecs")
    signed = RAMP.astype(np.int16) - 2048
    if syntax == uid.JPEG2000Lossless:
        data = encoded(signed, syntax)
    else:  # JPEG knows no sign: the coder sees the bits
        data = encoded(signed.view(np.uint16), syntax, PixelRepresentation=1)
    image = read(save(data, tmp_path / "a.dcm"), window=(-0.5, 4095.0))
    np.testing.assert_allclose(image.pixels, (signed + 2048) / 4095, atol=1e-7)


def test_jpeg_baseline_and_12_bit_extended(tmp_path):
    image = read(save(encoded(RAMP8, uid.JPEGBaseline8Bit), tmp_path / "a.dcm"))
    np.testing.assert_allclose(image.pixels, RAMP8 / 255, atol=2 / 255)
    deep = RAMP8.astype(np.uint16) * 16
    image = read(save(encoded(deep, uid.JPEGExtended12Bit, bits=12), tmp_path / "b.dcm"), window=(2047.5, 4095.0))
    np.testing.assert_allclose(image.pixels, deep / 4095, atol=8 / 4095)


@pytest.mark.parametrize("values", [RAMP, RAMP8, RGB])
def test_rle(tmp_path, values):
    data = dataset(values)
    data.compress(uid.RLELossless, generate_instance_uid=False)
    image = read(save(data, tmp_path / "a.dcm"))
    expected = LUMA if values is RGB else values / (255 if values is RAMP8 else values.max())
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)
    assert image.meta["TransferSyntaxUID"] == uid.RLELossless


@pytest.mark.parametrize("swap", [{"Rows": 20, "Columns": 12}, {"Rows": 12, "Columns": 19}, {"Rows": 6, "Columns": 40}])
def test_a_stream_of_another_shape_than_the_tags_is_refused(tmp_path, swap):
    # 20 x 12 and 6 x 40 hold as many pixels as 12 x 20: a decoder that only counts would reshape them without a word.
    path = save(encoded(RAMP, uid.JPEG2000Lossless, bits=12, **swap), tmp_path / "a.dcm")
    with pytest.raises(UnreadableImage, match=r"compressed picture is 12 x 20 x 1 and its tags say"):
        read(path)


def test_a_bomb_in_the_stream_behind_small_tags_is_refused(tmp_path):
    data = encoded(RAMP8, uid.JPEGBaseline8Bit)
    at = data.PixelData.index(b"\xff\xc0")
    bomb = bytearray(data.PixelData)
    bomb[at + 5 : at + 9] = b"\xff\xdc\xff\xdc"
    data.PixelData = bytes(bomb)
    with pytest.raises(UnreadableImage, match=r"65500 x 65500 x 1 and its tags say 16 x 24 x 1"):
        read(save(data, tmp_path / "a.dcm"))


def test_a_syntax_without_a_decoder_is_named_with_a_way_out(tmp_path):
    data = dataset(RAMP8, syntax=uid.MPEG2MPML, pixel_data=encapsulate([b"\0\0"]))
    with pytest.raises(UnreadableImage, match=r"MPEG2.*\(1\.2\.840\.10008\.1\.2\.4\.100\).*dcmconv"):
        read(save(data, tmp_path / "a.dcm"))


def test_a_missing_decoder_package_is_named(tmp_path, monkeypatch):
    from radtag.images import dicom

    path = save(encoded(RAMP8, uid.JPEG2000Lossless), tmp_path / "a.dcm")
    monkeypatch.setitem(dicom.PLUGINS, uid.JPEG2000Lossless, ("absent", "pylibjpeg-openjpeg"))
    with pytest.raises(
        UnreadableImage, match=r"JPEG 2000 .*\(1\.2\.840\.10008\.1\.2\.4\.90\)\. Run: pip install pylibjpeg-openjpeg"
    ):
        read(path)


def test_every_decoder_named_is_installed_with_the_package():
    from pydicom.pixels.decoders.base import get_decoder

    from radtag.images import jpeg

    jpeg.register()
    assert [
        syntax.name for syntax, (plugin, _) in PLUGINS.items() if plugin not in get_decoder(syntax).available_plugins
    ] == []


# -- spacing and identity ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PixelSpacing": ["0.1", "0.2"], "ImagerPixelSpacing": ["9", "9"]}, (0.1, 0.2)),
        ({"ImagerPixelSpacing": ["0.3", "0.15"]}, (0.3, 0.15)),
        ({"ImagerPixelSpacing": ["0.3", "0.15"], "EstimatedRadiographicMagnificationFactor": "1.5"}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": ["0.3", "0.15"], "EstimatedRadiographicMagnificationFactor": "0"}, (0.3, 0.15)),
        ({"PixelSpacing": ["0", "0"], "NominalScannedPixelSpacing": ["0.4", "0.5"]}, (0.4, 0.5)),
        ({"PixelAspectRatio": ["1", "2"]}, None),
        ({"PixelSpacing": ["-1", "1"]}, None),
        ({}, None),
    ],
)
def test_spacing_by_the_stated_rule(shown, tags, expected):
    spacing = shown(STORED, **tags).spacing_mm
    assert spacing == (pytest.approx(expected) if expected else None)


def test_identifiers_are_kept_for_what_is_written_later(shown):
    meta = shown(STORED, BodyPartExamined="CHEST", ViewPosition="PA").meta
    assert (meta["PatientID"], meta["SOPInstanceUID"], meta["Modality"]) == ("P 1", "1.2.3.4", "DX")
    assert (meta["StudyInstanceUID"], meta["SeriesInstanceUID"]) == ("1.2.3", "1.2.3.1")
    assert (meta["SOPClassUID"], meta["BodyPartExamined"], meta["ViewPosition"]) == (
        "1.2.840.10008.5.1.4.1.1.1.1",
        "CHEST",
        "PA",
    )
    assert (meta["PhotometricInterpretation"], meta["TransferSyntaxUID"]) == ("MONOCHROME2", uid.ExplicitVRLittleEndian)


# -- what is no image -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Rows": None}, "its Rows is None"),
        ({"Rows": 0}, "0 rows"),
        ({"Rows": 65535, "Columns": 65535}, "over the limit"),
        ({"BitsStored": None}, "its BitsStored is None"),
        ({"BitsStored": 17}, "its BitsStored is 17"),
        ({"HighBit": 3}, "its HighBit is 3"),
        ({"BitsAllocated": None}, "its BitsAllocated is None"),
        ({"SamplesPerPixel": 2}, "2 samples"),
        ({"PixelData": None}, "holds no pixels"),
        ({"PixelData": b""}, "holds no pixels"),
        ({"NumberOfFrames": 0}, "NumberOfFrames"),
        ({"Rows": 3}, "less than expected"),
        ({"NumberOfFrames": 1_000_000}, "less than expected"),
    ],
)
def test_missing_and_nonsense_tags_are_refused_by_name(shown, tags, message):
    with pytest.raises(UnreadableImage, match=rf"a\.dcm: .*{message}.*\. [A-Z]"):
        shown(STORED, **tags)


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.97])
@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless]
)
def test_a_truncated_object_is_refused(tmp_path, syntax, keep):
    noise = np.random.default_rng(0).integers(0, 4096, (40, 60)).astype(np.uint16)
    data = encoded(noise, syntax, bits=12) if syntax.is_encapsulated else dataset(noise, bits=12)
    path = save(data, tmp_path / "cut.dcm")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(UnreadableImage, match=r"cut\.dcm"):
        read(path)


def test_one_frame_may_be_written_as_a_decimal(shown):
    np.testing.assert_array_equal(shown(STORED, NumberOfFrames="1.0").pixels, shown(STORED).pixels)


def test_one_pixel(shown):
    np.testing.assert_array_equal(shown(np.array([[255]], dtype=np.uint8)).pixels, [[1]])


def test_a_deflated_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    from radtag.images import dicom

    monkeypatch.setattr(dicom, "MAX_VOXELS", 1_000_000)
    path = save(
        dataset(np.zeros((1100, 1000), np.uint8), syntax=uid.DeflatedExplicitVRLittleEndian), tmp_path / "a.dcm"
    )
    assert path.stat().st_size < 10_000
    with pytest.raises(UnreadableImage, match=r"inflates to over 1000000 bytes"):
        read(path)


def test_an_object_without_preamble_or_meta_information(tmp_path):
    data = dataset(STORED)
    for implicit, little in [(True, True), (False, True), (False, False)]:
        del data.file_meta
        data.PixelData = STORED.astype("<u2" if little else ">u2").tobytes()
        pydicom.dcmwrite(tmp_path / "bare", data, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
        np.testing.assert_allclose(read(tmp_path / "bare").pixels, HUNDREDTHS, atol=1e-7)
        data.file_meta = FileMetaDataset()


def test_a_dicomdir_is_named_as_one(tmp_path):
    data = dataset(STORED, PixelData=None, DirectoryRecordSequence=Sequence([]))
    with pytest.raises(UnreadableImage, match=r"DICOMDIR.*Give the folder"):
        read(save(data, tmp_path / "DICOMDIR"))


def test_masks_are_stored_values_other_than_0(tmp_path):
    path = save(
        dataset(STORED, PhotometricInterpretation="MONOCHROME1", WindowCenter="90", WindowWidth="2"), tmp_path / "m.dcm"
    )
    np.testing.assert_array_equal(read_mask(path), STORED > 0)
