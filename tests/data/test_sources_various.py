"""Sources chestx_det, voc2012, lgg, busi, isic and medmnist, in small copies of their layouts."""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image as PillowImage

from radtag.data.check import CheckReport, check
from radtag.data.outlines import Union, read_outline
from radtag.data.sources import SOURCES, load, open_source
from radtag.errors import BadData, BadSetting
from radtag.images import read
from radtag.truth import truth_of

SOURCES_HERE = ("chestx_det", "voc2012", "lgg", "busi", "isic")


def picture(path: Path, size_rc: tuple[int, int] = (64, 80), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size_rc if mode == "L" else (*size_rc, 3)
    pixels = np.random.default_rng(crc32(str(path).encode())).integers(0, 256, shape)
    PillowImage.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def mask(path: Path, rows: slice, cols: slice, size_rc: tuple[int, int] = (64, 80)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size_rc, dtype=np.uint8)
    pixels[rows, cols] = 255
    PillowImage.fromarray(pixels).save(path)
    return path


def kinds(report: CheckReport) -> set[str]:
    """What is wrong, but for what comes of a handful of images: that a class or a part is missing."""
    return {one.kind for one in report.problems if not one.kind.startswith(("one-class", "no-"))}


def test_a_folder_that_is_none_of_the_set_is_answered_with_what_is_missing(tmp_path):
    for source in SOURCES_HERE:
        assert source in SOURCES
        for place in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(BadData, match=rf"{place}.*Give"):
                load(f"{source}:{place}")
        with pytest.raises(BadSetting, match=f"source {source} has no option 'fold'"):
            load(f"{source}:{tmp_path}?fold=1")


def test_every_source_is_in_the_overview_and_has_a_page():
    docs = Path(__file__).parents[2] / "docs" / "data"
    rows = [line for line in (docs / "index.md").read_text(encoding="utf-8").splitlines() if line.startswith("| [`")]
    columns = {len(row.split("|")) for row in rows}
    assert columns == {8}  # six cells between bars
    assert all(cell.strip() for row in rows for cell in row.split("|")[1:-1])
    named = [row.removeprefix("| [`").split(":")[0] for row in rows]
    assert sorted(named) == sorted(SOURCES)
    for name, row in zip(named, rows, strict=True):
        assert f"]({name}.md)" in row
        assert f"`{name}:" in (docs / f"{name}.md").read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize(
    ("inside", "name"),
    [
        ("ChestX_Det_test.json", "chestx_det"),
        ("TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1.tif", "lgg"),
        ("malignant/malignant (1)_mask.png", "busi"),
        ("ISIC2018_Task1_Training_GroundTruth/a.png", "isic"),
        ("ISIC-2017_Training_Part3_GroundTruth.csv", "isic"),
        ("ImageSets/Main/aeroplane_train.txt", "voc2012"),
    ],
)
def test_a_path_alone_is_answered_with_its_source(tmp_path, inside, name, written):
    written(tmp_path / inside, "")
    with pytest.raises(BadSetting, match=f"Write {name}:"):
        load(str(tmp_path))


# --- ChestX-Det and ChestX-Det10


def square(x: int, y: int, side: int) -> list[list[int]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


@pytest.fixture
def chestx_det(tmp_path, written) -> Path:
    """ChestX-Det: three images of which one has a finding twice, of whose file there is none, and one more file."""
    train = [
        {
            "file_name": "36302.png",
            "syms": ["Nodule", "Diffuse Nodule", "Nodule"],
            "boxes": [[100, 200, 300, 400], [0, 0, 1024, 1024], [500, 200, 600, 300]],
            "polygons": [square(100, 200, 200), square(0, 0, 1024), square(500, 200, 100)],
        },
        {"file_name": "36400.png", "syms": [], "boxes": [], "polygons": []},
    ]
    test = [{"file_name": "36199.png", "syms": [], "boxes": [], "polygons": []}]
    written(tmp_path / "ChestX_Det_train.json", json.dumps(train))
    written(tmp_path / "ChestX_Det_test.json", json.dumps(test))
    for name in ("train/36302", "train/999", "test/36199"):
        picture(tmp_path / f"{name}.png", (128, 128))
    return tmp_path


def test_chestx_det_boxes_and_polygons_are_in_1024_pixels(chestx_det, labels):
    data = load(f"chestx_det:{chestx_det}")
    assert len(data.findings) == 13
    assert data.findings[4] == "Diffuse Nodule"
    assert [(record.image, record.split) for record in data.records] == [
        ("36302.png", "train"),
        ("36400.png", "train"),
        ("36199.png", "test"),
    ]
    assert labels(data, "Nodule") == [1, 0, 0]
    assert labels(data, "Mass") == [0, 0, 0]
    ill = data.records[0]
    assert ill.path == chestx_det / "train/36302.png"
    assert ill.boxes_xyxy["Nodule"] == ((100, 200, 300, 400), (500, 200, 600, 300))
    truth = truth_of(ill, "Nodule", (128, 128))  # an eighth of the size
    assert truth is not None
    assert truth.mask is not None
    assert truth.boxes_xyxy.tolist() == [[12.5, 25, 37.5, 50], [62.5, 25, 75, 37.5]]
    rows, cols = np.nonzero(truth.mask)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (25, 49, 12, 74)
    assert "patients are unknown, each image stands for itself" in data.notes
    assert "1 image is in no json and is left out, 999 first" in data.notes


def test_chestx_det_check(chestx_det):
    report = check(f"chestx_det:{chestx_det}")
    assert report.images == 2
    assert kinds(report) == {"labels-without-images", "images-without-labels"}
    assert any("36400.png" in warning for warning in report.warnings)


def test_chestx_det10_has_chestxray14s_names_and_so_its_patients(tmp_path, written, labels):
    entry = {"file_name": "00000042_006.png", "syms": ["Fibrosis"], "boxes": [[632, 721, 909, 969]]}
    flat = {"file_name": "00000043_001.png", "syms": ["Mass"], "boxes": [[5, 5, 5, 9]]}
    written(tmp_path / "json/train.json", json.dumps([entry, flat]))
    picture(tmp_path / "nih/images_001/images/00000042_006.png")
    data = load(f"chestx_det:{tmp_path / 'json'}?images={tmp_path / 'nih'}")
    assert len(data.findings) == 10
    assert [record.patient for record in data.records] == ["42", "43"]
    assert data.records[0].path == tmp_path / "nih/images_001/images/00000042_006.png"
    assert data.records[0].boxes_xyxy == {"Fibrosis": ((632, 721, 909, 969),)}
    assert not data.records[0].masks
    assert labels(data, "Mass") == [0, 1]
    assert data.records[1].boxes_xyxy == {}
    assert data.notes == ("1 box without area is left out",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"syms": ["Nodules"]}, r"'Nodules' is none of Atelectasis, .*Get the official file"),
        ({"syms": ["Nodule", "Mass"]}, "syms, boxes and polygons do not go together"),
        ({"boxes": [[1, 2, 3]]}, "syms, boxes and polygons do not go together"),
        ({"polygons": [[[1, 1], [2, 2], [float("nan"), 3]]]}, "a polygon of 3 points"),
    ],
)
def test_chestx_det_what_is_none_of_its_entries_is_refused(chestx_det, change, message, written):
    entry = {"file_name": "36199.png", "syms": ["Nodule"], "boxes": [[1, 2, 3, 4]], "polygons": [square(0, 0, 9)]}
    written(chestx_det / "ChestX_Det_test.json", json.dumps([entry | change]))
    with pytest.raises(BadData, match=f"ChestX_Det_test.json, 36199.png.*{message}"):
        load(f"chestx_det:{chestx_det}")


