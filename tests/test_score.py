"""Maps made by anyone: which files are read, what is refused, and where thresholds may come from."""

from __future__ import annotations

import builtins
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import torch

from radtag.compare import compare
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadSetting, UnreadableImage
from radtag.evaluate import pool
from radtag.images import read
from radtag.mapfiles import MapFolder, read_map, without_ending
from radtag.score import GivenMaps, Scores, choose, ious_at, refuse_scored, score

SIZE = (12, 16)
TRUTH = (slice(2, 6), slice(3, 9))
LABELS = {"a": (1, 0), "b": (0, 1), "c": (1, 1), "d": (0, 0)}
FINDINGS = ("Lung Opacity", "Edema")


def truth() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[TRUTH] = True
    return mask


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Four images of one split; where a finding is present it lies in TRUTH."""
    PIL.Image.fromarray((255 * truth()).astype(np.uint8)).save(tmp_path / "truth.png")
    records = []
    for name, labels in LABELS.items():
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(np.full(SIZE, 40 + ord(name), np.uint8)).save(path)
        masks = {f: tmp_path / "truth.png" for f, label in zip(FINDINGS, labels, strict=True) if label}
        records.append(Record(f"{name}.png", path, labels, patient=f"patient {name}", split="test", masks=masks))
    return Dataset("hand", FINDINGS, tuple(records))


def values(label: float) -> np.ndarray:
    """0.75 on the truth, one false pixel of 0.5, and 0.25 elsewhere; of the healthy 0.25 throughout."""
    map_ = np.full(SIZE, 0.25, np.float32)
    if label:
        map_[TRUTH] = 0.75
        map_[11, 15] = 0.5
    return map_


def write_all(root: Path, write, ending: str) -> Path:
    for name, labels in LABELS.items():
        for finding, label in zip(FINDINGS, labels, strict=True):
            path = root / finding / f"{name}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, values(label))
    return root


def png16(path: Path, map_: np.ndarray) -> None:
    PIL.Image.fromarray(np.rint(map_ * 65535).astype(np.uint16)).save(path)


def nifti(path: Path, map_: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(map_.T, None), path)


def found(result, metric: str, finding: str = "micro") -> float:
    part = result["micro"] if finding == "micro" else result["findings"][finding]
    return part[metric]["value"]


FORMATS = {
    "16 bits": (png16, ".png"),
    "8 bits": (lambda path, m: PIL.Image.fromarray(np.rint(m * 255).astype(np.uint8)).save(path), ".png"),
    "npy": (np.save, ".npy"),
    "npz": (lambda path, m: np.savez(path, map=m, prob=m.max()), ".npz"),
    "nifti": (nifti, ".nii.gz"),
    "pickle": (lambda path, m: path.write_bytes(pickle.dumps({"map": torch.from_numpy(m)[None, None]})), ".pkl"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_holds_the_same_map(tmp_path, kind) -> None:
    write, ending = FORMATS[kind]
    path = tmp_path / f"m{ending}"
    write(path, values(1))
    stored = read_map(path)
    assert stored.values.dtype == np.float32
    np.testing.assert_allclose(stored.values, values(1), atol=0.51 / 255)
    assert stored.score == (0.75 if kind == "npz" else None)


def test_the_result_is_an_evaluation_like_any(dataset, tmp_path) -> None:
    maps = write_all(tmp_path / "maps", png16, ".png")
    result = score(maps, dataset, tmp_path / "one", bootstraps=10, mask=0.4, min_area_px=0)
    assert found(result, "auroc") == 1
    assert found(result, "pointing") == 1
    assert found(result, "poi") == 1
    assert found(result, "precision") == pytest.approx(24 / 25)
    assert found(result, "healthy_marked") == 0
    assert found(result, "pointing_network") is None  # no network was there
    assert (tmp_path / "one" / "report.html").is_file()
    assert result["about"]["run"] == "maps (maps)"
    with pytest.raises(BadSetting, match="holds a result made otherwise"):
        score(maps, dataset, tmp_path / "one", bootstraps=10, mask=0.6, min_area_px=0)
    # A map of another size is stretched, and the two are compared.
    small = write_all(tmp_path / "small", lambda path, m: np.save(path, m[::2, ::2]), ".npy")
    other = score(small, dataset, tmp_path / "two", bootstraps=10, mask=0.6, min_area_px=0)
    assert any("stretched bilinearly" in note for note in other["about"]["notes"])
    assert found(other, "pointing") == 1
    apart = compare(tmp_path / "two", tmp_path / "one", bootstraps=10)
    assert apart["micro"]["precision"]["value"] == pytest.approx(found(other, "precision") - 24 / 25)
    assert pool([tmp_path / "one"], tmp_path / "pooled", bootstraps=0)["micro"]["poi"]["value"] == 1
    # Of the same images without patients, pixels are compared too, by the patients of the first.
    nobody = replace(dataset, records=tuple(replace(one, patient="") for one in dataset.records))
    score(maps, nobody, tmp_path / "three", bootstraps=10, mask=0.4, min_area_px=0)
    again = compare(tmp_path / "one", tmp_path / "three", bootstraps=10)
    assert again["micro"]["pixel_ap"]["value"] == 0
    joined = replace(dataset, records=tuple(replace(one, patient="all of one") for one in dataset.records))
    score(maps, joined, tmp_path / "four", bootstraps=10, mask=0.4, min_area_px=0)
    assert "pixel_ap" not in compare(tmp_path / "one", tmp_path / "four", bootstraps=10)["micro"]  # cannot be divided


def test_names_of_chexlocalize(tmp_path) -> None:
    path = tmp_path / "patient1_study1_view1_frontal_Airspace Opacity_map.pkl"
    path.write_bytes(pickle.dumps({"map": torch.ones(1, 1, 2, 3), "prob": 0.25, "cxr_dims": (3, 2)}))
    folder = MapFolder.open(tmp_path, FINDINGS)
    record = Record("test/patient1/study1/view1_frontal.jpg", Path("x/view1_frontal.jpg"), (1, 0))
    assert folder.files["Lung Opacity"].of(record) == path
    assert folder.files["Lung Opacity"].of(replace(record, image="test/patient2/study1/view1_frontal.jpg")) is None
    assert read_map(path).score == 0.25
    assert read_map(path).values.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_names_with_folders_and_endings() -> None:
    assert without_ending("a/b.c.nii.gz") == "a/b.c"
    assert without_ending("scan.dcm#3") == "scan#3"
    assert without_ending("plain") == "plain"
    assert without_ending("1.2.840.1") == "1.2.840.1"  # a DICOM identifier
    assert without_ending("1.2.840.1.dcm") == "1.2.840.1"


def test_a_map_whose_image_is_called_map_is_found(tmp_path) -> None:
    for name in ("chest_map", "1.2.840.1", "1.2.840.2"):
        (tmp_path / "Edema").mkdir(exist_ok=True)
        png16(tmp_path / "Edema" / f"{name}.png", values(1))
    of = MapFolder.open(tmp_path, FINDINGS).files["Edema"].of
    for image in ("chest_map.png", "1.2.840.1", "1.2.840.2.dcm"):
        path = of(Record(image, Path(image), (0, 1)))
        assert path is not None
        assert path.stem == image.removesuffix(".png").removesuffix(".dcm")


# ---- what is refused -----------------------------------------------------------------------------------------------


class Evil:
    """What runs a command when it is unpickled."""

    def __init__(self, call, *arguments) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("call", [os.system, builtins.eval, torch.load, np.load, getattr])
def test_a_pickle_that_names_a_program_is_refused_and_nothing_runs(tmp_path, monkeypatch, call) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps({"map": Evil(call, "touch ran")}))
    with pytest.raises(UnreadableImage, match=r"which is no data, and nothing of it was run"):
        read_map(path)
    assert not (tmp_path / "ran").exists()


def test_a_tensors_numbers_run_nothing_either(tmp_path, monkeypatch) -> None:
    """torch calls torch.load on the bytes of a storage, which would unpickle anything."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.pkl"
    bytes_ = pickle.dumps(Evil(os.system, "touch ran"), protocol=2)
    path.write_bytes(pickle.dumps({"map": Evil(torch.storage._load_from_bytes, bytes_)}))
    with pytest.raises(UnreadableImage):
        read_map(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("value", [np.ones((2, 3), np.float32), np.ones((2, 3)), torch.ones(2, 3)])
def test_pickles_of_arrays_and_tensors_are_read(tmp_path, protocol, value) -> None:
    path = tmp_path / "m.pickle"
    path.write_bytes(pickle.dumps({"map": value, "prob": np.float64(0.5)}, protocol=protocol))
    assert read_map(path).values.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert read_map(path).score == 0.5


def test_files_that_are_no_map(tmp_path) -> None:
    np.save(tmp_path / "deep.npy", np.zeros((3, 4, 5)))
    np.save(tmp_path / "nan.npy", np.full((2, 2), np.nan))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "colour.png")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    PIL.Image.fromarray(np.array([[0, 65536], [40000, 70000]], np.int32)).save(tmp_path / "long.tif")
    for name, message in {
        "deep.npy": r"its shape is \(3, 4, 5\)",
        "nan.npy": "NaN",
        "object.npy": "cannot be read",
        "colour.png": "colours",
        "torn.png": "cannot be read",
        "long.tif": "it runs from 0 to 70000, beyond 16 bits",
        "map.txt": "its ending",
    }.items():
        with pytest.raises(UnreadableImage, match=message):
            read_map(tmp_path / name)


