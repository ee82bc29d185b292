"""Sources nih14, covid_qu_ex and folder: small copies of their true layouts, and the real files where they are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from radtag.data.outlines import read_outline
from radtag.data.sources import load, open_source
from radtag.errors import BadData, BadSetting, UnreadableImage

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def picture(path: Path, size_rc: tuple[int, int] = (32, 48), value: int | None = None) -> Path:
    """A gray image of its own, or of one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(str(path).encode())
    pixels = np.random.default_rng(seed).integers(1, 256, size_rc) if value is None else np.full(size_rc, value)
    PillowImage.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def chest(tmp_path) -> Path:
    """Five images of three patients as the official archives unpack: one folder each, the 2020 table, one box."""
    rows = [
        "00000001_000.png,Cardiomegaly|Emphysema,0,1,58,M,PA,2682,2749,0.143,0.143",
        "00000001_001.png,No Finding,1,1,58,M,AP,2682,2749,0.143,0.143",
        "00000002_000.png,Infiltration,0,2,41,F,PA,2500,2048,0.168,0.168",
        "00000003_000.png,Pleural_Thickening|Hernia,0,3,74,F,PA,2500,2048,0.168,0.168",
        "00000004_000.png,Mass,0,4,30,F,PA,2500,2048,0.168,0.168",
    ]
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (tmp_path / "BBox_List_2017.csv").write_text(
        f"{BOX_HEADER}\r\n00000002_000.png,Infiltrate,225.5,128,256,512\r\n00009999_000.png,Mass,1,2,3,4,,,\r\n"
    )
    for number, name in enumerate(("00000001_000", "00000001_001", "00000002_000", "00000003_000"), start=1):
        picture(tmp_path / f"images_{number:03}/images/{name}.png")
    return tmp_path


def test_nih14_labels_patients_and_attributes(chest):
    data = open_source(f"nih14:{chest}")
    assert data.findings[:3] == ("Atelectasis", "Cardiomegaly", "Effusion")
    assert data.findings[-1] == "Hernia"
    present = [{f for f, v in zip(data.findings, r.labels, strict=True) if v == 1} for r in data.records]
    assert present == [{"Cardiomegaly", "Emphysema"}, set(), {"Infiltration"}, {"Pleural_Thickening", "Hernia"}]
    assert not np.isnan(data.labels()).any()
    assert [record.patient for record in data.records] == ["1", "1", "2", "3"]
    assert data.records[2].path == chest / "images_003/images/00000002_000.png"
    assert dict(data.records[0].attributes) == {
        "sex": "M",
        "view": "PA",
        "age": "58",
        "dicom_size_px": "2682 x 2749",
        "dicom_spacing_mm": "0.143 x 0.143",
    }
    assert "1 of 5 labelled images has no file and is left out, 00000004_000.png first" in data.notes
    assert (
        "BBox_List_2017.csv has boxes of 1 image that is not in Data_Entry_2017_v2020.csv, 00009999_000.png first"
        in data.notes
    )


def test_nih14_boxes_are_in_the_frame_of_1024_whatever_the_size_at_hand(chest):
    record = load(f"nih14:{chest}").records[2]
    assert record.box_frame_rc == (1024, 1024)
    assert record.boxes_xyxy == {"Infiltration": ((225.5, 128, 481.5, 640),)}
    # By hand: a 256 x 256 copy is a quarter of the frame; one of 512 rows x 128 columns a half by an eighth.
    assert record.boxes_in("Infiltration", (256, 256)).tolist() == [[56.375, 32, 120.375, 160]]
    assert record.boxes_in("Infiltration", (512, 128)).tolist() == [[28.1875, 64, 60.1875, 320]]
    assert record.boxes_in("Infiltration", (1024, 1024)).tolist() == [[225.5, 128, 481.5, 640]]


