"""Explanations: by hand, against the packages that have them, and where those are wrong."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import captum.attr
import numpy as np
import PIL.Image
import pytest
import pytorch_grad_cam
import timm
import torch
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from radtag import saliency
from radtag.calibration import Calibration
from radtag.cli import Explain, main
from radtag.errors import BadSetting
from radtag.geometry import Grid
from radtag.images import Image
from radtag.models import BackboneOptions, Output, build
from radtag.saliency import METHODS, Explainer, choose_layer, explain
from radtag.tag import Tagger
from radtag.train.run import Run
from radtag.train.settings import settings_from

FINDINGS = 3
SIZE = (32, 48)
FAMILY = ("gradcam", "gradcam++", "xgradcam", "hirescam", "layercam")
OF_GRAD_CAM = {
    "gradcam": pytorch_grad_cam.GradCAM,
    "gradcam++": pytorch_grad_cam.GradCAMPlusPlus,
    "xgradcam": pytorch_grad_cam.XGradCAM,
    "hirescam": pytorch_grad_cam.HiResCAM,
    "layercam": pytorch_grad_cam.LayerCAM,
    "eigencam": pytorch_grad_cam.EigenCAM,
    "scorecam": pytorch_grad_cam.ScoreCAM,
    "ablationcam": pytorch_grad_cam.AblationCAM,
}
OF_TORCHCAM = {
    "gradcam": torchcam.methods.GradCAM,
    "xgradcam": torchcam.methods.XGradCAM,
    "layercam": torchcam.methods.LayerCAM,
}


class Small(nn.Module):
    """Two strided convolutions, an average, two linear layers with something between that is not linear."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.feature = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(6, hidden)
        self.head = nn.Linear(hidden, FINDINGS)
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        pooled = self.pool(self.feature(self.first(images))).flatten(1)
        return self.head(torch.tanh(self.hidden(pooled)))


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    made = Small().eval()
    with torch.no_grad():  # gradients near 1, so that others' epsilons weigh nothing
        made.head.weight *= 60
        made.head.bias += 40
    return made


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 1, *SIZE, generator=torch.Generator().manual_seed(1))


def small_cam(pool: str = "avg", size_px: int = 64) -> nn.Module:
    torch.manual_seed(2)
    made = build("cam", FINDINGS, BackboneOptions(name="test_resnet", weights="none"), {"pool": pool}, size_px)
    with torch.no_grad():
        made.head.bias += torch.tensor([0.5, -1.0, 2.0])
    return made.eval()


def unscaled(cam: Any, images: Tensor, finding: int) -> np.ndarray:
    """What pytorch-grad-cam works out before it enlarges and scales each map, ReLU included."""
    cam.compute_cam_per_layer = lambda given, targets, smooth: cam.get_cam_image(
        given,
        cam.target_layers[0],
        targets,
        cam.activations_and_grads.activations[0].numpy(),
        cam.activations_and_grads.gradients[0].numpy() if cam.activations_and_grads.gradients else None,
        smooth,
    )
    cam.aggregate_multi_layers = lambda values: np.maximum(values, 0)
    try:
        return cam(images, [ClassifierOutputTarget(finding)] * len(images))
    finally:
        cam.activations_and_grads.release()


# -- against others


@pytest.mark.parametrize("method", OF_GRAD_CAM)
def test_values_are_those_of_pytorch_grad_cam(method: Any, model: Small, images: Tensor):
    if method == "gradcam++":  # its epsilon, see below
        with torch.no_grad():
            model.head.weight *= 1000
    values = explain(model, images, method, layer="feature").values
    for finding in range(FINDINGS):
        theirs = unscaled(OF_GRAD_CAM[method](model, [model.feature]), images, finding)
        ours = values[:, finding]
        if method == "eigencam":  # whose sign is an accident there
            turned = (ours.clamp(min=0) - torch.from_numpy(theirs)).abs().amax(dim=(1, 2), keepdim=True) > 1e-4
            ours = torch.where(turned, -ours, ours)
        if method == "ablationcam":  # which divides by the logit there
            ours = ours / model(images)[:, finding, None, None].detach()
        np.testing.assert_allclose(ours.clamp(min=0), theirs, atol=1e-5 * max(1, theirs.max()), rtol=1e-5)
        assert theirs.max() > 0.01 or finding != 0