def test_values_off_the_scale_name_the_two_ways_out(dataset, tmp_path) -> None:
    maps = write_all(tmp_path / "maps", lambda path, m: np.save(path, 8 * m - 4), ".npy")
    with pytest.raises(BadData, match=r"runs from -2 to 2; .*--values sigmoid.*--values image"):
        score(maps, dataset, tmp_path / "out", bootstraps=0)
    image, folder = read(dataset.records[0].path), MapFolder.open(maps, FINDINGS)
    for kind, high, low in (("image", 1, 0), ("sigmoid", 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2)))):
        prediction = GivenMaps(folder, dataset, values=kind).prediction(dataset.records[0], image)
        assert prediction.map(0)[3, 4] == pytest.approx(high)
        assert prediction.map(0)[0, 0] == pytest.approx(low)
    constant = GivenMaps(folder, dataset, values="image").prediction(dataset.records[0], image)
    assert (constant.map(1) == 0).all()  # free of it


def test_missing_maps_are_refused_or_nothing(dataset, tmp_path) -> None:
    maps = write_all(tmp_path / "maps", png16, ".png")
    (maps / "Edema" / "a.png").unlink()
    with pytest.raises(BadData, match=r"1 pair of image and finding has no map.*a\.png, Edema"):
        score(maps, dataset, tmp_path / "out", bootstraps=0)
    given = GivenMaps(MapFolder.open(maps, FINDINGS), dataset, missing="empty")
    assert (given.prediction(dataset.records[0], read(dataset.records[0].path)).map(1) == 0).all()
    assert any("1 pair of image and finding has no map" in note for note in given.notes())


