"""Games: what generators may change, what each side's losses move, and the rules by hand."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from radtag.errors import BadSetting
from radtag.models import GAMES, BackboneOptions, build, game, new_game, taggan
from radtag.models.game import (
    Batch,
    Seen,
    gradient_penalty,
    judged_as,
    mixed_with,
    of_changes,
    taken_for_real,
)
from radtag.models.taggan import (
    EncoderGenerator,
    Generator,
    Maps,
    Pairs,
    TagGanLocaliser,
    TagGanOptions,
    UnetGenerator,
    by_finding,
    generator,
)

BACKBONE = BackboneOptions(name="test_resnet", weights="none")
SEEN = Seen(0.5, 0.25, 1)
METHODS = list(GAMES)
LABELS = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
ASKED = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def made(method: str, options: dict[str, Any] | None = None, findings: int = 2) -> game.Game:
    torch.manual_seed(0)
    return new_game(method, findings, BACKBONE, options or {}, SEEN).train()


def a_batch(rows: int = 32, cols: int = 64) -> Batch:
    random = torch.Generator().manual_seed(1)
    ill, healthy = torch.rand(2, 3, rows, cols, generator=random)
    return Batch(ill, LABELS, healthy, ASKED)


def opened(generator: nn.Module, bias: float = 3.0) -> nn.Module:
    """The same generator, whose gates stand open and whose amounts are large: what it does can be seen."""
    with torch.no_grad():
        if isinstance(generator, EncoderGenerator):
            generator.gate.bias.fill_(bias)
            generator.amount.weight.mul_(30)
        elif isinstance(generator, UnetGenerator):
            generator.last.bias[0] = bias
            generator.last.weight[:, 1] *= 30
    return generator


def moved_by(terms: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    """The names of the module's weights that have a gradient other than 0."""
    names, weights = zip(*[(n, p) for n, p in module.named_parameters() if p.requires_grad], strict=True)
    gradients = torch.autograd.grad(sum(terms.values()), weights, allow_unused=True, retain_graph=True)
    return {name for name, one in zip(names, gradients, strict=True) if one is not None and one.abs().max() > 0}


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_pairs_by_hand():
    pairs = Pairs.of(torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    assert pairs.image.tolist() == [0, 0, 2]
    assert pairs.finding.tolist() == [1, 2, 0]
    every = Pairs.all(2, 3, torch.device("cpu"))
    assert every.image.tolist() == [0, 0, 0, 1, 1, 1]
    assert every.finding.tolist() == [0, 1, 2, 0, 1, 2]
    values = torch.tensor([[1.0, 2.0], [10.0, 20.0], [5.0, 6.0]])
    assert pairs.per_image(values, 4).tolist() == [[11, 22], [0, 0], [5, 6], [0, 0]]
    values.requires_grad_()
    pairs.per_image(values, 4)[0, 1].backward()
    assert values.grad.tolist() == [[0, 1], [0, 1], [0, 0]]


def test_pairs_of_nothing_are_no_pairs():
    pairs = Pairs.of(torch.zeros(2, 3))
    assert len(pairs.image) == len(pairs.finding) == 0
    assert pairs.per_image(torch.zeros(0, 4, 5), 2).tolist() == torch.zeros(2, 4, 5).tolist()


def test_a_network_sees_an_image_normalised_in_all_its_channels():
    seen = Seen(0.4, 0.2, 3)
    images = torch.rand(2, 4, 5)
    inputs = seen(images)
    assert inputs.shape == (2, 3, 4, 5)
    torch.testing.assert_close(inputs[:, 2], (images - 0.4) / 0.2)


# Generators -----------------------------------------------------------------------------------------------------------


class Given(Generator):
    """A generator whose cells are given: a gate of 0, 50 % and 1, and amounts far below, at, and far above 0."""

    def raw(self, inputs: torch.Tensor, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
        gate = torch.tensor([[-50.0], [0.0], [50.0]]).expand(len(pairs.image), 1, 3, 3)
        return gate, torch.tensor([-50.0, 0.0, 50.0]).expand_as(gate)


@pytest.mark.parametrize(("sign", "low", "high"), [("either", -1, 1), ("adds", 0, 1), ("removes", -1, 0)])
@pytest.mark.parametrize("gate", [True, False])
def test_a_change_is_gate_times_bounded_amount_of_its_sign(sign, low, high, gate):
    one = Given(TagGanOptions(sign=sign, amplitude=0.3, gate=gate))
    found = one(torch.zeros(2, 1, 3, 3), Pairs(torch.tensor([0, 1]), torch.tensor([0, 0])))
    gates = torch.tensor([0.0, 0.5, 1.0] if gate else [1.0, 1.0, 1.0])
    amounts = 0.3 * torch.tensor([low, 0.0, high])
    for image in range(2):
        torch.testing.assert_close(found.gates[image], gates[:, None].expand(3, 3))
        torch.testing.assert_close(found.changes[image], gates[:, None] * amounts)


def test_each_finding_has_its_own_sign():
    one = Given(TagGanOptions(sign=("adds", "removes", "either"), amplitude=0.3, gate=False))
    found = one(torch.zeros(1, 1, 3, 3), Pairs(torch.zeros(4, dtype=torch.int64), torch.tensor([1, 0, 2, 1]))).changes
    assert [(float(of.min()), float(of.max())) for of in found] == [
        pytest.approx(limits, abs=1e-6) for limits in ((-0.3, 0), (0, 0.3), (-0.3, 0.3), (-0.3, 0))
    ]


def test_signs_are_given_by_name():
    findings = ("nodule", "effusion", "pneumothorax")
    assert by_finding({"sign": {"pneumothorax": "removes", "nodule": "adds"}, "noise": 0.0}, findings) == {
        "sign": ("adds", "either", "removes"),
        "noise": 0.0,
    }
    assert by_finding({"sign": "adds"}, findings) == {"sign": "adds"}
    assert by_finding({}, findings) == {}
    with pytest.raises(BadSetting, match=r"options\.sign\.nodule = 'add'; it is one of either, adds, removes"):
        by_finding({"sign": {"nodule": "add"}}, findings)
    with pytest.raises(BadSetting, match=r"names 'air'; the findings are nodule, effusion, pneumothorax"):
        by_finding({"sign": {"air": "removes"}}, findings)


def test_whole_organs_are_given_by_name():
    findings = ("nodule", "cardiomegaly")
    assert by_finding({"whole": {"cardiomegaly": True}}, findings) == {"whole": (False, True)}
    assert by_finding({"whole": True, "sign": {"nodule": "adds"}}, findings) == {
        "whole": True,
        "sign": ("adds", "either"),
    }
    with pytest.raises(BadSetting, match=r"options\.whole\.cardiomegaly = 'yes'; it is one of false, true"):
        by_finding({"whole": {"cardiomegaly": "yes"}}, findings)
    with pytest.raises(BadSetting, match=r"options\.whole\.cardiomegaly = 1; it is one of false, true"):
        by_finding({"whole": {"cardiomegaly": 1}}, findings)
    with pytest.raises(BadSetting, match=r"setting options\.whole = 'heart' of taggan"):
        build("taggan", 2, BACKBONE, {"whole": "heart"}, 64)
    with pytest.raises(BadSetting, match=r"options\.whole names 'heart'; the findings are nodule, cardiomegaly"):
        by_finding({"whole": {"heart": True}}, findings)
    with pytest.raises(BadSetting, match=r"options\.whole has 3 values for 2 findings"):
        build("taggan", 2, BACKBONE, {"whole": (True, False, False)}, 64)


@pytest.mark.parametrize("method", ["taggan", "guided"])
def test_as_many_signs_as_findings_or_one_for_all(method):
    with pytest.raises(
        BadSetting, match=r"options\.sign has 2 values for 3 findings\. Give one for all, or one for each"
    ):
        build(method, 3, BACKBONE, {"sign": ["adds", "removes"]})


@pytest.mark.parametrize("kind", ["encoder", "unet"])
def test_changes_have_the_images_size_and_their_bounds(kind):
    torch.manual_seed(0)
    one = opened(generator(2, BACKBONE, TagGanOptions(generator=kind, amplitude=0.3), noise_channels=3).eval())
    pairs = Pairs(torch.tensor([1, 0, 1, 1]), torch.tensor([0, 1, 1, 0]))
    with torch.inference_mode():
        found = one(torch.randn(2, 1, 32, 64), pairs)
    assert found.changes.shape == found.gates.shape == (4, 32, 64)
    assert 0 <= found.gates.min() < found.gates.max() <= 1
    assert (found.changes.abs() <= 0.3 * found.gates + 1e-6).all()
    assert found.changes.abs().max() > 0.1


@pytest.mark.parametrize("kind", ["encoder", "unet"])
def test_without_a_gate_the_amount_passes_whole(kind):
    torch.manual_seed(0)
    shut = generator(1, BACKBONE, TagGanOptions(generator=kind, gate_bias=-50.0), noise_channels=0).eval()
    free = generator(1, BACKBONE, TagGanOptions(generator=kind, gate_bias=-50.0, gate=False), noise_channels=0).eval()
    free.load_state_dict(shut.state_dict(), strict=False)
    inputs, pairs = torch.randn(1, 1, 32, 32), Pairs.all(1, 1, torch.device("cpu"))
    with torch.inference_mode():
        assert shut(inputs, pairs).changes.abs().max() < 1e-12
        changes, gates = free(inputs, pairs)
    assert changes.abs().max() > 1e-4
    assert gates.unique().tolist() == [1]


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_amounts_come_in_cells(stride):
    torch.manual_seed(0)
    one = generator(1, BACKBONE, TagGanOptions(amount_stride=stride), noise_channels=0).eval()
    with torch.inference_mode():
        gate, amount = one.raw(torch.randn(1, 1, 32, 64), Pairs.all(1, 1, torch.device("cpu")))
    assert gate.shape == (1, 1, 16, 32)
    assert amount.shape == (1, 1, 32 // stride, 64 // stride)


def test_an_encoder_runs_once_an_image_however_many_findings_are_asked_for():
    one = generator(5, BACKBONE, TagGanOptions(), noise_channels=0)
    seen = []
    one.backbone.register_forward_hook(lambda module, inputs, outputs: seen.append(len(inputs[0])))
    with torch.inference_mode():
        assert len(one(torch.randn(2, 1, 32, 32), Pairs.all(2, 5, torch.device("cpu"))).changes) == 10
    assert seen == [2]


@pytest.mark.parametrize("kind", ["encoder", "unet"])
def test_a_pair_is_of_its_own_image_and_finding(kind):
    torch.manual_seed(0)
    one = opened(generator(3, BACKBONE, TagGanOptions(generator=kind), noise_channels=0).eval())
    inputs = torch.randn(2, 1, 32, 64)
    with torch.inference_mode():
        both = one(inputs, Pairs(torch.tensor([1, 0]), torch.tensor([2, 0]))).changes
        alone = one(inputs[1:], Pairs(torch.tensor([0]), torch.tensor([2]))).changes
        other = one(inputs[1:], Pairs(torch.tensor([0]), torch.tensor([0]))).changes
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=1e-4)
    assert (alone - other).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["encoder", "unet"])
def test_the_one_that_paints_is_free_where_the_one_that_takes_is_not(kind):
    torch.manual_seed(0)
    inputs, pairs = torch.randn(1, 1, 32, 32), Pairs.all(1, 1, torch.device("cpu"))
    for noise_channels, same in ((0, True), (4, False)):
        one = opened(generator(1, BACKBONE, TagGanOptions(generator=kind), noise_channels).eval())
        with torch.inference_mode():
            first, second = (one(inputs, pairs).changes for _ in range(2))
        assert torch.equal(first, second) == same


def test_what_several_findings_take_is_summed():
    class Steps(nn.Module):
        """Image i's finding f takes 10 i + f + 1, through a gate of 1."""

        def forward(self, inputs: torch.Tensor, pairs: Pairs) -> Maps:
            changes = (10.0 * pairs.image + pairs.finding + 1)[:, None, None].expand(-1, 2, 3)
            return Maps(changes, torch.ones_like(changes))

    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    changes, gates = taggan._summed(Steps(), torch.zeros(3, 1, 2, 3), labels)
    assert changes[:, 1, 2].tolist() == [1 + 3, 0, 21 + 22 + 23]
    assert gates[:, 0, 0].tolist() == [2, 0, 3]


# Localisers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_localiser_has_maps_and_changes_of_the_images_size(method):
    torch.manual_seed(0)
    model = build(method, 3, BACKBONE, {}, 64).eval()
    with torch.inference_mode():
        output = model(torch.randn(2, 1, 32, 64))
    assert output.logits.shape == (2, 3)
    assert output.maps.shape == (2, 3, 32, 64)
    assert output.changes.shape == (2, 1 if method == "vagan" else 3, 32, 64)  # VA-GAN has one for all
    assert output.maps.min() >= 0
    assert output.logits.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_what_tags_is_the_games_localiser(method):
    played = made(method)
    model = build(method, 2, BACKBONE, {}, 32)
    model.load_state_dict(played.localiser.state_dict())
    inputs = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        one, other = model.eval()(inputs), played.eval().localiser(inputs)
    assert torch.equal(one.maps, other.maps)
    generators = {id(weight) for weight in played.generators.parameters()}
    critics = {id(weight) for weight in played.critics.parameters()}
    for name, weight in played.localiser.named_parameters():  # the networks themselves, and not copies
        assert id(weight) in (critics if name.startswith("witness.") else generators)


@pytest.mark.parametrize("window_px", [1, 5])
def test_the_map_is_the_averaged_amount_of_the_change(window_px):
    torch.manual_seed(0)
    model = build("taggan", 2, BACKBONE, {"window_px": window_px, "witness": False}, 64).eval()
    opened(model.generator)
    with torch.inference_mode():
        output = model(torch.randn(1, 1, 32, 64))
    by_hand = output.changes.abs()
    for _ in range(2 if window_px > 1 else 0):
        by_hand = F.avg_pool2d(by_hand, window_px, 1, window_px // 2, count_include_pad=False)
    torch.testing.assert_close(output.maps, by_hand)


@pytest.mark.parametrize("method", ["taggan", "guided"])
def test_the_witness_says_which_of_what_was_taken_is_the_findings(method):
    torch.manual_seed(0)
    alone = build(method, 2, BACKBONE, {"witness": False}, 64).eval()
    opened(alone.generator)
    heard = build(method, 2, BACKBONE, {"witness_px": 9, "witness_spread": 0}, 64).eval()
    heard.generator.load_state_dict(alone.generator.state_dict())
    heard.witness = Known()
    inputs = torch.randn(1, 1, 32, 64)
    with torch.inference_mode():
        one, other = alone(inputs), heard(inputs)
    assert torch.equal(one.changes, other.changes)  # the counterpart is made with all that was taken
    assert one.maps.min() > 0
    share = (other.maps / one.maps)[0]
    yes, no = torch.tensor([8.0, -8.0]).sigmoid()
    # Half the image each; between them the cells' interpolation (2), and windows of 9 twice.
    torch.testing.assert_close(share[0, :, :29], yes.expand(32, 29))
    torch.testing.assert_close(share[0, :, 43:], no.expand(32, 21))
    torch.testing.assert_close(share[1, :, 35:], yes.expand(32, 29))
    torch.testing.assert_close(share[1, :, :21], no.expand(32, 21))
    assert 0.5 < share[0, 0, 33] < yes  # beyond the evidence, within its reach
    assert other.logits[0, 0] != one.logits[0, 0]  # the image's score comes from the map


def test_the_witness_vouches_for_the_whole_of_what_was_taken_and_for_nothing_beside_it():
    changes = torch.zeros(1, 2, 32, 32)
    changes[0, 0, 4:8, 4:28] = -0.3  # a bar of the first finding, seen at its left end
    changes[0, 0, 4:28, 24:28] = -0.3  # that turns down at its right
    changes[0, 0, 20:24, 4:16] = 0.3  # and one that touches nothing the critic sees,
    changes[0, 0, 8:20, 4:8] = 0.0002  # but for next to nothing
    changes[0, 1] = 0.5 * changes[0, 0].abs()  # of the second finding there is half as much, everywhere
    chance = torch.full((1, 2, 8, 8), 0.01)
    chance[0, :, 1, 1] = 0.9
    spread = taggan._spread(chance, changes, 0.5)[0]
    bar, alone = (slice(1, 2), slice(1, 7)), (slice(5, 6), slice(1, 4))
    torch.testing.assert_close(spread[0][bar], torch.full((1, 6), 0.9))  # two thirds of what is taken is the first's
    assert spread[0][1:7, 6].eq(spread[0, 1, 1]).all()  # to the other end
    assert spread[0][alone].max() < 0.02
    assert spread[0, 3, 3] == spread[0, 7, 7] == spread[0, 3, 0] == 0.01
    passed = spread[1][bar][0] / 0.9  # to each from the one before, two thirds: the second's share is a third
    torch.testing.assert_close(passed[1:] / passed[:-1], torch.full((5,), 2 * 0.15 / (0.45 + 0.01)))


def test_of_a_whole_organ_the_witness_vouches_for_parts_that_do_not_touch():
    changes = torch.zeros(1, 2, 32, 32)
    changes[0, :, 4:28, 4:8] = 0.3  # both edges of an organ, and the same of a finding that is none
    changes[0, :, 4:28, 24:28] = 0.3
    changes[0, 1, 4:28, 16:20] = 0.3  # which alone has something between them
    chance = torch.full((1, 2, 8, 8), 0.01)
    chance[0, :, 3, 1] = 0.9
    organ, other = taggan._spread(chance, changes, 0.4, [0])[0]
    torch.testing.assert_close(organ[1:7, 6], torch.full((6,), 0.9))
    assert organ[:, 2:6].max() == organ[:, 7].max() == 0.01  # nothing of it was taken there
    assert other[1:7, 1].min() > 0.89
    assert other[:, 2:].max() == 0.01
    chance = torch.full((2, 2, 8, 8), 0.01)
    chance[0, :, 3, 3] = 0.9  # where nothing was taken,
    chance[1, :, 3, 1] = 0.9  # and in another image
    assert taggan._spread(chance, changes.expand(2, -1, -1, -1), 0.4, [0])[0, 0, :, [1, 6]].max() == 0.01


@pytest.mark.parametrize("method", ["taggan", "guided"])
def test_a_whole_organs_map_has_what_lies_between_its_edges(method):
    torch.manual_seed(0)
    options = {"window_px": 1, "witness_px": 1}
    edges = build(method, 2, BACKBONE, options, 64).eval()
    organ = build(method, 2, BACKBONE, {**options, "whole": (False, True)}, 64).eval()
    inputs = torch.zeros(2, 1, 24, 32)
    for model in (edges, organ):
        model.generator, model.witness = Edges(model.generator.options), SeesLeft()
    with torch.inference_mode():
        before, now = edges(inputs), organ(inputs)
    assert torch.equal(now.changes, before.changes)  # the counterpart is as it was
    assert torch.equal(now.maps[:, 0], before.maps[:, 0])
    assert before.maps[0, 1, :, 8:].max() < 0.01  # the right edge is not vouched for
    # From edge to edge as much as the fainter one has, and both all that was taken: that is how high they are.
    assert before.maps[0, 1, 10:14, 4:6].min() > 0.19
    torch.testing.assert_close(now.maps[0, 1, 10:14, 7:20], torch.full((4, 13), 0.2), atol=0.01, rtol=0)
    assert now.maps[0, 1, 10:14, 21:23].min() > 0.25  # between cells the chance is less
    assert now.maps[0, 1, :, :3].max() == now.maps[0, 1, :, 25:].max() == 0
    assert now.maps[1].max() < 0.01  # the second image's edges are nobody's
    # The image's score is of the map as it is then: its strongest hundredth has 7 of 768 pixels, all in the right edge.
    assert now.logits[0, 1] > before.logits[0, 1]


@pytest.mark.parametrize("spread", [0, 0.1])
def test_maps_reach_where_the_witness_spreads(spread):
    torch.manual_seed(0)
    model = build("taggan", 2, BACKBONE, {"witness_px": 1, "witness_spread": spread, "window_px": 1}, 64).eval()
    opened(model.generator)
    model.witness = Known()
    with torch.inference_mode():
        output = model(torch.randn(1, 1, 32, 64))
    vouched = output.maps[0, 0, :, -1] / output.changes[0, 0, :, -1].abs()
    assert (vouched.min() > 0.9) if spread else (vouched.max() < 0.1)


def test_what_is_nearby_is_what_squares_give():
    torch.manual_seed(0)
    chance = torch.rand(2, 3, 20, 30)
    square = F.max_pool2d(chance, 7, stride=1, padding=3)
    square = F.avg_pool2d(square, 7, stride=1, padding=3, count_include_pad=False)
    torch.testing.assert_close(taggan._nearby(chance, 7), square)
    assert torch.equal(taggan._nearby(chance, 1), chance)


def test_patches_are_no_witness():
    with pytest.raises(BadSetting, match="a critic of patches is no witness"):
        build("taggan", 2, BACKBONE, {"critic": "patch"}, 64)
    build("taggan", 2, BACKBONE, {"critic": "patch", "witness": False}, 64)


def test_the_critic_is_told_who_has_another_disease_alone():
    batch = a_batch()  # the first image has the first finding alone, the last one the second
    told = made("taggan").critic_terms(batch, 1)["disease"]
    untold = made("taggan", {"others": 0.0}).critic_terms(batch, 1)["disease"]
    assert told.item() != pytest.approx(untold.item())
    # What is not known to be absent is not held against anyone.
    unknown = batch._replace(known=batch.labels.clone())
    loss = made("taggan").critic_terms(unknown, 1)["disease"]
    played = made("taggan", {"others": 0.0})
    with torch.no_grad():
        judged = played._judged(played.critic(SEEN(batch.healthy)))
    well = taggan._of_labels(taggan.judged_each("hinge", judged[:, 1:], real=False), batch.asked)
    # Two equal shares instead of one: healthy images, and nobody.
    assert untold.item() - loss.item() == pytest.approx(well.item() / 2, rel=1e-4)
    # Of one finding, nobody has another.
    alone = batch._replace(labels=batch.labels.amax(dim=1, keepdim=True), asked=batch.asked.amax(dim=1, keepdim=True))
    one = [made("taggan", {"others": weight}, findings=1).critic_terms(alone, 1)["disease"] for weight in (0.0, 1.0)]
    assert one[0].item() == one[1].item()


def test_a_change_that_swings_about_zero_is_no_gap_in_the_map():
    changes = torch.zeros(1, 1, 12, 20)
    changes[..., 4:9, 6:14] = torch.tensor([0.2, -0.2]).repeat(4)
    output = of_changes(changes, 3)
    assert output.changes is changes
    middle = output.maps[0, 0, 6, 10]  # whose windows lie in the lesion
    assert middle == pytest.approx(0.2)
    assert output.maps[0, 0, 0, 0] == 0
    # The mean at a border is over the pixels there are.
    assert of_changes(torch.ones(1, 1, 6, 6), 5).maps.unique().tolist() == pytest.approx([1])


def test_an_images_logit_is_of_the_strongest_hundredth():
    changes = torch.zeros(2, 1, 20, 30)
    changes[0, 0, 3, :4] = torch.tensor([-0.5, 0.3, 0.2, 0.2])
    strongest = (0.5 + 0.3 + 0.2 + 0.2 + 0 + 0) / 6  # a hundredth of 600 pixels
    logits = of_changes(changes).logits
    assert logits[0, 0].item() == pytest.approx(math.log(strongest + 1e-4), rel=1e-5)
    assert logits[1, 0].item() == pytest.approx(math.log(1e-4), rel=1e-5)
    assert of_changes(torch.full((1, 1, 3, 3), 0.5)).logits.item() == pytest.approx(math.log(0.5001), rel=1e-5)


def test_vagan_has_one_map_for_all_findings_and_any_size_of_change():
    model = build("vagan", 3, BACKBONE, {}, 64).eval()
    with torch.inference_mode():
        model.last.bias.fill_(-2.0)
        output = model(torch.randn(1, 1, 32, 64))
    assert output.changes.shape == (1, 1, 32, 64)  # one, which is taken away once
    assert torch.equal(output.maps[:, 0], output.changes[:, 0].abs())
    assert torch.equal(output.maps[:, 0], output.maps[:, 2])
    assert output.logits.shape == (1, 3)
    assert output.maps.max() > 1.5  # nothing bounds it
    assert output.changes.mean() == pytest.approx(2, abs=0.5)  # y = x + M, and what is taken is -M


# What moves what ------------------------------------------------------------------------------------------------------


VARIANTS = [
    ("taggan", {}),
    ("taggan", taggan.PUBLISHED),
    ("taggan", {"rule": "wgan-gp", "judged": "max", "gate": False, "total_variation": 1.0, "cycle_ill": 1.0}),
    ("taggan", {"rule": "lsgan", "judged": "avg", "sign": "adds", "noise": 0.0, "guidance": 0.0, "everywhere": 0.0}),
    ("guided", {}),
    ("guided", {"as_they_are": 0.0, "amount_stride": 8, "cycle_both": True}),
    ("vagan", {}),
]


@pytest.mark.parametrize(("method", "options"), VARIANTS)
def test_each_sides_losses_are_finite_and_move_that_side_alone(method, options):
    played, batch = made(method, options), a_batch()
    played.begin()
    played.critics.requires_grad_(False)  # as in training
    terms = played.generator_terms(batch, 8)
    assert all(value.shape == () and value.isfinite() for value in terms.values()), terms
    moved = moved_by(terms, played.generators)
    for generator_ in played.generators:
        assert any(name.startswith(f"{generator_}.") for name in moved), (generator_, moved)
    assert not any("guide." in name for name in moved)

    played.critics.requires_grad_(True)
    terms = played.critic_terms(batch, 8)
    assert all(value.shape == () and value.isfinite() for value in terms.values()), terms
    moved = moved_by(terms, played.critics)
    every = {name for name, _ in played.critics.named_parameters()}
    assert {name for name in every if "backbone" not in name and "bias" not in name} <= moved
    assert any("backbone" in name for name in moved) == any("backbone" in name for name in every)
    assert moved_by(terms, played.generators) == set()


@pytest.mark.parametrize(("method", "options"), VARIANTS)
def test_a_step_of_each_side_lowers_its_own_losses(method, options):
    """The gradient is of the losses that are told: a small step against it lowers their sum."""
    played, batch = made(method, options), a_batch(32, 32)
    for side, terms_of in ((played.critics, played.critic_terms), (played.generators, played.generator_terms)):
        before = {name: value.clone() for name, value in side.named_parameters()}

        def total(terms_of=terms_of) -> torch.Tensor:
            torch.manual_seed(3)  # the same noise
            return sum(terms_of(Batch(*batch), 8).values())

        weights = [weight for weight in side.parameters() if weight.requires_grad]
        first = total()
        gradients = torch.autograd.grad(first, weights, allow_unused=True)
        norm = math.sqrt(sum(float(one.square().sum()) for one in gradients if one is not None))
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    weight -= 1e-4 / norm * gradient
        assert total().item() < first.item()
        assert any(not torch.equal(value, before[name]) for name, value in side.named_parameters())


def test_a_term_of_weight_0_is_left_out():
    played = made("taggan", {"everywhere": 0.0, "guidance": 0.0, "cycle_ill": 0.0, "total_variation": 0.0})
    more = made("taggan", {"everywhere": 1.0, "guidance": 1.0, "cycle_ill": 1.0, "total_variation": 1.0})
    without, with_ = played.generator_terms(a_batch(), 0), more.generator_terms(a_batch(), 0)
    assert with_.keys() - without.keys() == {"everywhere", "guidance", "cycle_ill", "total_variation"}


def test_weights_multiply_their_terms():
    names = {"cycle": "cycle", "identity": "identity", "sparsity": "sparsity", "sparsity_painted": "sparsity_painted"}
    for option, term in names.items():
        values = []
        for weight in (1.0, 3.0):
            played = made("taggan", {option: weight})
            torch.manual_seed(5)
            values.append(played.generator_terms(a_batch(), 8)[term].item())
        assert values[1] == pytest.approx(3 * values[0], rel=1e-4)


@pytest.mark.parametrize("term", ["identity", "sparsity"])
def test_identity_and_sparsity_rise_over_the_ramp(term):
    played = made("taggan", {"ramp": 800})
    at = []
    for step in (0, 400, 800, 8000):
        torch.manual_seed(5)
        at.append(played.generator_terms(a_batch(), step)[term].item())
    assert at[0] < at[1] < at[2] == at[3]
    assert at[0] == pytest.approx(0.1 * at[2], rel=1e-4)


def test_a_finding_that_no_image_has_moves_nothing_of_its_own():
    played = made("taggan", findings=3)
    batch = a_batch()
    without_third = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    batch = batch._replace(labels=without_third, asked=without_third)
    terms = played.generator_terms(batch, 0)
    weight = played.localiser.generator.of_finding.weight
    (gradient,) = torch.autograd.grad(sum(terms.values()), [weight])
    assert gradient[:2].abs().amax(dim=1).min() > 0
    assert gradient[2].abs().max() == 0


# From the warm-up to the game -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["taggan", "guided"])
def test_the_warm_up_learns_the_labels_and_moves_the_critics_alone(method):
    played, batch = made(method), a_batch(32, 32)
    assert moved_by(played.warm_up_terms(batch), played.generators) == set()
    optimiser = torch.optim.Adam(played.critics.parameters(), 2e-3)
    losses = []
    for _ in range(30):
        terms = played.warm_up_terms(batch)
        losses.append(sum(terms.values()).item())
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]
    with torch.inference_mode():
        evidence = played.critic(SEEN(torch.cat([batch.ill, batch.healthy]))).mean(dim=(2, 3))
    labels = torch.cat([LABELS, torch.zeros(3, 2)])
    for at, has in ((0, labels.amax(dim=1)), (1, labels[:, 0]), (2, labels[:, 1])):
        assert evidence[has == 1, at].mean() > evidence[has == 0, at].mean()


def test_the_warm_up_learns_nothing_from_what_is_unknown():
    """Nor does it give more weight to the rest: the loss lacks those terms."""
    played, batch = made("taggan"), a_batch(32, 32)
    known = torch.ones(3, 2)
    (whole,) = played.warm_up_terms(batch._replace(known=known)).values()
    torch.testing.assert_close(whole, *played.warm_up_terms(batch).values())
    known[0, 1] = 0  # which the labels say is absent
    with torch.no_grad():
        for asked in (0.0, 1.0):
            labels = LABELS.clone()
            labels[0, 1] = asked
            (loss,) = played.warm_up_terms(batch._replace(labels=labels, known=known)).values()
            images = torch.cat([batch.ill, batch.healthy])
            judged = 2 * played._judged(played.critic(SEEN(images)))[0, 2, 0]
            torch.testing.assert_close(loss, whole - torch.nn.functional.softplus(judged) / 18)


def test_the_generators_begin_with_the_critics_encoder():
    played = made("taggan", {"warm_up": 5})
    with torch.no_grad():
        for weight in played.critics.parameters():
            weight += 0.1
    played.begin()
    learned = played.critic.backbone.state_dict()
    for one in (played.localiser.generator, played.generators["to_ill"]):
        assert all(torch.equal(value, learned[name]) for name, value in one.backbone.state_dict().items())
        # A copy, and not the same weights.
        assert not {id(p) for p in one.parameters()} & {id(p) for p in played.critics.parameters()}
    without = made("taggan", {"warm_up": 0})
    before = {name: value.clone() for name, value in without.generators.state_dict().items()}
    without.begin()
    assert all(torch.equal(value, before[name]) for name, value in without.generators.state_dict().items())
    assert (without.warm_up_steps, played.warm_up_steps, made("vagan").warm_up_steps) == (0, 5, 0)


def test_the_guide_is_the_critic_after_the_warm_up_and_stays_so():
    played = made("guided")
    with torch.no_grad():
        for weight in played.critics.parameters():
            weight += 0.1
    played.begin()
    guide = played.localiser.generator.guide
    learned = {name: value.clone() for name, value in played.critic.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in played.parameters() if p.requires_grad], 0.1)
    (sum(played.generator_terms(a_batch(), 0).values()) + sum(played.critic_terms(a_batch(), 0).values())).backward()
    optimiser.step()
    assert all(torch.equal(value, learned[name]) for name, value in guide.state_dict().items())
    assert any(not torch.equal(value, learned[name]) for name, value in played.critic.state_dict().items())
    assert not any(weight.requires_grad for weight in guide.parameters())