@pytest.mark.parametrize("method", OF_TORCHCAM)
def test_values_are_those_of_torchcam(method: Any, model: Small, images: Tensor):
    values = explain(model, images, method, layer="feature").values
    for finding in range(FINDINGS):
        with OF_TORCHCAM[method](model, "feature") as cam:
            (theirs,) = cam(finding, model(images), normalized=False)
        np.testing.assert_allclose(values[:, finding].clamp(min=0), theirs.detach(), atol=1e-5, rtol=1e-5)


def test_cam_is_torchcams(images: Tensor):
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(1, 5, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, FINDINGS)
    ).eval()
    values = explain(network, images, "cam").values
    with torchcam.methods.CAM(network, "1", "4") as cam:
        for finding in range(FINDINGS):
            network(images)
            (theirs,) = cam(finding, normalized=False)
            np.testing.assert_allclose(values[:, finding].clamp(min=0), theirs.detach().clamp(min=0), atol=1e-5)


def test_integrated_gradients_are_captums_and_add_up(model: Small, images: Tensor):
    explained = explain(model, images, "integrated-gradients", steps=20)
    ask = captum.attr.IntegratedGradients(model)
    for finding in range(FINDINGS):
        theirs = ask.attribute(images, target=finding, n_steps=20, method="gausslegendre").sum(dim=1)
        np.testing.assert_allclose(explained.values[:, finding], theirs.detach(), atol=1e-5, rtol=1e-5)
    gained = explained.logits - model(torch.zeros_like(images)).detach()
    np.testing.assert_allclose(explained.values.sum(dim=(2, 3)), gained, atol=0.02)


def test_occlusion_is_captums(model: Small, images: Tensor):
    values = explain(model, images, "occlusion", window_px=8, stride_px=6, at_once=5).values
    for finding in range(FINDINGS):
        theirs = captum.attr.Occlusion(model).attribute(
            images, sliding_window_shapes=(1, 8, 8), strides=(1, 6, 6), target=finding
        )
        np.testing.assert_allclose(values[:, finding], theirs[:, 0], atol=1e-5, rtol=1e-5)


# -- where others are wrong


def test_pytorch_grad_cam_leaves_the_second_of_two_images_empty_given_one_target(model: Small, images: Tensor):
    with pytorch_grad_cam.GradCAM(model, [model.feature]) as cam:
        theirs = cam(images[:1].repeat(2, 1, 1, 1), [ClassifierOutputTarget(0)])
    assert theirs[0].max() > 0.9
    assert theirs[1].max() == 0
    ours = explain(model, images[:1].repeat(2, 1, 1, 1), targets=[0], layer="feature").values
    torch.testing.assert_close(ours[0], ours[1])  # a processor may add the second up in another order
    assert ours[1].max() > 0


def test_an_epsilon_outweighs_small_gradients_in_pytorch_grad_cam(images: Tensor):
    torch.manual_seed(0)
    network = Small().double().eval()  # as initialised: the gradient of a cell is about 1e-4
    inputs = images.double()
    explained = explain(network, inputs, "gradcam++", layer="feature").relative()[:, 0]
    theirs = unscaled(pytorch_grad_cam.GradCAMPlusPlus(network, [network.feature]), inputs, 0)
    feature = network.feature(network.first(inputs))
    logit = network.head(torch.tanh(network.hidden(feature.mean(dim=(2, 3)))))[:, 0].sum()
    (g,) = torch.autograd.grad(logit, feature)
    total = feature.sum(dim=(2, 3), keepdim=True)
    alpha = (g**2 / (2 * g**2 + total * g**3)).nan_to_num()  # equation 19 to the letter, in float64
    right = ((alpha * g.relu()).sum(dim=(2, 3), keepdim=True) * feature).sum(dim=1).relu().detach()
    span = right.amax(dim=(1, 2), keepdim=True) - right.amin(dim=(1, 2), keepdim=True)
    right = (right - right.amin(dim=(1, 2), keepdim=True)) / span
    assert (explained - right).abs().max() < 1e-5
    low, high = theirs.min(axis=(1, 2), keepdims=True), theirs.max(axis=(1, 2), keepdims=True)
    assert np.abs((theirs - low) / (high - low) - right.numpy()).max() > 0.02


