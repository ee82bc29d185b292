"""A benchmark's file: what it comes to, and what is said of one that will not do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from radtag.benchmark import plan
from radtag.benchmark.plan import read_plan
from radtag.benchmark.work import chosen
from radtag.errors import BadSetting
from radtag.models import CLASSIFIERS
from radtag.saliency import Method as Explanation

WHOLE = """
title = "Two methods"
out = "${OUT:-results}"
seeds = [3, 4]
metrics = ["pointing", "auroc"]

[settings]
preset = "small"
size_px = 64
backbone = { name = "test_resnet", channels = 1 }
start_from = "{first}"

[[prepare]]
name = "painted"
act = "plant"
source = "nih14:${NIH14}?fold={fold}"
only = ["train"]
seed = "{fold}"
kinds = ["nodule", "mass"]

[[prepare]]
name = "once"
like = "painted"
source = "folder:healthy"
seed = 9

[[prepare]]
name = "first"
act = "train"
method = "pylon"
source = "csv:{once}"

[[source]]
name = "NIH 14"
spec = "nih14:${NIH14}?fold={fold}"
also = ["csv:{painted}"]
folds = [0, 1]

[[method]]
name = "PYLON"
method = "pylon"
settings = { options.pool = "lse", epochs = 2 }

[[method]]
name = "PYLON, mirrored"
runs_of = "PYLON"
tta = "flip"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIH14", "/data/nih")
    monkeypatch.delenv("OUT", raising=False)
    path = tmp_path / "b.toml"
    path.write_text(WHOLE)
    return path


def test_a_file_is_its_cells(file: Path):
    plan = read_plan(file)
    cells = plan.cells()
    assert [str(cell) for cell in cells[:3]] == [
        "NIH 14, PYLON, fold 0, seed 3",
        "NIH 14, PYLON, fold 0, seed 4",
        "NIH 14, PYLON, fold 1, seed 3",
    ]
    assert len(cells) == 8
    assert plan.folder(cells[0]) == Path("results/cells/NIH_14/PYLON/fold0-seed3")
    assert plan.run_cell(cells[-1]) == cells[3]  # the same fold and seed of the method whose runs are taken


def test_places_are_filled_in(file: Path):
    plan = read_plan(file)
    cell = plan.cells()[2]
    assert plan.filled(cell.source.spec, cell) == "nih14:/data/nih?fold=1"
    assert plan.filled(cell.source.also, cell) == ("csv:results/prepared/painted-fold1/table.csv",)
    settings = plan.method_settings(cell)
    # A step without a fold in it is made once for all folds; the method's settings are on top of the file's.
    assert settings.start_from == "results/prepared/first"  # type: ignore[attr-defined]
    assert (settings.seed, settings.size_px, settings.epochs) == (3, 64, 2)  # type: ignore[attr-defined]
    assert settings.batch_size == 16  # of the preset
    assert plan.needed(plan.content.settings) == ["once", "first"]


def test_a_step_like_another_has_its_values(file: Path):
    painted, once = read_plan(file).content.prepare[:2]
    assert (once.kinds, once.only) == (painted.kinds, painted.only) == (("nodule", "mass"), ("train",))  # type: ignore[union-attr]
    assert (once.source, once.seed) == ("folder:healthy", 9)


