"""A sub-folder of images for each class: ``folder:PATH``.

A class called normal, healthy, negative or no finding has every finding 0; every other class is a finding, and an image
of one class is taken to have no other. The classes may lie in folders train, val and test. Which images are of one
patient can be read from their names with ``patient``, a regular expression: its first group, or all it matches. DICOM
files are taken whatever their name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from radtag.data.files import images_and_others, is_image_name, subfolders
from radtag.data.healthy import is_normal
from radtag.data.splits import split_name
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting
from radtag.images import has_preamble, is_dicomdir
from radtag.words import counted

OPTIONS = {"patient": "a regular expression that finds the patient in a file's name, as in patient=^[A-Z]+_[0-9]+"}


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens a folder of classes.

    Raises:
        BadData: no such folder, no class with images, or none but a normal one.
        BadSetting: a ``patient`` that is no regular expression, or does not fit a name.
    """
    root = Path(location)
    if not root.is_dir():
        raise BadData(f"{root} is not a folder. Give the folder that holds a sub-folder of images for each class.")
    pattern = _pattern(options.get("patient"))
    folders = subfolders(root)
    parts = {folder: split_name(folder.name) for folder in folders}
    if any(parts.values()):
        odd = [folder.name for folder, split in parts.items() if split is None]
        if odd:
            raise BadData(
                f"{root} has folder {odd[0]!r} beside those of splits. Keep only train, val and test, or only classes."
            )
        classes = [(folder, split or "") for part, split in parts.items() for folder in subfolders(part)]
    else:
        classes = [(folder, "") for folder in folders]

    images: list[tuple[str, str, Path]] = []
    unread: list[Path] = []
    for folder, split in classes:
        named, others = images_and_others(folder)
        bare = {path for path in others if has_preamble(path) and not is_dicomdir(path.name)}
        images += [(folder.name, split, path) for path in sorted([*named, *bare])]
        unread += [path for path in others if path not in bare]
    present = {name for name, _, _ in images}
    findings = tuple(sorted(name for name in present if not is_normal(name)))
    if not findings:
        names = ", ".join(sorted({folder.name for folder, _ in classes})) or "none"
        raise BadData(f"{root} has no sub-folder with images of a finding (it has {names}). Make one for each class.")
    records = tuple(
        Record(
            image=path.relative_to(root).as_posix(),
            path=path,
            labels=tuple(float(finding == name) for finding in findings),
            patient=_patient(pattern, path.name),
            split=split,
        )
        for name, split, path in images
    )
    normal = sorted(name for name in present if is_normal(name))
    healthy = f"those in {', '.join(normal)} have none" if normal else "no folder is of normal images"
    notes = [f"an image has the finding of its folder and no other; {healthy}"]
    if pattern is None:
        notes.append("patients are unknown, each image stands for itself (?patient=REGEX finds them in file names)")
    empty = sorted({folder.name for folder, _ in classes} - present)
    if empty:
        notes.append(f"folders without images are left out: {', '.join(empty)}")
    stray = [path for folder in {root, *(part for part, split in parts.items() if split)} for path in folder.iterdir()]
    stray = sorted(path for path in stray if path.is_file() and is_image_name(path.name))
    if stray:
        text = "image[s] [lies|lie] in no class folder and [is|are] left out"
        notes.append(f"{counted(len(stray), text)}, {stray[0].name} first")
    if unread:
        text = "file[s] of other kinds than radtag reads [is|are] left out"
        notes.append(f"{counted(len(unread), text)}, {unread[0].relative_to(root).as_posix()} first")
    return Dataset(root.resolve().name, findings, records, tuple(notes))


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise BadSetting(
            f"option patient={text} of source folder is no regular expression: {error}. Correct it."
        ) from None


def _patient(pattern: re.Pattern[str] | None, name: str) -> str:
    if pattern is None:
        return ""
    match = pattern.search(name)
    text = (match.group(1) if pattern.groups else match.group(0)) if match else ""
    if not text:
        raise BadSetting(f"option patient={pattern.pattern} of source folder finds no patient in {name!r}. Widen it.")
    return text