def test_nih14_older_table_with_trailing_blanks_and_lettered_ages(chest):
    (chest / "Data_Entry_2017_v2020.csv").unlink()
    rows = [
        "00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.143,",
        "00000001_001.png,No Finding,1,1,018M,M,AP,2682,2749,0.143,0.143,",
        "00000002_000.png,Infiltration,0,2,414Y,F,PA,2500,2048,0.168,0.168,",
        "00000003_000.png,Hernia,0,3,003D,F,PA,2500,2048,0.168,0.168,",
    ]
    (chest / "Data_Entry_2017.csv").write_text("\n".join([HEADER.replace("Gender", "Sex") + ",", *rows]))
    data = load(f"nih14:{chest}")
    assert [record.attributes.get("age") for record in data.records] == ["58", "1", None, "0"]
    assert [record.attributes["sex"] for record in data.records] == ["M", "M", "F", "F"]
    assert "1 age above 120 years is taken as unknown" in data.notes


def test_nih14_images_in_any_folder_and_format(chest, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("small")
    picture(elsewhere / "any/where/00000003_000.jpg")
    picture(elsewhere / "any/00000099_000.jpg")
    data = open_source(f"nih14:{chest}?images={elsewhere}")
    assert [(record.image, record.path) for record in data.records] == [
        ("00000003_000.png", elsewhere / "any/where/00000003_000.jpg")
    ]
    assert "1 image is not in Data_Entry_2017_v2020.csv and is left out, 00000099_000.jpg first" in data.notes


def test_nih14_an_image_in_two_sizes_is_refused(chest):
    picture(chest / "images/00000002_000.png", (8, 8))
    with pytest.raises(BadData, match=r"nih14: 00000002_000 is in .* and in .*. Name the folder to use with \?images="):
        load(f"nih14:{chest}")


def test_nih14_official_lists_are_the_split_and_validation_comes_from_training(chest):
    lists = {
        "train_val_list.txt": "00000001_000.png\n00000001_001.png\n00000003_000.png",
        "test_list.txt": "00000002_000.png",
    }
    for name, text in lists.items():
        (chest / name).write_text(text)
    loaded = load(f"nih14:{chest}")
    assert [record.split for record in loaded.records] == ["train", "train", "test", "train", ""]
    data = open_source(f"nih14:{chest}", seed=4)
    assert data.records[2].split == "test"
    assert data.records[0].split == data.records[1].split  # one patient
    assert {record.split for record in data.records} >= {"train", "test"}
    assert "split: the official one, train_val_list.txt and test_list.txt" in data.notes
    assert data.notes[-1].endswith("drawn by patient, seed 4")


def test_nih14_a_fold_is_the_test_part(chest):
    (chest / "folds.csv").write_text(
        "image,patient,fold\n00000001_000.png,1,0\n00000001_001.png,1,0\n00000002_000.png,2,1\n00000003_000.png,3,2\n"
    )
    loaded = load(f"nih14:{chest}?fold=1")
    assert [record.split for record in loaded.records] == ["train", "train", "test", "train", ""]
    assert {record.split for record in load(f"nih14:{chest}").records} == {""}
    with pytest.raises(BadSetting, match=r"option fold=7 of source nih14: .*folds\.csv has folds 0, 1, 2\. Use"):
        load(f"nih14:{chest}?fold=7")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("Fracture", "'Fracture', which is none of"),
        ("No Finding|Mass", "No Finding stands alone"),
        ("", "'', which is"),
    ],
)
def test_nih14_an_unknown_label_is_refused_by_line(chest, label, message):
    path = chest / "Data_Entry_2017_v2020.csv"
    path.write_text(f"{HEADER}\n00000001_000.png,{label},0,1,58,M,PA,1,1,1,1\n")
    with pytest.raises(BadData) as error:
        load(f"nih14:{chest}")
    assert f"{path} line 2, column Finding Labels: {label!r} has" in str(error.value)
    assert message in str(error.value)


def test_nih14_says_what_it_needs(tmp_path):
    with pytest.raises(BadData, match=r"has neither Data_Entry_2017_v2020\.csv nor Data_Entry_2017\.csv"):
        load(f"nih14:{tmp_path}")


