"""`radtag data check`: each thing that can be wrong is found, at its level, and nothing else is."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from radtag.data.check import CheckReport, Problem, alike, check, fingerprint
from radtag.errors import BadSetting
from radtag.images import read

SIZE_RC = (80, 120)


def picture(path: Path, seed: int, size_rc: tuple[int, int] = SIZE_RC, **options) -> Path:
    """A gray image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size_rc).astype(np.uint8)
    PillowImage.fromarray(pixels).save(path, **options)
    return path


def mask(path: Path, value: int = 255, size_rc: tuple[int, int] = SIZE_RC) -> Path:
    """A mask with one value in its upper left quarter."""
    pixels = np.zeros(size_rc, dtype=np.uint8)
    pixels[: size_rc[0] // 2, : size_rc[1] // 2] = value
    PillowImage.fromarray(pixels).save(path)
    return path


class Clinic:
    """A sound data set of 12 patients, to which tests do harm: 6 train, 3 val, 3 test, every second one positive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows = {
            f"i/{n}.png": {
                "patient": f"p{n}",
                "split": ("train", "train", "val", "test")[n // 2 % 4],
                "nodule": str(n % 2),
                "mask:nodule": "",
            }
            for n in range(12)
        }
        for n, name in enumerate(self.rows):
            picture(root / name, n)
        self.boxes = ["i/1.png,nodule,10,20,110,70"]

    def spec(self) -> str:
        columns = ["patient", "split", "nodule", "mask:nodule"]
        lines = [",".join([name, *(row[c] for c in columns)]) for name, row in self.rows.items()]
        (self.root / "table.csv").write_text("\n".join([",".join(["image", *columns]), *lines]) + "\n")
        (self.root / "boxes.csv").write_text("\n".join(["image,finding,x1,y1,x2,y2", *self.boxes]) + "\n")
        return f"csv:{self.root}"

    def check(self) -> CheckReport:
        return check(self.spec())


@pytest.fixture
def clinic(tmp_path) -> Clinic:
    return Clinic(tmp_path)


def kinds(report: CheckReport) -> dict[str, tuple[str, int]]:
    """kind -> level, count."""
    return {problem.kind: (problem.level, problem.count) for problem in report.problems}


def test_a_sound_set_is_counted_and_passes(clinic):
    mask(clinic.root / "m.png")
    clinic.rows["i/3.png"] |= {"mask:nodule": "m.png", "split": "train"}
    clinic.rows["i/5.png"]["nodule"] = ""
    clinic.rows["i/7.png"]["patient"] = ""
    report = clinic.check()
    assert kinds(report) == {"one-class-in-val": ("warning", 1)}  # i/5.png was the only positive of val
    assert report.ok
    assert (report.images, report.patients, report.images_without_patient) == (12, 12, 1)
    assert report.splits == (("train", 8, 8), ("val", 2, 2), ("test", 2, 2))
    train = report.to_dict()["findings"]["nodule"]["train"]
    assert train == {
        "known": 8,
        "unknown": 0,
        "positive": 4,
        "negative": 4,
        "boxes": 1,
        "images_with_boxes": 1,
        "masks": 1,
    }
    assert report.to_dict()["findings"]["nodule"]["val"]["unknown"] == 1
    assert report.to_dict()["sizes"] == [{"rows": 80, "columns": 120, "images": 12}]


def test_the_report_as_text_and_as_json(clinic):
    clinic.rows["i/0.png"]["patient"] = clinic.rows["i/4.png"]["patient"] = "twin"
    report = clinic.check()
    lines = report.lines()
    assert lines[0].endswith(": 12 images of 11 patients")
    assert "nodule   train         4         4        0      1      0" in lines
    assert "sizes (rows x columns): 80 x 120: 12" in lines
    assert lines[-2:] == [
        "error    1 patient is in more than one split: twin (train, val)",
        "1 error, 0 warnings: training would go wrong",
    ]
    values = json.loads(json.dumps(report.to_dict()))
    assert values["ok"] is False
    assert values["errors"] == ["1 patient is in more than one split: twin (train, val)"]
    assert values["splits"]["test"] == {"images": 2, "patients": 2}
    assert values["problems"][0] == {
        "level": "error",
        "kind": "patients-in-two-splits",
        "count": 1,
        "text": "1 patient is in more than one split",
        "examples": ["twin (train, val)"],
    }


def test_identical_files_are_a_warning_and_across_splits_an_error(clinic):
    raw = (clinic.root / "i/0.png").read_bytes()
    (clinic.root / "i/2.png").write_bytes(raw)  # both train, both negative
    assert kinds(clinic.check()) == {"identical-files": ("warning", 1)}
    (clinic.root / "i/5.png").write_bytes(raw)  # val, positive
    report = clinic.check()
    assert kinds(report) == {
        "identical-files-in-two-splits": ("error", 1),
        "identical-images-labelled-differently": ("warning", 1),
    }
    assert report.errors == [
        "1 set of identical files in more than one split: i/0.png (train) = i/2.png (train) = i/5.png (val)"
    ]


def test_identical_pixels_in_different_files(clinic):
    comment = PngInfo()
    comment.add_text("comment", "saved again")
    picture(clinic.root / "i/2.png", seed=0, pnginfo=comment)
    assert (clinic.root / "i/2.png").read_bytes() != (clinic.root / "i/0.png").read_bytes()
    assert kinds(clinic.check()) == {"identical-pixels": ("warning", 1)}
    picture(clinic.root / "i/4.png", seed=0, pnginfo=comment)
    found = kinds(clinic.check())
    assert found["identical-pixels-in-two-splits"] == ("error", 1)


def test_the_same_pixels_in_another_shape_are_another_image(clinic):
    pixels = np.asarray(PillowImage.open(clinic.root / "i/0.png"))
    PillowImage.fromarray(pixels.reshape(120, 80)).save(clinic.root / "i/2.png")
    assert clinic.check().problems == ()


def test_unreadable_images_and_masks_are_errors(clinic):
    raw = (clinic.root / "i/0.png").read_bytes()
    (clinic.root / "i/0.png").write_bytes(raw[:200])
    (clinic.root / "m.png").write_bytes(b"not a mask")
    clinic.rows["i/1.png"]["mask:nodule"] = "m.png"
    report = clinic.check()
    assert kinds(report) == {"unreadable-images": ("error", 1), "unreadable-masks": ("error", 1)}
    assert "i/0.png" in report.errors[0]
    assert "m.png" in report.errors[1]
    assert report.to_dict()["sizes"][0]["images"] == 11


def test_constant_and_tiny_images(clinic):
    PillowImage.new("L", (120, 80), 7).save(clinic.root / "i/0.png")
    picture(clinic.root / "i/2.png", 99, (80, 63))
    report = clinic.check()
    assert kinds(report) == {"constant-images": ("warning", 1), "tiny-images": ("warning", 1)}
    assert report.sizes_rc == (((80, 120), 11), ((80, 63), 1))


def test_dark_images_and_files_of_several_frames(clinic):
    values = np.random.default_rng(0).integers(0, 4096, SIZE_RC).astype(np.uint16)
    PillowImage.fromarray(values).save(clinic.root / "i/0.png")  # 12 bits in 16
    pages = [PillowImage.open(clinic.root / f"i/{n}.png") for n in (2, 4)]
    pages[0].save(clinic.root / "i/2.png", format="TIFF", save_all=True, append_images=pages[1:])
    report = clinic.check()
    assert kinds(report) == {"dark-images": ("warning", 1), "several-frames": ("warning", 1)}
    assert report.warnings == [
        "1 image uses less than 10% of the range of its file, as 12 bits stored in 16 do: i/0.png",
        "1 file has several frames; only the first is used, of a NIfTI volume the middle slice: i/2.png (2)",
    ]


def test_boxes_outside_and_over_the_edge(clinic):
    # 80 rows x 120 columns: x up to 120 is inside, y up to 80.
    clinic.boxes = ["i/1.png,nodule,90,10,120,80", "i/3.png,nodule,90,10,120.4,80"]
    assert clinic.check().problems == ()
    clinic.boxes += ["i/3.png,nodule,10,60,20,81", "i/9.png,nodule,10,80,20,90", "i/9.png,nodule,-5,0,0,9"]
    report = clinic.check()
    assert kinds(report) == {"boxes-outside": ("error", 2), "boxes-over-edge": ("warning", 1)}


def test_masks_of_another_aspect_empty_or_without_a_label(clinic):
    mask(clinic.root / "half.png", size_rc=(40, 60))
    mask(clinic.root / "turned.png", size_rc=(120, 80))
    mask(clinic.root / "black.png", value=0)
    clinic.rows["i/1.png"]["mask:nodule"] = "half.png"
    assert clinic.check().problems == ()
    clinic.rows["i/1.png"]["mask:nodule"] = "turned.png"
    clinic.rows["i/3.png"]["mask:nodule"] = "black.png"
    clinic.rows["i/2.png"]["mask:nodule"] = "half.png"  # negative
    clinic.rows["i/8.png"]["mask:nodule"] = "black.png"  # negative: as it should be
    report = clinic.check()
    assert kinds(report) == {
        "masks-of-odd-size": ("error", 1),
        "empty-masks": ("warning", 1),
        "outlined-not-positive": ("warning", 1),
    }
    assert report.errors == ["1 mask has another aspect than its image: turned.png 120 x 80 on 80 x 120"]


def test_findings_with_one_class(clinic):
    for name in ("i/4.png", "i/5.png"):
        clinic.rows[name]["nodule"] = "0"
    report = clinic.check()
    assert report.warnings == ["1 finding has not both classes in val: nodule (only negatives)"]
    assert report.ok
    for row in clinic.rows.values():
        row["nodule"] = "1"
    report = clinic.check()
    assert report.errors == ["1 finding has not both classes in train: nodule (only positives)"]


def test_nothing_to_train_on(clinic, tmp_path):
    (tmp_path / "mine.csv").write_text("image,split\ni/0.png,test\ni/1.png,test\n")
    report = check(clinic.spec(), splits=tmp_path / "mine.csv")
    assert [kind for kind, (level, _) in kinds(report).items() if level == "error"] == ["no-train", "no-val"]
    assert report.splits == (("test", 2, 2), ("", 10, 10))


def test_images_without_labels_and_labels_without_images(clinic):
    picture(clinic.root / "i/extra.png", 50)
    (clinic.root / "i/0.png").unlink()
    spec = clinic.spec()
    report = check(spec + "?missing=skip")
    assert kinds(report) == {"labels-without-images": ("warning", 1), "images-without-labels": ("warning", 1)}
    assert "i/0.png" in report.warnings[0]
    assert report.warnings[1].endswith("i/extra.png")
    refused = check(spec)
    assert kinds(refused) == {"layout": ("error", 1)}
    assert not refused.ok
    assert "line 2, column image: 'i/0.png' is not there" in refused.lines()[0]


def test_an_unknown_source_is_the_callers_mistake():
    with pytest.raises(BadSetting):
        check("nowhere:x")


def test_the_real_nih14_boxes_fit_images_of_full_size(shared_data):
    report = check(f"nih14:{shared_data / 'nih14'}?images={shared_data / 'nih14_1024'}")
    assert report.errors == []
    assert report.sizes_rc == (((1024, 1024), 24),)
    assert sum(counts.boxes for _, _, counts in report.findings) == 27
    assert kinds(report)["labels-without-images"] == ("warning", 1480)


def test_the_real_tb_folder_keeps_its_twins_together(shared_data):
    report = check(f"folder:{shared_data / 'tb'}")
    assert report.ok
    assert kinds(report) == {"identical-files": ("warning", 4)}


def test_a_picture_stored_anew_in_another_split_is_noticed(clinic):
    coarse = np.random.default_rng(0).integers(0, 256, (10, 12)).astype(np.uint8)  # smooth, as radiographs are
    original = PillowImage.fromarray(coarse).resize(SIZE_RC[::-1], PillowImage.Resampling.BICUBIC)
    original.save(clinic.root / "i/0.png")
    smaller = original.resize((102, 68), PillowImage.Resampling.BICUBIC)
    smaller.point(lambda gray: 20 + gray * 0.7).save(clinic.root / "i/copy.jpg", quality=60)
    original.save(clinic.root / "i/own.jpg", quality=60)
    clinic.rows["i/copy.jpg"] = clinic.rows["i/4.png"] | {"patient": "someone else"}
    clinic.rows["i/own.jpg"] = clinic.rows["i/0.png"]  # in the same split, of the same patient
    report = clinic.check()
    assert kinds(report) == {"near-copies-in-two-splits": ("warning", 2)}
    assert report.warnings == [
        "2 pairs of images look like one picture stored twice, in more than one split: i/0.png (train) = i/copy.jpg"
        " (val), i/copy.jpg (val) = i/own.jpg (train)"
    ]
    assert report.ok


def test_identical_pictures_are_not_told_twice(clinic):
    picture(clinic.root / "i/4.png", 0, compress_level=1)
    assert kinds(clinic.check()) == {"identical-pixels-in-two-splits": ("error", 1)}


def test_radiographs_of_different_patients_are_not_copies(shared):
    files = sorted((shared / "data/nih14/images").glob("*.png"))[::2]
    patients = [file.name.split("_")[0] for file in files]
    split_of = dict(zip(dict.fromkeys(patients), np.resize(["train", "val", "test"], len(set(patients))), strict=True))
    prints = [fingerprint(read(file).pixels) for file in files]
    splits = [split_of[patient] for patient in patients]
    assert alike(np.stack(prints), np.array(splits)) == []
    # Copies of them are: as JPEG of poor quality, a third of the side smaller.
    copied = range(0, len(files), 30)
    for i in copied:
        stored = io.BytesIO()
        PillowImage.open(files[i]).convert("L").resize((170, 170)).save(stored, "JPEG", quality=50)
        again = np.asarray(PillowImage.open(stored), dtype=np.float32) / 255
        prints.append(fingerprint(again))
        splits.append({"train": "val", "val": "test", "test": "train"}[splits[i]])
    found = alike(np.stack(prints), np.array(splits))
    assert found == [(i, len(files) + n) for n, i in enumerate(copied)]


def test_an_image_of_next_to_nothing_has_no_fingerprint():
    assert fingerprint(np.full((40, 30), 0.5, dtype=np.float32)) is None
    one = fingerprint(np.random.default_rng(0).random((40, 30), dtype=np.float32))
    assert one is not None
    assert one.shape == (256,)
    assert float(one @ one) == pytest.approx(1)


def test_names_are_listed_and_sentences_follow_one_another():
    names = Problem("warning", "small-images", 3, "3 images are small", ("a.png", "b.png"))
    assert str(names) == "3 images are small: a.png, b.png, ..."
    causes = Problem("error", "unreadable-images", 2, "2 images cannot be read", ("a: it is empty.", "b: it is cut."))
    assert str(causes) == "2 images cannot be read: a: it is empty. b: it is cut."
