"""What the loops do alike: which validation images' maps are kept, and what is known of all of them."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from radtag.models import Output
from radtag.train import loop
from radtag.train.loop import predict_maps, spread, synchronised
from radtag.train.settings import TrainSettings

NAN = math.nan


def test_all_images_are_taken_where_there_is_room():
    assert spread(torch.zeros(5, 2), 5).tolist() == spread(torch.zeros(5, 2), 9).tolist() == [0, 1, 2, 3, 4]


def test_images_are_evenly_spaced_where_labels_do_not_matter():
    assert spread(torch.full((12, 2), NAN), 4).tolist() == [0, 3, 6, 9]
    assert spread(torch.zeros(12, 1), 4).tolist() == [0, 3, 6, 9]


def test_a_rare_finding_keeps_its_positives_and_a_frequent_one_its_negatives():
    labels = torch.zeros(1000, 3)
    labels[[501, 777], 0] = 1
    labels[:, 1] = 1
    labels[[3, 998, 999], 1] = 0
    labels[::2, 2] = NAN
    kept = spread(labels, 50)
    assert len(kept) == 50
    assert (np.diff(kept) > 0).all()
    assert {501, 777, 3, 998, 999} <= set(kept.tolist())
    assert spread(labels, 50).tolist() == kept.tolist()
    assert kept[kept < 500].size > 15  # the others are from everywhere
    assert kept[kept >= 500].size > 15


def test_no_class_takes_more_than_its_part():
    labels = torch.zeros(1000, 1)
    labels[:300] = 1
    kept = spread(labels, 10)  # five of each, evenly spaced
    assert kept.tolist() == [0, 60, 120, 180, 240, 300, 440, 580, 720, 860]
    assert np.count_nonzero(spread(labels, 200) < 300) >= 32


def test_more_classes_than_room_are_not_more_images():
    assert len(spread(torch.eye(40), 3)) == 3


class Known(nn.Module):
    """Its maps are the image four pixels a cell, and their negative; the logits are the cells' sums."""

    def forward(self, images: Tensor) -> Output:
        cells = nn.functional.avg_pool2d(images, 4)
        maps = torch.cat([cells, -cells], dim=1)
        return Output(maps.sum(dim=(2, 3)), maps)


@pytest.mark.parametrize("room", [3, 100])
def test_of_all_images_what_is_a_number_and_of_some_the_maps(room: int, monkeypatch: pytest.MonkeyPatch):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 32, 32), dtype=np.uint8)
    labels = torch.zeros(70, 2)
    labels[40] = 1
    monkeypatch.setattr(loop, "MOST_MAP_BYTES", room * 2 * 8 * 8 * 2)
    settings = TrainSettings.model_validate({"size_px": 32, "backbone": {"weights": "none"}})
    said = predict_maps(Known(), pixels, labels, settings, 0.5, 0.25, loop.start_accelerator("no"))
    expected = Known()(((torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25)[:, None])
    maps = expected.maps.half().numpy()
    np.testing.assert_allclose(said.logits, expected.logits, atol=1e-4)
    np.testing.assert_array_equal(said.peaks, maps.max(axis=(2, 3)))
    np.testing.assert_allclose(said.means, maps.astype(np.float32).mean(axis=(2, 3)), atol=1e-6)
    assert len(said.kept) == min(room, 70)
    assert 40 in said.kept
    np.testing.assert_array_equal(said.maps, maps[said.kept])
    assert said.notes == (
        ["Mask thresholds are from the maps of 3 of 70 validation images, as many as fit into memory."]
        if room == 3
        else []
    )


def test_batch_norm_that_several_gpus_share_keeps_the_activations_in_it():
    """timm's BatchNorm has the activation inside, which torch's own conversion drops."""
    network = timm.create_model("test_efficientnet", in_chans=1, num_classes=2).eval()
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        before = network(images)
        two_gpus = SimpleNamespace(num_processes=2, device=torch.device("cuda"))
        shared = synchronised(network, two_gpus)
        assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in shared.modules())
        torch.testing.assert_close(shared.eval()(images), before)
        one = SimpleNamespace(num_processes=1, device=torch.device("cuda"))
        other = timm.create_model("test_efficientnet", in_chans=1, num_classes=2)
        assert synchronised(other, one) is other
        assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in other.modules())
