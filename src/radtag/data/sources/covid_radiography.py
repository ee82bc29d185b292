"""COVID-19 Radiography Database: ``covid_radiography:PATH``, PATH the folder of COVID, Normal and the others.

Chowdhury et al., "Can AI help in screening viral and COVID-19 pneumonia?", IEEE Access 8, 2020; Rahman et al.,
"Exploring the effect of image enhancement techniques on COVID-19 detection", Computers in Biology and Medicine 132,
2021. A folder for each class, with images/ of 299 x 299 pixels and masks/ of the lungs, of 256 x 256; the first
versions have the images alone, without folders in the class. An image has the finding of its folder and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from radtag.data.files import images_by_stem, images_under, subfolders
from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.words import counted

OPTIONS: dict[str, str] = {}
FINDINGS = ("COVID", "Lung_Opacity", "Viral Pneumonia")
NORMAL = "Normal"
_INSIDE = "COVID-19_Radiography_Dataset"
_SPELLINGS = {"COVID-19": "COVID", "NORMAL": NORMAL, "Viral_Pneumonia": "Viral Pneumonia"}


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens the set. It comes without splits and without patients.

    Raises:
        BadData: no folder of the layout, or none with images of a finding.
    """
    root = Path(location)
    if (root / _INSIDE).is_dir():
        root = root / _INSIDE
    folders = subfolders(root) if root.is_dir() else []
    class_of = {folder: _SPELLINGS.get(folder.name, folder.name) for folder in folders}
    records: list[Record] = []
    without_lungs = 0
    for folder, name in class_of.items():
        if name not in (*FINDINGS, NORMAL):
            continue
        lungs = images_by_stem(folder / "masks")
        images = folder / "images"
        for path in images_under(images if images.is_dir() else folder):
            without_lungs += path.stem not in lungs
            records.append(
                Record(
                    image=path.relative_to(root).as_posix(),
                    path=path,
                    labels=tuple(float(name == finding) for finding in FINDINGS),
                    lungs=lungs.get(path.stem),
                )
            )
    if not any(1 in record.labels for record in records):
        listed = ", ".join(folder.name for folder in folders) or "none"
        raise BadData(
            f"{root} has no images in {', '.join(FINDINGS)} (its folders: {listed}). Give the folder that holds them."
        )
    notes = ["an image has the finding of its folder and no other; patients are unknown, each image stands for itself"]
    if without_lungs:
        notes.append(counted(without_lungs, "image[s] [has|have] no lung mask"))
    unknown = [folder.name for folder, name in class_of.items() if name not in (*FINDINGS, NORMAL)]
    if unknown:
        notes.append(f"folders that are no class are left out: {', '.join(unknown)}")
    return Dataset("covid_radiography", FINDINGS, tuple(records), tuple(notes))
