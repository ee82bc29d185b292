"""What the tests of sources make their small copies of layouts with, and look at labels by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from radtag.data import table

Written = Callable[[Path, str], Path]
Dicom = Callable[[Path], Path]
Labels = Callable[[table.Dataset, str], list[float | None]]


@pytest.fixture(scope="session")
def written() -> Written:
    """Writes a text file, and the folders it is in."""

    def write(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="session")
def labels() -> Labels:
    """The labels of one finding, image by image; None = unknown."""

    def of(data: table.Dataset, finding: str) -> list[float | None]:
        at = data.findings.index(finding)
        return [None if np.isnan(record.labels[at]) else record.labels[at] for record in data.records]

    return of


@pytest.fixture(scope="session")
def dicom() -> Dicom:
    """Writes a small radiograph as the challenges give theirs out: 8 bits, gray, no patient in it."""

    def write(path: Path) -> Path:
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = SecondaryCaptureImageStorage
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
        image.Modality, image.PhotometricInterpretation = "CR", "MONOCHROME2"
        image.Rows = image.Columns = 64
        image.SamplesPerPixel, image.PixelRepresentation = 1, 0
        image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
        pixels = np.random.default_rng(crc32(path.name.encode())).integers(0, 256, (64, 64))
        image.PixelData = pixels.astype(np.uint8).tobytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save_as(path, enforce_file_format=True)
        return path

    return write
