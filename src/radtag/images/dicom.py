"""DICOM objects, uncompressed or compressed, single- or multi-frame.

The way of a gray pixel, each step as PS3.3 has it:

1. **Stored value**: the ``BitsStored`` bits below ``HighBit``, sign-extended if ``PixelRepresentation`` is 1. Overlays,
   embedded or not, are left out.
2. **Modality** (C.11.1): the Modality LUT if there is one, else slope and intercept. Enhanced objects: the frame's own
   PixelValueTransformationSequence, then the shared one, then the object's. A slope of 0 or a value that is no number
   is nonsense and the step is left out (``meta["notes"]`` says so).
3. **Window** (C.11.2), the first that applies; ``meta["window"]`` says which did:
   what the caller gave; the first item of the VOI LUT Sequence; the first window with finite values and a width above 0
   (per frame, then shared, then the object's) by its VOILUTFunction (LINEAR, LINEAR_EXACT, SIGMOID; a LINEAR width
   below 1, which the standard does not allow, is taken as LINEAR_EXACT); unsigned pixels of at most 8 bits without a
   modality step: the stored range, as for a PNG; floats within 0-1: as they are; else minimum to maximum of the frame's
   pixels that are not padding.
4. **Polarity**: MONOCHROME1 is inverted. Presentation LUT Shape says the same thing again and is not applied a second
   time.
5. **Padding** (PixelPaddingValue to PixelPaddingRangeLimit) is 0, like the collimated background of a radiograph.

Colour (RGB, YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT, either planar configuration, PALETTE COLOR) becomes ITU-R 601
luma over the stored range; windows are not defined for it. YBR_PARTIAL and others are refused.

``spacing_mm``, the first of these that holds two positive numbers (``meta["spacing_from"]`` names it): Pixel Spacing of
the frame's PixelMeasuresSequence, then the shared one; PixelSpacing; ImagerPixelSpacing, which is measured at the
detector and so is divided by EstimatedRadiographicMagnificationFactor where that is at least 1;
NominalScannedPixelSpacing (digitised film). PixelAspectRatio is a ratio without a unit: it is not a spacing and is
ignored.

Several frames: the one asked for, the first if none was, or all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from radtag.errors import UnreadableImage
from radtag.images import jpeg
from radtag.images import window as windows
from radtag.images.image import Image
from radtag.images.limits import MAX_VOXELS, check_frame, refuse_bomb
from radtag.images.window import Window

Mapping_ = Callable[[NDArray[np.float64]], NDArray[np.float64]]

# Who decodes what: fixed, so that values do not depend on which further plug-ins are installed.
PLUGINS = {
    uid.JPEGBaseline8Bit: ("pillow", "Pillow"),
    uid.JPEGExtended12Bit: ("imagecodecs", "imagecodecs"),
    uid.JPEGLossless: ("imagecodecs", "imagecodecs"),
    uid.JPEGLosslessSV1: ("imagecodecs", "imagecodecs"),
    uid.JPEGLSLossless: ("pyjpegls", "pyjpegls"),
    uid.JPEGLSNearLossless: ("pyjpegls", "pyjpegls"),
    uid.JPEG2000Lossless: ("pylibjpeg", "pylibjpeg-openjpeg"),
    uid.JPEG2000: ("pylibjpeg", "pylibjpeg-openjpeg"),
    uid.HTJ2KLossless: ("pylibjpeg", "pylibjpeg-openjpeg"),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg", "pylibjpeg-openjpeg"),
    uid.HTJ2K: ("pylibjpeg", "pylibjpeg-openjpeg"),
    uid.RLELossless: ("pydicom", "pydicom"),
}

IDENTIFIERS = (
    "PatientID",
    "SOPInstanceUID",
    "SOPClassUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "PhotometricInterpretation",
)

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def count(path: Path) -> int:
    """Frames of a DICOM object."""
    return _frames(path, open_object(path))


def images(path: Path, frame: int | Literal["all"] | None, window: Window) -> Iterator[Image]:
    """The frame asked for (None = the first), or all of them in order."""
    data = open_object(path)
    frames = _check(path, data)
    check_frame(path, frame, frames)
    for index in range(frames) if frame == "all" else [frame or 0]:
        yield _image(path, data, index, frames, window)


# -- the object -------------------------------------------------------------------------------------------------------


def open_object(path: Path) -> FileDataset:
    """Read an object, whether it has a preamble and file meta information or not.

    Raises:
        UnreadableImage: no DICOM, a DICOMDIR, or an object without pixels.
    """
    with path.open("rb") as stream:
        start = stream.read(1024)
    source: Path | BytesIO = path
    if start[128:132] == b"DICM" and b"1.2.840.10008.1.2.1.99" in start:
        source = _inflated(path)
    data = pydicom.dcmread(source, force=start[128:132] != b"DICM")
    if "DirectoryRecordSequence" in data:
        raise UnreadableImage(
            path, "it is a DICOMDIR, an index without pixels", "Give the folder that holds the images."
        )
    if not any(data.get(keyword) for keyword in PIXEL_KEYWORDS):
        kind = uid.UID(str(data.get("SOPClassUID", ""))).name or "unknown"
        raise UnreadableImage(
            path,
            f"the DICOM object holds no pixels (SOP class: {kind})",
            "Leave it out, or transfer it again.",
        )
    if "TransferSyntaxUID" not in getattr(data, "file_meta", {}):
        # Without file meta information the encoding is what the reader found, and pixels are uncompressed.
        implicit, little = data.original_encoding
        syntax = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
        if not little:
            syntax = uid.ExplicitVRBigEndian
        if not hasattr(data, "file_meta"):
            data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = syntax
    return data


def _inflated(path: Path) -> BytesIO | Path:
    """Refuse a deflated object that inflates without bounds; pydicom inflates in one go."""
    meta = pydicom.filereader.read_file_meta_info(path)
    if meta.TransferSyntaxUID != uid.DeflatedExplicitVRLittleEndian:
        return path
    raw = path.read_bytes()
    start = 132 + 12 + int(meta.FileMetaInformationGroupLength)
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = len(engine.decompress(raw[start:], MAX_VOXELS))
    if inflated >= MAX_VOXELS:
        raise UnreadableImage(
            path, f"it inflates to over {MAX_VOXELS} bytes", "The file is damaged or hostile; leave it out."
        )
    return BytesIO(raw)


def _number(data: Dataset, keyword: str) -> float | None:
    """A tag as one finite number, or None if it is absent, empty or nonsense."""
    try:
        value = data.get(keyword)
        value = float(value[0] if isinstance(value, (list, pydicom.multival.MultiValue)) else value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return value if np.isfinite(value) else None


def _numbers(data: Dataset, keyword: str) -> list[float]:
    """A tag as finite numbers; a part that is none becomes NaN."""
    try:
        value = data.get(keyword)
    except (TypeError, ValueError):
        return []
    parts = value if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]
    numbers = []
    for part in parts:
        try:
            numbers.append(float(part))
        except (TypeError, ValueError):
            numbers.append(float("nan"))
    return numbers


def _frames(path: Path, data: Dataset) -> int:
    value = data.get("NumberOfFrames")
    if value is None or str(value).strip() == "":
        return 1
    try:
        frames = int(value)
    except (TypeError, ValueError):
        frames = 0
    if frames < 1:
        raise UnreadableImage(path, f"its NumberOfFrames is {value!r}", "Correct the tag to a whole number from 1.")
    return frames


def _check(path: Path, data: Dataset) -> int:
    """Sizes and tags that decide how pixels are read, before any of them is.

    Returns:
        The number of frames.
    """
    frames = _frames(path, data)
    sizes = {}
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated"):
        number = _number(data, keyword)
        if number is None or number != int(number):
            raise UnreadableImage(
                path, f"its {keyword} is {data.get(keyword)!r}", "Correct the tag; pixels cannot be told without it."
            )
        sizes[keyword] = int(number)
    refuse_bomb(path, sizes["Rows"], sizes["Columns"], sizes["SamplesPerPixel"])
    if "PixelData" in data:
        stored, high = _number(data, "BitsStored"), _number(data, "HighBit")
        if stored is None or not 1 <= stored <= sizes["BitsAllocated"]:
            raise UnreadableImage(
                path,
                f"its BitsStored is {data.get('BitsStored')!r} of {sizes['BitsAllocated']} allocated",
                "Correct the tag.",
            )
        if high is not None and not stored - 1 <= high < sizes["BitsAllocated"]:
            raise UnreadableImage(
                path,
                f"its HighBit is {int(high)}, and {int(stored)} bits stored in {sizes['BitsAllocated']} need "
                f"{int(stored) - 1} to {sizes['BitsAllocated'] - 1}",
                "Correct the tag.",
            )
    photometric = str(data.get("PhotometricInterpretation", "") or "")
    gray = photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    colour = photometric in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
    if not (gray or colour):
        raise UnreadableImage(
            path,
            f"its PhotometricInterpretation is {photometric or 'absent'}",
            "Known are MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB, YBR_FULL, YBR_FULL_422, YBR_ICT and YBR_RCT.",
        )
    if sizes["SamplesPerPixel"] != (1 if gray else 3):
        raise UnreadableImage(
            path, f"it is {photometric} with {sizes['SamplesPerPixel']} samples a pixel", "Correct the tag."
        )
    return frames


# -- stored values ----------------------------------------------------------------------------------------------------


def stored_values(path: Path, data: FileDataset, index: int, frames: int) -> tuple[NDArray[Any], str]:
    """One frame as it is stored.

    Args:
        path: for messages.
        data: the object.
        index: which frame, from 0.
        frames: how many there are.

    Returns:
        (row, col) or (row, col, 3) stored values, and their photometric interpretation once decoded.

    Raises:
        UnreadableImage: no decoder for the transfer syntax, or a stream that is not the picture the tags describe.
    """
    syntax = data.file_meta.TransferSyntaxUID
    options: dict[str, Any] = {}
    if syntax.is_encapsulated:
        if syntax not in PLUGINS:
            raise UnreadableImage(
                path,
                f"no decoder for its transfer syntax {syntax.name} ({syntax})",
                "Convert it to a lossless syntax first, with DCMTK's dcmconv or dcmdjpeg, or with gdcmconv --raw.",
            )
        plugin, package = PLUGINS[syntax]
        if plugin == "imagecodecs":
            jpeg.register()
        if plugin not in get_decoder(syntax).available_plugins:
            raise UnreadableImage(
                path,
                f"no decoder is installed for its transfer syntax {syntax.name} ({syntax})",
                f"Run: pip install {package}",
            )
        options["decoding_plugin"] = plugin
        if plugin != "pydicom":
            _compare_with_stream(path, data, index, frames)
    elif syntax not in uid.AllTransferSyntaxes:
        raise UnreadableImage(
            path, f"its transfer syntax {syntax} is private or unknown", "Convert it with its maker's software."
        )

    allocated, stored = int(data.BitsAllocated), int(data.get("BitsStored", 0) or 0)
    high = _number(data, "HighBit")
    shifted = "PixelData" in data and high is not None and high != stored - 1 and not _is_jpeg(syntax)
    if shifted:
        options["correct_unused_bits"] = False
    if "PlanarConfiguration" not in data and int(data.SamplesPerPixel) > 1 and syntax.is_encapsulated:
        data.PlanarConfiguration = 0  # streams carry their own order; the tag is required and often forgotten
    values, properties = get_decoder(syntax).as_array(data, index=index, **options)
    if shifted and high is not None:
        values = (values << (allocated - 1 - int(high))) >> (allocated - stored)
    return values, str(properties["photometric_interpretation"])


def _is_jpeg(syntax: uid.UID) -> bool:
    return syntax.is_encapsulated and syntax != uid.RLELossless


def _compare_with_stream(path: Path, data: Dataset, index: int, frames: int) -> None:
    """A stream of another shape would be reshaped to the tags' without a word, or be a bomb behind small tags."""
    stream = get_frame(data.PixelData, index, number_of_frames=frames)
    told = jpeg.header(stream)
    if told is None:
        raise UnreadableImage(
            path, f"frame {index} does not begin as a JPEG stream does", "The file is damaged; fetch it again."
        )
    expected = (int(data.Rows), int(data.Columns), int(data.SamplesPerPixel))
    if (told.rows, told.cols, told.components) != expected:
        raise UnreadableImage(
            path,
            f"its compressed picture is {told.rows} x {told.cols} x {told.components} and its tags say "
            f"{expected[0]} x {expected[1]} x {expected[2]}",
            "Correct the tags Rows, Columns and SamplesPerPixel, or fetch it again.",
        )
    if told.bits > int(data.BitsAllocated):
        raise UnreadableImage(
            path,
            f"its compressed picture has {told.bits} bits and BitsAllocated is {int(data.BitsAllocated)}",
            "Correct the tag.",
        )