@pytest.mark.parametrize("content", [{"images": []}, 1, [1], ["a"]])
def test_chestx_det_another_sets_json_is_refused(chestx_det, content, written):
    path = written(chestx_det / "ChestX_Det_test.json", json.dumps(content))
    with pytest.raises(BadData, match=f"{path}.* Get the official file"):
        load(f"chestx_det:{chestx_det}")


# --- PASCAL VOC 2012

VOC = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep"
)
VOC_CLASSES = [*VOC.split(), "sofa", "train", "tvmonitor"]


def voc_object(name: str, corners: tuple[object, ...], difficult: int = 0, more: str = "") -> str:
    box = "".join(f"<{at}>{value}</{at}>" for at, value in zip(("xmax", "xmin", "ymax", "ymin"), corners, strict=True))
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox>{flag}</object>"


@pytest.fixture
def voc(tmp_path, written) -> Path:
    """Two training images and two for validation, one with classes outlined; one outlined image more."""
    root = tmp_path / "VOCdevkit/VOC2012"
    said = {
        "train": {"2008_000008": {"horse": 1, "person": 1}, "2008_000015": {"bottle": 0}},
        "val": {"2008_000002": {"tvmonitor": 1}, "2011_003353": {"person": 1}},
    }
    for part, images in said.items():
        for name in VOC_CLASSES:
            lines = [f"{image} {there.get(name, -1):2d}" for image, there in images.items()]  # two blanks before a 1
            written(root / f"ImageSets/Main/{name}_{part}.txt", "\n".join(lines) + "\n")
    head = voc_object("head", (30, 20, 30, 20)).replace("object", "part")
    objects = {
        "2008_000008": voc_object("horse", (60, 11, 40, 21)) + voc_object("person", (70, 41, 30, 6), more=head),
        "2008_000015": voc_object("bottle", (5, 1, 5, 1), difficult=1),
        "2008_000002": voc_object("tvmonitor", (80, 1, 64, 1)) + voc_object("tvmonitor", (9, 2, 9, 2), difficult=1),
        "2011_003353": voc_object("person", (50, 1, "45.70000076293945", 1)),
    }
    for image, text in objects.items():
        written(root / f"Annotations/{image}.xml", f"<annotation><folder>VOC2012</folder>{text}</annotation>")
        picture(root / f"JPEGImages/{image}.jpg", mode="RGB")
    for image in ("2008_000008", "2007_000033"):
        classes = np.zeros((64, 80), dtype=np.uint8)
        classes[20:40, 10:60] = 13  # horse
        classes[5:30, 40:70] = 15  # person
        classes[5:30, 40] = 255
        indexed = PillowImage.fromarray(classes).convert("P")
        indexed.putdata(classes.ravel().tolist())
        indexed.putpalette([(7 * i) % 256 for i in range(768)])
        (root / "SegmentationClass").mkdir(exist_ok=True)
        indexed.save(root / f"SegmentationClass/{image}.png")
    return tmp_path