def covid(root: Path, *splits: str, doubled: bool = False) -> Path:
    """Two COVID-19 images (one with a black mask), an other pneumonia and a normal one in each split."""
    part = root / "Infection Segmentation Data"
    part = part / part.name if doubled else part
    for split in splits:
        for folder, names in (
            ("COVID-19", ("covid_1", "covid_2")),
            ("Non-COVID", ("non_COVID (1)",)),
            ("Normal", ("Normal (1)",)),
        ):
            for name in names:
                picture(part / split / folder / "images" / f"{name}.jpg")
                picture(part / split / folder / "lung masks" / f"{name}.png", value=255)
                black = name != "covid_1"  # the official set has black masks beside the other classes too
                picture(part / split / folder / "infection masks" / f"{name}.png", value=0 if black else 255)
    return part


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("given", ["root", "part"])
def test_covid_qu_ex_classes_masks_and_lungs(tmp_path, doubled, given):
    part = covid(tmp_path, "Train", "Val", "Test", doubled=doubled)
    data = open_source(f"covid_qu_ex:{tmp_path if given == 'root' else part}")
    assert data.findings == ("COVID-19", "Non-COVID")
    assert Counter(record.split for record in data.records) == {"train": 4, "val": 4, "test": 4}
    of = {record.image: record for record in data.records if record.split == "val"}
    assert {image.removeprefix("Val/"): record.labels for image, record in of.items()} == {
        "COVID-19/images/covid_1.jpg": (1.0, 0.0),
        "COVID-19/images/covid_2.jpg": (1.0, 0.0),
        "Non-COVID/images/non_COVID (1).jpg": (0.0, 1.0),
        "Normal/images/Normal (1).jpg": (0.0, 0.0),
    }
    assert [record.image for record in of.values() if record.masks] == ["Val/COVID-19/images/covid_1.jpg"]
    infected = of["Val/COVID-19/images/covid_1.jpg"]
    assert infected.masks == {"COVID-19": part / "Val/COVID-19/infection masks/covid_1.png"}
    assert all(
        record.lungs == record.path.parents[1] / "lung masks" / f"{record.path.stem}.png" for record in of.values()
    )
    assert "3 COVID-19 images have an all-black infection mask, taken as no outline" in data.notes


def test_covid_qu_ex_with_the_training_folder_alone_is_drawn(tmp_path):
    covid(tmp_path, "Train")
    assert {record.split for record in load(f"covid_qu_ex:{tmp_path}").records} == {""}
    data = open_source(f"covid_qu_ex:{tmp_path}", seed=9)
    assert "" not in {record.split for record in data.records}
    assert "seed 9" in data.notes[-1]


def test_covid_qu_ex_a_damaged_infection_mask_does_not_stop_the_opening(tmp_path):
    part = covid(tmp_path, "Train", "Val", "Test")
    infection = part / "Train/COVID-19/infection masks/covid_2.png"
    whole = infection.read_bytes()
    at = whole.index(b"IDAT") - 4
    infection.write_bytes(whole[:at] + (9).to_bytes(4, "big") + whole[at + 4 :])  # shorter than it is
    damaged = next(one for one in load(f"covid_qu_ex:{tmp_path}").records if infection in one.masks.values())
    with pytest.raises(UnreadableImage, match=r"covid_2.png"):
        read_outline(damaged.masks["COVID-19"])


def test_covid_qu_ex_lung_part_has_lungs_and_no_outlines(tmp_path):
    covid(tmp_path, "Train", "Val", "Test")
    picture(tmp_path / "Lung Segmentation Data/Test/COVID-19/images/covid_9.png")
    picture(tmp_path / "Lung Segmentation Data/Test/Normal/images/Normal (9).png")
    picture(tmp_path / "Lung Segmentation Data/Test/COVID-19/lung masks/covid_9.png", value=255)
    data = open_source(f"covid_qu_ex:{tmp_path}?part=lung")
    assert [record.labels for record in data.records] == [(1.0, 0.0), (0.0, 0.0)]
    assert [record.lungs is not None for record in data.records] == [True, False]
    assert not any(record.masks for record in data.records)
    assert "1 image has no lung mask" in data.notes


