"""Read any file into an :class:`Image`.

The content decides what a file is, not its name. What cannot be read is an :class:`~radtag.errors.UnreadableImage` that
names the file, the cause and the next step; each format's module states its rules: :mod:`~radtag.images.files` (PNG,
JPEG, TIFF, BMP, PNM), :mod:`~radtag.images.dicom`, :mod:`~radtag.images.nifti`, :mod:`~radtag.images.window` (values to
0-1)."""

from __future__ import annotations

import glob
import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from radtag.errors import UnreadableImage
from radtag.images.image import Image
from radtag.images.limits import MAX_PIXELS
from radtag.images.window import Window

__all__ = [
    "KNOWN_SUFFIXES",
    "MAX_PIXELS",
    "Image",
    "Window",
    "count_frames",
    "expand",
    "has_preamble",
    "is_dicomdir",
    "read",
    "read_all",
    "read_mask",
]

KNOWN_SUFFIXES = tuple(
    ".png .jpg .jpeg .tif .tiff .bmp .pgm .ppm .pnm .dcm .dicom .ima .nii .nii.gz".split()  # noqa: SIM905 - one line
)
"""What :func:`expand` takes from a folder by name; anything else must carry DICOM's preamble."""


def read(path: str | os.PathLike[str], *, frame: int | None = None, window: Window = None) -> Image:
    """Read one image.

    Args:
        path: a PNG, JPEG, TIFF, BMP, PNM, DICOM or NIfTI file.
        frame: which frame, page or slice, from 0. None: the first, or the middle slice of a NIfTI volume.
        window: None = the file's own window (each format's module states the rule where it has none); ``(centre,
            width)`` in the file's values (Hounsfield units for CT); an integer = which of a DICOM file's windows;
            "minmax".

    Raises:
        UnreadableImage: naming the file, the cause and the next step.
    """
    path = Path(path)
    with _failures(path):
        return next(iter(_reader(path).images(path, frame, window)))


def read_all(path: str | os.PathLike[str], *, window: Window = None) -> Iterator[Image]:
    """Read every frame, page or slice of a file, in order; the file is opened once.

    Raises:
        UnreadableImage: as :func:`read`.
    """
    path = Path(path)
    with _failures(path):
        yield from _reader(path).images(path, "all", window)


def count_frames(path: str | os.PathLike[str]) -> int:
    """How many frames, pages or slices :func:`read_all` would give.

    Raises:
        UnreadableImage: as :func:`read`.
    """
    path = Path(path)
    with _failures(path):
        return int(_reader(path).count(path))


def read_mask(path: str | os.PathLike[str], *, frame: int | None = None) -> NDArray[np.bool_]:
    """Read a mask: every pixel that is not black is in it; in JPEG, which blurs edges, every pixel above half.

    NaN, with which programs fill what lies outside of an image, is black.

    Args:
        path: any file :func:`read` takes; values are taken as stored, whatever windows the file has.
        frame: which frame; may be left out only where there is one.

    Returns:
        (row, col) bool.

    Raises:
        UnreadableImage: as :func:`read`, or several frames and none chosen.
    """
    path = Path(path)
    with _failures(path):
        reader = _reader(path)
        if frame is None and reader.count(path) > 1:
            raise UnreadableImage(path, f"a mask of {reader.count(path)} frames", "Choose one with frame=.")
        if reader.__name__ == "radtag.images.dicom":
            data = reader.open_object(path)
            stored, photometric = reader.stored_values(path, data, frame or 0, reader.count(path))
            if photometric.startswith("MONOCHROME"):
                return stored != 0
        bits = reader.bits(path) if reader.__name__ == "radtag.images.files" else None
        if bits is not None:
            return bits
        image = next(iter(reader.images(path, frame, None)))
        if image.meta["format"] == "jpeg":
            return image.pixels > 0.5
        if str(image.meta["window"]).startswith(("minmax", "cal_min")):
            # A window so narrow that only 0 itself is 0.5.
            shown = next(iter(reader.images(path, frame, (0.0, 2.0**-100)))).pixels
            mask = shown != 0.5
            if (shown == 0).any():  # negative or NaN: only NaN is 0 in a window below all numbers too
                mask &= next(iter(reader.images(path, frame, (-(2.0**1000), 2.0**1000)))).pixels > 0
            return mask
        return image.pixels > 0