def test_voc2012_labels_boxes_from_one_and_classes_of_a_palette(voc, labels):
    for place in (voc, voc / "VOCdevkit", voc / "VOCdevkit/VOC2012"):
        data = load(f"voc2012:{place}")
        assert data.findings == tuple(VOC_CLASSES)
        assert [(record.image, record.split) for record in data.records] == [
            ("2008_000008.jpg", "train"),
            ("2008_000015.jpg", "train"),
            ("2008_000002.jpg", "val"),
            ("2011_003353.jpg", "val"),
        ]
    assert labels(data, "person") == [1, 0, 0, 1]
    assert labels(data, "bottle") == [0, None, 0, 0]
    rider = data.records[0]
    assert rider.boxes_xyxy == {"horse": ((10, 20, 60, 40),), "person": ((40, 5, 70, 30),)}  # not of the head
    horse = read_outline(rider.masks["horse"])
    person = read_outline(rider.masks["person"])
    assert horse.shape == (64, 80)
    assert (horse[39, 10], horse[5, 45], person[5, 45], person[5, 40]) == (True, False, True, False)
    assert person.sum() == 25 * 29
    assert data.records[1].boxes_xyxy == {}
    assert data.records[2].boxes_xyxy == {"tvmonitor": ((0, 0, 80, 64),)}
    assert data.records[3].boxes_xyxy == {"person": ((0, 0, 50, 45.70000076293945),)}
    assert data.notes == (
        "photographs of things, for comparison; the test images have no public labels",
        "1 label of 0 = difficult is taken as unknown",
        "2 boxes of difficult objects are left out",
        "1 image with masks is not in the lists of the main task and is left out, 2007_000033 first",
    )


