"""QaTa-COV19: ``qata_cov19:PATH``, PATH the folder of QaTa-COV19-v2 (or of QaTa-COV19-v1), as the archive unpacks.

Degerli et al., "OSegNet: Operational Segmentation Network for COVID-19 Detection Using Chest X-Ray Images", ICIP 2022.
Version 2 has "Train Set" and "Test Set", version 1 is one part; each has Images and Ground-truths, an infection mask
``mask_NAME`` for the image NAME. All of these images show COVID-19. Control_Group_I beside them is of healthy people,
who are in no split; Control_Group_II is a mixture without labels of its own and is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from radtag.data.files import images_by_stem, images_under
from radtag.data.options import choice
from radtag.data.table import Dataset, Record
from radtag.errors import BadData
from radtag.words import counted

OPTIONS = {
    "control": "without (default): the COVID-19 images in their split; with: healthy ones too, and all is drawn anew",
    "version": "2 (default where it is there) or 1: which of the set's versions",
}
FINDINGS = ("COVID-19",)
_PARTS = {"2": {"Train Set": "train", "Test Set": "test"}, "1": {".": ""}}


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens one version of the set; patients are unknown.

    Raises:
        BadData: no folder of the layout, or no healthy images where they are asked for.
        BadSetting: an option there is not.
    """
    control = choice("qata_cov19", options, "control", ("without", "with"))
    versions = (options["version"],) if "version" in options else ("2", "1")
    choice("qata_cov19", options, "version", ("2", "1"))
    given = Path(location)
    homes = {n: [given / f"QaTa-COV19-v{n}", given / "QaTa-COV19" / f"QaTa-COV19-v{n}", given] for n in versions}
    found = [
        (home, version)
        for version, folders in homes.items()
        for home in folders
        if any((home / part / "Images").is_dir() for part in _PARTS[version])
    ]
    if not found:
        names = " or ".join(f"QaTa-COV19-v{number}" for number in versions)
        raise BadData(f"{given} has no {names} with Images in it. Give the folder the set was unpacked in.")
    home, version = found[0]
    records: list[Record] = []
    without_mask = 0
    for part, split in _PARTS[version].items():
        if not (home / part / "Images").is_dir():
            continue
        masks = images_by_stem(home / part / "Ground-truths")
        for path in images_under(home / part / "Images"):
            mask = masks.get(f"mask_{path.stem}")
            without_mask += mask is None
            outlines = {FINDINGS[0]: mask} if mask is not None else {}
            name = path.relative_to(home).as_posix()
            records.append(Record(name, path, (1.0,), split="" if control == "with" else split, masks=outlines))
    notes = [f"version {version}; patients are unknown, each image stands for itself"]
    if without_mask:
        notes.append(counted(without_mask, "COVID-19 image[s] [has|have] no infection mask"))
    if control == "with":
        healthy = home.parent / "Control_Group" / "Control_Group_I"
        paths = images_under(healthy)
        if not paths:
            raise BadData(f"{healthy} has no images of healthy people. Unpack them there, or leave out ?control=with.")
        records += [Record(path.relative_to(home.parent).as_posix(), path, (0.0,)) for path in paths]
        notes.append("healthy images are in no split of the set, so the set's split is not used")
    else:
        notes.append("every image shows COVID-19: this is for scoring; ?control=with adds healthy ones")
    return Dataset("qata_cov19", FINDINGS, tuple(records), tuple(notes))