class Edges(nn.Module):
    """Takes .2 from a bar at the left of every image and .3 from one at its right, for every finding alike."""

    def __init__(self, options: TagGanOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, inputs: torch.Tensor, pairs: Pairs) -> Maps:
        changes = torch.zeros(len(pairs.image), *inputs.shape[2:])
        changes[:, 8:16, 4:8] = 0.2
        changes[:, 8:16, 20:24] = 0.3
        return Maps(changes, torch.ones_like(changes))


class SeesLeft(nn.Module):
    """A witness that sees both findings at the left of the first image, and nothing of any in the others."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = torch.full((len(inputs), 3, inputs.shape[2] // 4, inputs.shape[3] // 4), -4.0)
        logits[0, :, :, :2] = 4.0
        return logits


class Known(nn.Module):
    """Evidence for each finding that is known: much on the left for the first, much on the right for the second."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows, cols = inputs.shape[2] // 4, inputs.shape[3] // 4
        evidence = torch.full((len(inputs), 3, rows, cols), -4.0)
        evidence[:, 0] = 9.0  # for any: of no use
        evidence[:, 1, :, : cols // 2] = 4.0
        evidence[:, 2, :, cols // 2 :] = 4.0
        return evidence


def test_the_gate_follows_the_guide():
    played = made("guided")
    one = played.localiser.generator
    one.guide = Known()
    inputs, pairs = torch.randn(2, 1, 32, 64), Pairs.all(2, 2, torch.device("cpu"))

    def gates() -> torch.Tensor:
        with torch.inference_mode():
            return one(inputs, pairs).gates

    with torch.no_grad():
        one.strength.fill_(1.0)
    first, second = gates()[0::2], gates()[1::2]
    assert first[..., :24].min() > 0.9 > 0.1 > first[..., 40:].max()
    assert second[..., 40:].min() > 0.9 > 0.1 > second[..., :24].max()
    with torch.no_grad():
        one.strength.copy_(torch.tensor([0.0, -1.0]))
    first, second = gates()[0::2], gates()[1::2]
    assert (first[..., :24].mean() - first[..., 40:].mean()).abs() < 0.2
    assert second[..., :24].min() > 0.9 > 0.1 > second[..., 40:].max()
    # Each finding learns how far to trust it.
    changes = one(inputs, pairs).changes
    (gradient,) = torch.autograd.grad(changes.abs().sum(), [one.strength])
    assert (gradient != 0).all()


# Pools of past images -------------------------------------------------------------------------------------------------


def test_a_pool_fills_and_then_gives_back_what_it_takes():
    torch.manual_seed(0)
    pool = game.ImagePool(4)
    number = iter(range(1000))

    def some(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        numbers = torch.tensor([float(next(number)) for _ in range(count)])
        return numbers[:, None, None].expand(-1, 2, 3), numbers[:, None]

    for _ in range(2):  # 0 to 2 and 3, for which there is room, then 4 and 5, for which there is none
        images, labels = some(3)
        seen, said = pool.exchange(images, labels)
        assert torch.equal(seen, images)
        assert torch.equal(said, labels)
    assert pool.kept[1][:, 0].tolist() == [0, 1, 2, 3]
    held, shown, old = {0.0, 1.0, 2.0, 3.0}, [], 0
    for _ in range(100):
        images, labels = some(3)
        seen, said = pool.exchange(images, labels)
        assert torch.equal(seen[:, 0, 0], said[:, 0])  # what goes with an image goes with it
        old += sum(one in held for one in said[:, 0].tolist())
        now = set(pool.kept[1][:, 0].tolist())
        assert len(now) == 4
        assert now == (held | set(labels[:, 0].tolist())) - set(said[:, 0].tolist())  # nothing is lost or doubled
        held = now
        shown += said[:, 0].tolist()
    assert len(shown) == len(set(shown))
    seen, said = pool.exchange(*some(7))  # more than it holds
    assert seen.shape == (7, 2, 3)
    assert torch.equal(seen[:, 0, 0], said[:, 0])
    assert 0.4 < old / 300 < 0.6


def test_the_critic_judges_images_of_the_pool_by_what_they_show():
    played, first, second = made("taggan", {"pool": 3, "noise": 0.0}), a_batch(), Batch(*a_batch())
    played.critic_terms(first, 0)
    assert {name: len(pool.kept[0]) for name, pool in played.pools.items()} == {"counterparts": 3, "painted": 3}
    assert torch.equal(played.pools["painted"].kept[1], first.asked)
    plain = made("taggan", {"noise": 0.0})
    torch.manual_seed(7)
    without = plain.critic_terms(second, 0)
    played.pools["counterparts"].kept = (torch.zeros(3, 32, 64),)
    played.pools["painted"].kept = (torch.zeros(3, 32, 64), first.asked)
    torch.manual_seed(7)
    with_ = played.critic_terms(second, 0)
    assert all(with_[name].item() != without[name].item() for name in ("normal", "disease"))
    assert made("taggan").pools == {}


# VA-GAN ---------------------------------------------------------------------------------------------------------------


def test_vagans_critic_has_its_first_steps_and_every_hundredth():
    played = made("vagan", {"critic_steps": 4, "first_critic_steps": 20})
    assert [played.critic_steps(step) for step in (0, 1, 24, 25, 26, 99, 100, 101, 200)] == [
        *(20, 20, 20, 4, 4, 4, 20, 4, 20)
    ]
    assert [made("taggan").critic_steps(step) for step in (0, 100)] == [1, 1]
    assert made("taggan", {"critic_steps": 3}).critic_steps(7) == 3


def test_vagans_losses_by_hand():
    played, batch = made("vagan", {"sparsity": 7.0, "penalty": 3.0}), a_batch(32, 32)
    played.eval()  # a batch of its own does not change what BatchNorm does
    critic = played.critics["critic"]
    with torch.no_grad():
        change = played.localiser.change(SEEN(batch.ill))
        made_, healthy = critic(SEEN(batch.ill - change)), critic(SEEN(batch.healthy))
    terms = played.generator_terms(batch, 0)
    assert terms["normal"].item() == pytest.approx(made_.mean().item(), abs=1e-6)
    assert terms["sparsity"].item() == pytest.approx(7 * 2 * change.abs().mean().item(), rel=1e-5)
    assert sum(terms.values()).item() == pytest.approx(terms["normal"].item() + terms["sparsity"].item(), rel=1e-6)
    torch.manual_seed(0)
    terms = played.critic_terms(batch, 0)
    # The critic says how ill an image looks: high for what was made, low for the healthy.
    assert terms["distance"].item() == pytest.approx((healthy.mean() - made_.mean()).item(), abs=1e-6)
    torch.manual_seed(0)
    mixed = mixed_with(batch.healthy, batch.ill - change)
    penalty = 3 * gradient_penalty(critic(SEEN(mixed)), mixed).mean()
    assert terms["penalty"].item() == pytest.approx(penalty.item(), rel=1e-5)


# The rules by hand ----------------------------------------------------------------------------------------------------


JUDGEMENT = torch.tensor([[2.0, -0.5], [0.25, -3.0]])


@pytest.mark.parametrize(
    ("rule", "real", "by_hand"),
    [
        ("hinge", True, [(0 + 1.5) / 2, (0.75 + 4) / 2]),
        ("hinge", False, [(3 + 0.5) / 2, (1.25 + 0) / 2]),
        ("lsgan", True, [(1 + 2.25) / 2, (0.5625 + 16) / 2]),
        ("lsgan", False, [(4 + 0.25) / 2, (0.0625 + 9) / 2]),
        ("wgan-gp", True, [-0.75, 1.375]),
        ("wgan-gp", False, [0.75, -1.375]),
    ],
)
def test_the_critics_loss_by_hand(rule, real, by_hand):
    assert judged_as(rule, JUDGEMENT, real=real).tolist() == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("rule", "by_hand"),
    [
        ("hinge", [-0.75, 1.375]),
        ("lsgan", [(1 + 2.25) / 2, (0.5625 + 16) / 2]),
        ("wgan-gp", [-0.75, 1.375]),
    ],
)
def test_the_generators_loss_by_hand(rule, by_hand):
    assert taken_for_real(rule, JUDGEMENT).tolist() == pytest.approx(by_hand)


def test_each_finding_is_judged_by_itself():
    judgement = torch.tensor([[[2.0, -0.5], [0.25, -3.0]]])  # one image, two findings, two cells
    assert taggan.judged_each("hinge", judgement, real=True).tolist() == [pytest.approx([0.75, 2.375])]
    assert taggan.each_taken_for_real("lsgan", judgement).tolist() == [pytest.approx([1.625, 8.28125])]
    values = torch.tensor([[1.0, 5.0], [3.0, 7.0], [100.0, 100.0]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert taggan._of_labels(values, labels).item() == pytest.approx((1 + 5 + 0) / 3)


def test_the_penalty_of_a_linear_critic_by_hand():
    weights = torch.tensor([[3.0, 0.0, -4.0], [0.0, 12.0, 0.0]])  # norm 13
    mixed = torch.rand(4, 2, 3, requires_grad=True)
    scale = torch.tensor([1.0, 2.0, 2 / 13, 0.0], requires_grad=True)
    judgement = scale * (mixed * weights).sum(dim=(1, 2))
    # By images of -1 to 1, as they are published, of which ours, 0 to 1, are half: |gradient| = 6.5.
    penalty = gradient_penalty(judgement, mixed)
    assert penalty.tolist() == pytest.approx([5.5**2, 12.0**2, 0.0, 1.0], abs=1e-4)
    (gradient,) = torch.autograd.grad(penalty[0], [scale])  # it teaches the critic: d (6.5 s - 1)^2 / ds
    assert gradient[0].item() == pytest.approx(2 * 5.5 * 6.5)


def test_mixed_images_lie_between_a_real_and_a_made_one():
    torch.manual_seed(0)
    real, made_ = torch.zeros(50, 2, 3), torch.ones(50, 2, 3, requires_grad=True)
    mixed = mixed_with(real, made_)
    assert mixed.requires_grad
    assert mixed.grad_fn is None
    share = mixed.detach().flatten(1)
    assert (share == share[:, :1]).all()  # one share an image
    assert 0 <= share.min() < 0.1 < 0.9 < share.max() <= 1


# Strips and refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_strip_is_pictures_in_0_to_1(method):
    played, batch = made(method).eval(), a_batch()
    strip = played.strip(batch)
    assert strip.shape == (3, 4, 32, 64)
    assert 0 <= strip.min() < strip.max() <= 1
    assert not strip.requires_grad
    torch.testing.assert_close(strip[:, 0], batch.ill)


def test_a_strips_map_is_grey_where_nothing_changes():
    played, batch = made("taggan", {"gate_bias": -50.0}).eval(), a_batch()
    with torch.no_grad():
        played.localiser.generator.gate.weight.zero_()
    strip = played.strip(batch)
    assert strip[:, 1].unique().tolist() == [0.5]
    assert torch.equal(strip[:, 2], batch.ill)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("taggan", {"cylce": 1.0}, r"^taggan has no setting options\.cylce\. Did you mean options\.cycle\?"),
        ("taggan", {"window_px": 4}, r"^setting options\.window_px = 4 of taggan: .*its side is odd"),
        ("taggan", {"amplitude": 0.0}, r"^setting options\.amplitude = 0\.0 of taggan"),
        ("taggan", {"rule": "wgan"}, r"^setting options\.rule = 'wgan' of taggan: .*'wgan-gp'"),
        ("taggan", {"guide": 1.0}, r"^taggan has no setting options\.guide\."),
        ("guided", {"strength": 1.0}, r"^guided has no setting options\.strength\."),
        ("guided", {"warm_up": 0}, r"^setting options\.warm_up = 0 of guided: .*greater than or equal to 1"),
        ("vagan", {"sparsity": -1}, r"^setting options\.sparsity = -1 of vagan: .*greater than or equal to 0"),
        ("vagan", {"rule": "hinge"}, r"^vagan has no setting options\.rule\."),
    ],
)
def test_options_that_cannot_be_are_refused(method, options, message):
    with pytest.raises(BadSetting, match=message):
        new_game(method, 2, BACKBONE, options, SEEN)
    with pytest.raises(BadSetting, match=message):
        build(method, 2, BACKBONE, options, 64)


@pytest.mark.parametrize("options", [{"generator": "unet"}, {"critic": "patch"}])
def test_guided_is_made_of_an_encoder_and_evidence(options):
    with pytest.raises(BadSetting, match=rf"^setting options\.{next(iter(options))} = .* of guided"):
        new_game("guided", 2, BACKBONE, options, SEEN)


def test_a_classifier_is_no_game():
    with pytest.raises(BadSetting, match=r"^'pylon' has no two sides; use one of taggan, vagan, guided\.$"):
        new_game("pylon", 2, BACKBONE, {}, SEEN)


def test_every_game_is_whole():
    for method in METHODS:
        played = made(method)
        assert isinstance(played.localiser, nn.Module)
    assert inspect.isabstract(Generator)
    assert isinstance(made("taggan").localiser, TagGanLocaliser)
