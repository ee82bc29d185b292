"""COVID-QU-Ex in its official layout: ``covid_qu_ex:PATH``, PATH the folder of "Infection Segmentation Data".

Tahir et al., "COVID-19 infection localization and severity grading from chest X-ray images", Computers in Biology and
Medicine 139, 2021. Train | Val | Test / COVID-19 | Non-COVID | Normal / images | lung masks | infection masks.

Findings: COVID-19 and Non-COVID (other pneumonia), each image having one or, in Normal, neither. Infection masks are
of COVID-19. Those that lie beside images of the other classes are not read: other pneumonia has disease and no outline.
A black infection mask of a COVID-19 image is taken as no outline too, not as no disease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from PIL import Image as PillowImage

from radtag.data.files import images_under, subfolders
from radtag.data.notes import told
from radtag.data.splits import split_name
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting

OPTIONS = {"part": "infection (default where it is there) or lung: which of the set's two folders of data"}
PARTS = {"infection": "Infection Segmentation Data", "lung": "Lung Segmentation Data"}
FINDINGS = ("COVID-19", "Non-COVID")
_LABELS = {"covid-19": (1.0, 0.0), "non-covid": (0.0, 1.0), "normal": (0.0, 0.0)}


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens one of the set's two parts. Folders Train, Val and Test are the splits; patients are unknown.

    Raises:
        BadData: no folder of the layout.
        BadSetting: a part there is not.
    """
    root = Path(location)
    if not root.is_dir():
        raise BadData(f'{root} is not a folder. Give the folder that holds "{PARTS["infection"]}".')
    part = _part(root, options.get("part"))
    records: list[Record] = []
    counts: Counter[str] = Counter()
    unknown: list[str] = []
    split_folders = subfolders(part)
    # Alone, a training part does not say which images are for scoring: they are to be drawn.
    only_train = {split_name(folder.name) for folder in split_folders} - {None} == {"train"}
    for split_folder in split_folders:
        split = split_name(split_folder.name)
        if split is None:
            unknown.append(split_folder.name)
            continue
        for class_folder in subfolders(split_folder):
            labels = _LABELS.get(class_folder.name.lower())
            if labels is None:
                unknown.append(f"{split_folder.name}/{class_folder.name}")
                continue
            inside = {folder.name.lower(): folder for folder in subfolders(class_folder)}
            if "images" not in inside:
                raise BadData(f'{class_folder} has no folder "images". Get the official layout.')
            lungs = _by_stem(inside.get("lung masks"))
            infections = _by_stem(inside.get("infection masks")) if labels[0] else {}
            for path in images_under(inside["images"]):
                infection = infections.get(path.stem)
                if infection is not None and _is_black(infection):
                    infection = None
                    counts["black"] += 1
                elif infection is None and infections:
                    counts["without infection"] += 1
                counts["without lungs"] += path.stem not in lungs
                records.append(
                    Record(
                        image=path.relative_to(part).as_posix(),
                        path=path,
                        labels=labels,
                        split="" if only_train else split,
                        masks={FINDINGS[0]: infection} if infection is not None else {},
                        lungs=lungs.get(path.stem),
                    )
                )
    if not records:
        raise BadData(
            f"{part} has no images in Train, Val or Test / COVID-19, Non-COVID or Normal / images. "
            "Get the official layout."
        )
    texts = {
        "black": "COVID-19 image[s] [has|have] an all-black infection mask, taken as no outline",
        "without infection": "COVID-19 image[s] [has|have] no infection mask",
        "without lungs": "image[s] [has|have] no lung mask",
    }
    notes = ["Non-COVID images have disease and no outline of it; patients are unknown, each image stands for itself"]
    notes += told(counts, texts)
    if unknown:
        notes.append(f"folders that are no split or class are left out: {', '.join(unknown)}")
    if only_train:
        notes.append("there is a Train folder alone, which is not taken as a split")
    return Dataset("covid_qu_ex", FINDINGS, tuple(records), tuple(notes))


def _part(root: Path, wanted: str | None) -> Path:
    """The folder of Train, Val and Test: the root itself, or its "... Segmentation Data", which may hold another."""
    if wanted is not None and wanted not in PARTS:
        raise BadSetting(f"option part={wanted} of source covid_qu_ex: use {' or '.join(PARTS)}.")
    for part in [wanted] if wanted else PARTS:
        for folder in (root / PARTS[part] / PARTS[part], root / PARTS[part], root):
            named = folder != root or wanted is None or root.name.lower() == PARTS[part].lower()
            if named and folder.is_dir() and any(split_name(below.name) for below in subfolders(folder)):
                return folder
    looked_for = PARTS[wanted] if wanted else " or ".join(f'"{name}"' for name in PARTS.values())
    raise BadData(f"{root} has no {looked_for} with Train, Val or Test in it. Give the folder the set was unpacked in.")


def _by_stem(folder: Path | None) -> dict[str, Path]:
    return {path.stem: path for path in images_under(folder)} if folder is not None else {}


def _is_black(mask: Path) -> bool:
    """Whether a mask has no pixel set. One that cannot be read is not: reading it for scoring says what is wrong."""
    try:
        with PillowImage.open(mask) as image:
            return image.convert("L").getbbox() is None
    except (OSError, ValueError, SyntaxError):
        return False
