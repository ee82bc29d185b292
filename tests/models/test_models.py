"""What every localiser promises: its size to the digit, its shapes, its poolings."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from radtag.errors import BadSetting
from radtag.models import CLASSIFIERS, METHODS, BackboneOptions, Output, build
from radtag.models.output import pool
from radtag.models.pylon import PyramidAttention, halve, resize_like

TINY = BackboneOptions(name="test_resnet", weights="none")
RESNET50 = BackboneOptions(name="resnet50", weights="none")


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("method", "options", "count"),
    [
        ("pylon", {"up": "2layer"}, 25_478_741),
        ("pylon", {"up": "1layer"}, 24_097_109),
        ("cam", {}, 23_530_446),
    ],
)
def test_parameters_are_the_papers_to_the_digit(method, options, count):
    """Table of the PYLON paper: 14 findings, ResNet-50, one channel."""
    with torch.device("meta"):
        assert parameters(build(method, 14, RESNET50, options)) == count


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (128, 160), (32, 32)])
@pytest.mark.parametrize(("method", "stride"), [("pylon", 4), ("cam", 32)])
def test_maps_have_the_methods_stride(method, stride, size):
    torch.manual_seed(0)
    model = build(method, 3, TINY, {}).eval()
    with torch.inference_mode():
        output = model(torch.rand(2, 1, *size))
    assert isinstance(output, Output)
    assert output.maps.shape == (2, 3, size[0] // stride, size[1] // stride)
    assert output.logits.shape == (2, 3)
    assert output.maps.isfinite().all()


@pytest.mark.parametrize("method", list(CLASSIFIERS))
def test_a_models_logit_is_its_pooling_of_its_map(method):
    torch.manual_seed(0)
    for kind in ("max", "avg", "lse"):
        model = build(method, 3, TINY, {"pool": kind, "sharpness": 2.0}).eval()
        with torch.inference_mode():
            output = model(torch.rand(2, 1, 64, 96))
        torch.testing.assert_close(output.logits, pool(output.maps, kind, 2.0))
    assert build("pylon", 1, TINY, {}).options.pool == "max"
    assert build("cam", 1, TINY, {}).options.pool == "avg"


@pytest.mark.parametrize("method", list(METHODS))
def test_an_image_of_a_batch_does_not_know_its_neighbours(method):
    torch.manual_seed(0)
    model = build(method, 2, TINY, {}).eval()
    images = torch.rand(3, 1, 64, 96)
    with torch.inference_mode():
        together = model(images)
        alone = [model(image[None]) for image in images]
    torch.testing.assert_close(together.maps, torch.cat([output.maps for output in alone]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.logits, torch.cat([output.logits for output in alone]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", list(METHODS))
def test_logits_and_maps_are_float32_under_mixed_precision(method):
    model = build(method, 2, TINY, {})
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.rand(2, 1, 64, 64))
    assert output.logits.dtype == output.maps.dtype == torch.float32


def test_poolings_by_hand():
    maps = torch.tensor([[[[0.0, 1.0, 2.0], [3.0, -1.0, 1.0]]]])  # one image, one finding, 2 x 3 cells
    assert pool(maps, "max").tolist() == [[3.0]]
    assert pool(maps, "avg").tolist() == [[1.0]]
    r = 2.0
    by_hand = math.log(sum(math.exp(r * m) for m in (0, 1, 2, 3, -1, 1)) / 6) / r
    assert pool(maps, "lse", r).item() == pytest.approx(by_hand, rel=1e-6)
    assert pool(maps, "lse", 1e-4).item() == pytest.approx(1.0, abs=1e-3)  # towards the mean
    assert pool(maps, "lse", 1e3).item() == pytest.approx(3.0, abs=1e-2)  # towards the maximum, without overflow
    both = torch.stack([maps[0], maps[0] - 5])
    assert pool(both, "max").tolist() == [[3.0], [-2.0]]


def test_an_odd_side_is_halved_and_resized_without_loss_of_the_last_cell():
    x = torch.arange(15.0).reshape(1, 1, 3, 5)
    assert halve(x).tolist() == [[[[6.0, 8.0, 9.0], [11.0, 13.0, 14.0]]]]
    assert resize_like(halve(x), x).shape == x.shape
    assert resize_like(torch.tensor([[[[0.0, 4.0]]]]), torch.zeros(1, 1, 1, 5)).tolist() == [[[[0.0, 1, 2, 3, 4]]]]


def test_attention_without_any_signal_silences_the_map():
    """The attention multiplies, without a sigmoid: where all its levels are 0, so is the product."""
    torch.manual_seed(0)
    attention = PyramidAttention(8, 4).eval()
    x = torch.rand(1, 8, 6, 10)
    assert attention(x).shape == (1, 4, 6, 10)
    for level in (attention.level1, attention.level2, attention.level3):
        nn.init.zeros_(level[0].weight)
        nn.init.constant_(level[0].bias, -1.0)  # ReLU leaves 0
    assert not attention(x).any()
    nn.init.constant_(attention.level3[0].bias, 2.0)  # the deepest level alone reaches every cell, as 2
    scale = 2 / math.sqrt(1 + attention.level3[1].eps)  # BatchNorm at rest
    torch.testing.assert_close(attention(x), scale * attention.mid(x))


def test_first_weights_are_the_papers():
    torch.manual_seed(0)
    model = build("pylon", 5, TINY, {})
    convs = [m for part in (model.attention, model.up4) for m in part.modules() if isinstance(m, nn.Conv2d)]
    for conv in [*convs, model.head]:
        assert not conv.bias.any()
    for conv in convs:
        fan_in = conv.weight[0].numel()
        assert conv.weight.abs().max() <= math.sqrt(6 / fan_in)  # Kaiming-uniform, gain of ReLU
        if conv.weight.numel() > 500:
            assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.1)
    bound = math.sqrt(6 / (128 + 5))  # Xavier-uniform
    assert 0.9 * bound < model.head.weight.abs().max() <= bound


def test_what_cannot_be_built_is_refused():
    with pytest.raises(BadSetting, match=r"^unknown method 'vnet'; use one of pylon, cam"):
        build("vnet", 2, TINY, {})
    with pytest.raises(BadSetting, match=r"^pylon has no setting options\.pooling\. Did you mean options\.pool\?$"):
        build("pylon", 2, TINY, {"pooling": "max"})
    for method, wrong, right in (("guided", "guid", "guide"), ("vagan", "critic_step", "critic_steps")):
        with pytest.raises(
            BadSetting, match=rf"^{method} has no setting options\.{wrong}\. Did you mean options\.{right}\?$"
        ):
            build(method, 2, TINY, {wrong: 1})
    with pytest.raises(BadSetting, match=r"^cam has no setting options\.zzz\. Its settings: pool, sharpness"):
        build("cam", 2, TINY, {"zzz": 1})
    with pytest.raises(BadSetting, match=r"^setting options\.up = '3layer' of pylon: .*'1layer' or '2layer'"):
        build("pylon", 2, TINY, {"up": "3layer"})
    with pytest.raises(BadSetting, match=r"^setting options\.sharpness = 0 of cam: "):
        build("cam", 2, TINY, {"pool": "lse", "sharpness": 0})