# -- values to 0-1 ----------------------------------------------------------------------------------------------------


def _groups(data: Dataset, index: int, keyword: str) -> list[Dataset]:
    """Where a frame's attributes may stand, nearest first: its own functional group, the shared one, the object."""
    places: list[Dataset] = []
    own = data.get("PerFrameFunctionalGroupsSequence") or []
    if index < len(own):
        places.append(own[index])
    shared = data.get("SharedFunctionalGroupsSequence") or []
    places += list(shared[:1])
    return [place[keyword].value[0] for place in places if keyword in place and place[keyword].value] + [data]


def _lut(item: Dataset, pixels_low: float, pixels_high: float) -> tuple[NDArray[np.float64], float, float] | None:
    """A LUT Sequence item as (table, first mapped value, full output), or None if it is nonsense."""
    descriptor = _numbers(item, "LUTDescriptor")
    if len(descriptor) != 3 or "LUTData" not in item or not np.isfinite(descriptor).all():
        return None
    entries, first, bits = int(descriptor[0]) % 65536 or 65536, descriptor[1], int(descriptor[2])
    data = item.LUTData
    if isinstance(data, bytes):
        wide = len(data) >= 2 * entries
        order = ">" if item.original_encoding[1] is False else "<"
        table = np.frombuffer(data, dtype=f"{order}u2" if wide else "u1")
    else:
        table = np.atleast_1d(np.asarray(data))
    if len(table) < entries or not 1 <= bits <= 16:
        return None
    table = table[:entries].astype(np.float64) % 65536
    if first > 32767 and pixels_low < 0 and pixels_high < first:
        first -= 65536  # written as US although the values it maps are signed
    return table, first, max(float(2**bits - 1), float(table.max()))