def test_no_map_at_all(dataset, tmp_path) -> None:
    (tmp_path / "maps" / "Mass").mkdir(parents=True)
    with pytest.raises(BadData, match=r"has no map of Lung Opacity, Edema; it has Mass"):
        score(tmp_path / "maps", dataset, tmp_path / "out")


# ---- scores --------------------------------------------------------------------------------------------------------


def test_scores_of_tags_csv_and_of_a_wide_table(dataset, tmp_path) -> None:
    maps = write_all(tmp_path / "maps", png16, ".png")
    wide = tmp_path / "wide.csv"
    wide.write_text("image,Lung Opacity,Edema\na.png,.1,.9\nb.png,.8,.2\nc.png,.1,.2\nd.png,.9,.8\n")
    assert Scores.read(wide, FINDINGS).score["Edema"].of(dataset.records[1]) == 0.2
    long = tmp_path / "tags.csv"
    rows = [f"{name}.png,{f},.2,.1,.3" for name in LABELS for f in FINDINGS]
    long.write_text("image,finding,score,threshold,mask_threshold\n" + "\n".join(rows) + "\n")
    result = score(maps, dataset, tmp_path / "long", bootstraps=0, scores=long, min_area_px=0)
    assert found(result, "sensitivity") == 1  # from .1 on all are positive
    assert found(result, "specificity") == 0
    assert found(result, "precision") == pytest.approx(24 / 25)  # over .3
    assert found(result, "auroc") == 0.5
    wide.write_text("image,Edema\na.png,.9\n")
    with pytest.raises(BadData, match="7 pairs of image and finding have no score"):
        score(maps, dataset, tmp_path / "other", bootstraps=0, scores=wide)
    wide.write_text("image,Edema\na.png,1.9\n")
    with pytest.raises(BadData, match="lies outside 0-1"):
        Scores.read(wide, FINDINGS)


