"""Sources of chest X-rays: chexpert, vindr, tbx11k, rsna, siim, covid_radiography and qata_cov19, in small copies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from radtag.data.check import check, check_dataset
from radtag.data.outlines import read_outline
from radtag.data.sources import SOURCES, load, open_source
from radtag.errors import BadData, BadSetting
from radtag.truth import readers_hit, truth_of

NAN = float("nan")


def picture(path: Path, size_rc: tuple[int, int] = (32, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(sum(str(path).encode())).integers(0, 256, size_rc)
    PillowImage.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_a_folder_that_is_none_of_the_set_is_answered_with_what_is_missing(tmp_path):
    for source in ("chexpert", "vindr", "tbx11k", "rsna", "siim", "covid_radiography", "qata_cov19"):
        assert source in SOURCES
        for place in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(BadData, match=rf"{place}.*(Give|has no)"):
                load(f"{source}:{place}")
        with pytest.raises(BadSetting, match=f"source {source} has no option 'fold'"):
            load(f"{source}:{tmp_path}?fold=1")


@pytest.mark.parametrize(
    ("inside", "name"),
    [
        ("valid.csv", "chexpert"),
        ("annotations/annotations_train.csv", "vindr"),
        ("lists/TBX11K_val.txt", "tbx11k"),
        ("stage_2_train_labels.csv", "rsna"),
        ("train-rle.csv", "siim"),
        ("Lung_Opacity/images/a.png", "covid_radiography"),
        ("QaTa-COV19-v2/Test Set/Images/a.png", "qata_cov19"),
    ],
)
def test_a_path_alone_is_answered_with_its_source(tmp_path, inside, name, written):
    written(tmp_path / inside, "")
    with pytest.raises(BadSetting, match=f"Write {name}:"):
        load(str(tmp_path))


# --- CheXpert and CheXlocalize

FINDINGS = (
    "Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,"
    "Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
CHEXPERT = f"Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,{FINDINGS}"
NOTHING = "PVWX6"  # CheXlocalize's own code of an empty mask of 2320 x 2828 pixels


@pytest.fixture
def chexpert(tmp_path, written) -> Path:
    """Three training images of two patients as CheXpert-v1.0-small has them, and two for validation, one outlined."""
    root = tmp_path / "CheXpert-v1.0-small"
    rows = {
        "train": [
            "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,",
            "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Male,87,Frontal,PA,,,-1.0,1.0,,-1.0,,,,,0.0,,1.0,",
            "CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg,Male,83,Lateral,,,,,1.0,,,-1.0,,,,,,,",
        ],
        "valid": [
            "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,"
            "1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
            "CheXpert-v1.0-small/valid/patient64542/study1/view1_frontal.jpg,Male,70,Frontal,PA,0.0,"
            "0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0",
        ],
    }
    for part, lines in rows.items():
        written(root / f"{part}.csv", "\n".join([CHEXPERT, *lines]) + "\n")
        for line in lines:
            picture(tmp_path / line.split(",")[0])
    return root


def test_chexpert_blank_is_unknown_and_no_finding_is_healthy(chexpert, labels):
    data = open_source(f"chexpert:{chexpert}")
    assert data.findings == tuple(FINDINGS.split(","))
    assert labels(data, "Pneumothorax") == [0, None, None, 0, 0]
    assert labels(data, "Edema") == [0, None, None, 0, 0]  # 0 of "No Finding"; uncertain; not mentioned
    assert labels(data, "Lung Opacity") == [0, 1, 1, 1, 0]
    assert labels(data, "Support Devices") == [None, None, None, 0, 1]  # "No Finding" says nothing of a tube
    assert [record.patient for record in data.records][:3] == ["patient00001", "patient00002", "patient00002"]
    assert [record.split for record in load(f"chexpert:{chexpert}").records] == ["train"] * 3 + ["val"] * 2
    assert data.records[0].image == "train/patient00001/study1/view1_frontal.jpg"
    assert data.records[0].path == chexpert / "train/patient00001/study1/view1_frontal.jpg"
    assert dict(data.records[0].attributes) == {"sex": "Female", "age": "68", "view": "AP"}
    assert data.records[2].attributes["view"] == "lateral"
    assert "3 labels of -1 are taken as unknown" in data.notes
    assert "findings that a report does not mention are taken as unknown" in data.notes
    assert "CheXlocalize's gt_segmentations_*.json are not there: there are no outlines" in data.notes


def test_chexpert_policies_and_views(chexpert, labels):
    data = load(f"chexpert:{chexpert}?uncertain=positive&blank=negative&view=frontal")
    assert labels(data, "Edema") == [0, 1, 0, 0]
    assert labels(data, "Pneumonia") == [0, 0, 0, 0]
    assert "1 lateral image is left out" in data.notes
    assert "2 labels of -1 are taken as positive" in data.notes
    assert labels(load(f"chexpert:{chexpert}?uncertain=negative"), "Cardiomegaly") == [0, 0, None, 1, 0]
    with pytest.raises(BadSetting, match="option blank=zero of source chexpert: use unknown or negative"):
        load(f"chexpert:{chexpert}?blank=zero")


def test_chexlocalize_outlines_are_found_beside_it_by_image_and_finding(chexpert, written):
    masks = {
        "Cardiomegaly": {"size": [3, 4], "counts": [5, 4, 3]},
        "Airspace Opacity": {"size": [3, 4], "counts": [11, 1]},  # what Lung Opacity was called in older files
        "Enlarged Cardiomediastinum": {"size": [2320, 2828], "counts": NOTHING},  # labelled positive, not outlined
        "Edema": {"size": [3, 4], "counts": [0, 12]},  # outlined, and not labelled positive
    }
    written(
        chexpert.parent / "CheXlocalize/gt_segmentations_val.json",
        json.dumps({"patient64541_study1_view1_frontal": masks}),
    )
    data = open_source(f"chexpert:{chexpert}")
    outlined = data.records[3]
    assert list(outlined.masks) == ["Cardiomegaly", "Lung Opacity"]
    assert read_outline(outlined.masks["Cardiomegaly"]).tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 0]]
    truth = truth_of(outlined, "Cardiomegaly", (6, 8))  # an image of twice the size: each pixel is four
    assert truth is not None
    assert truth.mask is not None
    assert truth.mask.sum() == 16
    assert [bool(record.masks) for record in data.records] == [False, False, False, True, False]
    assert "1 outline of findings not labelled positive is left out" in data.notes
    assert not any("no outlines" in note for note in data.notes)

    masks["Cardiomegaly"] = {"size": [3, 5], "counts": [5, 4, 3]}
    written(chexpert.parent / "CheXlocalize/gt_segmentations_val.json", json.dumps({"a": masks}))
    with pytest.raises(BadData, match=r"gt_segmentations_val.json, a: run lengths of 12 pixels for a mask of 3 x 5"):
        load(f"chexpert:{chexpert}")


@pytest.fixture
def chexlocalize(tmp_path, written) -> Path:
    """The test part: labels without sex and view, images of half the size that was drawn on, and the four jsons."""
    rows = {
        "patient64741/study1/view1_frontal": "0,1,1,0,0,0,0,0,0,0,0,0,0,1",
        "patient64741/study1/view2_lateral": "0,0,1,0,0,0,0,0,0,0,0,0,0,0",
        "patient64860/study1/view1_frontal": "0,0,1,0,0,0,0,0,0,0,0,0,0,0",
    }
    lines = [f"test/{image}.jpg,{cells}" for image, cells in rows.items()]
    written(tmp_path / "CheXpert/test_labels.csv", "\n".join([f"Path,No Finding,{FINDINGS}", *lines]) + "\n")
    for image in rows:
        picture(tmp_path / f"CheXpert/test/{image}.jpg", (3, 4))
    home = tmp_path / "CheXlocalize"
    empty = {"size": [6, 8], "counts": [48]}
    # Columns 2 and 3, all six rows of them.
    heart = {"Cardiomegaly": {"size": [6, 8], "counts": [12, 12, 24]}, "Airspace Opacity": empty}
    segmented = {"patient64741_study1_view1_frontal": heart, "patient64999_study1_view1_frontal": {}}
    written(home / "gt_segmentations_test.json", json.dumps(segmented))
    contours = {
        "patient64741_study1_view1_frontal": {"img_size": [6, 8], "Cardiomegaly": [[[0, 0], [8, 0], [8, 6]], [[1, 1]]]},
        "patient64741_study1_view2_lateral": {
            "img_size": [6, 8],
            "Cardiomegaly": [
                [[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]],
                [[4.0, 2.0], [8.0, 2.0], [8.0, 6.0], [4.0, 6.0]],
                [[1.0, 1.0], [3.0, 3.0]],  # a line
            ],
        },
        "patient64860_study1_view1_frontal": {"img_size": [6, 8], "Cardiomegaly": [[[0, 0], [4, 0], [4, 6], [0, 6]]]},
    }
    written(home / "gt_annotations_test.json", json.dumps(contours))
    points = {
        "patient64741_study1_view1_frontal": {"Cardiomegaly": [[3.9, 5.9]], "Support Devices": [[1.0, 1.0]]},
        "patient64741_study1_view2_lateral": {"img_size": [6, 8], "Cardiomegaly": [[3.0, 0.5], [3.9, 3.0]]},
    }
    written(home / "hb_salient_pt_test.json", json.dumps(points))
    written(home / "hb_annotations_test.json", "not read")
    return tmp_path


def test_chexlocalize_contours_count_where_there_are_no_segmentations(chexlocalize):
    data = open_source(f"chexpert:{chexlocalize}")
    masks = [read_outline(record.masks["Cardiomegaly"]).astype(int).tolist() for record in data.records]
    assert masks[0] == [[0, 0, 1, 1, 0, 0, 0, 0]] * 6
    assert masks[1] == [[1, 1, 0, 0, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 1, 1, 1, 1]] * 4
    assert masks[2] == [[1, 1, 1, 1, 0, 0, 0, 0]] * 6
    assert list(data.records[0].masks) == ["Cardiomegaly"]
    assert "1 contour of fewer than three points is left out" in data.notes
    assert not any("no outlines" in note for note in data.notes)


def test_chexlocalize_points_are_of_readers_and_are_scored_against_the_truth(chexlocalize):
    data = open_source(f"chexpert:{chexlocalize}")
    assert [dict(record.readers_xy) for record in data.records] == [
        {"Cardiomegaly": ((3.9, 5.9),)},  # where Support Devices are, nobody who drew the truth said
        {"Cardiomegaly": ((3.0, 0.5), (3.9, 3.0))},
        {"Cardiomegaly": ()},  # outlined, and no point was set
    ]
    assert "3 images of CheXlocalize have points of readers, who are scored beside a run" in data.notes
    first = data.records[0]
    assert first.box_frame_rc == (6, 8)
    points = first.readers_in("Cardiomegaly", (3, 4))
    assert points is not None
    assert points.tolist() == [pytest.approx([1.95, 2.95])]
    assert first.readers_in("Edema", (3, 4)) is None
    hits = []
    for record in data.records:
        truth = truth_of(record, "Cardiomegaly", (3, 4))
        assert truth is not None
        hits.append(readers_hit(record, "Cardiomegaly", truth))
    assert hits == [1, 0, 0]  # column 1 of four is columns 2 and 3 of eight

    (chexlocalize / "CheXlocalize/hb_salient_pt_test.json").write_text('{"a": {"Cardiomegaly": [3, 4]}}')
    with pytest.raises(BadData, match=r"hb_salient_pt_test.json, a: .*Get the official file"):
        load(f"chexpert:{chexlocalize}")
    (chexlocalize / "CheXlocalize/hb_salient_pt_test.json").unlink()
    assert [record.readers_xy for record in load(f"chexpert:{chexlocalize}").records] == [{}] * 3
    assert load(f"chexpert:{chexlocalize}").records[0].box_frame_rc is None
    (chexlocalize / "CheXlocalize/gt_annotations_test.json").write_text('{"b": {"Edema": [[[0, 0], [1, 1], [1, 0]]]}}')
    with pytest.raises(BadData, match=r"gt_annotations_test.json, b: 'img_size'"):
        load(f"chexpert:{chexlocalize}")


def test_chexlocalize_test_part_has_other_names_and_fewer_columns(tmp_path, written):
    root = tmp_path / "CheXpert"
    written(
        root / "test_labels.csv",
        f"Path,No Finding,{FINDINGS}\n" + "test/patient64741/study1/view2_lateral.jpg" + ",0" * 14,
    )
    written(
        root / "val_labels.csv",
        f"{CHEXPERT}\nCheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg,M,9,Frontal,AP" + ",0" * 14,
    )
    picture(root / "test/patient64741/study1/view2_lateral.jpg")
    picture(root / "val/patient64541/study1/view1_frontal.jpg")
    data = open_source(f"chexpert:{tmp_path}")
    assert [(record.split, record.attributes["view"]) for record in data.records] == [
        ("val", "AP"),
        ("test", "lateral"),
    ]
    assert not np.nansum(data.labels())


def test_chexpert_cells_that_are_no_labels_are_refused(chexpert):
    path = chexpert / "valid.csv"
    good = path.read_text()
    path.write_text(good.replace("AP,0.0,1.0", "AP,0.0,2.0"))
    with pytest.raises(BadData, match=r"valid.csv line 2, column Enlarged Cardiomediastinum: '2.0' is no label"):
        load(f"chexpert:{chexpert}")
    path.write_text(good.replace("/valid/", "/other/"))
    with pytest.raises(BadData, match=r"valid.csv line 2, column Path: .* is no path of CheXpert"):
        load(f"chexpert:{chexpert}")


# --- VinDr-CXR

VINDR = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"


@pytest.fixture
def vindr(tmp_path, written) -> Path:
    """Kaggle's table, with three readers an image, and its images made smaller; one image more, one less."""
    rows = [
        *(f"50a4,No finding,14,R{reader},,,," for reader in (11, 7, 10)),
        "9a5c,Cardiomegaly,3,R8,100,200,300,400",
        "9a5c,Cardiomegaly,3,R9,120,200,320,400",  # covers 180 of 220 columns: the same thing
        "9a5c,Cardiomegaly,3,R10,110,200,310,400",
        "9a5c,Nodule/Mass,8,R8,10,20,30,40",
        "9a5c,Nodule/Mass,8,R8,12,20,32,40",  # one reader's two boxes are two things
        "9a5c,Nodule/Mass,8,R9,500,20,520,40",  # elsewhere
        "9a5c,Pneumothorax,12,R9,5,5,50,50",  # one of three
        "051f,ILD,5,R8,1,1,2,2",
        "051f,ILD,5,R9,1,1,2,2",
        "051f,No finding,14,R10,,,,",
        "dead,No finding,14,R1,,,,",
    ]
    written(tmp_path / "train.csv", "\n".join([VINDR, *rows]) + "\n")
    written(tmp_path / "train_meta.csv", "image_id,dim0,dim1\n9a5c,2000,1000\n50a4,500,400\n051f,500,400\n")
    for image in ("50a4", "9a5c", "051f"):
        picture(tmp_path / f"train/{image}.png", (64, 64))
    picture(tmp_path / "test/ffff.png")
    return tmp_path