def test_voc2012_difficult_ones_and_a_test_part(voc, labels):
    data = load(f"voc2012:{voc}?difficult=positive")
    assert labels(data, "bottle") == [0, 1, 0, 0]
    assert data.records[1].boxes_xyxy == {"bottle": ((0, 0, 5, 5),)}
    assert len(data.records[2].boxes_xyxy["tvmonitor"]) == 2
    assert [record.split for record in load(f"voc2012:{voc}?val=test").records] == ["train"] * 2 + ["test"] * 2
    with pytest.raises(BadSetting, match="option val=train of source voc2012: use val or test"):
        load(f"voc2012:{voc}?val=train")


def test_voc2012_check(voc):
    report = check(f"voc2012:{voc}")
    assert kinds(report) == set()
    assert (report.images, report.images_without_patient) == (4, 4)


def test_voc2012_lists_and_files_that_are_none_are_refused(voc, written):
    root = voc / "VOCdevkit/VOC2012"
    path = root / "ImageSets/Main/sofa_val.txt"
    good = path.read_text()
    path.write_text(good.replace("2008_000002 -1", "2008_000002 2"))
    with pytest.raises(BadData, match=r"sofa_val.txt line 1: '2008_000002 2' is not an image and 1, 0 or -1"):
        load(f"voc2012:{voc}")
    path.write_text(good.splitlines()[0])
    with pytest.raises(BadData, match=r"2011_003353 is not once in each of the lists CLASS_val.txt"):
        load(f"voc2012:{voc}")
    path.unlink()
    with pytest.raises(BadData, match=r"sofa_val.txt is not there, though aeroplane_val.txt is"):
        load(f"voc2012:{voc}")
    path.write_text(good)
    written(root / "Annotations/2008_000002.xml", "<annotation><object><name>x</name></object></annotation>")
    with pytest.raises(BadData, match=r"2008_000002.xml is not a PASCAL VOC annotation"):
        load(f"voc2012:{voc}")
    (root / "Annotations/2008_000002.xml").unlink()
    assert "1 image has no annotation of boxes" in load(f"voc2012:{voc}").notes


# --- LGG MRI


@pytest.fixture
def lgg(tmp_path, written) -> Path:
    """Two patients, in the archive's two copies of one folder; slices 2 and 10, so that order is by number."""
    for home in (tmp_path / "kaggle_3m", tmp_path / "lgg-mri-segmentation/kaggle_3m"):
        for case, numbers in (("TCGA_CS_4941_19960909", (10, 2)), ("TCGA_DU_5849_19950405", (1,))):
            for number in numbers:
                picture(home / case / f"{case}_{number}.tif", (256, 256), "RGB")
                ill = slice(5, 9) if number == 2 else slice(0, 0)
                mask(home / case / f"{case}_{number}_mask.tif", ill, slice(1, 4), (256, 256))
        written(home / "README.md", "")
        header = "Patient,RNASeqCluster,tumor_location,gender,age_at_initial_pathologic,race,ethnicity,death01"
        written(home / "data.csv", f"{header}\nTCGA_CS_4941,2,2,2,67,3,2,1\nTCGA_DU_5849,1,,,,,,\n")
    return tmp_path