def test_covid_qu_ex_says_what_it_needs(tmp_path):
    with pytest.raises(BadData, match='has no "Infection Segmentation Data" or "Lung Segmentation Data" with Train'):
        load(f"covid_qu_ex:{tmp_path}")
    with pytest.raises(BadSetting, match="part=ct of source covid_qu_ex: use infection or lung"):
        load(f"covid_qu_ex:{tmp_path}?part=ct")


@pytest.mark.parametrize("normal", ["normal", "Healthy", "NEGATIVE", "No Finding", "no_finding"])
def test_folder_classes_are_findings_but_for_the_normal_one(tmp_path, normal):
    for name in (
        "tb/a1.png",
        "tb/deeper/a2.png",
        "pneumonia/b1.png",
        f"{normal}/c1.png",
        "empty/notes.txt",
        "stray.png",
    ):
        picture(tmp_path / name) if name.endswith("png") else (tmp_path / "empty").mkdir()
    (tmp_path / "tb/._a1.png").write_bytes(b"left by macOS")
    data = load(f"folder:{tmp_path}")
    assert data.findings == ("pneumonia", "tb")
    assert {record.image: record.labels for record in data.records} == {
        "tb/a1.png": (0.0, 1.0),
        "tb/deeper/a2.png": (0.0, 1.0),
        "pneumonia/b1.png": (1.0, 0.0),
        f"{normal}/c1.png": (0.0, 0.0),
    }
    assert data.notes == (
        f"an image has the finding of its folder and no other; those in {normal} have none",
        "patients are unknown, each image stands for itself (?patient=REGEX finds them in file names)",
        "folders without images are left out: empty",
        "1 image lies in no class folder and is left out, stray.png first",
    )


def test_folder_with_splits_above_the_classes(tmp_path):
    for name in ("Train/tb/a.png", "valid/tb/a.png", "test/normal/b.png", "test/tb/c.png"):
        picture(tmp_path / name)
    data = load(f"folder:{tmp_path}")
    assert [(record.image, record.split, record.labels) for record in data.records] == [
        ("Train/tb/a.png", "train", (1.0,)),
        ("test/normal/b.png", "test", (0.0,)),
        ("test/tb/c.png", "test", (1.0,)),
        ("valid/tb/a.png", "val", (1.0,)),
    ]
    picture(tmp_path / "extra/tb/d.png")
    with pytest.raises(BadData, match="has folder 'extra' beside those of splits"):
        load(f"folder:{tmp_path}")


def test_folder_patients_from_file_names(tmp_path):
    for name in ("tb/P1_0.png", "tb/P1_1.png", "normal/P2_0.png"):
        picture(tmp_path / name)
    assert [r.patient for r in load(f"folder:{tmp_path}?patient=^P[0-9]+").records] == ["P2", "P1", "P1"]
    assert [r.patient for r in load(f"folder:{tmp_path}?patient=P([0-9]+)_").records] == ["2", "1", "1"]
    with pytest.raises(BadSetting, match=r"patient=\^P1 of source folder finds no patient in 'P2_0.png'"):
        load(f"folder:{tmp_path}?patient=^P1")
    with pytest.raises(BadSetting, match="is no regular expression"):
        load(f"folder:{tmp_path}?patient=(")