def test_vindr_majority_of_readers_and_boxes_fused_in_the_frame_of_the_original(vindr, labels):
    data = open_source(f"vindr:{vindr}")
    assert len(data.findings) == 14
    assert data.findings[8] == "Nodule/Mass"
    assert [record.image for record in data.records] == ["50a4.dicom", "9a5c.dicom", "051f.dicom"]
    assert data.labels()[0].tolist() == [0.0] * 14  # "No finding" is 0 for all
    assert labels(data, "Cardiomegaly") == [0, 1, 0]
    assert labels(data, "Pneumothorax") == [0, 0, 0]
    assert labels(data, "ILD") == [0, 0, 1]
    heart = data.records[1]
    assert heart.path == vindr / "train/9a5c.png"
    assert heart.box_frame_rc == (2000, 1000)
    assert heart.boxes_xyxy == {
        "Cardiomegaly": ((110, 200, 310, 400),),  # the mean of 100, 120, 110
        "Nodule/Mass": ((10, 20, 30, 40), (12, 20, 32, 40), (500, 20, 520, 40)),
    }
    # By hand: 64 rows of 2000 and 64 columns of 1000.
    assert heart.boxes_in("Cardiomegaly", (64, 64))[0] == pytest.approx([7.04, 6.4, 19.84, 12.8])
    assert "1 box of findings that are not labelled positive is left out" in data.notes
    assert "1 image has no labels and is left out, ffff first" in data.notes
    assert "1 of 4 labelled images has no file and is left out, dead.dicom first" in data.notes
    assert {record.split for record in load(f"vindr:{vindr}").records} == {""}