def test_lgg_labels_are_those_of_the_masks_and_patients_of_the_folders(lgg, labels):
    for place in (lgg, lgg / "kaggle_3m"):
        data = load(f"lgg:{place}")
        assert data.findings == ("FLAIR abnormality",)
        assert [record.image for record in data.records] == [
            "TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_2.tif",
            "TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_10.tif",
            "TCGA_DU_5849_19950405/TCGA_DU_5849_19950405_1.tif",
        ]
        assert labels(data, "FLAIR abnormality") == [1, 0, 0]
        assert [record.patient for record in data.records] == ["TCGA_CS_4941", "TCGA_CS_4941", "TCGA_DU_5849"]
        assert [dict(record.attributes) for record in data.records][::2] == [
            {"age": "67", "institution": "CS"},
            {"age": "", "institution": "DU"},
        ]
    assert {record.split for record in data.records} == {""}
    assert read_outline(data.records[0].masks["FLAIR abnormality"]).sum() == 12
    assert not data.records[1].masks
    assert data.notes == ("an image is one slice; its label is whether its mask has a pixel",)


def test_lgg_what_does_not_fit_is_unknown_or_told(lgg, labels):
    home = lgg / "kaggle_3m"
    (home / "TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_2_mask.tif").write_text("broken")
    (home / "TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_10_mask.tif").unlink()
    (home / "TCGA_DU_5849_19950405/TCGA_DU_5849_19950405_1.tif").unlink()
    picture(home / "TCGA_DU_5849_19950405/montage.tif")
    data = load(f"lgg:{lgg}")
    assert labels(data, "FLAIR abnormality") == [None, None]
    assert "2 slices have no mask that can be read: unknown" in data.notes
    assert "1 mask of no slice is left out, TCGA_DU_5849_19950405_1_mask.tif first" in data.notes
    assert "1 image of another name is left out" in data.notes


def test_lgg_check_does_not_take_black_masks_for_images(lgg):
    report = check(f"lgg:{lgg}")
    assert kinds(report) == set()
    assert (report.images, report.patients, report.images_without_patient) == (3, 2, 0)


# --- BUSI


@pytest.fixture
def busi(tmp_path) -> Path:
    """Two masks for one benign image, a mask in colours, a black one of a normal image, and one of no image."""
    root = tmp_path / "Dataset_BUSI_with_GT"
    for folder, name in (
        ("benign", "benign (4)"),
        ("benign", "benign (40)"),
        ("malignant", "malignant (1)"),
        ("normal", "normal (1)"),
    ):
        picture(root / folder / f"{name}.png", mode="RGB")
    mask(root / "benign/benign (4)_mask.png", slice(0, 10), slice(0, 10))
    mask(root / "benign/benign (4)_mask_1.png", slice(5, 15), slice(0, 10))
    colours = PillowImage.new("RGB", (80, 64))
    colours.putpixel((79, 63), (255, 255, 255))
    colours.save(root / "malignant/malignant (1)_mask.png")
    mask(root / "normal/normal (1)_mask.png", slice(0, 0), slice(0, 0))
    return tmp_path


def test_busi_several_masks_are_one_and_normal_images_have_none(busi):
    for place in (busi, busi / "Dataset_BUSI_with_GT"):
        data = load(f"busi:{place}")
        assert data.findings == ("benign", "malignant")
        assert [record.image for record in data.records] == [
            "benign/benign (4).png",
            "benign/benign (40).png",
            "malignant/malignant (1).png",
            "normal/normal (1).png",
        ]
        assert data.labels().tolist() == [[1, 0], [1, 0], [0, 1], [0, 0]]
    both = data.records[0].masks["benign"]
    assert isinstance(both, Union)
    assert read_outline(both).sum() == 150
    assert np.argwhere(read_outline(data.records[2].masks["malignant"])).tolist() == [[63, 79]]
    assert [list(record.masks) for record in data.records] == [["benign"], [], ["malignant"], []]
    assert "1 image has several masks, taken as one" in data.notes
    assert "1 image of a lesion has no mask" in data.notes
    assert {record.split for record in data.records} == {""}


