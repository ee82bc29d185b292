"""Data sources: one layout of images and labels a file, opened by ``NAME:PATH?option=value&option=value``.

To add one, write a module here with ``OPTIONS`` (option -> what it does) and ``load(location, options) -> Dataset``,
and name it in ``SOURCES``; docs/data/adding.md has an example. A source says what the files say: it leaves out nothing
but what has no label, gives the splits the set comes with and no others, and puts what the user ought to know into the
notes. Files that are not there, splits that are not given and the selection of findings are dealt with here, for all of
them alike.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from radtag.data.files import missing_files
from radtag.data.splits import assign, from_file, from_file_for, split_name
from radtag.data.table import Dataset
from radtag.errors import BadData, BadSetting
from radtag.words import counted

SOURCES: Mapping[str, str] = {
    "csv": "a table of your own, with boxes and masks if you have them",
    "folder": "a sub-folder of images for each class",
    "nih14": "ChestX-ray14: 112,120 chest X-rays, 14 findings, 984 boxes",
    "covid_qu_ex": "COVID-QU-Ex: chest X-rays with infection and lung masks",
    "chexpert": "CheXpert: 224,316 chest X-rays, 13 findings, with CheXlocalize's outlines",
    "vindr": "VinDr-CXR: 18,000 chest X-rays, boxes of several readers",
    "tbx11k": "TBX11K: tuberculosis, with boxes, beside healthy and other ill",
    "rsna": "RSNA pneumonia challenge: 26,684 chest X-rays, boxes of opacities",
    "siim": "SIIM-ACR: pneumothorax, outlined to the pixel",
    "covid_radiography": "COVID-19 Radiography Database: four classes, lung masks",
    "qata_cov19": "QaTa-COV19: infection masks of COVID-19",
    "chestx_det": "ChestX-Det: 3,578 chest X-rays, 13 findings, boxes and outlines; and ChestX-Det10",
    "lgg": "LGG MRI: slices of 110 patients with gliomas, outlined",
    "busi": "BUSI: 780 breast ultrasound images, lesions outlined",
    "isic": "ISIC 2018 and 2017: skin lesions, outlined",
    "medmnist": "MedMNIST's twelve sets of images, labels alone",
    "voc2012": "PASCAL VOC 2012: photographs of things, for comparison",
    "phantom": "images with lesions known to the pixel, made on the spot",
}

_MARKS = {
    "nih14": "Data_Entry_2017*.csv",
    "covid_qu_ex": "* Segmentation Data",
    "chexpert": "valid.csv",
    "vindr": "annotations/annotations_train.csv",
    "tbx11k": "lists/TBX11K_*.txt",
    "rsna": "stage_2_train_labels.csv",
    "siim": "train-rle.csv",
    "covid_radiography": "Lung_Opacity",
    "qata_cov19": "QaTa-COV19*",
    "chestx_det": "ChestX_Det_*.json",
    "lgg": "TCGA_*_*_*",
    "busi": "malignant/malignant*_mask.png",
    "isic": "ISIC*_GroundTruth*",
    "voc2012": "ImageSets/Main/aeroplane_train.txt",
}
"""Of some sources, what lies in their folders and in no other's."""


def open_source(
    spec: str,
    *,
    splits: Path | None = None,
    only: Sequence[str] = (),
    seed: int = 0,
    findings: Sequence[str] | None = None,
) -> Dataset:
    """Opens a data set.

    Args:
        spec: ``NAME:PATH``, with options after a question mark, as in ``csv:table.csv?uncertain=positive``.
        splits: a CSV with the columns image and split, in place of the splits the set comes with.
        only: the splits wanted, of train, val and test; empty = everything, also images in no split.
        seed: with which splits are drawn where none are given, or no validation part is (:mod:`radtag.data.splits`).
        findings: the findings wanted, in this order; None = all.

    Raises:
        BadSetting: an unknown source, option or split.
        BadData: files that contradict the layout, or a selection that leaves nothing.
    """
    return select(load(spec), splits=splits, only=only, seed=seed, findings=findings)


def open_together(
    specs: Sequence[str],
    *,
    splits: Path | None = None,
    only: Sequence[str] = (),
    seed: int = 0,
    findings: Sequence[str] | None = None,
) -> list[Dataset]:
    """Opens several data sets that one training or evaluation uses, each as :func:`open_source` does.

    Args:
        specs: one or several.
        splits: one file for all of them (:func:`radtag.data.splits.from_file_for`); one that it names no image of keeps
            its own split.
        only: as there, of each.
        seed: as there.
        findings: those wanted of the first; the others keep all of theirs.

    Raises:
        BadSetting: as there.
        BadData: as there.
    """
    loaded = [without_missing(load(spec))[0] for spec in specs]
    if splits is not None:
        loaded = from_file_for(loaded, Path(splits))
    return [select(one, only=only, seed=seed, findings=findings if i == 0 else None) for i, one in enumerate(loaded)]


