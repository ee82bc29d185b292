"""Files with damaged bytes: an image or a named refusal, never anything else."""

import io

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile
from pydicom.data import get_testdata_file

from radtag.errors import UnreadableImage
from radtag.images import count_frames, read

NOISE = np.random.default_rng(0).integers(0, 256, (9, 13), dtype=np.uint8)


def pillow(kind):
    stream = io.BytesIO()
    PIL.Image.fromarray(NOISE).save(stream, format=kind)
    return stream.getvalue()


def tiff(compression):
    stream = io.BytesIO()
    tifffile.imwrite(stream, NOISE, compression=compression)
    return stream.getvalue()


def dicom(name):
    path = get_testdata_file(name, download=False)
    assert path is not None
    with open(path, "rb") as stream:
        return stream.read()


SOURCES = {
    "png": lambda: pillow("PNG"),
    "jpeg": lambda: pillow("JPEG"),
    "bmp": lambda: pillow("BMP"),
    "tiff": lambda: tiff(None),
    "tiff lzw": lambda: tiff("lzw"),
    "nifti": lambda: nib.Nifti1Image(NOISE.astype(np.int16), np.eye(4)).to_bytes(),
    "dicom": lambda: dicom("MR_small.dcm"),
    "dicom rle": lambda: dicom("MR_small_RLE.dcm"),
    "dicom jpeg": lambda: dicom("SC_rgb_small_odd_jpeg.dcm"),
    "dicom jpeg 12": lambda: dicom("JPGExtended.dcm"),
    "dicom jpeg lossless": lambda: dicom("SC_rgb_jpeg_gdcm.dcm"),
    "dicom jpeg-ls": lambda: dicom("JPEGLSNearLossless_08.dcm"),
    "dicom jpeg 2000": lambda: dicom("MR_small_jp2klossless.dcm"),
    "dicom deflated": lambda: dicom("image_dfl.dcm"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("source", SOURCES)
def test_damage_is_survived(source, tmp_path):
    whole = SOURCES[source]()
    rng = np.random.default_rng(1)
    path = tmp_path / "damaged"
    for attempt in range(12):
        data = bytearray(whole)
        # Half of the damage goes into the first bytes, where the sizes are.
        reach = len(data) if attempt % 2 else min(len(data), 400)
        for at in rng.integers(0, reach, size=1 + attempt % 4):
            data[at] = rng.integers(0, 256)
        path.write_bytes(bytes(data))
        refusal = None
        try:
            image = read(path)
            count_frames(path)
        except UnreadableImage as error:
            refusal = error
        if refusal is None:
            assert np.isfinite(image.pixels).all()
        else:
            assert str(path) in str(refusal)
            assert refusal.next_step


def test_the_undamaged_files_are_images(tmp_path):
    for source, make in SOURCES.items():
        path = tmp_path / source.replace(" ", "_")
        path.write_bytes(make())
        assert read(path).pixels.size > 1, source