def test_torchcam_leaves_out_the_weights_of_grad_cam_pp(model: Small, images: Tensor):
    with torchcam.methods.GradCAMpp(model, "feature") as cam:
        (theirs,) = cam(0, model(images), normalized=False)
    feature = model.feature(model.first(images))
    logit = model.head(torch.tanh(model.hidden(feature.mean(dim=(2, 3)))))[:, 0].sum()
    (g,) = torch.autograd.grad(logit, feature)
    squares = (g**2 * g.relu()).sum(dim=(2, 3), keepdim=True)  # alpha was to be divided in place, and a copy was
    torch.testing.assert_close(theirs.detach(), (squares * feature).sum(dim=1).detach())


def test_monai_turns_its_maps_around(model: Small, images: Tensor):
    monai = pytest.importorskip("monai.visualize")
    hooked = copy.deepcopy(model)  # it leaves its hooks behind
    theirs = monai.GradCAM(hooked, "feature")(images, class_idx=0)[:, 0].detach()
    ours = explain(model, images, targets=[0], layer="feature").values.clamp(min=0)
    large = nn.functional.interpolate(ours, size=SIZE, mode="bilinear", align_corners=False)[:, 0]
    low, high = large.amin(dim=(1, 2), keepdim=True), large.amax(dim=(1, 2), keepdim=True)
    np.testing.assert_allclose(theirs, 1 - (large - low) / (high - low), atol=1e-5)
    assert theirs[0].flatten()[large[0].argmax()] == 0


# -- by hand


def test_by_hand():
    """A feature of 1 x 2 cells and two channels, and its gradient."""
    feature = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])
    gradient = torch.tensor([[[[0.5, 1.5]], [[-1.0, 2.0]]]])
    # Mean gradients 1 and .5.
    assert saliency.grad_cam(feature, gradient).tolist() == [[[2.0, 3.0]]]
    # (.5 * 1 + 1.5 * 3) / 4 = 1.25, and (-2 + 0) / 2 = -1.
    assert saliency.x_grad_cam(feature, gradient).tolist() == [[[-0.75, 3.75]]]
    assert saliency.hires_cam(feature, gradient).tolist() == [[[-1.5, 4.5]]]
    assert saliency.layer_cam(feature, gradient).tolist() == [[[0.5, 4.5]]]
    # alpha: 1 / (2 + 4 * .5) = 1/4, 1 / (2 + 4 * 1.5) = 1/8; 1 / (2 + 2 * 2) = 1/6. Weights 1/8 + 3/16, and 1/3.
    expected = [5 / 16 * 1 + 1 / 3 * 2, 5 / 16 * 3]
    assert saliency.grad_cam_pp(feature, gradient)[0, 0].tolist() == pytest.approx(expected)


def test_the_scales():
    values = torch.tensor([[[[-1.0, 2.0], [4.0, 1.0]], [[-3.0, -1.0], [-2.0, -5.0]]]])
    explained = saliency.Explanation(values, torch.tensor([[9.0, 0.0, np.log(3)]]), torch.tensor([[2, 1]]), "x")
    first, second = explained.maps()[0]
    assert first.flatten().tolist() == pytest.approx([0, 0.375, 0.75, 0.1875])  # sigmoid(log 3) = .75
    assert second.max() == 0  # nothing speaks for it
    assert explained.maps(torch.tensor([[0.1, 0.2]]))[0, 0].max() == pytest.approx(0.1)
    assert explained.relative()[0, 0].flatten().tolist() == [0, 0.5, 1, 0.25]
    assert explained.relative()[0, 1].max() == 0
    assert values[0, 0, 0, 0] == -1  # not written into


