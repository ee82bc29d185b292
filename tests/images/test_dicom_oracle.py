"""pydicom's own test files: every one is an image or a named refusal, and values are those of DCMTK and GDCM."""

import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom
import pytest
from pydicom import uid

from radtag.errors import UnreadableImage
from radtag.images import count_frames, read, read_all
from radtag.images import dicom as reader

FOLDER = Path(pydicom.__file__).parent / "data"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
pytestmark = pytest.mark.filterwarnings("ignore")  # these files are there to be warned about

# Refused, and rightly: the next line of each says why.
REFUSED = {
    "MR_truncated.dcm": "less than expected",
    "badVR.dcm": "NumberOfFrames is '1A'",
    "JPEG2000-embedded-sequence-delimiter.dcm": "compressed picture is",
    "no_meta.dcm": "not an image",
    "zipMR.gz": "gzip file that holds no NIfTI",
    "DICOMDIR": "DICOMDIR",
    "rtplan.dcm": "holds no pixels .SOP class: RT Plan Storage",
}


def holds_pixels(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = pydicom.dcmread(path)
        except Exception:
            return False
    return "PixelData" in data and "Rows" in data


IMAGES = [path for path in FILES if holds_pixels(path) and path.name not in REFUSED]


def name(path):
    return str(path.relative_to(FOLDER))


def test_there_is_something_to_test():
    assert len(IMAGES) > 90


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_file_is_an_image_or_a_named_refusal(path):
    if path in IMAGES:
        image = read(path)
        assert image.size_rc == tuple(pydicom.dcmread(path)[tag].value for tag in ("Rows", "Columns"))
        assert np.ptp(image.pixels) > 0 or path.parent.name == "CT2"  # tiny cut-outs of bone, all above the window
    else:
        with pytest.raises(UnreadableImage, match=REFUSED.get(path.name, "")) as refusal:
            read(path)
        assert str(path) in str(refusal.value)
        assert refusal.value.cause
        assert refusal.value.next_step[0].isupper()
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("path", [path for path in IMAGES if "NumberOfFrames" in pydicom.dcmread(path)], ids=name)
def test_every_frame_is_read(path):
    frames = list(read_all(path))
    assert len(frames) == count_frames(path) == int(pydicom.dcmread(path).NumberOfFrames)
    np.testing.assert_array_equal(frames[-1].pixels, read(path, frame=len(frames) - 1).pixels)


# -- against other decoders -------------------------------------------------------------------------------------------

# DCMTK's programs that undo a compression; JPEG 2000 is GDCM's part.
DCMTK = {
    **dict.fromkeys(
        (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1), ("dcmdjpeg", "+cn")
    ),
    **dict.fromkeys((uid.JPEGLSLossless, uid.JPEGLSNearLossless), ("dcmdjpls",)),
    uid.RLELossless: ("dcmdrle",),
}
COMPRESSED = [path for path in IMAGES if pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_encapsulated]


def raw(data):
    """The values of an uncompressed object, by its tags alone."""
    kind = "i" if data.PixelRepresentation else "u"
    values = np.frombuffer(data.PixelData, dtype=f"<{kind}{data.BitsAllocated // 8}")
    shape = (int(data.get("NumberOfFrames", 1) or 1), data.Rows, data.Columns, data.SamplesPerPixel)
    if data.get("PlanarConfiguration", 0):
        shape = (shape[0], shape[3], shape[1], shape[2])
        return np.moveaxis(values[: np.prod(shape)].reshape(shape), 1, -1)
    return values[: np.prod(shape)].reshape(shape)


def decompressed(path, tmp_path):
    """The object as DCMTK, or for JPEG 2000 GDCM, decompresses it; colours stay as they were coded."""
    syntax = pydicom.dcmread(path).file_meta.TransferSyntaxUID
    out = tmp_path / "raw.dcm"
    if syntax in DCMTK:
        program, *options = DCMTK[syntax]
        if shutil.which(program) is None:
            pytest.skip(f"{program} of DCMTK is not installed")
        done = subprocess.run([program, *options, str(path), str(out)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{program} refuses it: {done.stderr.strip().splitlines()[-1][:100]}")
    else:
        gdcm = pytest.importorskip("gdcm")
        source = gdcm.ImageReader()
        source.SetFileName(str(path))
        if not source.Read():
            pytest.skip("GDCM refuses it")
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
        change.SetInput(source.GetImage())
        if not change.Change():
            pytest.skip("GDCM refuses it")
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(out))
        writer.SetFile(source.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    return pydicom.dcmread(out)


@pytest.mark.parametrize("path", COMPRESSED, ids=name)
def test_stored_values_are_those_of_another_decoder(path, tmp_path):
    theirs = decompressed(path, tmp_path)
    data = reader.open_object(path)
    frames = count_frames(path)
    for index in {0, frames - 1}:
        values, photometric = reader.stored_values(path, data, index, frames)
        expected = raw(theirs)[index]
        if theirs.PhotometricInterpretation.startswith("YBR") and photometric == "RGB":
            y, cb, cr = np.moveaxis(expected.astype(np.float64), -1, 0)
            cb, cr = cb - 128, cr - 128
            expected = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1).clip(0, 255)
        if path.name == "J2K_pixelrep_mismatch.dcm":
            # The stream says unsigned, the tags say signed, and they are: GDCM follows the stream, off by 2 ** 13.
            expected = (expected.astype(np.int32) + 2**12) % 2**13 - 2**12
        difference = np.abs(values.reshape(expected.shape).astype(np.float64) - expected)
        if data.file_meta.TransferSyntaxUID == uid.JPEGBaseline8Bit:
            # Two inverse DCTs differ by a value, two ways to spread chroma by more at edges.
            assert np.median(difference) <= 1
            assert difference.mean() < 2
        elif photometric == "RGB" and theirs.PhotometricInterpretation.startswith("YBR"):
            assert difference.max() <= 1
        else:
            assert difference.max() == 0


# 32-bit big-endian values, which DCMTK swaps by 16-bit words, and 1-bit ones, which it shows at half brightness.
NOT_BY_DCM2PNM = {"rtdose_expb.dcm", "rtdose_expb_1frame.dcm", "liver_1frame.dcm", "liver_expb_1frame.dcm"}
UNCOMPRESSED = [path for path in IMAGES if path not in COMPRESSED and path.name not in NOT_BY_DCM2PNM]


@pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="dcm2pnm of DCMTK is not installed")
@pytest.mark.parametrize("path", UNCOMPRESSED, ids=name)
def test_what_is_shown_is_what_dcm2pnm_shows(path, tmp_path):
    image = read(path)
    gray = image.meta["PhotometricInterpretation"].startswith("MONOCHROME")
    options = ["--no-overlays"]
    if gray:
        options.append("--write-16-bit-pnm")
        rule = image.meta["window"]
        options += ["--use-window", "1"] if rule.startswith("LINEAR") else []
        options += ["--min-max-window"] if rule.startswith("minmax") else []
    out = tmp_path / "a.pnm"
    subprocess.run(["dcm2pnm", *options, str(path), str(out)], check=True, capture_output=True)
    with PIL.Image.open(out) as picture:
        theirs = np.asarray(picture).astype(np.float64)
    if gray:
        theirs /= 65535 if theirs.max() > 255 else 255
    else:
        theirs = theirs @ [0.299, 0.587, 0.114] / 255
    # 8-bit values come out of dcm2pnm as v / 257 of 65535, MONOCHROME1 through a table of 4096 steps.
    assert np.abs(image.pixels - theirs).max() < 1 / 250