def test_a_score_at_its_threshold_is_positive_however_float32_rounds_it(dataset, tmp_path) -> None:
    maps = write_all(tmp_path / "maps", png16, ".png")
    for number in range(101):
        wide = tmp_path / "wide.csv"
        wide.write_text("image,Lung Opacity,Edema\n" + "".join(f"{n}.png,{number / 100},1\n" for n in LABELS))
        own = Scores.read(wide, FINDINGS)
        given = GivenMaps(MapFolder.open(maps, FINDINGS), dataset, scores=own)
        given.with_thresholds(replace(given.thresholds, score=dict.fromkeys(FINDINGS, number / 100)))
        prediction = given.prediction(dataset.records[0], read(dataset.records[0].path))
        assert given.tags(prediction, "a.png")[0].positive, number
    result = score(maps, dataset, tmp_path / "out", scores=wide, threshold=1.0, measures=["pointing"], bootstraps=0)
    assert found(result, "sensitivity") == 1


def test_masks_that_tags_cut_by_otsu_are_cut_so_again(dataset, tmp_path) -> None:
    maps = write_all(tmp_path / "maps", png16, ".png")
    table = tmp_path / "tags.csv"
    rows = [f"{name}.png,{f},.9,.1,.{3 + i}" for f in FINDINGS for i, name in enumerate(LABELS)]
    table.write_text("image,finding,score,threshold,mask_threshold\n" + "\n".join(rows) + "\n")
    result = score(maps, dataset, tmp_path / "a", bootstraps=0, scores=table, min_area_px=0)
    otsu = score(maps, dataset, tmp_path / "b", bootstraps=0, mask="otsu", min_area_px=0)
    assert found(result, "dice") == found(otsu, "dice")
    assert result["about"]["tagging"]["mask"] == dict.fromkeys(FINDINGS, "otsu")
    assert "of masks Otsu's for each map" in result["about"]["notes"][-1]


def test_a_row_of_scores_never_serves_two_images(dataset, tmp_path) -> None:
    maps = write_all(tmp_path / "maps", png16, ".png")
    for name, finding in ((name, finding) for name in LABELS for finding in FINDINGS):
        (maps / finding / "two").mkdir(exist_ok=True)
        (maps / finding / "two" / f"{name}.png").write_bytes((maps / finding / f"{name}.png").read_bytes())
        (maps / finding / "one").mkdir(exist_ok=True)
        (maps / finding / f"{name}.png").rename(maps / finding / "one" / f"{name}.png")
    twice = tuple(replace(one, image=f"{folder}/{one.image}") for folder in ("one", "two") for one in dataset.records)
    wide = tmp_path / "wide.csv"
    wide.write_text("image,Lung Opacity,Edema\n" + "".join(f"{name}.png,.5,.5\n" for name in LABELS))
    with pytest.raises(BadData, match=r"the row of a has the score of one/a\.png and of two/a\.png\. Name rows as"):
        score(maps, replace(dataset, records=twice), tmp_path / "out", scores=wide)


def test_other_scores_make_another_result(dataset, tmp_path) -> None:
    maps = write_all(tmp_path / "maps", png16, ".png")
    wide = tmp_path / "wide.csv"
    for cell in (".5", ".6"):
        wide.write_text("image,Lung Opacity,Edema\n" + "".join(f"{name}.png,{cell},.5\n" for name in LABELS))
        if cell == ".5":
            score(maps, dataset, tmp_path / "out", scores=wide, measures=["pointing"], bootstraps=0)
    with pytest.raises(BadSetting, match="holds a result made otherwise"):
        score(maps, dataset, tmp_path / "out", scores=wide, measures=["pointing"], bootstraps=0)


