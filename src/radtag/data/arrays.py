"""Sets whose images and labels are arrays in one file (.npz): written once, as PNGs and a table, into the cache.

The file has train_images (image, row, col) or (image, row, col, colour), 8 bits each, and train_labels (image, 1) =
number of the class, or a column for each label, and the same of val and test. The cache (``$RADTAG_CACHE``, else
``~/.cache/radtag``) has them under a name made of the checksums that the file keeps of its arrays: another file is
written anew.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image as PillowImage

from radtag.data import phantom
from radtag.data.cache import folder
from radtag.data.files import new_folder
from radtag.data.table import SPLITS


def as_table(path: Path, kind: str, classes: Sequence[str], nothing: Collection[str] = ()) -> Path:
    """The folder in the cache that has a file's images and a table of their labels; written if it is not there.

    Args:
        path: an .npz file.
        kind: the folder in the cache.
        classes: what the labels mean, in their order.
        nothing: those of the classes that are no finding.

    Returns:
        A folder in the layout of ``csv``.

    Raises:
        OSError, BadZipFile: no such file.
        KeyError, ValueError: arrays that are not there, or not as told above.
    """
    with zipfile.ZipFile(path) as archive:
        sums = repr([(entry.filename, entry.CRC, entry.file_size) for entry in archive.infolist()])
        home = folder() / kind / f"{path.stem}-{hashlib.blake2b(sums.encode(), digest_size=8).hexdigest()}"
        if not (home / "table.csv").exists():
            home.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(home.parent / f"{home.name}.lock"):
                if not (home / "table.csv").exists():
                    _write(home, archive, classes, [name for name in classes if name not in nothing])
    return home


def _write(home: Path, archive: zipfile.ZipFile, classes: Sequence[str], findings: Sequence[str]) -> None:
    """Images of all splits and a table of their labels, in the layout of ``csv``."""
    labels_of = {split: _labels(archive, split, classes) for split in SPLITS}
    rows: list[dict[str, object]] = []
    total = sum(map(len, labels_of.values()))
    with new_folder(home) as partial, phantom.progress_bar(total, "writing images", None) as advance:
        for split, labels in labels_of.items():
            (partial / split).mkdir()
            count = 0
            for count, pixels in enumerate(_images(archive, split), 1):
                image = f"{split}/{count - 1:06}.png"
                PillowImage.fromarray(pixels).save(partial / image, compress_level=1)
                of_image = dict(zip(classes, labels[count - 1].tolist(), strict=True))
                rows.append({"image": image, "split": split} | {name: of_image[name] for name in findings})
                advance(1)
            if count != len(labels):
                raise ValueError(f"{split} has {count} images and {len(labels)} labels")
        phantom.write_tables(partial, ["image", "split", *findings], rows, [])


def _labels(archive: zipfile.ZipFile, split: str, classes: Sequence[str]) -> NDArray[np.int64]:
    """(image, class) 1 or 0."""
    with archive.open(f"{split}_labels.npy") as member:
        labels = np.lib.format.read_array(member, allow_pickle=False).astype(np.int64)
    if labels.ndim == 2 and labels.shape[1] == len(classes) and labels.min() >= 0 and labels.max() <= 1:
        return labels
    if labels.ndim != 2 or labels.shape[1] != 1 or labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"{split}_labels {labels.shape} are not of {len(classes)} classes")
    return np.eye(len(classes), dtype=np.int64)[labels[:, 0]]


def _images(archive: zipfile.ZipFile, split: str) -> Iterator[NDArray[np.uint8]]:
    """(row, col) or (row, col, 3) each, read one after another: a file may be larger than the memory."""
    with archive.open(f"{split}_images.npy") as member:
        version = np.lib.format.read_magic(member)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = header(member)
        if dtype != np.uint8 or by_columns or not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)):
            raise ValueError(f"{split}_images {shape} of {dtype} are no images of 8 bits")
        size = int(np.prod(shape[1:]))
        for _ in range(shape[0]):
            yield np.frombuffer(member.read(size), dtype=np.uint8).reshape(shape[1:])