def test_busi_kinds_together_and_what_is_left_out(busi, labels):
    root = busi / "Dataset_BUSI_with_GT"
    mask(root / "benign/benign (7)_mask.png", slice(0, 9), slice(0, 9))
    picture(root / "axilla/a.png")
    data = load(f"busi:{busi}?kinds=together")
    assert data.findings == ("lesion",)
    assert labels(data, "lesion") == [1, 1, 1, 0]
    assert [list(record.masks) for record in data.records] == [["lesion"], [], ["lesion"], []]
    assert "1 mask of no image is left out, benign (7)_mask.png first" in data.notes
    assert "folders that are no class are left out: axilla" in data.notes


def test_busi_check(busi):
    assert kinds(check(f"busi:{busi}")) == set()
    picture(busi / "Dataset_BUSI_with_GT/benign/benign (41).png", (64, 80))
    mask(busi / "Dataset_BUSI_with_GT/benign/benign (41)_mask.png", slice(1, 9), slice(1, 9), (64, 99))
    report = check(f"busi:{busi}")
    assert kinds(report) == {"masks-of-odd-size"}
    assert "benign (41)_mask.png 64 x 99 on 64 x 80" in report.errors[0]


# --- ISIC


@pytest.fixture
def isic(tmp_path, written) -> Path:
    """2017 with its superpixels and table among the images, and 2018, unpacked into a folder of its own name."""
    for part, images in (("Training", ("0000000", "0000002", "0000009")), ("Validation", ("0001769",))):
        for number in images:
            picture(tmp_path / f"ISIC-2017_{part}_Data/ISIC_{number}.jpg", mode="RGB")
            picture(tmp_path / f"ISIC-2017_{part}_Data/ISIC_{number}_superpixels.png", mode="RGB")
            folder = tmp_path / f"ISIC-2017_{part}_Part1_GroundTruth"
            mask(folder / f"ISIC_{number}_segmentation.png", slice(4, 9), slice(3, 5))
    picture(tmp_path / "ISIC-2017_Test_v2_Data/ISIC_0012086.jpg", mode="RGB")
    header = "image_id,melanoma,seborrheic_keratosis\n"
    for part, rows in (
        ("Training", "ISIC_0000000,0.0,0.0\nISIC_0000002,1.0,0.0\n"),
        ("Validation", "ISIC_0001769,0.0,1.0\n"),
        ("Test_v2", "ISIC_0012086,0.0,0.0\n"),
    ):
        written(tmp_path / f"ISIC-2017_{part}_Part3_GroundTruth.csv", header + rows)
    written(
        tmp_path / "ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv",
        "image_id,age_approximate,sex\nISIC_0000000,55,female\nISIC_0000002,unknown,unknown\n",
    )
    name = "ISIC2018_Task1-2_Training_Input"
    picture(tmp_path / name / name / "ISIC_0000000.jpg", mode="RGB")
    written(tmp_path / name / "ATTRIBUTION.txt", "")
    truth = tmp_path / "ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png"
    mask(truth, slice(4, 9), slice(3, 5))
    return tmp_path


def test_isic_2017_has_diagnoses_and_outlines_of_what_is_one(isic):
    data = load(f"isic:{isic}?year=2017")
    assert data.findings == ("melanoma", "seborrheic_keratosis")
    assert [(record.image, record.split) for record in data.records] == [
        ("ISIC-2017_Training_Data/ISIC_0000000.jpg", "train"),
        ("ISIC-2017_Training_Data/ISIC_0000002.jpg", "train"),
        ("ISIC-2017_Validation_Data/ISIC_0001769.jpg", "val"),
        ("ISIC-2017_Test_v2_Data/ISIC_0012086.jpg", "test"),
    ]
    assert data.labels().tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]
    assert [list(record.masks) for record in data.records] == [[], ["melanoma"], ["seborrheic_keratosis"], []]
    assert read_outline(data.records[1].masks["melanoma"]).sum() == 10
    details = [dict(record.attributes) for record in data.records]
    assert details == [{"age": "55", "sex": "female"}, {"age": "", "sex": ""}, {}, {}]
    assert "1 image without a diagnosis is left out" in data.notes
    assert "1 image has no outline" in data.notes


