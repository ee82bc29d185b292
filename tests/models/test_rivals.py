"""PYLON's rivals: the package's networks to the bit where they should be, and otherwise where they say so."""

from __future__ import annotations

import math
import re

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from radtag.errors import BadSetting
from radtag.models import BackboneOptions, build
from radtag.models.backbone import Backbone, load_weights
from radtag.models.folded import folded
from radtag.models.li2018 import any_patch
from radtag.train import classify

TINY = BackboneOptions(name="test_resnet", weights="none")
RESNET50 = BackboneOptions(name="resnet50", weights="none")
SEGMENTERS = ["unet", "fpn", "deeplabv3plus", "pan"]
RIVALS = ["li2018", *SEGMENTERS]
# What each is called in the package, with what the PYLON paper changed.
PACKAGE = {
    "unet": {"decoder_channels": (256, 128, 64, 64, 64)},
    "fpn": {"upsampling": 1, "decoder_dropout": 0.0},
    "deeplabv3plus": {"upsampling": 1},
    "pan": {"upsampling": 1, "decoder_channels": 128, "encoder_output_stride": 32},
}
AS_PACKAGED = {"fpn": {"norm": "groupnorm"}}


def packaged(method: str, backbone: BackboneOptions, findings: int) -> nn.Module:
    return smp.create_model(
        method,
        encoder_name=f"tu-{backbone.name}",
        encoder_weights=None,
        in_channels=backbone.channels,
        classes=findings,
        **PACKAGE[method],
    )


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def small(method: str, findings: int = 2, **options) -> nn.Module:
    torch.manual_seed(0)
    return build(method, findings, TINY, options, 64)


@pytest.mark.parametrize(
    ("method", "options", "count"),
    [
        ("li2018", {}, 32_947_662),
        ("unet", {}, 32_654_414),
        ("fpn", {}, 26_111_438),
        ("fpn", {"norm": "groupnorm"}, 26_111_438),
        ("deeplabv3plus", {}, 26_674_654),
        ("deeplabv3plus", {"average_branch": "without"}, 26_084_318),
        ("pan", {}, 26_259_285),
        ("pan", {"average_branch": "without"}, 25_946_453),
    ],
)
def test_parameters_of_a_full_network(method, options, count):
    """14 findings, ResNet-50, one channel. The package's own networks have as many, where they are the same."""
    with torch.device("meta"):
        assert parameters(build(method, 14, RESNET50, options)) == count
        if options == AS_PACKAGED.get(method, {}) and method in PACKAGE:
            assert parameters(packaged(method, RESNET50, 14)) == count


def in_our_order(method: str, theirs: nn.Module, ours: nn.Module) -> dict[str, torch.Tensor]:
    """The package's weights under our names: by their order, or for PAN's attention by their place in the paper."""
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("decoder.fpa.")}
    own = [name for name in ours.state_dict() if not name.startswith("decoder.fpa.")]
    renamed = dict(zip(own, state.values(), strict=True))
    if method == "pan":
        fpa = theirs.decoder.fpa
        places = {
            "attention.mid": fpa.mid[0],
            "attention.down1": fpa.down1[1],
            "attention.down2": fpa.down2[1],
            "attention.down3": fpa.down3[1],
            "attention.level3": fpa.down3[2],
            "attention.level2": fpa.conv2,
            "attention.level1": fpa.conv1,
            "average.1": fpa.branch1[1],
        }
        for place, block in places.items():
            for at, part in (("0", block.conv), ("1", block.bn)):
                renamed |= {f"decoder.fpa.{place}.{at}.{name}": one for name, one in part.state_dict().items()}
    return renamed


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", SEGMENTERS)
def test_the_map_is_the_packages(method, channels):
    """segmentation_models_pytorch with the same weights is the oracle, at 256 px, where it takes all of them."""
    torch.manual_seed(0)
    backbone = TINY.model_copy(update={"channels": channels})
    theirs = packaged(method, backbone, 3)
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    ours = build(method, 3, backbone, AS_PACKAGED.get(method, {}), 256)
    ours.load_state_dict(in_our_order(method, theirs, ours))
    images = torch.randn(1, channels, 256, 256)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images).maps, theirs.eval()(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (96, 96), (160, 160), (64, 96)])
