"""Maps in files, whoever made them: PNG, TIFF, NumPy, NIfTI, and CheXlocalize's pickles, which run no code here.

Conventions
-----------
- A file is one map (row, col) of one image and one finding; axes of length 1 before them are dropped.
- Whole numbers are shares of their type's range: 8-bit 255, 16-bit 65,535, bool True are 1. Floats are taken as stored.
- A folder is laid out as FINDING/NAME.ext, as ``radtag tag`` writes its maps, sub-folders within NAME included; or it
  holds files ``NAME_FINDING_map.pkl``, CheXlocalize's own naming. NAME is that of the image without its ending; folders
  in an image's name may be part of it with / or _, or be left out, as long as the names stay apart.
- A pickle can hold any program. What is taken from one are numbers, text, lists, dictionaries, NumPy arrays and torch
  tensors; anything else that it names is refused before it is looked up.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from radtag.data.table import Record
from radtag.errors import BadData, RadtagError, UnreadableImage
from radtag.images.graypng import read_rows
from radtag.journal import safe, stamp_of

SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".npz", ".nii", ".nii.gz", ".pkl", ".pickle")
"""What maps are looked for by."""
SPELLINGS = {"airspace opacity": "lung opacity"}
"""What CheXlocalize calls a finding that CheXpert calls otherwise."""


class MapFile(NamedTuple):
    """A map as stored, and the score of the image where the file holds it."""

    values: NDArray[np.float32]
    score: float | None = None


def read_map(path: Path) -> MapFile:
    """A map (row, col) float32, as stored.

    Raises:
        UnreadableImage: a file of another kind, a damaged one, one that is no single map, or a pickle that names what
            is no data.
    """
    try:
        read = _READERS[_suffix(path)]
    except KeyError:
        raise UnreadableImage(path, "its ending is none of a map's", f"Maps are {', '.join(SUFFIXES)}.") from None
    try:
        values, score = read(path)
    except RadtagError:
        raise
    except Exception as error:  # each library has its own ways to say that a file is damaged
        raise UnreadableImage(path, f"it cannot be read ({error})", "Write it again.") from error
    return MapFile(_plain_map(path, values), score)


def read_levels(path: Path) -> NDArray[np.uint16] | None:
    """The levels (row, col) of a map as ``radtag tag`` writes it, 65535 = 1; None for any other file.

    That is a 16-bit gray PNG whose rows are differences from the row above, or plain: :mod:`radtag.images.graypng`.

    Raises:
        UnreadableImage: a size that is none, or a file that may not be read.
    """
    try:
        found = read_rows(path, 16)
    except OSError as error:
        raise UnreadableImage(path, f"it cannot be read ({error})", "Write it again.") from error
    return None if found is None else found.values


def _plain_map(path: Path, values: Any) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.dtype.kind == "b":
        array = array.astype(np.float32)
    elif array.dtype in (np.uint8, np.uint16):
        array = np.divide(array, np.float32(np.iinfo(array.dtype).max), dtype=np.float32)
    elif array.dtype.kind != "f":
        raise UnreadableImage(path, f"its values are {array.dtype}", "Save uint8, uint16, bool or floats.")
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.size == 0:
        raise UnreadableImage(path, f"its shape is {array.shape}", "A map is rows x columns; save one a file.")
    if not np.isfinite(array).all():
        raise UnreadableImage(path, "it holds NaN or infinite values", "A map of nothing is all 0.")
    return np.ascontiguousarray(array, dtype=np.float32)


# ---- files of each kind --------------------------------------------------------------------------------------------


def _picture(path: Path) -> tuple[Any, None]:
    levels = read_levels(path)
    if levels is not None:
        return levels, None
    with PIL.Image.open(path) as image:
        if image.mode == "I":  # 32 bits, or how older versions of Pillow open 16
            values = np.asarray(image)
            if values.min() < 0 or values.max() > 65535:
                raise UnreadableImage(
                    path,
                    f"it runs from {values.min()} to {values.max()}, beyond 16 bits",
                    "Save 8 or 16 bits, or floats.",
                )
            return values.astype(np.uint16), None
        if image.mode not in ("1", "L", "F") and not image.mode.startswith("I;16"):
            raise UnreadableImage(
                path, f"it is a picture in colours ({image.mode})", "Save the map's values in gray, 8 or 16 bits."
            )
        return np.asarray(image), None


def _npy(path: Path) -> tuple[Any, None]:
    return np.load(path, allow_pickle=False), None


def _npz(path: Path) -> tuple[Any, float | None]:
    with np.load(path, allow_pickle=False) as arrays:
        names = list(arrays)
        if len(names) != 1 and "map" not in names:
            raise UnreadableImage(path, f"it holds {', '.join(names)}", "Call the map 'map', or save it alone.")
        score = float(arrays["prob"]) if "prob" in names else None
        return arrays["map" if "map" in names else names[0]], score


def _nifti(path: Path) -> tuple[Any, None]:
    from radtag.images import nifti

    return nifti.values(path).astype(np.float32), None


def _pickle(path: Path) -> tuple[Any, float | None]:
    with path.open("rb") as file:
        found = Unpickler(file, path).load()
    if not isinstance(found, Mapping):
        return _array(found), None
    if "map" not in found:
        raise UnreadableImage(path, f"it holds {', '.join(map(str, found))}", "CheXlocalize's pickles hold 'map'.")
    score = found.get("prob")
    return _array(found["map"]), None if score is None else float(np.asarray(_array(score)).reshape(-1)[0])


def _array(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


_READERS: Mapping[str, Callable[[Path], tuple[Any, float | None]]] = {
    **dict.fromkeys((".png", ".tif", ".tiff"), _picture),
    ".npy": _npy,
    ".npz": _npz,
    **dict.fromkeys((".nii", ".nii.gz"), _nifti),
    **dict.fromkeys((".pkl", ".pickle"), _pickle),
}


def _storage(data: bytes) -> Any:
    """What torch calls for a tensor's numbers; its own version unpickles whatever they hold."""
    import torch

    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


