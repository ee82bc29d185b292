"""PYLON's evidence guides TagGAN: where the classifier sees the disease, the gate stands open first. Ours.

A classifier's map is sure of its place and vague about its outline. A GAN's is sharp, and spends most of its training
on finding the place. Here the evidence network (:class:`radtag.models.taggan.EvidenceCritic`, PYLON's idea), as it is
when it has learned the labels, is kept still, and its logits are added to those of the gate, with a factor that each
finding learns. From there the game is TagGAN's: the gate closes where the evidence is not needed to make the
image normal, and where more is needed it opens. docs/log.md has the ablation.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from radtag.models.backbone import BackboneOptions
from radtag.models.game import Seen
from radtag.models.taggan import (
    LOGIT_SCALE,
    EncoderGenerator,
    EvidenceCritic,
    Pairs,
    TagGan,
    TagGanLocaliser,
    TagGanOptions,
    localiser,
    refuse_other_count,
)


class GuidedOptions(TagGanOptions):
    """The settings of TagGAN, of which generator and critic have to be "encoder" and "evidence", and there is a gate.

    Attributes:
        warm_up: steps in which the critic, and with it the guide, learns the labels; at least 1.
        guide: factor of the evidence in the gate's logit, at first.
    """

    generator: Literal["encoder"] = "encoder"
    critic: Literal["evidence"] = "evidence"
    gate: Literal[True] = True
    gate_bias: float = 0.0
    warm_up: int = Field(default=600, ge=1)
    guide: float = 1.0


class GuidedGenerator(EncoderGenerator):
    """TagGAN's forward generator, with the evidence of a network that stays as it is in the gate."""

    def __init__(self, findings: int, backbone: BackboneOptions, options: GuidedOptions) -> None:
        refuse_other_count(options, findings)
        super().__init__(findings, backbone, options, noise_channels=0)
        self.guide = EvidenceCritic(findings, backbone).requires_grad_(False)
        self.strength = nn.Parameter(torch.full((findings,), options.guide))

    def raw(self, inputs: Float[Tensor, "image channel row col"], pairs: Pairs) -> tuple[Tensor, Tensor]:
        """See :meth:`radtag.models.taggan.Generator.raw`."""
        gate, amount = super().raw(inputs, pairs)
        with torch.no_grad():
            evidence = LOGIT_SCALE * self.guide(inputs)[pairs.image, 1 + pairs.finding][:, None]
        evidence = F.interpolate(evidence, size=gate.shape[-2:], mode="bilinear", align_corners=False)
        return gate + self.strength[pairs.finding][:, None, None, None] * evidence, amount


class Guided(TagGan):
    """TagGAN with a guided forward generator."""

    options: GuidedOptions

    def _forward_generator(self, findings: int, backbone: BackboneOptions) -> GuidedGenerator:
        return GuidedGenerator(findings, backbone, self.options)

    def begin(self) -> None:
        """The guide is the critic as it is after the warm-up."""
        super().begin()
        forward: GuidedGenerator = self.generators["to_normal"]  # type: ignore[assignment]
        forward.guide.load_state_dict(self.critic.state_dict())


def build(
    findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None
) -> TagGanLocaliser:
    """The part that tags, with random weights; see :class:`GuidedOptions` for ``options``."""
    forward = GuidedGenerator(findings, backbone, GuidedOptions.model_validate(options))
    return localiser(forward, findings, backbone)


def game(findings: int, backbone: BackboneOptions, options: dict[str, object], seen: Seen) -> Guided:
    """Both sides, with random weights."""
    return Guided(findings, backbone, GuidedOptions.model_validate(options), seen)