def test_of_logits_the_sigmoid_comes_before_they_are_stretched(dataset, tmp_path) -> None:
    logits = np.array([[-4.0, 4.0], [0.0, 8.0]], np.float32)
    maps = write_all(tmp_path / "maps", lambda path, m: np.save(path, logits), ".npy")
    folder, image = MapFolder.open(maps, FINDINGS), read(dataset.records[0].path)
    map_ = GivenMaps(folder, dataset, values="sigmoid").prediction(dataset.records[0], image).map(0)
    by_hand = torch.nn.functional.interpolate(torch.from_numpy(logits).sigmoid()[None, None], SIZE, mode="bilinear")
    np.testing.assert_allclose(map_, by_hand[0, 0].numpy(), atol=1e-6)


# ---- thresholds ----------------------------------------------------------------------------------------------------


def others(dataset: Dataset, tmp_path: Path, **changes) -> Dataset:
    """Validation images: the same maps' names, other files and patients."""
    records = []
    for record in dataset.records:
        path = tmp_path / "val" / record.path.name
        path.parent.mkdir(exist_ok=True)
        if not path.is_file():
            PIL.Image.fromarray(np.full(SIZE, 200 - ord(record.image[0]), np.uint8)).save(path)
        records.append(
            replace(
                record,
                **{"image": f"v/{record.image}", "path": path, "patient": f"v{record.patient}", "split": "val"}
                | changes,
            )
        )
    return replace(dataset, name="others", records=tuple(records))


def test_thresholds_are_chosen_on_validation_images(dataset, tmp_path) -> None:
    maps = write_all(tmp_path / "maps", png16, ".png")
    validation = others(dataset, tmp_path)
    chosen = choose(maps, validation, dataset, FINDINGS)
    assert chosen.mask == dict.fromkeys(FINDINGS, 0.55)  # the false pixel, 32768 of 65535, is out from there on
    assert chosen.score["Edema"] == pytest.approx(0.5, abs=1e-4)  # between .25 and .75
    result = score(maps, dataset, tmp_path / "out", bootstraps=0, validation=(maps, validation), min_area_px=0)
    assert found(result, "dice") == 1
    assert "chosen on others, split val, 4 images" in json.dumps(result["about"])
    with pytest.raises(BadSetting, match="Give one of them"):
        score(maps, dataset, tmp_path / "out", mask=0.5, validation=(maps, validation))


def test_nothing_is_ever_chosen_on_what_is_scored(dataset, tmp_path) -> None:
    validation = others(dataset, tmp_path)
    refuse_scored(validation, dataset)
    first = dataset.records[0]
    copied = tmp_path / "copy.png"
    copied.write_bytes(first.path.read_bytes())
    for changes, message in (
        ({"split": "test"}, "test, which is scored"),
        ({"split": ""}, "no split"),
        ({"patient": first.patient}, "of whom other images are scored"),
        ({"path": first.path}, "v/a.png, which is scored"),
        ({"path": copied}, "a file that is scored under another name"),
    ):
        records = (replace(validation.records[0], **changes), *validation.records[1:])
        with pytest.raises(BadData, match=message):
            choose(tmp_path / "maps", replace(validation, records=records), dataset, FINDINGS)
    same = (replace(validation.records[0], image=first.image), *validation.records[1:])
    with pytest.raises(BadData, match="which is scored"):
        refuse_scored(replace(validation, records=same), dataset)


def test_iou_at_all_thresholds_at_once() -> None:
    rng = np.random.default_rng(0)
    map_, where = rng.random((7, 9), dtype=np.float32).round(1), rng.random((7, 9)) < 0.4
    thresholds = (0.2, 0.5, 0.9)
    for iou, threshold in zip(ious_at(map_, where, thresholds), thresholds, strict=True):
        above = map_ > np.float64(threshold)
        assert iou == pytest.approx((above & where).sum() / (above | where).sum())