def select(
    dataset: Dataset,
    *,
    splits: Path | None = None,
    only: Sequence[str] = (),
    seed: int = 0,
    findings: Sequence[str] | None = None,
) -> Dataset:
    """What :func:`open_source` makes of a loaded data set: the files that are there, in splits, and those wanted."""
    wanted = []
    for name in only:
        split = split_name(name)
        if split is None:
            raise BadSetting(f"unknown split {name!r}. Use train, val or test.")
        wanted.append(split)
    dataset, _ = without_missing(dataset)
    # Splits are drawn over all findings: whoever trains on some of them and evaluates others meets no image twice.
    if splits is not None:
        dataset = from_file(dataset, Path(splits))
    elif not dataset.splits_from:
        dataset = assign(dataset, seed)
    if findings is not None:
        dataset = dataset.with_findings(findings)
    return dataset.only(*wanted) if wanted else dataset


def load(spec: str) -> Dataset:
    """What the source says, before anything is left out or drawn; files may be missing."""
    name, location, options = parse(spec)
    module = _module(name)
    known: Mapping[str, str] = module.OPTIONS
    for option in options:
        if option not in known:
            listed = "; ".join(f"{key}: {text}" for key, text in known.items()) or "it takes none"
            raise BadSetting(f"source {name} has no option {option!r}. Its options: {listed}.")
    return module.load(location, options)


def parse(spec: str) -> tuple[str, str, dict[str, str]]:
    """``NAME:PATH?option=value&option=value`` in its parts. Values are taken as they are, without URL escapes.

    A ~ that begins a path is the home folder: shells leave it as it is behind a colon.

    Raises:
        BadSetting: no such source, no path, or an option without a value.
    """
    name, colon, rest = spec.partition(":")
    name = name.strip()
    if name not in SOURCES:
        path, question, query = spec.partition("?")
        if Path(path).exists():
            raise BadSetting(f"{spec} does not say what it is. Write {_likely(Path(path))}{question}{query}.")
        listed = "; ".join(f"{key}: {text}" for key, text in SOURCES.items())
        raise BadSetting(f"unknown source {name!r} in {spec!r}. Write NAME:PATH, where NAME is one of {listed}.")
    location, _, query = rest.partition("?")
    if not colon or not location:
        raise BadSetting(f"{spec!r} has no path. Write {name}:PATH.")
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        option, equals, value = part.partition("=")
        if not equals or not value:
            raise BadSetting(f"option {part!r} in {spec!r} has no value. Write {option}=VALUE.")
        options[option] = os.path.expanduser(value) if value.startswith("~/") else value
    return name, os.path.expanduser(location), options


def _likely(path: Path) -> str:
    """What may well be meant by a path alone."""
    if not path.is_dir():
        return f"medmnist:{path}" if path.suffix == ".npz" else f"csv:{path}"
    if (path / "table.csv").is_file():
        return f"csv:{path / 'table.csv'}"
    return f"{next((name for name, mark in _MARKS.items() if any(path.glob(mark))), 'folder')}:{path}"


def without_missing(dataset: Dataset) -> tuple[Dataset, tuple[str, ...]]:
    """The images whose files are there, and the names of those whose files are not.

    Raises:
        BadData: none is there, or none is named.
    """
    if not dataset.records:
        raise BadData(f"{dataset.name} names no image. Its table has no rows, or none that its options leave.")
    gone = missing_files(record.path for record in dataset.records)
    if not gone:
        return dataset, ()
    names = tuple(record.image for record in dataset.records if record.path in gone)
    if len(names) == len(dataset):
        first = dataset.records[0]
        raise BadData(
            f"{dataset.name}: none of its {counted(len(dataset), 'image[s]')} is there; {first.image} was looked for"
            f" at {first.path}. Put the images there."
        )
    left_out = counted(len(names), f"of {len(dataset)} labelled images [has|have] no file and [is|are] left out")
    note = f"{left_out}, {names[0]} first"
    kept = tuple(record for record in dataset.records if record.path not in gone)
    return replace(dataset, records=kept, notes=(*dataset.notes, note)), names


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