def expand(paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[Path]:
    """Files, folders and globs as a sorted list of files, each once.

    A file is taken whatever its name. A folder is searched through all its sub-folders for the suffixes of
    ``KNOWN_SUFFIXES`` and for DICOM files of any name, told by their preamble; hidden files and DICOMDIR are passed
    over. ``**`` in a glob means any depth.

    Raises:
        UnreadableImage: a path that matches nothing, naming it.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    found: set[Path] = set()
    for given in paths:
        path = Path(given).expanduser()
        if path.is_file():
            found.add(path)
        elif path.is_dir():
            inside = set(_search(path))
            if not inside:
                raise UnreadableImage(
                    path, "the folder holds no image", f"Looked for {' '.join(KNOWN_SUFFIXES)} and DICOM files."
                )
            found |= inside
        else:
            matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
            files = {match for match in matches if match.is_file()}
            for match in matches:
                if match.is_dir() and "**" not in str(path):
                    files |= set(_search(match))
            if not files:
                raise UnreadableImage(
                    path, "no such file or folder, and no file matches it as a glob", "Check the spelling."
                )
            found |= files
    return sorted(found)


def _search(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in names:
            if name.startswith(".") or is_dicomdir(name):
                continue
            path = Path(place, name)
            if name.lower().endswith(KNOWN_SUFFIXES) or has_preamble(path):
                yield path


def is_dicomdir(name: str) -> bool:
    """Whether a file of this name is an index of DICOM files, which holds no pixels."""
    return name.upper().startswith("DICOMDIR")


def has_preamble(path: Path) -> bool:
    """Whether a file begins as DICOM files do, which often have names without an ending."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    """Whatever a decoder fails with becomes one error that names the file."""
    try:
        yield
    except UnreadableImage:
        raise
    except MemoryError as error:
        raise UnreadableImage(path, "it does not fit into memory", "Crop or shrink it first.") from error
    except OSError as error:
        if error.errno is not None:
            raise UnreadableImage(path, error.strerror or str(error), "Check the path and its permissions.") from error
        raise UnreadableImage(path, _one_line(error), "The file is damaged; export or fetch it again.") from error
    except Exception as error:  # decoders raise anything at all on damaged files
        raise UnreadableImage(path, _one_line(error), "The file is damaged or not what its tags say.") from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300].rstrip(".")
    return text or type(error).__name__


def _reader(path: Path) -> Any:
    """The module that reads this file, told from its first bytes."""
    if path.is_dir():
        raise UnreadableImage(path, "it is a folder", "Name the files, or pass it through radtag.images.expand.")
    with path.open("rb") as stream:
        start = stream.read(1024)
    kind = _kind(path, start)
    if kind == "dicom":
        from radtag.images import dicom

        return dicom
    if kind == "nifti":
        from radtag.images import nifti

        return nifti
    from radtag.images import files

    return files


def _kind(path: Path, start: bytes) -> Literal["dicom", "nifti", "picture"]:
    next_step = "Readable are PNG, JPEG, TIFF, BMP, PNM, DICOM and NIfTI."
    if not start:
        raise UnreadableImage(path, "the file is empty", "Fetch or export it again.")
    if start[128:132] == b"DICM":
        return "dicom"
    if start.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")):
        return "picture"
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace():
        return "picture"
    if start.startswith(b"\x1f\x8b"):
        with gzip.open(path, "rb") as stream:
            inside = stream.read(352)
        if _is_nifti(inside):
            return "nifti"
        raise UnreadableImage(path, "it is a gzip file that holds no NIfTI", "Unpack it first.")
    if _is_nifti(start):
        return "nifti"
    if _is_bare_dicom(start):
        return "dicom"
    raise UnreadableImage(path, f"not an image that can be read (it begins with {start[:8]!r})", next_step)


def _is_nifti(start: bytes) -> bool:
    return start[344:348] == b"n+1\0" or start[4:8] == b"n+2\0"


def _is_bare_dicom(start: bytes) -> bool:
    """An object without preamble begins with an element of group 0002 or 0008, in either byte order."""
    if len(start) < 8:
        return False
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        group = int.from_bytes(start[:2], order)
        element = int.from_bytes(start[2:4], order)
        if group in (0x0002, 0x0008) and element <= 0x3010:
            vr = start[4:6]
            length = int.from_bytes(start[4:8], order)
            if (vr.isalpha() and vr.isupper()) or length < 1024:
                return True
    return False