def test_vindr_other_rules_and_one_reader_alone(vindr, labels):
    assert labels(load(f"vindr:{vindr}?readers=any"), "Pneumothorax") == [0, 1, 0, 0]
    agreed = load(f"vindr:{vindr}?readers=agreed")
    assert labels(agreed, "Pneumothorax") == [0, None, 0, 0]
    assert labels(agreed, "ILD") == [0, 0, None, 0]
    assert labels(agreed, "Cardiomegaly") == [0, 1, 0, 0]
    each = load(f"vindr:{vindr}?boxes=each").records[1]
    assert each.boxes_xyxy["Cardiomegaly"] == ((100, 200, 300, 400), (120, 200, 320, 400), (110, 200, 310, 400))
    alone = open_source(f"vindr:{vindr}?readers=R9")
    assert [record.image for record in alone.records] == ["9a5c.dicom", "051f.dicom"]
    assert alone.records[0].boxes_xyxy == {
        "Cardiomegaly": ((120, 200, 320, 400),),
        "Nodule/Mass": ((500, 20, 520, 40),),
        "Pneumothorax": ((5, 5, 50, 50),),
    }
    assert "2 images that R9 did not read are left out" in alone.notes
    assert "1 image has no labels and is left out, ffff first" in alone.notes
    with pytest.raises(BadSetting, match="option readers=both of source vindr: use majority, any, agreed or a name"):
        load(f"vindr:{vindr}?readers=both")