def test_isic_2018_shows_a_lesion_in_every_image(isic, labels):
    for spec in (str(isic), f"{isic}?year=2018"):
        data = load(f"isic:{spec}")
        assert data.findings == ("lesion",)
        assert [(record.image, record.split, record.labels) for record in data.records] == [
            ("ISIC2018_Task1-2_Training_Input/ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg", "", (1.0,))
        ]
        assert list(data.records[0].masks) == ["lesion"]
    assert "there is the training part alone, which is not taken as a split" in data.notes
    lesions = load(f"isic:{isic}?year=2017&labels=lesion")
    assert labels(lesions, "lesion") == [1] * 5
    assert [bool(record.masks) for record in lesions.records] == [True] * 4 + [False]
    with pytest.raises(BadData, match="the images of 2018 have none"):
        load(f"isic:{isic}?labels=diagnosis")
    (isic / "ISIC-2017_Test_v2_Part3_GroundTruth.csv").unlink()
    assert load(f"isic:{isic}?year=2017").findings == ("lesion",)
    with pytest.raises(BadData, match=r"there is no .*ISIC-2017_Test_v2_Part3_GroundTruth.csv"):
        load(f"isic:{isic}?year=2017&labels=diagnosis")


def test_isic_tables_of_other_cells_are_refused(isic):
    path = isic / "ISIC-2017_Training_Part3_GroundTruth.csv"
    path.write_text(path.read_text().replace("1.0,0.0", "0.5,0.0"))
    with pytest.raises(BadData, match=r"Part3_GroundTruth.csv line 3, column melanoma: '0.5' is no label"):
        load(f"isic:{isic}?year=2017")
    with pytest.raises(BadSetting, match="option year=2019 of source isic: use 2018 or 2017"):
        load(f"isic:{isic}?year=2019")


def test_isic_check_does_not_take_superpixels_for_images(isic):
    report = check(f"isic:{isic}?year=2017")
    assert kinds(report) == {"images-without-labels"}
    assert [one.count for one in report.problems if one.kind == "images-without-labels"] == [1]
    assert any("ISIC_0000009.jpg" in warning for warning in report.warnings)


# --- MedMNIST


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RADTAG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def medmnist(path: Path, of_labels: dict[str, list[list[int]]], shape: tuple[int, ...] = (28, 28)) -> Path:
    arrays = {}
    for seed, (split, rows) in enumerate(of_labels.items()):
        rng = np.random.default_rng(seed)
        arrays[f"{split}_images"] = rng.integers(0, 256, (len(rows), *shape)).astype(np.uint8)
        arrays[f"{split}_labels"] = np.array(rows, dtype=np.uint8)
    np.savez_compressed(path, **arrays)
    return path


def test_medmnist_classes_without_a_finding_are_none_and_pixels_are_the_arrays(tmp_path, cache, labels):
    path = medmnist(tmp_path / "pneumoniamnist.npz", {"train": [[1], [0], [1]], "val": [[0]], "test": [[1]]})
    data = open_source(f"medmnist:{path}")
    assert data.name == "pneumoniamnist"
    assert data.findings == ("pneumonia",)
    assert labels(data, "pneumonia") == [1, 0, 1, 0, 1]
    assert [(record.image, record.split) for record in data.records][2:] == [
        ("train/000002.png", "train"),
        ("val/000000.png", "val"),
        ("test/000000.png", "test"),
    ]
    with np.load(path) as arrays:
        wanted = arrays["train_images"][2]
    assert (read(data.records[2].path).pixels * 255).round().astype(int).tolist() == wanted.tolist()
    assert data.records[0].path.is_relative_to(cache / "medmnist")


