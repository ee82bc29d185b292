"""The authors' checkpoint, against a second network written from the paper alone."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from radtag.data.seen import SeenImages
from radtag.data.sources.nih14 import FINDINGS
from radtag.data.table import Dataset, Record
from radtag.errors import BadData, BadRun
from radtag.geometry import Grid
from radtag.models import BackboneOptions, build
from radtag.models.checkpoint import read_published_pylon, rename
from radtag.train import published
from radtag.train.published import import_pylon
from radtag.train.run import Run


@pytest.fixture(scope="module")
def shapes(shared: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published file's tensors."""
    with (shared / "pylon_checkpoint_keys.tsv").open() as lines:
        rows = {
            name: tuple(map(int, filter(None, shape.split("x")))) for name, shape in csv.reader(lines, delimiter="\t")
        }
    assert len(rows) == 411
    return rows


@pytest.fixture(scope="module")
def state(shapes) -> dict[str, Tensor]:
    """Random weights of natural size under the published names; no ReLU is dead and no BatchNorm at rest."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(7)
        elif len(shape) == 4:
            fan_in = shape[1] * shape[2] * shape[3]
            tensors[name] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
            if "segmentation_head" in name:
                tensors[name] *= 0.05  # logits of the size of logits, so that 1e-5 is a tolerance of rounding alone
        elif name.endswith("running_var"):
            tensors[name] = torch.rand(shape, generator=generator) + 0.5
        elif name.endswith(("bn3.weight", "downsample.1.weight")):  # keeps the sums of 16 blocks in bounds
            tensors[name] = torch.rand(shape, generator=generator) * 0.3 + 0.2
        elif name.endswith(".weight"):
            tensors[name] = torch.rand(shape, generator=generator) + 0.5
        elif shape == (1,):
            tensors[name] = torch.rand(shape, generator=generator) * 0.5 + 0.5  # the attention's single channels
        else:
            tensors[name] = torch.randn(shape, generator=generator) * 0.1
    return tensors


@pytest.fixture(scope="module")
def checkpoint(state, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("published") / "pylon.pkl"
    torch.save({"net": state, "step": 12, "best": 0.5}, file)
    return file


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        measure = published.measure_grid
        patch.setattr(published, "measure_grid", lambda model, images, passes: measure(model, images[:2], passes=2))
        return import_pylon(checkpoint, tmp_path_factory.mktemp("runs") / "pylon")


class Paper(nn.Module):
    """PYLON as methods and supplement have it, and nothing of radtag in it.

    torchvision's ResNet-50 with a one-channel stem; the decoder as functions on the published tensors, upsampled by a
    fixed factor 2 with corners aligned and pooled in floor mode.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.tensors = {name.removeprefix("net."): value for name, value in state.items()}
        self.encoder = torchvision.models.resnet50(weights=None)
        self.encoder.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.encoder.fc = nn.Identity()
        prefix = "encoder."
        self.encoder.load_state_dict(
            {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}
        )
        self.eval()

    def block(self, x: Tensor, name: str) -> Tensor:
        """Convolution with bias, BatchNorm, ReLU."""
        conv, bn = f"decoder.{name}.conv", f"decoder.{name}.bn"
        weight = self.tensors[f"{conv}.weight"]
        x = F.conv2d(x, weight, self.tensors[f"{conv}.bias"], padding=weight.shape[-1] // 2)
        statistics = [self.tensors[f"{bn}.{which}"] for which in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *statistics))

    def pyramid(self, x: Tensor) -> Tensor:
        x1 = self.block(F.max_pool2d(x, 2), "pa.down1.1")
        x2 = self.block(F.max_pool2d(x1, 2), "pa.down2.1")
        x3 = self.block(F.max_pool2d(x2, 2), "pa.down3.1")
        y = twice(self.block(x3, "pa.conv3")) + self.block(x2, "pa.conv2")
        y = twice(y) + self.block(x1, "pa.conv1")
        self.attention = twice(y)
        return self.attention * self.block(x, "pa.mid.0")

    def up(self, coarser: Tensor, skip: Tensor, name: str) -> Tensor:
        return twice(coarser) + self.block(self.block(skip, f"{name}.conv1.0"), f"{name}.conv1.1")

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        net = self.encoder
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        at4 = net.layer1(x)
        at8 = net.layer2(at4)
        at16 = net.layer3(at8)
        at32 = net.layer4(at16)
        y = self.pyramid(at32)
        y = self.up(y, at16, "up3")
        y = self.up(y, at8, "up2")
        y = self.up(y, at4, "up1")
        maps = F.conv2d(y, self.tensors["segmentation_head.0.weight"], self.tensors["segmentation_head.0.bias"])
        return maps.flatten(2).max(dim=2).values, maps


def twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def test_the_imported_network_gives_the_papers_numbers(run, state):
    paper, ours = Paper(state), run.build_model()
    pixels = torch.randint(0, 256, (1, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    logits, maps = paper((pixels[:, None].float() / 255 - 0.4984) / 0.2483)
    with torch.inference_mode():
        output = ours(run.normalise(pixels))
    assert paper.attention.std() > 1e-3  # the attention says something
    assert 0.2 < maps.std() < 5
    assert output.maps.shape == (1, 14, 64, 64)
    torch.testing.assert_close(output.maps, maps, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.logits, logits, atol=1e-5, rtol=1e-5)


def test_the_run_says_what_it_is(run, checkpoint):
    assert run.findings == FINDINGS
    assert (run.size_px, run.channels, run.mean, run.sd) == (256, 1, 0.4984, 0.2483)
    assert run.settings.options == {"up": "2layer"}
    assert run.card["trained_on"] == "ChestX-ray14, by the authors of PYLON"
    assert run.card["weights_from"] == "published checkpoint pylon.pkl"
    assert run.card["limits"][1].startswith("Not calibrated: scores and maps are plain sigmoids, thresholds are 0.5.")
    assert run.calibration.score_threshold == (0.5,) * 14
    assert run.tile_grid.size_rc == (64, 64)
    with pytest.raises(BadRun, match=r"is a run already\. Give another --out\.$"):
        import_pylon(checkpoint, run.path)


def test_it_can_be_calibrated_on_images_at_hand(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("RADTAG_CACHE", str(tmp_path / "cache"))
    tiles = (Grid.tiles((64, 64), (256, 256)),) * 14
    monkeypatch.setattr(published, "measure_evidence", lambda *measured, looks: tiles)
    random = np.random.default_rng(0)
    records = []
    for i in range(4):
        file = tmp_path / f"{i}.png"
        PIL.Image.fromarray(random.integers(0, 256, (40, 60), dtype=np.uint8)).save(file)
        records.append(Record(file.name, file, (float(i % 2), 1.0), split="val"))
    with pytest.raises(BadData, match=r"^mine has no finding 'Atelectasis'"):
        import_pylon(checkpoint, tmp_path / "none", calibrate_on=Dataset("mine", ("a", "b"), tuple(records)))
    all14 = tuple(Record(r.image, r.path, (r.labels[0],) * 13 + (1.0,), split="val") for r in records)
    calibrated = import_pylon(checkpoint, tmp_path / "run", calibrate_on=Dataset("mine", FINDINGS, all14))
    assert calibrated.card["limits"][1] == "Calibrated on 4 validation images of mine."
    assert any("one class only" in limit for limit in calibrated.card["limits"])
    assert calibrated.calibration.score_bias[0] != 0
    seen = SeenImages.read(tmp_path / "run")
    assert seen is not None
    assert (len(seen.trained_on), len(seen.chosen_on)) == (0, 4)


def test_a_state_dict_alone_or_wrapped_is_taken(state, checkpoint, tmp_path):
    plain = tmp_path / "plain.pt"
    torch.save(state, plain)
    own = build("pylon", 14, BackboneOptions(weights="none"), {}).state_dict()
    for file in (plain, checkpoint):
        read = read_published_pylon(file)
        assert {name: value.shape for name, value in read.items()} == {name: value.shape for name, value in own.items()}
        assert torch.equal(read["head.bias"], state["net.segmentation_head.0.bias"])
        assert torch.equal(read["attention.level2.0.weight"], state["net.decoder.pa.conv2.conv.weight"])
        assert torch.equal(read["up16.skip.1.1.bias"], state["net.decoder.up3.conv1.1.bn.bias"])


def test_the_arxiv_version_of_one_layer_is_renamed_too(shapes):
    """In the "1layer" network a skip is one block, not a sequence of two."""
    one = {}
    for name, shape in shapes.items():
        if ".conv1.0." in name and ".up" in name:
            continue
        if ".up" in name:
            name = name.replace(".conv1.1.", ".conv1.")
        one[name] = torch.zeros(()).expand(shape)
    with torch.device("meta"):
        own = build("pylon", 14, BackboneOptions(weights="none"), {"up": "1layer"}).state_dict()
    renamed = rename(one, "here")
    assert {name: value.shape for name, value in renamed.items()} == {name: value.shape for name, value in own.items()}


def hollow(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors of the right shapes that take no room on disk."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"net.encoder.conv1.weight": (64, 3, 7, 7)}, "size mismatch for backbone.net.conv1.weight"),
        ({"net.segmentation_head.0.bias": (15,)}, "size mismatch for head.bias"),
        ({"net.encoder.fc.weight": (1000, 2048)}, 'Unexpected key(s) in state_dict: "backbone.net.fc.weight"'),
        ({"net.decoder.pa.mid.0.conv.bias": None}, 'Missing key(s) in state_dict: "attention.mid.0.bias"'),
        ({"net.decoder.pa.glob.weight": (3,)}, "'net.decoder.pa.glob.weight' is no tensor of PYLON"),
    ],
)
def test_another_networks_tensors_are_named(shapes, tmp_path, wrong, named):
    file = tmp_path / "other.pt"
    given = {name: shape for name, shape in {**shapes, **wrong}.items() if shape is not None}
    torch.save({"net": hollow(given)}, file)
    with pytest.raises(BadData) as caught:
        import_pylon(file, tmp_path / "run")
    assert str(caught.value).startswith(f"{file}")
    assert named in str(caught.value)
    assert not (tmp_path / "run").exists()


class Malicious:
    """Pickled, it would create a file when loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_malicious_pickle_is_refused_unexecuted(tmp_path):
    victim, file = tmp_path / "victim", tmp_path / "evil.pkl"
    for content in (Malicious(victim), {"net": {"encoder.conv1.weight": torch.zeros(1), "x": Malicious(victim)}}):
        torch.save(content, file)
        with pytest.raises(BadData, match="cannot be loaded without executing code from it") as caught:
            read_published_pylon(file)
        assert str(caught.value).endswith("Give a torch.save of the state dict alone.")
        assert not victim.exists()
    torch.load(file, weights_only=False)
    assert victim.exists()  # it would have


@pytest.mark.parametrize("content", [{}, {"net": {}}, {"model": 3}, [torch.zeros(2)], {"net": {"net": {"a": 1}}}])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    file = tmp_path / "other.pt"
    torch.save(content, file)
    with pytest.raises(BadData, match="holds neither a state dict nor"):
        read_published_pylon(file)


def test_a_file_that_is_absent_or_damaged_is_refused(tmp_path):
    with pytest.raises(BadData, match=r"absent\.pt does not exist\. Give the checkpoint published with the PYLON"):
        read_published_pylon(tmp_path / "absent.pt")
    for content in (b"", b"PK\x03\x04 and no more", b"<html>404</html>", bytes(300), b"junk", b"a list of nothing"):
        (tmp_path / "broken.pt").write_bytes(content)
        with pytest.raises(BadData, match="cannot be loaded"):
            read_published_pylon(tmp_path / "broken.pt")