@pytest.mark.parametrize("pool", ["avg", "max", "lse"])
def test_grad_cam_of_a_cam_is_its_own_map_without_the_bias(pool: str):
    network = small_cam(pool)
    inputs = torch.randn(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = network(inputs).maps
    own = maps - network.head.bias[:, None, None].detach()
    cells = maps.shape[2] * maps.shape[3]
    explained = explain(network, inputs)
    assert explained.layer == "head:input"
    np.testing.assert_allclose(explained.values * cells, own, atol=1e-5)
    np.testing.assert_allclose(explain(network, inputs, "cam").values, own, atol=1e-5)


def test_rise_sees_what_a_network_looks_at():
    class Looks(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return torch.stack([inputs[:, 0, 4:8, 20:24].mean(dim=(1, 2)) * 8 - 4, inputs.mean(dim=(1, 2, 3))], dim=1)

    inputs = torch.ones(2, 1, 16, 32)
    explained = explain(Looks(), inputs, "rise", masks=300, cells=4, at_once=7)
    again = explain(Looks(), inputs[:1], "rise", masks=300, cells=4)
    np.testing.assert_allclose(explained.values[:1], again.values, atol=1e-6)  # the same masks, whatever the batch
    row, col = divmod(int(explained.values[0, 0].argmax()), 32)
    assert 4 <= row < 8
    assert 18 <= col < 26
    assert abs(float(explained.values[0, 0, :, :8].mean())) < 0.05
    assert explained.values[0, 0].max() > 0.15


def test_eigen_cam_shows_the_stronger_side():
    feature = torch.zeros(1, 3, 2, 3)
    feature[0, :, 1, 2] = torch.tensor([3.0, 4.0, 0.0])
    found = saliency.eigen(feature)
    assert found.argmax() == 5
    assert float(found[0, 1, 2] - found[0, 0, 0]) == pytest.approx(5)


# -- one pass, nothing left behind


@pytest.mark.parametrize("method", FAMILY)
def test_all_findings_of_a_batch_come_from_one_pass(method: Any, model: Small, images: Tensor):
    explainer = Explainer(model, method, layer="feature")
    explained = explainer(images)
    assert model.passes == 1
    assert explained.values.shape == (2, FINDINGS, 8, 12)
    torch.testing.assert_close(explained.logits, model(images).detach())
    alone = explainer(images[1:], [2, 0])  # neither the batch nor the other findings change a value
    torch.testing.assert_close(alone.values[0], explained.values[1, [2, 0]])
    own = explainer(images, [[2], [0]])
    torch.testing.assert_close(own.values[:, 0], explained.values[[0, 1], [2, 0]])


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(method: Any, model: Small, images: Tensor):
    model.train()
    model.first[1].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"rise": {"masks": 5}, "integrated-gradients": {"steps": 2}}.get(method, {})
    if method == "cam":
        with pytest.raises(BadSetting, match="head is one linear layer from the layer's 6 channels to 3 logits"):
            explain(model, images, method)
    else:
        before = images.clone()
        explained = explain(model, images, method, **options)
        assert torch.equal(images, before)
        assert explained.values.isfinite().all()
        assert not explained.values.requires_grad
        assert explained.layer == (None if method in ("occlusion", "rise", "integrated-gradients") else "feature")
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_memory_is_given_back(model: Small, images: Tensor, monkeypatch: pytest.MonkeyPatch):
    alive: list[weakref.ref[Tensor]] = []
    forward = model.hidden.forward

    def watched(pooled: Tensor) -> Tensor:
        alive.append(weakref.ref(pooled))
        assert pooled.requires_grad
        return forward(pooled)

    monkeypatch.setattr(model.hidden, "forward", watched)
    gc.disable()  # freed by itself, not by the collector
    try:
        kept = explain(model, images, layer="feature")
        assert [one() for one in alive] == [None]
        with pytest.raises(BadSetting):
            explain(model, images, layer="feature", targets=[FINDINGS])
    finally:
        gc.enable()
    assert kept.values.grad_fn is None
    monkeypatch.setattr(model.hidden, "forward", lambda pooled: pooled @ pooled)
    grad_mode = torch.is_grad_enabled()
    with pytest.raises(RuntimeError):
        explain(model, images, layer="feature")
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled() == grad_mode
    gc.collect()
    assert all(one() is None for one in alive)


def test_frozen_networks_and_inference_mode(model: Small, images: Tensor):
    expected = explain(model, images).values
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():
        assert torch.equal(explain(model, images * 1).values, expected)
        assert not torch.is_grad_enabled()


def test_a_feature_that_is_changed_in_place_is_taken_before(images: Tensor):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    values = explain(network, images, "hirescam", layer="0").values
    before = network[0](images).detach()
    share = network[4].weight.detach() / (30 * 46)
    torch.testing.assert_close(values, torch.einsum("fc,bcrs->bfrs", share, before.relu()))


# -- layers


@pytest.mark.parametrize(
    ("name", "layer", "cells"),
    [
        ("test_resnet", "layer4", (4, 4)),
        ("test_efficientnet", "bn2", (4, 4)),
        ("test_vit", "blocks.5.norm1", (8, 8)),
        ("swin_tiny_patch4_window7_224.random", "norm", None),
    ],
)
def test_the_layer_is_chosen(name: str, layer: str, cells: tuple[int, int] | None):
    if cells is None:
        network = timm.models.swin_transformer.SwinTransformer(
            img_size=64, patch_size=4, in_chans=1, num_classes=2, embed_dim=16, depths=(1, 1), num_heads=(1, 2),
            window_size=4,
        ).eval()  # fmt: skip
        size, cells = 64, (8, 8)
    else:
        network = timm.create_model(name, num_classes=2, in_chans=1).eval()
        size = 128
    inputs = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    assert choose_layer(network, inputs) == layer
    for method in ("gradcam", "eigencam"):
        explained = explain(network, inputs, method)  # type: ignore[arg-type]
        assert explained.values.shape == (2, 2, *cells)
        assert explained.values[1, 1].std() > 0


@pytest.mark.parametrize("method", ["gradcam", "layercam", "hirescam", "ablationcam"])
def test_tokens_become_a_grid_without_the_class_token(method: Any):
    """One number a patch, its brightness; the class token holds much more, and belongs to no place."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.read = nn.ReLU(), nn.Linear(2, 2, bias=False)

        def forward(self, inputs: Tensor) -> Tensor:
            bright = nn.functional.avg_pool2d(inputs, 8).flatten(2).transpose(1, 2)
            tokens = torch.cat([torch.full_like(bright[:, :1], 99.0), bright], dim=1)
            return self.read(self.tokens(torch.cat([tokens, tokens / 2], dim=2)).mean(dim=1))

    network = Tokens().eval()
    with torch.no_grad():
        network.read.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    inputs = torch.zeros(1, 1, 16, 24)
    inputs[0, 0, 8:, 8:16] = 7.0  # row 1, column 1 of 2 x 3
    explained = explain(network, inputs, method)
    assert explained.layer == "tokens"
    assert explained.values.shape == (1, 2, 2, 3)
    for found in explained.values[0]:
        assert found.argmax() == 4
        assert np.count_nonzero(found) == 1
    if method != "ablationcam":
        assert explained.values[0, 0, 1, 1] == pytest.approx(7 / 7)  # seven tokens are averaged
        assert explained.values[0, 1, 1, 1] == pytest.approx(7 / 7)


def test_ablation_runs_what_comes_before_the_feature_on_one_image(model: Small, images: Tensor):
    seen: list[int] = []
    handle = model.first.register_forward_hook(lambda _, given, output: seen.append(len(output)))
    expected = explain(model, images, "ablationcam", layer="feature", at_once=4).values
    handle.remove()
    assert seen == [2, 2, 1, 1, 1, 1]

    class Joined(Small):  # the feature is joined with one of its own image, so that copies of it do not fit
        def forward(self, images: Tensor) -> Tensor:
            first = self.first(images)
            feature = self.feature(first)
            both = torch.cat([feature, feature * 0 + nn.functional.avg_pool2d(first, 2)[:, :1] * 0], dim=1)
            again = torch.cat([both[:, :6].flatten(2), first.flatten(2)[:, :1, :96].expand(-1, 6, -1) * 0], dim=2)
            return self.head(torch.tanh(self.hidden(again[:, :, :96].mean(dim=2))))

    joined = Joined().eval()
    joined.load_state_dict(model.state_dict())
    torch.testing.assert_close(explain(joined, images, "ablationcam", layer="feature").values, expected)


def test_a_layer_that_gives_several_features(images: Tensor):
    class Two(Small):
        def __init__(self) -> None:
            super().__init__()
            self.both = nn.ModuleList([self.first, self.feature])
            self.both.forward = lambda x: [self.first(x), self.feature(self.first(x))]  # type: ignore[method-assign]

        def forward(self, images: Tensor) -> Tensor:
            _, coarse = self.both(images)
            return self.head(torch.tanh(self.hidden(self.pool(coarse).flatten(1))))

    network = Two().eval()
    torch.testing.assert_close(
        explain(network, images, layer="both").values, explain(network, images, layer="feature").values
    )


# -- refusals


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "grad-cam"}, r"no method explains as 'grad-cam'\. Did you mean gradcam\?"),
        ({"layer": "featur"}, r"the model has no layer 'featur'\. Did you mean feature"),
        ({"layer": "feature:output"}, "or NAME:input, got 'feature:output'"),
        ({"layer": "hidden"}, r"the layer hidden gives .*no.*rows and columns"),
        ({"method": "rise", "layer": "feature"}, "rise explains by pixels and has no layer, got 'feature'"),
        ({"at_once": 4}, "gradcam has no option 'at_once'; it has none"),
        ({"method": "rise", "steps": 4}, "rise has no option 'steps'; its options: masks, cells, seed, at_once"),
        ({"method": "occlusion", "window_px": 0}, "window_px of occlusion is at least 1, got 0"),
        ({"targets": [0, 3]}, r"the model has 3 findings, numbered from 0; targets are \[0, 3\]"),
        ({"targets": [-1]}, "numbered from 0"),
        ({"targets": [[0]]}, "1 rows of targets for 2 images"),
        ({"targets": [[0], [1], [2]]}, "3 rows of targets for 2 images"),
        ({"targets": [[0], [1, 2]]}, "as many for each image"),
        ({"targets": []}, "targets are numbers of findings"),
        ({"targets": [0.5]}, "targets are numbers of findings"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str, model: Small, images: Tensor):
    with pytest.raises(BadSetting, match=message):
        explain(model, images, **given)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_models_that_cannot_be_explained_are_refused(images: Tensor):
    class Flat(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.flatten(1)[:, :2]

    class Map(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs

    with pytest.raises(BadSetting, match="no layer of the model has a feature with rows and columns"):
        explain(Flat(), images)
    with pytest.raises(BadSetting, match=r"gives a tensor of shape \(2, 1, 32, 48\), not logits"):
        explain(Map(), images, "occlusion")
    twice = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    shared = nn.Sequential(twice[0], twice[0], *twice[1:])
    with pytest.raises(BadSetting, match="the layer 0 runs 2 times for an image"):
        explain(shared, images, layer="0")
    with pytest.raises(BadSetting, match="images are batch x channel x row x col"):
        explain(shared, images[0])


def test_an_output_of_ours_is_read_by_its_logits(images: Tensor):
    class Ours(Small):
        def forward(self, images: Tensor) -> Output:  # type: ignore[override]
            return Output(super().forward(images), torch.zeros(2, 3, 4, 4))

    torch.manual_seed(0)
    ours = Ours().eval()
    torch.manual_seed(0)
    torch.testing.assert_close(explain(ours, images).values, explain(Small().eval(), images).values)


# -- in place of a run's own maps


def make_run(path: Path, pool: str = "max", scale: str = "logit") -> Run:
    network = small_cam(pool)
    settings = settings_from(
        "small",
        method="cam",
        backbone={"name": "test_resnet", "weights": "none"},
        size_px=64,
        options={"pool": pool},
        fit="stretch",
    )
    calibration = replace(
        Calibration.identity(FINDINGS),
        score_slope=(2.0, 1.0, 0.5),
        map_bias=(0.0, 1.0, -1.0),
        mask_threshold=(0.2, 0.3, 0.4),
        scale=scale,
    )
    grids = tuple(Grid((2, 2), (30.0, 31.0), (9.0 + i, 12.0)) for i in range(FINDINGS))
    run = Run(path, settings, ("a", "b", "c"), 0.5, 0.25, grids, calibration, {"method": "cam"})
    run.save(network.state_dict())
    return run


@pytest.fixture
def pictures() -> list[Image]:
    made = np.random.default_rng(0).random((3, 90, 120), dtype=np.float32)
    return [Image(one, f"{i}.png") for i, one in enumerate(made)]


def test_maps_of_tags_are_the_scores_spread(tmp_path: Path, pictures: list[Image]):
    run = make_run(tmp_path / "run")
    plain = list(Tagger(run, device="cpu").predict(pictures))
    tagger = Tagger(run, device="cpu", explain="gradcam")
    for own, explained in zip(plain, tagger.predict(pictures), strict=True):
        np.testing.assert_allclose(explained.scores, own.scores, atol=1e-6)
        (layer,) = explained.layers
        assert layer.grids == run.grids  # cells of the run's own maps look where those were measured to look
        assert layer.sigmoids is None
        bias = run.build_model().head.bias.detach().numpy()
        shape = np.log(own.map_grid / (1 - own.map_grid)) - [[[0.0]], [[1.0]], [[-1.0]]] - bias[:, None, None]
        shape = np.maximum(shape, 0)
        highest = shape.max(axis=(1, 2), keepdims=True)
        share = np.divide(shape, highest, out=np.zeros_like(shape), where=highest > 0)
        np.testing.assert_allclose(layer.maps, own.scores[:, None, None] * share, atol=1e-4)
        assert (highest > 0).any()
    assert [tag.mask_rule for tag in tagger.tags(explained, "x")] == [0.2, 0.3, 0.4]
    assert tagger.settings["explain"] == "gradcam"


def test_a_wanted_finding_keeps_its_map(tmp_path: Path, pictures: list[Image]):
    run = make_run(tmp_path / "run")
    (every, *_) = Tagger(run, device="cpu", explain="layercam").predict(pictures)
    (some, *_) = Tagger(run, device="cpu", explain="layercam", findings=["c", "a"]).predict(pictures)
    np.testing.assert_allclose(some.map_grid, every.map_grid[[2, 0]], atol=1e-6)
    assert some.layers[0].grids == (run.grids[2], run.grids[0])
    np.testing.assert_allclose(some.map_grid.max(axis=(1, 2)), some.scores, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "cells"),
    [
        ({"explain": "gradcam", "explain_layer": "backbone.net.layer3"}, 4),
        ({"explain": "occlusion"}, 64),
        ({"explain": "eigencam", "explain_layer": "backbone.net.layer1.0"}, 16),
    ],
)
def test_other_cells_are_tiles(options: dict[str, Any], cells: int, tmp_path: Path, pictures: list[Image]):
    run = make_run(tmp_path / "run")
    (found,) = Tagger(run, device="cpu", **options).predict(pictures[:1])
    assert found.map_grid.shape == (FINDINGS, cells, cells)
    assert found.layers[0].grids == (Grid.tiles((cells, cells), (64, 64)),) * FINDINGS
    assert found.map(0).shape == (90, 120)


def test_stretched_maps_mirroring_and_several_runs(tmp_path: Path, pictures: list[Image]):
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other", "avg")
    stretched = Tagger([one, other], device="cpu", explain="hirescam", explain_scale="image", tta="flip")
    (found,) = stretched.predict(pictures[:1])
    assert [layer.maps.shape for layer in found.layers] == [(FINDINGS, 2, 2)] * 4
    peaks = np.array([layer.maps.max(axis=(1, 2)) for layer in found.layers])
    assert set(np.unique(peaks)) <= {0, 1}
    assert stretched.mask_thresholds.tolist() == [0.5] * 3
    (mirrored,) = Tagger(one, device="cpu", explain="gradcam").predict(
        [Image(pictures[0].pixels[:, ::-1].copy(), "mirrored.png")]
    )
    (both,) = Tagger(one, device="cpu", explain="gradcam", tta="flip").predict(pictures[:1])
    np.testing.assert_allclose(both.layers[1].maps, mirrored.map_grid[..., ::-1], atol=1e-5)
    assert both.layers[1].grids == tuple(grid.mirrored(64) for grid in one.grids)


@pytest.mark.parametrize(
    ("options", "scale", "message"),
    [
        ({"explain": "gradcam"}, "amount", "run is no classifier: its maps are what it takes away"),
        ({"explain_layer": "head"}, "logit", "a layer or a scale of explanations is given, and no method"),
        ({"explain_scale": "image"}, "logit", "a layer or a scale of explanations is given, and no method"),
        ({"explain": "gradcam", "explain_scale": "max"}, "logit", "scale of explanations is score or image, got 'max'"),
        ({"explain": "gradcam", "explain_layer": "layer4"}, "logit", "the model has no layer 'layer4'"),
        ({"explain": "grad"}, "logit", "no method explains as 'grad'"),
    ],
)
def test_runs_that_cannot_be_explained_are_refused(options: Any, scale: str, message: str, tmp_path: Path):
    run = make_run(tmp_path / "run", scale=scale)
    with pytest.raises(BadSetting, match=message):
        Tagger(run, device="cpu", **options)


def test_a_game_is_refused_before_networks_are_loaded(tmp_path: Path):
    classifier, game = make_run(tmp_path / "classifier"), make_run(tmp_path / "game", scale="amount")
    (classifier.path / "weights.safetensors").unlink()
    with pytest.raises(BadSetting, match="game is no classifier"):
        Tagger([classifier, game], device="cpu", explain="gradcam")


def test_the_command_line_tags_and_evaluates_with_explanations(
    tmp_path: Path, pictures: list[Image], capsys: pytest.CaptureFixture[str]
):
    make_run(tmp_path / "run")
    for one in pictures:
        PIL.Image.fromarray((one.pixels * 255).astype(np.uint8)).save(tmp_path / one.source)
    (tmp_path / "table.csv").write_text("image,split,a,b\n0.png,test,1,0\n1.png,test,0,1\n2.png,test,1,1\n")

    def status(command: str, *words: str) -> int:
        with pytest.raises(SystemExit) as end:
            main([command, str(tmp_path / "run"), *words, "--device", "cpu"])
        return int(end.value.code or 0)

    tagging = [str(tmp_path / "0.png"), "--out", str(tmp_path / "tags")]
    assert status("tag", *tagging, "--explain", "gradcam") == 0
    manifest = json.loads((tmp_path / "tags" / "manifest.json").read_text())
    assert manifest["settings"]["explain"] == "gradcam"
    assert status("tag", *tagging) == 1  # one folder holds maps of one kind
    assert "holds tags made with explain = gradcam, and now it is None" in capsys.readouterr().err
    evaluation = [f"csv:{tmp_path}", "--out", str(tmp_path / "evaluation"), "--bootstraps", "0"]
    assert status("evaluate", *evaluation, "--explain", "layercam", "--explain-scale", "image") == 0
    about = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["about"]
    assert about["tagging"]["explain"] == "layercam"
    assert about["tagging"]["explain_scale"] == "image"
    assert "Maps are explanations by layercam, not the network's own." in about["notes"]


def test_the_command_line_names_every_method():
    given = get_args(get_args(Explain)[0])
    assert get_args(given[0]) == METHODS


def test_the_layer_is_found_where_logits_add_up_to_a_constant():
    """As those of a head of two classes, one the other's negative."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(1, 4, 3, padding=1)
            self.head = nn.Linear(4, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logit = self.head(self.features(images).mean(dim=(2, 3)))
            return torch.cat([logit, -logit], dim=1)

    assert choose_layer(Two().eval(), torch.rand(2, 1, 8, 8)) == "features"
