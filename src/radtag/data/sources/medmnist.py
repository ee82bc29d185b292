"""MedMNIST's sets of images: ``medmnist:FILE.npz``, as in ``medmnist:chestmnist_224.npz``.

Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image classification",
Scientific Data 10, 2023. A file has train_images (image, row, col) or (image, row, col, colour) and train_labels
(image, 1) = number of the class, or a column for each label, and the same of val and test. It says which set it is by
its name alone. The arrays are written once as PNGs into the cache (``$RADTAG_CACHE``, else ``~/.cache/radtag``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

from radtag.data import arrays
from radtag.data.sources import csv
from radtag.data.table import Dataset
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
        home = arrays.as_table(path, "medmnist", CLASSES[name], NOTHING)
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise BadData(f"{path} is no file of MedMNIST's: {error}. Get the official file.") from None
    dataset = csv.load(home, {})
    note = "patients are unknown, each image stands for itself; there are no outlines"
    return replace(dataset, name=path.stem, notes=(note, *dataset.notes))
