"""Folding a network for tagging: the same answers, fewer layers; and where they would not be the same, no folding."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from radtag.models import BackboneOptions, Output, build
from radtag.models.folded import folded


def trained(model: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """With statistics, factors and offsets that a fold must not lose."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    with torch.no_grad():
        model.train()(inputs)
    return model.eval()


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(layer, kind) for layer in model.modules())


def largest_difference(one: Output, other: Output) -> float:
    pairs = ((one.logits, other.logits), (one.maps, other.maps))
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1)) for a, b in pairs)


@pytest.mark.parametrize(
    ("method", "options", "backbone", "size_px"),
    [
        ("pylon", {}, "tf_efficientnet_lite0", 96),  # "same" padding, activations within BatchNorm
        ("cam", {}, "tf_mobilenetv3_small_minimal_100", 97),  # an odd side, where the padding is another
        ("pylon", {}, "test_resnet", 64),
        ("pylon", {"side_head": True}, "test_resnet", 64),
        ("cam", {}, "test_vit", 160),  # nothing to fold
    ],
)
def test_a_folded_network_says_the_same_without_batchnorm(method, options, backbone, size_px):
    inputs = torch.randn(3, 1, size_px, size_px)
    model = build(method, 2, BackboneOptions(name=backbone, weights="none"), options, size_px)
    trained(model, inputs)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    cheaper = folded(model, inputs[:1])

    assert count(cheaper, nn.BatchNorm2d) == 0
    assert count(cheaper, Conv2dSame) == 0
    with torch.no_grad():
        assert largest_difference(model(inputs), cheaper(inputs)) < 2e-5
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Peeks(nn.Module):
    """Takes a feature from between a convolution and its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

    def forward(self, images: torch.Tensor) -> Output:
        between = self.convolution(images)
        maps = self.norm(between) + between
        return Output(maps.amax(dim=(2, 3)), maps)


class Shares(Peeks):
    """Uses a convolution twice, with a BatchNorm once."""

    def forward(self, images: torch.Tensor) -> Output:
        maps = self.norm(self.convolution(images)) + self.convolution(images)
        return Output(maps.amax(dim=(2, 3)), maps)


@pytest.mark.parametrize("network", [Peeks, Shares])
def test_a_network_that_would_say_something_else_is_left_as_it_is(network):
    inputs = torch.randn(2, 1, 16, 16)
    model = trained(network(), inputs)
    assert folded(model, inputs) is model


def test_a_batchnorm_without_statistics_is_left_as_it_is():
    inputs = torch.randn(2, 1, 16, 16)
    model = Peeks()
    model.norm = nn.BatchNorm2d(2, track_running_stats=False)
    model.eval()
    assert folded(model, inputs) is model