def test_medmnist_is_written_once_and_anew_when_the_file_changes(tmp_path, cache, labels):
    rows = {"train": [[0]], "val": [[0]], "test": [[1]]}
    path = medmnist(tmp_path / "breastmnist_64.npz", rows, (64, 64))
    first = load(f"medmnist:{path}")
    assert first.findings == ("malignant",)
    assert labels(first, "malignant") == [1, 1, 0]  # 0 is malignant, 1 is "normal, benign"
    when = first.records[0].path.stat().st_mtime_ns
    assert load(f"medmnist:{path}").records[0].path.stat().st_mtime_ns == when
    medmnist(path, rows | {"train": [[1]]}, (64, 64))
    again = load(f"medmnist:{path}")
    assert labels(again, "malignant") == [0, 1, 0]
    assert again.records[0].path != first.records[0].path


def test_medmnist_several_labels_an_image_and_colours(tmp_path, cache, labels):
    rows = np.zeros((2, 14), dtype=int)
    rows[1, [0, 13]] = 1
    path = medmnist(tmp_path / "chestmnist.npz", {part: rows.tolist() for part in ("train", "val", "test")})
    data = load(f"medmnist:{path}")
    assert data.findings[0] == "atelectasis"
    assert data.findings[13] == "hernia"
    assert data.labels()[1].nonzero()[0].tolist() == [0, 13]
    assert not data.labels()[0].any()
    skin = {part: [[4], [6]] for part in ("train", "val", "test")}
    colours = load(f"medmnist:{medmnist(tmp_path / 'dermamnist.npz', skin, (28, 28, 3))}")
    assert labels(colours, "melanoma") == [1, 0] * 3
    assert read(colours.records[0].path).size_rc == (28, 28)
    grades = load(
        f"medmnist:{medmnist(tmp_path / 'retinamnist.npz', {'train': [[0], [3]], 'val': [[4]], 'test': [[1]]})}"
    )
    assert grades.findings == ("grade 1", "grade 2", "grade 3", "grade 4")
    assert labels(grades, "grade 3") == [0, 1, 0, 0]


def test_medmnist_other_files_are_refused(tmp_path, cache, written):
    good = {"train": [[0]], "val": [[0]], "test": [[1]]}
    with pytest.raises(BadData, match=r"organmnist3d.npz has volumes, not images"):
        load(f"medmnist:{medmnist(tmp_path / 'organmnist3d.npz', good, (28, 28, 28))}")
    with pytest.raises(BadData, match=r"mine.npz is no set of MedMNIST's by its name"):
        load(f"medmnist:{tmp_path / 'mine.npz'}")
    with pytest.raises(BadData, match=r"pneumoniamnist.npz is no file of MedMNIST's: .*No such file"):
        load(f"medmnist:{tmp_path / 'pneumoniamnist.npz'}")
    with pytest.raises(BadData, match=r"train_images \(1, 28, 28, 28\) of uint8 are no images of 8 bits"):
        load(f"medmnist:{medmnist(tmp_path / 'pneumoniamnist.npz', good, (28, 28, 28))}")
    with pytest.raises(BadData, match=r"test_labels \(1, 1\) are not of 2 classes"):
        load(f"medmnist:{medmnist(tmp_path / 'pneumoniamnist.npz', good | {'test': [[2]]})}")
    written(tmp_path / "octmnist.npz", "not a zip")
    with pytest.raises(BadData, match=r"octmnist.npz is no file of MedMNIST's: .*not a zip"):
        load(f"medmnist:{tmp_path / 'octmnist.npz'}")
    with pytest.raises(BadSetting, match=r"Write medmnist:.*octmnist.npz"):
        load(str(tmp_path / "octmnist.npz"))
    assert not list((cache / "medmnist").glob("*/table.csv"))


def test_medmnist_check(tmp_path, cache):
    rows = {"train": [[1], [0]], "val": [[0], [1]], "test": [[1]]}
    report = check(f"medmnist:{medmnist(tmp_path / 'pneumoniamnist_64.npz', rows, (64, 64))}")
    assert kinds(report) == set()
    assert report.ok