_NUMPY = {
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
_TORCH = {("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v2"), ("torch", "Size")}
_PLAIN = {("collections", "OrderedDict"), ("_codecs", "encode"), ("builtins", "set"), ("builtins", "frozenset")}


class Unpickler(pickle.Unpickler):
    """Numbers, text, containers, NumPy arrays and torch tensors, and nothing else.

    Args:
        file: open for reading bytes.
        path: its name, for messages.
    """

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names, if it is data.

        Raises:
            UnreadableImage: it is not; nothing of it was imported or called.
        """
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _storage
        if (module, name) in _NUMPY | _TORCH | _PLAIN:
            return super().find_class(module, name)
        raise UnreadableImage(
            self._path,
            f"the pickle asks for {module}.{name}, which is no data, and nothing of it was run",
            "Save the map as .npy, or as a pickle of tensors and arrays alone.",
        )

    def persistent_load(self, pid: Any) -> Any:
        """Nothing is kept elsewhere.

        Raises:
            UnreadableImage: always.
        """
        raise UnreadableImage(self._path, "the pickle refers to what is not in it", "Save the map as .npy.")


# ---- a folder of them ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """What names of images lead to, such as the files of one finding's maps.

    Args:
        entries: by name without ending, folders apart by /.
        what: they are, for messages.
    """

    entries: Mapping[str, Any]
    what: str

    def of(self, record: Record) -> Any | None:
        """Of an image: by its name, then by ever fewer of the folders in it, then by its file's; None if there is none.

        Folders may be apart by / or by _, as CheXlocalize names them.
        """
        name = self.name_of(record)
        return None if name is None else self.entries[name]

    def name_of(self, record: Record) -> str | None:
        """The name by which an image has its entry; None if there is none."""
        return next((name for name in _names_of(record) if name in self.entries), None)


def _names_of(record: Record) -> Iterator[str]:
    given = dict.fromkeys((record.image, record.image.partition(":")[2] or record.image, record.path.as_posix()))
    for text in given:
        parts = PurePosixPath(without_ending(text)).parts
        for start in range(len(parts)):
            yield "/".join(parts[start:])
            yield "_".join(parts[start:])
            yield "/".join(safe(part) for part in parts[start:])


@dataclass(frozen=True)
class MapFolder:
    """Where the maps of a data set's images are.

    Args:
        root: the folder.
        files: per finding, its files by the images' names.
    """

    root: Path
    files: Mapping[str, Named]

    @classmethod
    def open(cls, root: Path, findings: Sequence[str]) -> MapFolder:
        """Looks through a folder; findings that have no file in it are left out.

        Raises:
            BadData: no such folder, no map of any of the findings, or two maps of one name.
        """
        if not root.is_dir():
            raise BadData(f"{root} is no folder. Give the folder of maps: FINDING/NAME.png, .npy, .nii.gz or .pkl.")
        wanted = {_plain(name): name for name in findings}
        files: dict[str, dict[str, Path]] = {}
        for folder in sorted(one for one in root.iterdir() if one.is_dir()):
            finding = _finding(folder.name, wanted)
            if finding is not None:
                for path in _maps_under(folder):
                    if not path.name.endswith("_map.pkl"):  # CheXlocalize's, below
                        _put(files.setdefault(finding, {}), without_ending(path.relative_to(folder).as_posix()), path)
        for path in sorted(root.rglob("*_map.pkl")):
            image, _, task = path.name.removesuffix("_map.pkl").rpartition("_")
            finding = _finding(task, wanted)
            if finding is not None and image:
                _put(files.setdefault(finding, {}), image, path)
        if not files:
            there = sorted(one.name for one in root.iterdir())[:5]
            raise BadData(
                f"{root} has no map of {', '.join(findings)}; it has {', '.join(there) or 'nothing'}."
                " Lay maps out as FINDING/NAME.png (or .npy, .nii.gz, .pkl), or as NAME_FINDING_map.pkl."
            )
        return cls(root, {name: Named(files[name], "map") for name in findings if name in files})

    def stamps(self) -> list[Any]:
        """Of every file its place, size and time of change: folders that agree in them hold the same maps."""
        return [
            [finding, name, *stamp_of(path)]
            for finding, named in self.files.items()
            for name, path in sorted(named.entries.items())
        ]


def without_ending(name: str) -> str:
    """A file's name without what says its kind; ``.nii.gz`` and frames (``scan.dcm#3``) are understood.

    Digits alone say no kind: they are the end of a DICOM identifier.
    """
    stem, number, frame = name.partition("#")
    for suffix in (".nii.gz", PurePosixPath(stem).suffix):
        if suffix and not suffix[1:].isdigit() and stem.lower().endswith(suffix.lower()):
            return stem[: -len(suffix)] + number + frame
    return name


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _maps_under(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _suffix(path) in SUFFIXES and path.is_file())


def _plain(name: str) -> str:
    plain = name.lower().replace("_", " ").replace("-", " ").strip()
    return SPELLINGS.get(plain, plain)


def _finding(folder: str, wanted: Mapping[str, str]) -> str | None:
    """The finding a folder or task is called by: as it is, or as radtag tag writes it."""
    by_folder = {_plain(safe(name)): name for name in wanted.values()}
    return wanted.get(_plain(folder)) or by_folder.get(_plain(folder))


def _put(files: dict[str, Path], name: str, path: Path) -> None:
    if name in files:
        raise BadData(f"{files[name]} and {path} are maps of one image and finding. Keep one.")
    files[name] = path
