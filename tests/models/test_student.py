"""A student: a logit a pixel, from any encoder, whose first weights are loaded as everywhere."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from radtag.errors import BadSetting
from radtag.models import BackboneOptions, build
from radtag.models.backbone import load_weights
from radtag.models.folded import folded


def student(name: str = "test_resnet", findings: int = 3, channels: int = 1, **options):
    torch.manual_seed(0)
    return build("student", findings, BackboneOptions(name=name, channels=channels, weights="none"), options, 64).eval()


@pytest.mark.parametrize(
    ("backbone", "architecture"),
    [
        ("test_resnet", "unet"),
        ("test_efficientnet", "fpn"),
        ("test_convnext", "unet"),
        ("test_resnet", "upernet"),
        ("test_resnet", "pylon"),
    ],
)
def test_the_map_has_every_pixel_of_the_input(backbone, architecture):
    output = student(backbone, architecture=architecture)(torch.rand(2, 1, 64, 64))
    assert output.logits.shape == (2, 3)
    assert output.maps.shape == (2, 3, 64, 64)
    assert output.maps.dtype == torch.float32
    assert output.changes is None


def test_the_images_logit_is_pooled_from_its_map():
    images = torch.rand(2, 1, 64, 64)
    for pool, of in (("max", lambda maps: maps.amax(dim=(2, 3))), ("avg", lambda maps: maps.mean(dim=(2, 3)))):
        output = student(pool=pool)(images)
        torch.testing.assert_close(output.logits, of(output.maps))
    output = student(sharpness=1.0)(images)  # the logarithm of the mean odds
    torch.testing.assert_close(output.logits, output.maps.exp().mean(dim=(2, 3)).log(), atol=1e-4, rtol=1e-4)


def test_pylons_own_cells_are_resized_to_pixels():
    model, images = student(architecture="pylon"), torch.rand(2, 1, 64, 64)
    cells = model.segmenter(images).maps
    assert cells.shape == (2, 3, 16, 16)
    middle = model(images).maps.unflatten(2, (16, 4)).unflatten(4, (16, 4))[:, :, :, 1:3, :, 1:3].mean(dim=(3, 5))
    # Of a line from cell to cell, the two pixels about a cell's centre have an eighth of each neighbour in their mean.
    for axis in (2, 3):
        near = [cells.narrow(axis, 0, 1), cells, cells.narrow(axis, 15, 1)]
        padded = torch.cat(near, dim=axis)
        cells = 0.875 * cells + (padded.narrow(axis, 0, 16) + padded.narrow(axis, 2, 16)) / 16
    torch.testing.assert_close(middle, cells)
    options = BackboneOptions(name="tf_efficientnet_lite0", weights="package")
    pylon = build("student", 2, options, {"architecture": "pylon"}, 64)
    assert load_weights(pylon.backbone, options).startswith("package")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_encoder_takes_the_weights_of_a_file(tmp_path, channels):
    torch.manual_seed(1)
    full = timm.create_model("test_resnet", in_chans=3).eval()
    save_file(full.state_dict(), tmp_path / "weights.safetensors")
    options = BackboneOptions(name="test_resnet", channels=channels, weights=str(tmp_path / "weights.safetensors"))
    model = build("student", 2, options, {}, 64).eval()
    assert load_weights(model.backbone, options).startswith("file weights.safetensors")
    gray = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        wanted = full.forward_features(gray.expand(-1, 3, -1, -1))
        found = model.segmenter.encoder(gray.expand(-1, channels, -1, -1))[-1]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_folding_for_tagging_keeps_what_it_says():
    model, images = student(), torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(folded(model, images)(images).maps, model(images).maps, atol=1e-4, rtol=1e-4)


def test_what_does_not_fit_is_refused():
    with pytest.raises(BadSetting, match="timm has no model 'resnet51'"):
        student("resnet51")
    with pytest.raises(BadSetting, match="test_vit does not fit unet"):
        student("test_vit")
    with pytest.raises(BadSetting, match=r"options.architecture = 'vnet' of student"):
        student(architecture="vnet")