def test_out_and_cells_may_be_chosen(file: Path, tmp_path: Path):
    plan = read_plan(file, out=tmp_path / "else")
    assert plan.out == tmp_path / "else"
    assert [str(one) for one in chosen(plan, methods=["PYLON"], folds=["1"], seeds=[4])] == [
        "NIH 14, PYLON, fold 1, seed 4"
    ]
    with pytest.raises(BadSetting, match=r"has no method PYLO\. Did you mean PYLON\?"):
        chosen(plan, methods=["PYLO"])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seeds = [3, 4]", "seed = [3, 4]", "there is no key seed. Did you mean seeds?"),
        ("seeds = [3, 4]", "seeds = [3, 3]", "seeds: a seed is named twice."),
        ('tta = "flip"', 'tta = "flop"', "[[method]] PYLON, mirrored: tta = 'flop': Input should be 'none' or 'flip'"
         ". Did you mean flip?"),
        ('tta = "flip"', 'explain = "gradcam+"', "Did you mean gradcam++?"),
        ('tta = "flip"', "ttaa = 1", "[[method]] PYLON, mirrored: there is no key ttaa. Did you mean tta?"),
        ('tta = "flip"', "train = 1", "[[method]] PYLON, mirrored: there is no key train. Did you mean trained_on?"),
        ('tta = "flip"', "stride = 1", "[[method]] PYLON, mirrored: there is no key stride. Did you mean"),
        ("folds = [0, 1]", "folds = [0, 1]\nsplit_seed = 'x'", "[[source]] NIH 14: split_seed = 'x': Input should be"),
        ("folds = [0, 1]", "folds = [0, 1.5]", "[[source]] NIH 14: folds.1 = 1.5: Input should be"),
        ('method = "pylon"\nsettings', 'method = "pylonn"\nsettings',
         "[[method]] PYLON: method = 'pylonn': there is no method 'pylonn'. Did you mean pylon?"),
        ("epochs = 2", "epoch = 2",
         "[[method]] PYLON (with [settings]): there is no setting epoch. Did you mean epochs?"),
        ("epochs = 2", "epochs = 0", "setting epochs = 0: Input should be greater than or equal to 1."),
        ("epochs = 2", "seed = 2", "[[method]] PYLON (with [settings]): settings.seed is not a setting here."),
        ('channels = 1 }', 'weights = "timm" }', "settings have backbone.weights = 'timm' and start_from"),
        ('metrics = ["pointing"', 'main = "dice"\nmetrics = ["pointing"', "main = 'dice': it is none of metrics."),
        ('"pointing", "auroc"', '"pointing", "aurok"', "metrics: there is no metric 'aurok'. Did you mean auroc?"),
        ('"pointing", "auroc"', '"pointing", "deletion"', "metrics: 'deletion' is not measured unasked. Say of how many"
         " images of each finding, as in faithfulness = 20."),
        ("seeds = [3, 4]", "faithfulness = -1", "faithfulness = -1: Input should be greater than or equal to 0."),
        ("folds = [0, 1]", 'folds = [0, 1]\nby = ["age:x"]', "[[source]] NIH 14: by: age:x: 'x' are no numbers. Write"),
        ("folds = [0, 1]", 'folds = [0, 1]\nby = ["size:0.1"]',
         "[[source]] NIH 14: by: size:0.1: small medium large part at two shares. Write size:0.01,0.05, say."),
        ("folds = [0, 1]", 'folds = [0, 1]\nby = ["age", "age:40"]',
         "[[source]] NIH 14: by: age is grouped by twice; write it once."),
        ("folds = [0, 1]", 'folds = [0, 1]\nby = ["sex", 3]', "[[source]] NIH 14: by.1 = 3: Input should be"),
        ('"pointing", "auroc"]', '"brier"]\n[[source]]\nname = "other"\nspec = "csv:a.csv"\nby = ["size"]',
         "[[source]] other: by = 'size', and groups have none of metrics = brier. Name another there,"),
        ("folds = [0, 1]", "", "[[source]] NIH 14: {fold} is used, and folds is missing."),
        ('spec = "nih14:${NIH14}?fold={fold}"', 'spec = "nih14:${NIH14}"',
         "neither spec, splits nor split_seed says {fold}"),
        ('spec = "nih14:$', 'spec = "nih4:$', "[[source]] NIH 14: spec = "),
        ('also = ["csv:{painted}"]', 'also = ["csv:{paintd}"]',
         "[[source]] NIH 14: {paintd} is no step above it. Did you mean painted?"),
        ('runs_of = "PYLON"', 'runs_of = "CAM"', "[[method]] PYLON, mirrored: runs_of = 'CAM' is no method above it"),
        ('runs_of = "PYLON"', 'runs_of = "PYLON"\nrun = "x"',
         "give one of method, runs_of and run, not runs_of and run."),
        ('name = "PYLON, mirrored"', 'name = "PYLON"', "[[method]] PYLON: another has this name"),
        ('like = "painted"', 'like = "paint"',
         "[[prepare]] once: like = 'paint' is no step above it. Did you mean painted?"),
        ('"nodule", "mass"', '"nodule", "masse"',
         "[[prepare]] painted: kinds: there is no lesion 'masse'. Did you mean mass?"),
        ("${NIH14}?fold={fold}\"\nonly", "${NIH}?fold={fold}\"\nonly",
         "prepare: ${NIH} in 'nih14:${NIH}?fold={fold}' is not set."),
        ("[settings]", "[settings", "is not TOML:"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(file: Path, old: str, new: str, told: str):
    assert old in WHOLE
    file.write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(BadSetting) as refused:
        read_plan(file)
    assert str(refused.value).startswith(str(file))
    assert told in str(refused.value)


def test_insertion_and_deletion_are_numbers_of_the_tables(file: Path):
    def shown(top: str) -> tuple[str, ...]:
        file.write_text(WHOLE.replace('metrics = ["pointing", "auroc"]', top))
        return read_plan(file).content.shown

    assert shown('metrics = ["auroc"]') == ("auroc",)
    assert shown('metrics = ["auroc"]\nmain = "deletion"\nfaithfulness = 5') == ("auroc", "insertion", "deletion")
    assert shown('metrics = ["deletion", "auroc"]\nfaithfulness = 5') == ("deletion", "auroc")


STUDENT = """
[[prepare]]
name = "masks"
act = "tag"
run = "{first}"
source = "nih14:${NIH14}?fold={fold}"

[[method]]
name = "student"
method = "student"
trained_on = "csv:{masks}"
"""


def test_a_student_learns_from_what_a_step_proposed(file: Path):
    text = WHOLE + STUDENT
    text = text.replace('start_from = "{first}"\n', "").replace('preset = "small"', 'preset = "small"\nbatch_size = 4')
    file.write_text(text)
    plan = read_plan(file)
    cell = next(one for one in plan.cells() if one.method.name == "student" and one.fold == "1")
    assert plan.needed(cell.method.trained_on) == ["once", "first", "masks"]
    # Tagged once a fold, whatever the seed.
    assert plan.filled(cell.method.trained_on, cell) == "csv:results/prepared/masks-fold1/table.csv"
    assert plan.filled(plan.steps["masks"].run, cell) == "results/prepared/first"  # type: ignore[union-attr]
    settings = plan.method_settings(cell)
    assert (settings.method, settings.batch_size) == ("student", 4)  # type: ignore[attr-defined]
    for old, new, told in (
        ('run = "{first}"', 'run = "{frist}"', "[[prepare]] masks: {frist} is no step above it. Did you mean first?"),
        ('run = "{first}"\n', "", "[[prepare]] masks: run is missing."),
        ('run = "{first}"', "run = 3", "[[prepare]] masks: run = 3: Input should be a valid string."),
        ('act = "tag"', 'act = "tags"', "[[prepare]] masks: act = 'tags': no step does that. Did you mean tag?"),
        ('act = "tag"\n', "", "[[prepare]] masks: act is missing. Use one of plant, train, tag."),
        ('act = "tag"\n', 'act = "tag"\ntta = "flop"\n', "[[prepare]] masks: tta = 'flop': Input should be 'none' or"),
        (
            'act = "tag"\n',
            'act = "tag"\nexplain_scale = "image"\n',
            "[[prepare]] masks: a layer or a scale of explanations is given, and explain is missing.",
        ),
        ('run = "{first}"', 'runs = "{first}"\nrun = ""', "[[prepare]] masks: there is no key runs. Did you mean run?"),
        ('"csv:{masks}"', '"csv:{mask}"', "[[method]] student: {mask} is no step above it. Did you mean masks?"),
        ('method = "student"\n', 'run = "x"\n', "trained_on is of training, and with run nothing is trained"),
        ('method = "student"\n', 'method = "student"\nsettings = { preset = "small" }\n', "has its defaults alone"),
    ):
        assert old in text
        file.write_text(text.replace(old, new))
        with pytest.raises(BadSetting) as refused:
            read_plan(file)
        assert told in str(refused.value)


@pytest.mark.parametrize(
    ("title", "model"),
    [
        ("At the top", plan.File),
        ("`[[source]]`", plan.Source),
        ("`[[method]]`", plan.Method),
        ('`[[prepare]]` with `act = "plant"`', plan.Plant),
        ('`[[prepare]]` with `act = "train"`', plan.Train),
        ('`[[prepare]]` with `act = "tag"`', plan.Propose),
    ],
)
def test_every_key_is_on_the_page_shared_ones_too(root: Path, title: str, model: type[BaseModel]):
    page = (root / "docs" / "benchmark.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", page.split(f"### {title}\n")[1].split("###")[0], re.MULTILINE)
    assert sorted(key for key, _, _ in rows) == sorted(model.model_fields)
    assert all(text for _, text, _ in rows)
    assert rows[0][0] in ("title", "name")  # a table's own keys come first


def test_the_file_of_chestxray14_is_whole(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NIH14", "nih")
    monkeypatch.setenv("COVID", "covid")
    monkeypatch.setenv("TB", "tb")
    plan = read_plan(root / "runs" / "nih14.toml")
    cells = plan.cells()
    assert {cell.fold for cell in cells} == {"0", "1", "2", "3"}
    cell = next(one for one in cells if one.method.name == "PYLON" and one.fold == "2")
    assert plan.needed(cell.source.model_dump()) == ["lungs", "planted"]
    step = plan.filled(plan.steps["planted"].model_dump(), cell)
    assert (step["source"], step["seed"], step["share"], step["only"]) == ("nih14:nih?fold=2", "2", 0.6, ("train",))
    assert plan.needed(plan.content.settings) == ["covid9", "covid10", "lungs", "tb11", "first"]
    settings = plan.method_settings(cell)
    assert (settings.epochs, settings.lr, settings.batch_size, settings.size_px) == (5, 4e-4, 8, 256)  # type: ignore[attr-defined]
    assert settings.options == {"pool": "lse", "sharpness": 5}


def test_the_file_of_rivals_is_whole(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NIH14", "nih")
    monkeypatch.setenv("COVID", "covid")
    trained = {cell.method.method for cell in read_plan(root / "runs" / "nih14_rivals.toml").cells()}
    assert trained >= set(CLASSIFIERS)


def test_the_file_of_explanations_is_whole(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NIH14", "nih")
    plan = read_plan(root / "runs" / "nih14_explanations.toml")
    explained = {cell.method.explain for cell in plan.cells()}
    assert explained == {None, *get_args(Explanation)} - {"cam"}  # which is the network's own map
    run = plan.filled(plan.cells()[1].method.run, plan.cells()[1])
    assert run == "runs/out/nih14/cells/ChestX-ray14/CAM_average/fold1-seed0/run"