def test_folder_takes_dicom_of_any_name_and_says_what_it_leaves_out(tmp_path, dicom):
    for name in ("tb/IM0001", "tb/series/1.2.840.1", "normal/DICOMDIR"):
        dicom(tmp_path / name)
    picture(tmp_path / "normal/a.png")
    for name in ("tb/Thumbs.db", "tb/.DS_Store", "tb/notes.txt", "tb/b.webp"):
        (tmp_path / name).write_bytes(b"no image")
    data = load(f"folder:{tmp_path}")
    assert [record.image for record in data.records] == ["normal/a.png", "tb/IM0001", "tb/series/1.2.840.1"]
    assert data.notes[-1] == "3 files of other kinds than radtag reads are left out, normal/DICOMDIR first"


def test_folder_says_what_it_needs(tmp_path):
    picture(tmp_path / "normal/a.png")
    with pytest.raises(BadData, match=r"has no sub-folder with images of a finding \(it has normal\)"):
        load(f"folder:{tmp_path}")
    with pytest.raises(BadData, match=r"is not a folder\. Give the folder that holds a sub-folder of images"):
        load(f"folder:{tmp_path / 'nowhere'}")


def test_the_real_nih14(shared_data):
    data = load(f"nih14:{shared_data / 'nih14'}")
    assert (len(data), len(set(data.patients()))) == (1504, 1094)
    boxes = Counter(finding for record in data.records for finding, found in record.boxes_xyxy.items() for _ in found)
    assert sum(boxes.values()) == 786
    assert boxes["Infiltration"] == 99
    positive = dict(zip(data.findings, data.labels().sum(axis=0).astype(int), strict=True))
    assert (positive["Pneumonia"], positive["Infiltration"], positive["Hernia"]) == (470, 392, 12)
    assert sum(not any(record.labels) for record in data.records) == 404
    # Every boxed finding is a labelled one.
    at = {finding: i for i, finding in enumerate(data.findings)}
    assert all(record.labels[at[finding]] == 1 for record in data.records for finding in record.boxes_xyxy)


def test_the_real_nih14_boxes_lie_at_the_same_place_at_both_sizes(shared_data):
    small = {r.image: r for r in load(f"nih14:{shared_data / 'nih14'}").records}
    full = open_source(f"nih14:{shared_data / 'nih14'}?images={shared_data / 'nih14_1024'}")
    assert len(full) == 24
    for record in full.records:
        with PillowImage.open(record.path) as image:
            assert image.size == (1024, 1024)
        for finding in record.boxes_xyxy:
            at_256 = small[record.image].boxes_in(finding, (256, 256))
            np.testing.assert_allclose(record.boxes_in(finding, (1024, 1024)), at_256 * 4)
            assert (at_256 >= 0).all()
            assert (at_256 <= 256).all()
    # By hand: the list says x 225.08, y 547.02, w 86.78, h 79.19 at 1024.
    box = small["00013118_008.png"].boxes_in("Atelectasis", (256, 256))[0]
    np.testing.assert_allclose(box, [56.2712, 136.7548, 77.9661, 156.5514], atol=1e-4)


def test_the_real_nih14_fold_has_no_patient_in_two_splits(shared_data):
    data = open_source(f"nih14:{shared_data / 'nih14'}?fold=2", seed=1)
    counts = Counter(record.split for record in data.records)
    assert counts["test"] == 376
    assert counts["val"] == pytest.approx(0.15 * 1128, abs=25)
    assert len({(record.patient, record.split) for record in data.records}) == 1094


def test_the_real_covid_qu_ex(shared_data):
    data = open_source(f"covid_qu_ex:{shared_data / 'covid_qu_ex'}")
    assert Counter(record.labels for record in data.records) == {(1.0, 0.0): 1864, (0.0, 1.0): 932, (0.0, 0.0): 932}
    assert sum(bool(record.masks) for record in data.records) == 1864
    assert all(record.lungs is not None for record in data.records)
    assert {record.split for record in data.records} == {"train", "val", "test"}


def test_the_real_tb_folder(shared_data):
    data = open_source(f"folder:{shared_data / 'tb'}")
    assert data.findings == ("tuberculosis",)
    assert Counter(record.labels for record in data.records) == {(0.0,): 284, (1.0,): 218}