def _looked_up(values: NDArray[np.float64], table: NDArray[np.float64], first: float) -> NDArray[np.float64]:
    return table[np.clip(np.nan_to_num(np.rint(values - first)), 0, len(table) - 1).astype(np.int64)]


def _by_lut(table: NDArray[np.float64], first: float, full: float) -> Mapping_:
    return lambda values: _looked_up(values, table, first) / full


def _modality(data: Dataset, index: int, low: float, high: float, notes: list[str]) -> Mapping_ | None:
    """Stored values to the modality's, or None where there is no such step."""
    sequence = data.get("ModalityLUTSequence")
    if sequence:
        lut = _lut(sequence[0], low, high)
        if lut is not None:
            table, first, _ = lut
            return lambda values: _looked_up(values, table, first)
        notes.append("Modality LUT Sequence ignored: its descriptor and data disagree")
    for place in _groups(data, index, "PixelValueTransformationSequence"):
        if "RescaleSlope" not in place and "RescaleIntercept" not in place:
            continue
        slope = _number(place, "RescaleSlope") if "RescaleSlope" in place else 1.0
        intercept = _number(place, "RescaleIntercept") if "RescaleIntercept" in place else 0.0
        if slope is None or intercept is None or slope == 0:
            notes.append(
                f"rescale ignored: slope {place.get('RescaleSlope')!r}, intercept {place.get('RescaleIntercept')!r}"
            )
            continue
        if (slope, intercept) == (1.0, 0.0):
            return None
        return lambda values, m=slope, b=intercept: values * m + b  # type: ignore[misc]
    return None


