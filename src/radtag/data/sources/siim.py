"""SIIM-ACR Pneumothorax in its Kaggle layout: ``siim:PATH``, PATH the folder of train-rle.csv or stage_2_train.csv.

A row of ``ImageId, EncodedPixels`` (the second header begins with a blank in train-rle.csv) is one outlined area, -1 is
none, and an image can have several rows. The code is relative: pixels outside, pixels inside, and so on, down the
columns of 1024 x 1024 pixels. Only the training images have labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from radtag.data.csvfile import read_csv
from radtag.data.files import images_by_stem
from radtag.data.notes import left_over, told
from radtag.data.options import folders
from radtag.data.outlines import Runs, together
from radtag.data.table import Dataset, Record
from radtag.errors import BadData

OPTIONS = {"images": "the folder of the labelled images (default: dicom-images-train beside the table)"}
FINDINGS = ("Pneumothorax",)
TABLES = ("stage_2_train.csv", "train-rle.csv")
SIZE_RC = (1024, 1024)


def load(location: Path | str, options: Mapping[str, str]) -> Dataset:
    """Opens the labelled part of the set, or those of its images that are there. Nobody's split, unknown patients.

    Raises:
        BadData: no table, or a cell of it that is no such code.
        BadSetting: ``images`` names no folder.
    """
    root = Path(location)
    table_path = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table_path is None:
        raise BadData(f"{root} has neither {' nor '.join(TABLES)}. Give the folder that holds the table.")
    usual = ["dicom-images-train", "stage_2_train"]
    if table_path.name == TABLES[0]:  # which has labels for the first stage's test images, too
        usual.append("dicom-images-test")
    images = folders("siim", options, "images", root, *usual)
    path_of = {stem: path for one in images for stem, path in images_by_stem(one).items()}
    table = read_csv(table_path)
    areas: dict[str, list[Runs]] = {}
    for line, row in table.named("ImageId", "EncodedPixels"):
        of_image = areas.setdefault(row["ImageId"], [])
        if row["EncodedPixels"] == "-1":
            continue
        try:
            numbers = [int(number) for number in row["EncodedPixels"].split()]
            if not numbers or len(numbers) % 2:
                raise ValueError("it has no pairs of numbers")
            of_image.append(Runs.of(SIZE_RC, numbers))
        except (ValueError, OverflowError, BadData) as error:
            why = str(error).removesuffix(". Get the official file.")
            raise BadData(f"{table_path} line {line}, column EncodedPixels: {why}. Get the official table.") from None
    records = tuple(
        Record(
            image=f"{image}.dcm",
            path=path_of.pop(image, images[0] / f"{image}.dcm"),
            labels=(float(bool(outlines)),),
            masks={FINDINGS[0]: together(outlines)} if outlines else {},
        )
        for image, outlines in areas.items()
    )
    notes = ["patients are unknown, each image stands for itself"]
    several = {"several": sum(len(outlines) > 1 for outlines in areas.values())}
    notes += told(several, {"several": "image[s] [has|have] several outlined areas, taken as one mask"})
    notes += left_over(path_of, f"image[s] [is|are] not in {table_path.name} and [is|are] left out")
    return Dataset("siim", FINDINGS, records, tuple(notes))