@pytest.mark.parametrize(("method", "stride"), [("unet", 1), ("fpn", 4), ("deeplabv3plus", 4), ("pan", 4)])
def test_maps_have_the_methods_stride(method, stride, size):
    model = small(method).eval()
    with torch.inference_mode():
        output = model(torch.rand(2, 1, *size))
    assert output.maps.shape == (2, 2, size[0] // stride, size[1] // stride)
    assert output.maps.isfinite().all()
    torch.testing.assert_close(output.logits, output.maps.amax(dim=(2, 3)))  # the paper's pooling is the default


@pytest.mark.parametrize("size", [32, 64, 160])
def test_a_grid_of_patches_has_its_own_size(size):
    with torch.inference_mode():
        assert small("li2018").eval()(torch.rand(1, 1, size, size)).maps.shape == (1, 2, 20, 20)
        assert small("li2018", grid=7).eval()(torch.rand(1, 1, size, size)).maps.shape == (1, 2, 7, 7)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((method, {}) for method in RIVALS),
        ("fpn", {"norm": "groupnorm"}),
        ("deeplabv3plus", {"average_branch": "without", "output_stride": 8}),
        ("pan", {"average_branch": "without"}),
    ],
)
def test_a_gradient_reaches_every_parameter(method, options):
    model = small(method, pool="avg", **options).train()
    model(torch.randn(4, 1, 96, 96)).maps.square().mean().backward()
    assert [name for name, one in model.named_parameters() if one.grad is None] == []
    still = [name for name, one in model.named_parameters() if not one.grad.any()]
    # A bias before a BatchNorm is taken out by it. timm's ResNets begin with blocks that add nothing: a BatchNorm of
    # factor 0, which learns first.
    blocks = r"backbone\.net\.layer\d\.\d\."
    assert [name for name in still if not re.match(rf"{blocks}|.*\.bias$", name)] == []
    assert model.backbone.net.conv1[0].weight.grad.any()


# What every cell knows ------------------------------------------------------------------------------------------------


def changed(network: nn.Module, *features: torch.Tensor) -> torch.Tensor:
    """(row, col) which cells of the output change when a corner of the last feature does, with all weights positive."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):  # so that no ReLU hides a change
            layer.weight.data.abs_()
    touched = features[-1].clone()
    touched[..., 0, 0] += 100
    with torch.inference_mode():
        before = network(*(one.clone() for one in features))
        after = network(*(one.clone() for one in features[:-1]), touched)
    return ((before - after).abs() > 1e-6 * before.abs()).flatten(0, 1).any(dim=0)


class OfList(nn.Module):
    """A decoder that takes its features one by one."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        return self.decoder(list(features))


@pytest.mark.parametrize("branch", ["with", "without"])
def test_without_its_average_branch_deeplab_does_not_see_a_far_corner(branch):
    """Its rates of 12, 24 and 36 reach 37 cells of the coarsest feature, with the convolution after them."""
    model = small("deeplabv3plus", average_branch=branch, decoder_channels=4).eval()
    at4, at16 = (torch.rand(1, model.backbone.channels[at], side, side) for at, side in ((1, 224), (3, 56)))
    unused = torch.empty(1, 1, 0, 0)
    seen = changed(OfList(model.decoder), unused, unused, at4, at16)
    assert seen[0, 0]
    assert seen[4 * 36, 4 * 36]
    assert bool(seen[-1, -1]) == (branch == "with")
    assert sum(isinstance(one, nn.AdaptiveAvgPool2d) for one in model.modules()) == (branch == "with")


@pytest.mark.parametrize("branch", ["with", "without"])
def test_without_its_averages_pan_does_not_see_a_far_corner(branch):
    """The attention's coarsest level has cells of 8, and reaches 2 of them; a step up reaches 1 of its own."""
    model = small("pan", average_branch=branch, decoder_channels=4).eval()
    attention = changed(model.decoder.fpa, torch.rand(1, model.backbone.channels[-1], 120, 120))
    assert attention[0, 0]
    assert attention[16, 16]
    assert bool(attention[-1, -1]) == (branch == "with")
    for up, channels in zip(("gau1", "gau2", "gau3"), model.backbone.channels[1:], strict=False):
        finer, coarser = torch.rand(1, channels, 16, 16), torch.rand(1, 4, 8, 8)
        seen = changed(model.decoder.get_submodule(up), finer, coarser)
        assert seen[0, 0]
        assert bool(seen[-1, -1]) == (branch == "with")
    averages = sum(isinstance(one, nn.AdaptiveAvgPool2d) for one in model.modules())
    assert averages == (4 if branch == "with" else 0)