def test_vindr_sizes_of_originals_may_be_in_the_table_or_nowhere(vindr):
    (vindr / "train_meta.csv").unlink()
    data = open_source(f"vindr:{vindr}")
    assert data.records[1].box_frame_rc is None
    assert any("boxes are taken in the pixels of the images" in note for note in data.notes)
    text = (vindr / "train.csv").read_text().splitlines()
    (vindr / "train.csv").write_text(
        "\n".join([f"{text[0]},width,height", *(f"{line},1000,2000" for line in text[1:])])
    )
    data = open_source(f"vindr:{vindr}")
    assert data.records[1].box_frame_rc == (2000, 1000)
    assert not any("pixels of the images" in note for note in data.notes)


def test_vindr_physionet_has_findings_without_boxes_and_a_consensus_for_testing(tmp_path, written, dicom):
    notes = tmp_path / "annotations"
    written(
        notes / "annotations_train.csv",
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
        "aa,R1,Edema,1,2,3,4\naa,R2,Edema,1,2,3,4\naa,R3,No finding,,,,\n",
    )
    written(
        notes / "annotations_test.csv",
        "image_id,class_name,x_min,y_min,x_max,y_max\nbb,Edema,5,6,7,8\ncc,No finding,,,,\n",
    )
    written(
        notes / "image_labels_train.csv",
        "image_id,rad_id,Edema,COPD,Other diseases,No finding\naa,R1,1,1,0,0\naa,R2,1,0,0,0\naa,R3,0,1,1,1\n",
    )
    written(notes / "image_labels_test.csv", "image_id,COPD,Edema,Other disease,No finding\nbb,0,1,1,0\ncc,0,0,0,1\n")
    for name in ("train/aa", "test/bb", "test/cc"):
        dicom(tmp_path / f"{name}.dicom")
    data = load(f"vindr:{tmp_path}")
    assert data.findings == ("Edema", "COPD", "Other diseases")
    assert data.labels().tolist() == [[1, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert [record.split for record in data.records] == ["train", "test", "test"]
    assert [dict(record.boxes_xyxy) for record in data.records] == [
        {"Edema": ((1, 2, 3, 4),)},
        {"Edema": ((5, 6, 7, 8),)},
        {},
    ]
    assert data.records[0].box_frame_rc is None
    assert data.records[0].path == tmp_path / "train/aa.dicom"
    one = load(f"vindr:{tmp_path}?readers=R3")
    assert one.labels().tolist() == [[0, 1, 1], [1, 0, 1], [0, 0, 0]]  # of the test part the consensus


def test_vindr_a_box_without_area_is_refused(vindr):
    text = (vindr / "train.csv").read_text()
    (vindr / "train.csv").write_text(text.replace("100,200,300,400", "300,200,300,400"))
    with pytest.raises(BadData, match=r"train.csv line 5: a box from 300, 200 to 300, 400"):
        load(f"vindr:{vindr}")


def test_vindr_a_reader_who_read_nothing_and_sizes_that_are_none(vindr):
    with pytest.raises(BadData, match=r"R99 read none of these images; their readers are R1, R10, R11, R7, R8, R9\."):
        load(f"vindr:{vindr}?readers=R99")
    (vindr / "train_meta.csv").write_text("image_id,dim0,dim1\n9a5c,0,1000\n")
    with pytest.raises(BadData, match=r"train_meta.csv line 2: an image of 0 x 1000 pixels"):
        load(f"vindr:{vindr}")


def test_a_table_without_rows_names_no_image(vindr, written):
    written(vindr / "train.csv", VINDR + "\n")
    with pytest.raises(BadData, match=r"^vindr names no image\. "):
        open_source(f"vindr:{vindr}")


# --- TBX11K


@pytest.fixture
def tbx11k(tmp_path, written) -> Path:
    """Two training and four validation images, with boxes in both of the set's formats."""
    written(tmp_path / "lists/TBX11K_train.txt", "health/h0001.png\ntb/tb0003.png\n")
    written(tmp_path / "lists/TBX11K_val.txt", "sick/s0001.png\ntb/tb1199.png\ntb/tb0135.png\nhealth/h0002.png\n")
    written(tmp_path / "lists/all_train.txt", "health/h0001.png\nextra/da+db/train/p1.jpg\n")
    kinds = ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis")
    coco = {
        "categories": [{"id": i, "name": name} for i, name in enumerate(kinds, 1)],
        "images": [
            {"id": i, "file_name": name, "width": 512, "height": 512}
            for i, name in enumerate(("tb/tb0003.png", "tb/tb0135.png"), 1)
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [100.5, 50, 20, 30]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [300, 50, 10, 10]},
            {"id": 3, "image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"id": 4, "image_id": 2, "category_id": 2, "bbox": [5, 6, 7, 8]},
        ],
    }
    for name in ("TBX11K_trainval", "TBX11K_trainval_only_tb"):  # both have the same boxes
        written(tmp_path / f"annotations/json/{name}.json", json.dumps(coco))
    written(
        tmp_path / "annotations/xml/tb0003.xml",
        "<annotation><size><width>2000</width><height>1000</height><depth>1</depth></size>"
        "<object><name>ObsoletePulmonaryTuberculosis</name><difficult>0</difficult>"
        "<bndbox><xmin>1</xmin><ymin>11</ymin><xmax>200</xmax><ymax>60</ymax></bndbox></object></annotation>",
    )
    for image in ("health/h0001", "tb/tb0003", "sick/s0001", "tb/tb1199", "tb/tb0135", "health/h0002"):
        picture(tmp_path / f"imgs/{image}.png", (256, 256))
    return tmp_path


def test_tbx11k_kinds_boxes_and_the_official_lists(tbx11k, labels):
    data = open_source(f"tbx11k:{tbx11k}")
    assert data.findings == ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "sick but non-TB")
    assert [record.image for record in data.records][:2] == ["health/h0001.png", "tb/tb0003.png"]
    assert [record.split for record in data.records] == ["train"] * 2 + ["val"] * 4
    assert labels(data, "ActiveTuberculosis") == [0, 1, 0, None, 1, 0]
    assert labels(data, "ObsoletePulmonaryTuberculosis") == [0, 0, 0, None, 1, 0]
    assert labels(data, "sick but non-TB") == [0, 0, 1, 0, 0, 0]
    boxed = data.records[1]
    assert boxed.boxes_xyxy == {"ActiveTuberculosis": ((100.5, 50, 120.5, 80), (300, 50, 310, 60))}
    assert boxed.boxes_in("ActiveTuberculosis", (256, 256))[1].tolist() == [150, 25, 155, 30]
    assert "1 image of tuberculosis has no box of a known kind, so that its kind is unknown" in data.notes


def test_tbx11k_kinds_together(tbx11k, labels):
    data = load(f"tbx11k:{tbx11k}?kinds=together")
    assert data.findings == ("Tuberculosis", "sick but non-TB")
    assert labels(data, "Tuberculosis") == [0, 1, 0, 1, 1, 0]
    assert data.records[4].boxes_xyxy == {"Tuberculosis": ((1, 2, 4, 6), (5, 6, 12, 14))}


def test_tbx11k_xml_is_in_the_frame_of_the_radiograph(tbx11k):
    for path in (tbx11k / "annotations/json").iterdir():
        path.unlink()
    record = load(f"tbx11k:{tbx11k}").records[1]
    assert record.boxes_xyxy == {"ObsoletePulmonaryTuberculosis": ((0, 10, 200, 60),)}
    assert record.box_frame_rc == (1000, 2000)
    assert record.boxes_in("ObsoletePulmonaryTuberculosis", (100, 100)).tolist() == [[0, 1, 10, 6]]


def test_tbx11k_extra_are_older_sets_whose_names_say_what_they_show(tbx11k, written, labels):
    older = {
        "train": (
            "extra/da+db/train/p1.jpg",
            "extra/da+db/train/nx23.png",
            "extra/mc+shenzhen/train/MCUCXR_0001_0.png",
        ),
        "val": ("extra/mc+shenzhen/val/CHNCXR_0327_1.png", "extra/da+db/val/px4.jpg"),
    }
    own = {"train": ("health/h0001.png", "tb/tb0003.png"), "val": ("sick/s0001.png", "health/h0002.png")}
    for part, images in older.items():
        written(tbx11k / f"lists/all_{part}.txt", "\n".join([*own[part], *images]) + "\n")
        for image in images:
            picture(tbx11k / "imgs" / image, (64, 64))
    data = open_source(f"tbx11k:{tbx11k}?extra=with")
    assert len(data) == 6 + 5
    extra = [record for record in data.records if record.image.startswith("extra/")]
    assert [(record.image, record.split) for record in extra] == [
        *((image, "train") for image in older["train"]),
        *((image, "val") for image in older["val"]),
    ]
    kinds = [[None if np.isnan(label) else label for label in record.labels] for record in extra]
    assert kinds == [[None, None, 0], [0, 0, 0], [0, 0, 0], [None, None, 0], [None, None, 0]]
    names = {record.attributes["set"] for record in extra}
    assert names == {"DA+DB", "Montgomery+Shenzhen"}
    assert data.records[0].attributes["set"] == "TBX11K"
    assert "5 images are of older sets, with labels and without boxes" in data.notes
    assert "4 images of tuberculosis have no box of a known kind, so that its kind is unknown" in data.notes
    together = load(f"tbx11k:{tbx11k}?extra=with&kinds=together")
    assert labels(together, "Tuberculosis") == [0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1]
    assert len(load(f"tbx11k:{tbx11k}").records) == 6
    written(tbx11k / "lists/all_val.txt", "extra/da+db/val/q4.jpg\n")
    with pytest.raises(BadData, match=r"'extra/da\+db/val/q4.jpg' is not in health, sick or tb, nor of extra"):
        load(f"tbx11k:{tbx11k}?extra=with")
    for part in older:
        (tbx11k / f"lists/all_{part}.txt").unlink()
    with pytest.raises(BadData, match=r"lists has no all_train.txt or all_val.txt. Leave out \?extra=with"):
        load(f"tbx11k:{tbx11k}?extra=with")


def test_tbx11k_what_is_not_its_own_is_refused(tbx11k):
    (tbx11k / "annotations/json/TBX11K_trainval.json").write_text('{"images": []}')
    with pytest.raises(BadData, match=r"TBX11K_trainval.json is not COCO's json: KeyError"):
        load(f"tbx11k:{tbx11k}")
    (tbx11k / "annotations/json/TBX11K_trainval.json").write_text("{")
    with pytest.raises(BadData, match=r"TBX11K_trainval.json is no json"):
        load(f"tbx11k:{tbx11k}")
    (tbx11k / "annotations/json/TBX11K_trainval.json").unlink()
    (tbx11k / "lists/TBX11K_val.txt").write_text("extra/a.png")
    with pytest.raises(BadData, match=r"'extra/a.png' is not in health, sick or tb, nor of extra"):
        load(f"tbx11k:{tbx11k}")


# --- RSNA


@pytest.fixture
def rsna(tmp_path, written, dicom) -> Path:
    """Three labelled images, one of two boxes and so of two rows in both tables, and one that has no row."""
    written(
        tmp_path / "stage_2_train_labels.csv",
        "patientId,x,y,width,height,Target\n0004cf,,,,,0\n00436a,264.0,152.0,213.0,379.0,1\n"
        "00436a,562.0,152.0,256.0,453.0,1\n003d8f,,,,,0\n",
    )
    written(
        tmp_path / "stage_2_detailed_class_info.csv",
        "patientId,class\n0004cf,No Lung Opacity / Not Normal\n00436a,Lung Opacity\n00436a,Lung Opacity\n"
        "003d8f,Normal\n",
    )
    for image in ("0004cf", "00436a", "003d8f", "ffffff"):
        dicom(tmp_path / f"stage_2_train_images/{image}.dcm")
    dicom(tmp_path / "stage_2_test_images/0000a1.dcm")
    return tmp_path


def test_rsna_classes_boxes_and_what_has_no_row(rsna):
    data = open_source(f"rsna:{rsna}")
    assert data.findings == ("Lung Opacity", "No Lung Opacity / Not Normal")
    assert [record.image for record in data.records] == ["0004cf.dcm", "00436a.dcm", "003d8f.dcm"]
    assert data.labels().tolist() == [[0, 1], [1, 0], [0, 0]]
    assert data.records[1].boxes_xyxy == {"Lung Opacity": ((264, 152, 477, 531), (562, 152, 818, 605))}
    assert data.records[1].boxes_in("Lung Opacity", (512, 256))[0].tolist() == [66, 76, 119.25, 265.5]
    assert data.records[1].path == rsna / "stage_2_train_images/00436a.dcm"
    assert {record.split for record in load(f"rsna:{rsna}").records} == {""}
    assert "1 image is not in stage_2_train_labels.csv and is left out, ffffff first" in data.notes
    assert any(note.startswith("3 images of unknown patients") for note in data.notes)


@pytest.mark.parametrize("source", ["rsna", "siim"])
def test_what_the_check_of_a_challenge_in_dicom_finds(source, request):
    report = check(f"{source}:{request.getfixturevalue(source)}")
    kinds = {problem.kind for problem in report.problems if not problem.kind.startswith(("one-class", "no-"))}
    # Of rsna a file without a row. Of siim a row without a file; its file without a row is alone in a folder: a note.
    assert kinds == {"rsna": {"images-without-labels"}, "siim": {"labels-without-images"}}[source]
    assert dict(report.sizes_rc) == {(64, 64): {"rsna": 3, "siim": 2}[source]}


def test_rsna_patients_are_those_of_chestxray14_where_the_list_of_originals_is_there(rsna, written):
    originals = [
        {"img_id": "00013774_026.png", "subset_img_id": "0004cf"},
        {"img_id": "00013774_030.png", "subset_img_id": "00436a"},
    ]
    written(rsna / "pneumonia-challenge-dataset-mappings_2018.json", json.dumps(originals))
    data = load(f"rsna:{rsna}")
    assert [record.patient for record in data.records] == ["13774", "13774", ""]
    assert any(note.startswith("1 image of unknown patients") for note in data.notes)


def test_rsna_without_classes_there_is_one_finding_and_a_contradiction_is_refused(rsna):
    path = rsna / "stage_2_detailed_class_info.csv"
    path.write_text(path.read_text().replace("003d8f,Normal", "003d8f,Lung Opacity"))
    with pytest.raises(BadData, match=r"003d8f has 0 boxes in stage_2_train_labels.csv and is 'Lung Opacity' in"):
        load(f"rsna:{rsna}")
    path.unlink()
    data = load(f"rsna:{rsna}")
    assert data.findings == ("Lung Opacity",)
    assert data.labels().tolist() == [[0], [1], [0]]
    assert any("may show another disease" in note for note in data.notes)
    with pytest.raises(BadSetting, match="is not a folder"):
        load(f"rsna:{rsna}?images={rsna / 'none'}")


@pytest.mark.parametrize("originals", [[{"img_id": "00013774_026.png"}], [1], {"img_id": "x"}])
def test_rsna_another_list_of_originals_is_refused(rsna, written, originals):
    written(rsna / "pneumonia-challenge-dataset-mappings_2018.json", json.dumps(originals))
    with pytest.raises(BadData, match=r"mappings_2018.json is no list of subset_img_id and img_id. Get the official"):
        load(f"rsna:{rsna}")


# --- SIIM-ACR


@pytest.fixture
def siim(tmp_path, written, dicom) -> Path:
    """The table with its blanks after commas, two rows for one image, and the deep folders of the download."""
    written(
        tmp_path / "train-rle.csv",
        "ImageId, EncodedPixels\n1.2.3.100,-1\n1.2.3.200, 1025 2 1022 3\n1.2.3.200, 5 1\n1.2.3.300, -1\n",
    )
    for image in ("1.2.3.100", "1.2.3.200", "1.2.3.999"):
        dicom(tmp_path / f"dicom-images-train/9.{image}/8.{image}/{image}.dcm")
    dicom(tmp_path / "dicom-images-test/9/8/1.2.3.7.dcm")
    return tmp_path


def test_siim_relative_runs_down_the_columns_several_rows_an_image(siim, labels):
    data = open_source(f"siim:{siim}")
    assert data.findings == ("Pneumothorax",)
    assert [record.image for record in data.records] == ["1.2.3.100.dcm", "1.2.3.200.dcm"]
    assert labels(data, "Pneumothorax") == [0, 1]
    ill = data.records[1]
    assert ill.path == siim / "dicom-images-train/9.1.2.3.200/8.1.2.3.200/1.2.3.200.dcm"
    mask = read_outline(ill.masks["Pneumothorax"])
    # By hand: pixels 1025 and 1026 are rows 1 and 2 of column 1; 1022 later, at 2049, rows 1-3 of column 2; row 5.
    assert mask.shape == (1024, 1024)
    assert np.argwhere(mask).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2], [3, 2], [5, 0]]  # row, column
    assert "1 image has several outlined areas, taken as one mask" in data.notes
    assert "1 image is not in train-rle.csv and is left out, 1.2.3.999 first" in data.notes
    assert "1 of 3 labelled images has no file and is left out, 1.2.3.300.dcm first" in data.notes


