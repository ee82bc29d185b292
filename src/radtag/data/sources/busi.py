"""BUSI, Breast Ultrasound Images: ``busi:PATH``, PATH the folder Dataset_BUSI_with_GT or the one it is in.

Al-Dhabyani et al., "Dataset of breast ultrasound images", Data in Brief 28, 2020. Folders benign, malignant and normal;
beside an image ``benign (4).png`` lie its masks, ``benign (4)_mask.png`` and, of a second and third lesion,
``benign (4)_mask_1.png`` ... An image has the finding of its folder and no other; masks of normal images are black.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from radtag.data.files import images_under, subfolders
from radtag.data.notes import left_over, told
from radtag.data.options import choice
from radtag.data.outlines import together
from radtag.data.table import Dataset, Record
from radtag.errors import BadData

OPTIONS = {"kinds": "apart (default): benign and malignant lesions; together: lesions of any kind"}
KINDS = ("benign", "malignant")
TOGETHER = "lesion"
NORMAL = "normal"
_INSIDE = "Dataset_BUSI_with_GT"
_MASK = re.compile(r"(.+)_mask(?:_\d+)?")


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens the set. It comes without splits and without patients.

    Raises:
        BadData: no folder of the layout, or none with images of lesions.
        BadSetting: a value an option does not have.
    """
    kinds = choice("busi", options, "kinds", ("apart", "together"))
    root = Path(location)
    if (root / _INSIDE).is_dir():
        root = root / _INSIDE
    folders = {folder.name.lower(): folder for folder in subfolders(root)} if root.is_dir() else {}
    if not any(images_under(folders[kind]) for kind in KINDS if kind in folders):
        raise BadData(f"{root} has no images in {' or '.join(KINDS)}. Give the folder {_INSIDE}.")
    findings = (TOGETHER,) if kinds == "together" else KINDS
    records: list[Record] = []
    orphans: list[str] = []
    counts: Counter[str] = Counter()
    for name in (*KINDS, NORMAL):
        images: list[Path] = []
        masks: dict[str, list[Path]] = {}
        for path in images_under(folders[name]) if name in folders else []:
            of_image = _MASK.fullmatch(path.stem)
            if of_image is None:
                images.append(path)
            else:
                masks.setdefault(of_image[1], []).append(path)
        for path in images:
            parts = masks.pop(path.stem, [])
            finding = "" if name == NORMAL else TOGETHER if kinds == "together" else name
            counts["several"] += bool(finding) and len(parts) > 1
            counts["unoutlined"] += bool(finding) and not parts
            records.append(
                Record(
                    image=path.relative_to(root).as_posix(),
                    path=path,
                    labels=tuple(float(finding == one) for one in findings),
                    masks={finding: together(parts)} if finding and parts else {},
                )
            )
        orphans += [path.name for parts in masks.values() for path in parts]
    notes = ["an image has the finding of its folder and no other; patients are unknown, each image stands for itself"]
    texts = {
        "several": "image[s] [has|have] several masks, taken as one",
        "unoutlined": "image[s] of a lesion [has|have] no mask",
    }
    notes += [*told(counts, texts), *left_over(orphans, "mask[s] of no image [is|are] left out")]
    unknown = [folder.name for key, folder in folders.items() if key not in (*KINDS, NORMAL)]
    if unknown:
        notes.append(f"folders that are no class are left out: {', '.join(unknown)}")
    return Dataset("busi", findings, tuple(records), tuple(notes))