@pytest.mark.parametrize("norm", ["batchnorm", "groupnorm"])
def test_groupnorm_lets_a_cell_know_of_every_other(norm):
    model = small("fpn", norm=norm, decoder_channels=64).eval()
    kinds = [type(one) for one in model.decoder.modules() if isinstance(one, nn.BatchNorm2d | nn.GroupNorm)]
    assert kinds == [{"batchnorm": nn.BatchNorm2d, "groupnorm": nn.GroupNorm}[norm]] * 7
    assert all(one.num_groups == 32 for one in model.decoder.modules() if isinstance(one, nn.GroupNorm))
    torch.manual_seed(1)
    features = [torch.rand(1, channels, 96 // stride, 96 // stride) for stride, channels in pairs_of(model)]
    seen = changed(OfList(model.decoder), *features)
    assert seen[0, 0]
    assert bool(seen[64:, 64:].any()) == (norm == "groupnorm")


def pairs_of(model: nn.Module) -> list[tuple[int, int]]:
    """Stride, in cells of the finest feature that is used, and channels of the last four features."""
    return list(zip((1, 2, 4, 8), model.backbone.channels[-4:], strict=True))


def test_dropout_is_what_was_asked_for():
    assert small("deeplabv3plus").decoder.aspp[0].project[3].p == 0.5
    assert small("deeplabv3plus", dropout=0.1).decoder.aspp[0].project[3].p == 0.1
    assert small("fpn").decoder.dropout.p == 0
    assert small("fpn", dropout=0.2).decoder.dropout.p == 0.2


def test_the_encoder_is_dilated_to_the_stride_asked_for():
    images = torch.rand(1, 1, 96, 96)
    for stride, shapes in ((16, [48, 24, 12, 6]), (8, [48, 24, 12])):
        model = small("deeplabv3plus", output_stride=stride, rates=[2, 4, 6]).eval()
        assert model.backbone.strides == [2, 4, 8, 16][: len(shapes)]
        with torch.inference_mode():
            assert [one.shape[-1] for one in model.backbone(images)] == shapes
            assert model(images).maps.shape[-2:] == (24, 24)
        dilations = [branch[0][0].dilation for branch in list(model.decoder.aspp[0].convs)[1:4]]
        assert dilations == [(2, 2), (4, 4), (6, 6)]
    # Dilation adds no weight: those of any other method's encoder fit.
    plain = Backbone(TINY)
    assert {name: one.shape for name, one in model.backbone.state_dict().items()} == {
        name: one.shape for name, one in plain.state_dict().items()
    }


# One patch that shows it ----------------------------------------------------------------------------------------------


def direct(maps: torch.Tensor, floor: float) -> torch.Tensor:
    """The paper's product, in float64."""
    p = maps.double().sigmoid().flatten(2)
    none = (floor + (1 - floor) * (1 - p)).prod(dim=2)
    return torch.log1p(-none) - none.log()


@pytest.mark.parametrize("floor", [0.98, 0.5, 0.001])
def test_the_product_over_patches(floor):
    torch.manual_seed(0)
    maps = torch.randn(4, 3, 5, 7) * torch.tensor([0.1, 2.0, 5.0])[:, None, None] - 2
    torch.testing.assert_close(any_patch(maps, floor).double(), direct(maps, floor), atol=2e-5, rtol=1e-5)


def test_the_product_by_hand():
    maps = torch.tensor([[[[0.0, math.log(3)]]]])  # p = 1/2 and 3/4
    no = (0.9 + 0.1 / 2) * (0.9 + 0.1 / 4)
    assert any_patch(maps, 0.9).item() == pytest.approx(math.log((1 - no) / no), rel=1e-6)
    sure = torch.full((1, 1, 20, 20), 50.0)
    assert any_patch(sure).sigmoid().item() == pytest.approx(1 - 0.98**400, abs=1e-6)
    one = torch.full((1, 1, 20, 20), -50.0)
    one[0, 0, 3, 4] = 50
    assert any_patch(one).sigmoid().item() == pytest.approx(0.02, rel=1e-5)


@pytest.mark.parametrize("logit", [-1000.0, -90.0, -30.0, 0.0, 30.0, 90.0, 1000.0])
@pytest.mark.parametrize("floor", [0.98, 0.001])
def test_the_product_neither_overflows_nor_loses_its_gradient(logit, floor):
    maps = torch.full((1, 1, 20, 20), logit, requires_grad=True)
    image = any_patch(maps, floor)
    image.sum().backward()
    assert image.isfinite().all()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    if logit < 0:  # a sum of small chances: log(400 x 0.02 e^logit), whose derivative is shared by the patches
        assert image.item() == pytest.approx(math.log(400 * (1 - floor)) + logit, rel=1e-4)
        torch.testing.assert_close(maps.grad, torch.full_like(maps, 1 / 400), atol=1e-7, rtol=1e-3)


def test_the_gradient_is_that_of_the_product():
    torch.manual_seed(0)
    maps = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(any_patch(maps, 0.98).square().sum(), maps)
    (theirs,) = torch.autograd.grad(direct(maps, 0.98).square().sum(), maps)
    torch.testing.assert_close(ours, theirs)


def test_li2018s_logit_is_its_product():
    model = small("li2018", floor=0.9).eval()
    with torch.inference_mode():
        output = model(torch.rand(2, 1, 64, 64))
    torch.testing.assert_close(output.logits.double(), direct(output.maps, 0.9), atol=1e-5, rtol=1e-5)


# Everything else goes on as with the others ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", RIVALS)
def test_a_head_can_start_at_the_findings_frequencies(method):
    model = small(method, **({"dropout": 0.0} if method == "deeplabv3plus" else {}))
    labels = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 0.0]] * 57)
    images = torch.randn(6, 1, 64, 64)
    classify._start_at_prior(model, images, labels, {"head": torch.tensor([True, True])})
    frequency = torch.tensor([3.5 / 61, 0.5 / 61])
    torch.testing.assert_close(model.train()(images).logits.mean(dim=0), frequency.logit(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("method", RIVALS)
def test_folding_for_tagging_keeps_what_it_says(method):
    model, images = small(method), torch.randn(4, 1, 64, 64)
    with torch.no_grad():
        model.train()(images)  # statistics that a fold must not lose
        model.eval()
        cheaper = folded(model, images)
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in cheaper.modules())
        torch.testing.assert_close(cheaper(images).maps, model(images).maps, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", RIVALS)
def test_the_encoder_is_the_one_of_every_other_method(method, tmp_path):
    """Its names begin with ``backbone.``, for its own learning rate and for starts from other runs; its weights fit."""
    torch.manual_seed(1)
    full = timm.create_model("test_resnet", in_chans=3)
    save_file(full.state_dict(), tmp_path / "weights.safetensors")
    options = TINY.model_copy(update={"weights": str(tmp_path / "weights.safetensors")})
    model, plain = build(method, 2, options, {}, 64), build("pylon", 2, options, {}, 64)
    for one in (model, plain):
        assert load_weights(one.backbone, options).startswith("file weights.safetensors")
    given = {name: value for name, value in plain.state_dict().items() if name.startswith("backbone.")}
    own = {name: value for name, value in model.state_dict().items() if name.startswith("backbone.")}
    assert given.keys() == own.keys()
    assert all(torch.equal(given[name], own[name]) for name in given)


@pytest.mark.parametrize("method", ["unet", "fpn", "pan"])
def test_an_encoder_without_a_feature_of_stride_2_will_do(method):
    torch.manual_seed(0)
    model = build(method, 2, BackboneOptions(name="test_convnext", weights="none"), {}, 64).eval()
    assert model.backbone.strides == [4, 8, 16, 32]
    with torch.inference_mode():
        assert model(torch.rand(1, 1, 64, 64)).maps.isfinite().all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(BadSetting, match=r"^test_vit has features at strides .* strides \[4, 8, 16, 32\] are needed"):
        build("unet", 2, BackboneOptions(name="test_vit", weights="none"), {}, 160)
    with pytest.raises(BadSetting, match=r"^swin_tiny_\S+ gives no feature maps of stride 16 \("):
        build("deeplabv3plus", 2, BackboneOptions(name="swin_tiny_patch4_window7_224", weights="none"), {}, 224)
    with pytest.raises(BadSetting, match=r"^fpn has no setting options\.norms\. Did you mean options\.norm\?$"):
        small("fpn", norms="batchnorm")
    with pytest.raises(BadSetting, match=r"options\.norm = 'layernorm' of fpn: .*'batchnorm' or 'groupnorm'"):
        small("fpn", norm="layernorm")
    with pytest.raises(BadSetting, match=r"options\.decoder_channels = 40 of fpn: .*multiple of 32"):
        small("fpn", decoder_channels=40)
    with pytest.raises(BadSetting, match=r"options\.average_branch = 'no' of pan: .*'with' or 'without'"):
        small("pan", average_branch="no")
    with pytest.raises(BadSetting, match=r"options\.floor = 0 of li2018: "):
        small("li2018", floor=0)
    with pytest.raises(BadSetting, match=r"options\.output_stride = 32 of deeplabv3plus: .*8 or 16"):
        small("deeplabv3plus", output_stride=32)