def test_siims_second_table_has_labels_for_the_first_stages_test_images(siim):
    table = (siim / "train-rle.csv").read_text()
    (siim / "stage_2_train.csv").write_text(table.replace("1.2.3.300", "1.2.3.7"))
    data = open_source(f"siim:{siim}")
    assert data.records[-1].path == siim / "dicom-images-test/9/8/1.2.3.7.dcm"
    assert len(data) == 3
    (siim / "stage_2_train.csv").unlink()
    assert len(open_source(f"siim:{siim}")) == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("5", "no pairs"),
        ("", "no pairs"),
        ("a b", "invalid literal"),
        ("1 9999999", "= 1048576. Get the official table"),
        ("1 -2", "-2"),
    ],
)
def test_siim_what_is_no_code_is_refused_with_its_line(siim, code, message):
    (siim / "train-rle.csv").write_text(f"ImageId, EncodedPixels\n1.2.3.100,-1\n1.2.3.200,{code}\n")
    with pytest.raises(BadData, match=f"train-rle.csv line 3, column EncodedPixels: .*{message}"):
        load(f"siim:{siim}")


# --- COVID-19 Radiography Database


def test_covid_radiography_classes_and_lung_masks_of_another_size(tmp_path, written):
    root = tmp_path / "COVID-19_Radiography_Dataset"
    for folder, name in (
        ("COVID", "COVID-1"),
        ("Lung_Opacity", "Lung_Opacity-1"),
        ("Normal", "Normal-1"),
        ("Viral Pneumonia", "Viral Pneumonia-1"),
        ("Other", "x"),
    ):
        picture(root / folder / "images" / f"{name}.png", (299, 299))
        if folder not in ("Normal", "Other"):
            picture(root / folder / "masks" / f"{name}.png", (256, 256))
    written(root / "COVID.metadata.xlsx", "")
    for place in (root, tmp_path):
        data = open_source(f"covid_radiography:{place}")
        assert data.findings == ("COVID", "Lung_Opacity", "Viral Pneumonia")
        assert [record.image for record in data.records] == [
            "COVID/images/COVID-1.png",
            "Lung_Opacity/images/Lung_Opacity-1.png",
            "Normal/images/Normal-1.png",
            "Viral Pneumonia/images/Viral Pneumonia-1.png",
        ]
        assert data.labels().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
        assert data.records[0].lungs == root / "COVID/masks/COVID-1.png"
        assert data.records[2].lungs is None
        assert "1 image has no lung mask" in data.notes
        assert "folders that are no class are left out: Other" in data.notes
    assert "masks-of-odd-size" not in {problem.kind for problem in check_dataset(data).problems}