def _stored_windows(data: Dataset, index: int) -> list[tuple[float, float, str]]:
    """(centre, width, function) of every usable window, of the nearest place that has any."""
    for place in _groups(data, index, "FrameVOILUTSequence"):
        pairs = zip(_numbers(place, "WindowCenter"), _numbers(place, "WindowWidth"), strict=False)
        function = str(place.get("VOILUTFunction", "") or "LINEAR").upper()
        usable = [(c, w, function) for c, w in pairs if np.isfinite(c) and np.isfinite(w) and w > 0]
        if usable:
            return usable
    return []


def _by_window(centre: float, width: float, function: str, notes: list[str]) -> tuple[Mapping_, str]:
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        notes.append(f"VOILUTFunction {function!r} is unknown, taken as LINEAR")
        function = "LINEAR"
    if function == "LINEAR" and width < 1:
        function = "LINEAR_EXACT"
    shapes = {"LINEAR": windows.linear, "LINEAR_EXACT": windows.linear_exact, "SIGMOID": windows.sigmoid}
    shape = shapes[function]
    return (lambda values: shape(values, centre, width)), f"{function} centre {centre:g} width {width:g}"


def _padding(data: Dataset, dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """The stored values, first to last, that are no image; None if there are none such."""
    suffix = {"FloatPixelData": "Float", "DoubleFloatPixelData": "DoubleFloat"}
    prefix = next((word for keyword, word in suffix.items() if keyword in data), "")
    value = _number(data, f"{prefix}PixelPaddingValue")
    if value is None:
        return None
    limit = _number(data, f"{prefix}PixelPaddingRangeLimit")
    ends = [value, value if limit is None else limit]
    if dtype.kind in "iu":
        size = 2 ** (8 * dtype.itemsize)  # US where SS was meant, or the other way round: the same bits
        smallest = np.iinfo(dtype).min
        ends = [(end - smallest) % size + smallest for end in ends]
    return min(ends), max(ends)


def _to_unit(
    path: Path, data: Dataset, index: int, stored: NDArray[Any], window: Window, notes: list[str]
) -> tuple[NDArray[np.float32], str]:
    """(row, col) stored values of a MONOCHROME frame to 0-1, and which window did it."""
    padding = _padding(data, stored.dtype)
    tabled = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2
    if tabled:
        # Every step is a function of the stored value alone: work it out once per value, then look it up.
        low, high = int(stored.min()), int(stored.max())
        values = np.arange(low, high + 1, dtype=np.float64)
        present = np.bincount((stored.astype(np.int32) - low).ravel(), minlength=len(values)) > 0
    else:
        values = stored.astype(np.float64)
        present = np.isfinite(values)
    padded = np.zeros(values.shape, dtype=bool)
    if padding is not None:
        padded = (values >= padding[0]) & (values <= padding[1])
    seen = values[present & ~padded]
    if seen.size == 0:
        notes.append("every pixel is padding or not finite")
        return np.zeros(stored.shape, dtype=np.float32), "none: no pixel to window"

    modality = _modality(data, index, float(seen.min()), float(seen.max()), notes)
    if modality is not None:
        values, seen = modality(values), modality(seen)
    voi, rule = _voi(path, data, index, seen, stored.dtype, modality is not None, window, notes)
    unit = np.nan_to_num(voi(values), nan=0.0)
    if data.PhotometricInterpretation == "MONOCHROME1":
        unit = 1 - unit
    table = np.where(padded, 0, np.clip(unit, 0, 1)).astype(np.float32)
    if not tabled:
        table[~np.isfinite(stored)] = 0
        return table, rule
    return table[stored.astype(np.int32) - low], rule


def _voi(
    path: Path,
    data: Dataset,
    index: int,
    seen: NDArray[np.float64],
    dtype: np.dtype[Any],
    has_modality: bool,
    window: Window,
    notes: list[str],
) -> tuple[Mapping_, str]:
    """The window rule of this module's docstring, step 3."""
    limits = windows.given(window)
    stored_windows = _stored_windows(data, index)
    if limits is not None:
        low, high = limits
        return (lambda values: windows.between(values, low, high)), f"given: {low:g} to {high:g}"
    if isinstance(window, int):
        if not 0 <= window < len(stored_windows):
            raise UnreadableImage(
                path, f"window {window} was asked for", f"It has {len(stored_windows)} usable windows, counted from 0."
            )
        return _by_window(*stored_windows[window], notes)
    if window is None:
        for place in _groups(data, index, "FrameVOILUTSequence"):
            if place.get("VOILUTSequence"):
                item = place.VOILUTSequence[0]
                lut = _lut(item, float(seen.min()), float(seen.max()))
                if lut is not None:
                    name = str(item.get("LUTExplanation", "") or "").strip()
                    return _by_lut(*lut), f"VOI LUT {name}".strip()
                notes.append("VOI LUT Sequence ignored: its descriptor and data disagree")
        if stored_windows:
            return _by_window(*stored_windows[0], notes)
        bits = int(data.get("BitsStored", 99) or 99)
        if dtype.kind == "u" and bits <= 8 and not has_modality:
            full = float(2**bits - 1)
            return (lambda values: values / full), f"stored range: 0 to {full:g}"
        if dtype.kind == "f" and not has_modality:
            low, high = windows.value_range(seen)
        else:
            low, high = float(seen.min()), float(seen.max())
    else:
        low, high = float(seen.min()), float(seen.max())
    return (lambda values: windows.between(values, low, high)), f"minmax: {low:g} to {high:g}"


def _colour(path: Path, data: Dataset, stored: NDArray[Any], photometric: str) -> tuple[NDArray[np.float32], str]:
    """(row, col) palette indices or (row, col, 3) RGB to luma in 0-1."""
    if photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        if "RedPaletteColorLookupTableDescriptor" not in data:
            raise UnreadableImage(
                path, "it is PALETTE COLOR without a palette", "Convert it to gray or RGB where it was made."
            )
        entries, first = (int(number) for number in data.RedPaletteColorLookupTableDescriptor[:2])
        palette = apply_color_lut(np.arange(first, first + (entries or 65536))[None], data)
        stored = apply_color_lut(stored, data)[..., :3]
        # Several writers put 8-bit entries into a table that says 16.
        full = 255.0 if palette.max() < 256 else 65535.0
        rule = f"palette range: 0 to {full:g}"
    elif photometric == "RGB":
        full = float(2 ** int(data.BitsStored) - 1)
        rule = f"stored range: 0 to {full:g}"
    else:
        raise UnreadableImage(
            path, f"its {photometric} pixels could not be brought to RGB", "Convert it to RGB where it was made."
        )
    if stored.dtype.itemsize > 2 or full > 65535:
        stored = stored.astype(np.float64) / full
        full = 1.0
    gray = windows.luma(stored)
    return np.clip(gray / np.float32(full), 0, 1).astype(np.float32, copy=False), rule


# -- the image --------------------------------------------------------------------------------------------------------


def _spacing(data: Dataset, index: int) -> tuple[tuple[float, float] | None, str]:
    """(row distance, column distance) in mm and the tag it came from; see the module's rule."""

    def pair(place: Dataset, keyword: str) -> tuple[float, float] | None:
        numbers = _numbers(place, keyword) if keyword in place else []
        if len(numbers) == 2 and all(np.isfinite(number) and number > 0 for number in numbers):
            return numbers[0], numbers[1]
        return None

    for place in _groups(data, index, "PixelMeasuresSequence"):
        found = pair(place, "PixelSpacing")
        if found:
            return found, "PixelSpacing" if place is data else "PixelMeasuresSequence"
    found = pair(data, "ImagerPixelSpacing")
    if found:
        factor = _number(data, "EstimatedRadiographicMagnificationFactor")
        if factor is not None and factor >= 1:
            return (found[0] / factor, found[1] / factor), f"ImagerPixelSpacing / magnification {factor:g}"
        return found, "ImagerPixelSpacing"
    found = pair(data, "NominalScannedPixelSpacing")
    return (found, "NominalScannedPixelSpacing") if found else (None, "")


def _image(path: Path, data: FileDataset, index: int, frames: int, window: Window) -> Image:
    notes: list[str] = []
    stored, photometric = stored_values(path, data, index, frames)
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        pixels, rule = _to_unit(path, data, index, stored, window, notes)
    elif window is not None:
        raise UnreadableImage(
            path,
            f"window {window!r} was asked for, and windows are not defined for {photometric}",
            "Leave the window out.",
        )
    else:
        pixels, rule = _colour(path, data, stored, photometric)
    spacing_mm, spacing_from = _spacing(data, index)
    meta: dict[str, Any] = {"format": "dicom", "frames": frames, "window": rule}
    for keyword in IDENTIFIERS:
        meta[keyword] = str(data.get(keyword, "") or "")
    meta["TransferSyntaxUID"] = str(data.file_meta.TransferSyntaxUID)
    if spacing_from:
        meta["spacing_from"] = spacing_from
    if notes:
        meta["notes"] = tuple(notes)
    return Image(pixels, source=str(path), spacing_mm=spacing_mm, frame=index, meta=meta)
