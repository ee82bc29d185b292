"""MedMNIST's sets of images: ``medmnist:FILE.npz``, as in ``medmnist:chestmnist_224.npz``.

Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image classification",
Scientific Data 10, 2023. A file has train_images (image, row, col) or (image, row, col, colour) and train_labels
(image, 1) = number of the class, or a column for each label, and the same of val and test. It says which set it is by
its name alone. The arrays are written once as PNGs into the cache (``$RADTAG_CACHE``, else ``~/.cache/radtag``).
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image as PillowImage

from radtag.data import phantom
from radtag.data.cache import folder
from radtag.data.files import new_folder
from radtag.data.sources import csv
from radtag.data.table import SPLITS, Dataset
from radtag.errors import BadData

OPTIONS: dict[str, str] = {}
NOTHING = ("normal", "grade 0")
"""Classes without a finding."""

_ORGANS = "bladder|femur-left|femur-right|heart|kidney-left|kidney-right|liver|lung-left|lung-right|pancreas|spleen"
_CELLS = "basophil|eosinophil|erythroblast|immature granulocytes|lymphocyte|monocyte|neutrophil|platelet"
_KIDNEY = (
    "Collecting Duct, Connecting Tubule|Distal Convoluted Tubule|Glomerular endothelial cells"
    "|Interstitial endothelial cells|Leukocytes|Podocytes|Proximal Tubule Segments|Thick Ascending Limb"
)
_COLON = (
    "adipose|background|debris|lymphocytes|mucus|smooth muscle|normal colon mucosa|cancer-associated stroma"
    "|colorectal adenocarcinoma epithelium"
)
_SKIN = (
    "actinic keratoses and intraepithelial carcinoma|basal cell carcinoma|benign keratosis-like lesions"
    "|dermatofibroma|melanoma|melanocytic nevi|vascular lesions"
)
_CHEST = (
    "atelectasis|cardiomegaly|effusion|infiltration|mass|nodule|pneumonia|pneumothorax|consolidation|edema|emphysema"
    "|fibrosis|pleural|hernia"
)
CLASSES: Mapping[str, list[str]] = {
    "bloodmnist": _CELLS.split("|"),
    "breastmnist": ["malignant", "normal"],  # 1 is "normal, benign"
    "chestmnist": _CHEST.split("|"),
    "dermamnist": _SKIN.split("|"),
    "octmnist": ["choroidal neovascularization", "diabetic macular edema", "drusen", "normal"],
    "organamnist": _ORGANS.split("|"),
    "organcmnist": _ORGANS.split("|"),
    "organsmnist": _ORGANS.split("|"),
    "pathmnist": _COLON.split("|"),
    "pneumoniamnist": ["normal", "pneumonia"],
    "retinamnist": [f"grade {grade}" for grade in range(5)],
    "tissuemnist": _KIDNEY.split("|"),
}
"""Set -> what its labels mean, in their order."""


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens a file, with the set's own split, and writes its images first if the cache does not have them.

    Raises:
        BadData: no such file, one of volumes or of another set, or arrays that are not the set's.
    """
    path = Path(location)
    told = re.fullmatch(r"([a-z]+mnist)(_\d+)?", path.stem)
    name = told[1] if told else ""
    if name not in CLASSES or path.suffix != ".npz":
        why = "has volumes, not images" if "3d" in path.stem else "is no set of MedMNIST's by its name"
        raise BadData(f"{path} {why}. Give the .npz file of one of {', '.join(CLASSES)}; its size may follow: _64.")
    try:
        with zipfile.ZipFile(path) as archive:
            sums = repr([(entry.filename, entry.CRC, entry.file_size) for entry in archive.infolist()])
            home = folder() / "medmnist" / f"{path.stem}-{hashlib.blake2b(sums.encode(), digest_size=8).hexdigest()}"
            if not (home / "table.csv").exists():
                home.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(home.parent / f"{home.name}.lock"):
                    if not (home / "table.csv").exists():
                        _write(home, archive, CLASSES[name])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BadData(f"{path} is no file of MedMNIST's: {error}. Get the official file.") from None
    dataset = csv.load(home, {})
    note = "patients are unknown, each image stands for itself; there are no outlines"
    return replace(dataset, name=path.stem, notes=(note, *dataset.notes))


def _write(home: Path, archive: zipfile.ZipFile, classes: list[str]) -> None:
    """Images of all splits and a table of their labels, in the layout of ``csv``."""
    findings = [name for name in classes if name not in NOTHING]
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


def _labels(archive: zipfile.ZipFile, split: str, classes: list[str]) -> NDArray[np.int64]:
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