def test_covid_radiography_first_version_has_images_in_the_class_folder(tmp_path):
    picture(tmp_path / "COVID-19/COVID-19 (1).png")
    picture(tmp_path / "NORMAL/NORMAL (1).png")
    data = load(f"covid_radiography:{tmp_path}")
    assert data.labels().tolist() == [[1, 0, 0], [0, 0, 0]]


# --- QaTa-COV19


@pytest.fixture
def qata(tmp_path) -> Path:
    """Version 2 with a mask missing, version 1, and two control groups."""
    home = tmp_path / "QaTa-COV19"
    for part, names in (("Train Set", ("covid_1", "covid_2")), ("Test Set", ("covid_3",))):
        for name in names:
            picture(home / f"QaTa-COV19-v2/{part}/Images/{name}.png", (224, 224))
            if name != "covid_2":
                picture(home / f"QaTa-COV19-v2/{part}/Ground-truths/mask_{name}.png", (224, 224))
    picture(home / "QaTa-COV19-v1/Images/covid_9.png")
    picture(home / "QaTa-COV19-v1/Ground-truths/mask_covid_9.png")
    picture(home / "Control_Group/Control_Group_I/normal_1.png")
    picture(home / "Control_Group/Control_Group_II/CHESTXRAY-14/x.png")
    return tmp_path


