"""TBX11K: ``tbx11k:PATH``, PATH the folder of imgs, lists and annotations.

Liu et al., "Rethinking Computer-aided Tuberculosis Diagnosis", CVPR 2020. An image lies in imgs/health, imgs/sick (ill,
no tuberculosis) or imgs/tb, whose boxes say of which kind the tuberculosis is. TBX11K_train.txt and TBX11K_val.txt are
the split; labels of the test images are not public. all_train.txt and all_val.txt also list imgs/extra, images of older
sets without boxes: their names begin with n = normal or p = tuberculosis (da+db), or end in _0 or _1 (mc+shenzhen).

Boxes are those of annotations/json, in the images' 512 x 512 pixels, else of annotations/xml, in the radiographs' own.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from radtag.data.boxes import SizeRC, Thing, by_name
from radtag.data.coco import read_boxes
from radtag.data.notes import told
from radtag.data.options import choice
from radtag.data.table import Dataset, Record
from radtag.data.voc import read_annotation
from radtag.errors import BadData

OPTIONS = {
    "kinds": "apart (default): active and obsolete tuberculosis; together: tuberculosis of any kind",
    "extra": "without (default): TBX11K alone; with: the older sets in imgs/extra too",
}
KINDS = ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis")
TOGETHER = "Tuberculosis"
SICK = "sick but non-TB"
SPLITS = ("train", "val")
_EXTRA = re.compile(r"extra/(?P<set>.+?)/(?:.+/)?(?:(?P<letter>[np])x?\d+|[A-Z]+_\d+_(?P<digit>[01]))\.\w+")
_PARTS = {"health": "TBX11K", "sick": "TBX11K", "tb": "TBX11K"}
_OLDER = {"da+db": "DA+DB", "mc+shenzhen": "Montgomery+Shenzhen"}


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens the set's own training and validation part; patients are unknown.

    Raises:
        BadData: no lists, annotations that are none, or an image in none of the set's folders.
        BadSetting: a value an option does not have.
    """
    together = choice("tbx11k", options, "kinds", ("apart", "together")) == "together"
    lists = ("TBX11K", "all") if choice("tbx11k", options, "extra", ("without", "with")) == "with" else ("TBX11K",)
    root = Path(location)
    things = _things(root / "annotations")
    counts: Counter[str] = Counter()
    records = []
    for split, image in ((one, image) for one in SPLITS for image in _listed(root / "lists", one, lists)):
        of_extra = _EXTRA.fullmatch(image)
        part = of_extra["set"] if of_extra else image.split("/")[0]
        if (set_name := (_OLDER if of_extra else _PARTS).get(part)) is None:
            raise BadData(
                f"{root / 'lists'}: {image!r} is not in health, sick or tb, nor of extra. Get the official list."
            )
        tuberculosis = part == "tb" or bool(of_extra and (of_extra["letter"] == "p" or of_extra["digit"] == "1"))
        size_rc, found = things.get(Path(image).stem, (None, [])) if part == "tb" else (None, [])
        drawn = by_name(Thing(TOGETHER, thing.box_xyxy) if together else thing for thing in found)
        counts["other"] += bool(drawn.keys() - {TOGETHER, *KINDS})
        drawn = {name: boxes for name, boxes in drawn.items() if name in (TOGETHER, *KINDS)}
        counts["extra"] += bool(of_extra)
        counts["together" if together else "apart"] += tuberculosis and not drawn
        ill = [math.nan if tuberculosis and not drawn else float(kind in drawn) for kind in KINDS]
        labels = (*([float(tuberculosis)] if together else ill), float(part == "sick"))
        path, frame, about = root / "imgs" / image, size_rc if drawn else None, {"set": set_name}
        records.append(Record(image, path, labels, "", split, drawn, frame, attributes=about))
    texts = {
        "extra": "image[s] [is|are] of older sets, with labels and without boxes",
        "together": "image[s] of tuberculosis [has|have] no box",
        "apart": "image[s] of tuberculosis [has|have] no box of a known kind, so that its kind is unknown",
        "other": "image[s] [has|have] boxes of tuberculosis of an unknown kind, which are left out",
    }
    notes = ["patients are unknown, each image stands for itself; the test images have no public labels"]
    findings = (*([TOGETHER] if together else KINDS), SICK)
    return Dataset("tbx11k", findings, tuple(records), (*notes, *told(counts, texts)))


def _listed(folder: Path, split: str, lists: Sequence[str]) -> Iterator[str]:
    """The images of a part, below imgs; of all but the first list those of older sets."""
    for begin in lists:
        if not any((folder / f"{begin}_{part}.txt").is_file() for part in SPLITS):
            step = "Leave out ?extra=with" if begin == "all" else "Give the folder of imgs and lists"
            raise BadData(f"{folder} has no {begin}_train.txt or {begin}_val.txt. {step}.")
        path = folder / f"{begin}_{split}.txt"
        for image in path.read_text(encoding="utf-8-sig").split() if path.is_file() else ():
            if begin == lists[0] or image.removeprefix("imgs/").startswith("extra/"):
                yield image.removeprefix("imgs/")


def _things(home: Path) -> dict[str, tuple[SizeRC | None, list[Thing]]]:
    """Name of an image -> its size, and what is in it; the same image may be in several json files."""
    found: dict[str, tuple[SizeRC | None, list[Thing]]] = {}
    for path in sorted((home / "json").glob("TBX11K_*.json")):
        found |= {Path(name).stem: of_image for name, of_image in read_boxes(path).items() if of_image[1]}
    return found or {path.stem: read_annotation(path) for path in sorted((home / "xml").glob("*.xml"))}