def test_qata_cov19_masks_and_official_parts(qata, labels):
    for place in (qata, qata / "QaTa-COV19", qata / "QaTa-COV19/QaTa-COV19-v2"):
        data = load(f"qata_cov19:{place}")
        assert [(record.image, record.split) for record in data.records] == [
            ("Train Set/Images/covid_1.png", "train"),
            ("Train Set/Images/covid_2.png", "train"),
            ("Test Set/Images/covid_3.png", "test"),
        ]
        assert labels(data, "COVID-19") == [1, 1, 1]
        masks = [record.masks.get("COVID-19") for record in data.records]
        home = qata / "QaTa-COV19/QaTa-COV19-v2"
        assert masks == [
            home / "Train Set/Ground-truths/mask_covid_1.png",
            None,
            home / "Test Set/Ground-truths/mask_covid_3.png",
        ]
        assert "1 COVID-19 image has no infection mask" in data.notes


def test_qata_cov19_with_healthy_images_nothing_is_split(qata, labels):
    data = load(f"qata_cov19:{qata}?control=with")
    assert labels(data, "COVID-19") == [1, 1, 1, 0]
    assert {record.split for record in data.records} == {""}
    assert data.records[-1].image == "Control_Group/Control_Group_I/normal_1.png"
    (qata / "QaTa-COV19/Control_Group/Control_Group_I/normal_1.png").unlink()
    with pytest.raises(BadData, match=r"Control_Group_I has no images of healthy people"):
        load(f"qata_cov19:{qata}?control=with")


def test_qata_cov19_version_1(qata):
    for spec in (f"{qata}?version=1", str(qata / "QaTa-COV19/QaTa-COV19-v1")):
        data = load(f"qata_cov19:{spec}")
        assert [(record.image, record.split) for record in data.records] == [("Images/covid_9.png", "")]
        assert list(data.records[0].masks) == ["COVID-19"]
    with pytest.raises(BadSetting, match="option version=3 of source qata_cov19: use 2 or 1"):
        load(f"qata_cov19:{qata}?version=3")
