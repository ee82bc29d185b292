"""VA-GAN: the change that makes an ill image look healthy to a critic, as small as it can be.

Baumgartner, Koch, Tezcan, Ang, Konukoglu: "Visual feature attribution using Wasserstein GANs", CVPR 2018, and its code.

y = x + M(x); a U-Net of 16 to 128 channels with BatchNorm gives M, a critic of plain convolutions without any
normalisation judges y by the Wasserstein distance with gradient penalty, and M is kept small by its mean |M|. Five
critic steps to each of the generator, a hundred for the first 25 and every hundredth.

It knows ill and healthy alone: with several findings an image has one map, and every finding is given it. Here
``changes`` is what is taken away, as everywhere in radtag: -M.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from radtag.models.backbone import BackboneOptions
from radtag.models.game import Batch, Game, Seen, Terms, gradient_penalty, mixed_with, of_changes
from radtag.models.output import Output


class VaGanOptions(BaseModel):
    """VA-GAN's own settings; the defaults are the paper's.

    Attributes:
        sparsity: weight of the mean |M|, for images of -1 to 1.
        penalty: weight of the gradient penalty.
        critic_steps: of the critic before each step of the generator.
        first_critic_steps: the same before each of the first 25 steps of the generator, and before every hundredth.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sparsity: float = Field(default=100.0, ge=0)
    penalty: float = Field(default=10.0, ge=0)
    critic_steps: int = Field(default=5, ge=1)
    first_critic_steps: int = Field(default=100, ge=1)


class VaGanLocaliser(nn.Module):
    """The generator: a U-Net of 16, 32, 64 and 128 channels, two 3x3 convolutions a level, BatchNorm.

    Args:
        findings: how many are given the one map.
        channels: of the input.
    """

    WIDTHS = (16, 32, 64, 128)

    def __init__(self, findings: int, channels: int) -> None:
        super().__init__()
        self.findings = findings
        inward = (channels, *self.WIDTHS)
        self.down = nn.ModuleList(_twice(a, b) for a, b in zip(inward, self.WIDTHS, strict=False))
        outward = self.WIDTHS[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairwise(outward))
        self.join = nn.ModuleList(_twice(2 * b, b) for b in outward[1:])
        self.last = nn.Conv2d(self.WIDTHS[0], 1, 1)

    def change(self, inputs: Float[Tensor, "image channel row col"]) -> Float[Tensor, "image row col"]:
        """What is taken away, -M, in units of the image's range."""
        skips: list[Tensor] = []
        x = inputs
        for depth, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if depth else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(skips[:-1]), strict=True):
            x = join(torch.cat([up(x), skip], dim=1))
        return -self.last(x)[:, 0].float()

    def forward(self, inputs: Float[Tensor, "image channel row col"]) -> Output:
        """Normalised images -> logits (image, finding) and |M| (image, finding, row, col), the same for all findings.

        The change is one, (image, 1, row, col), and is taken away once.
        """
        one = of_changes(self.change(inputs)[:, None])
        logits, maps = one.logits.expand(-1, self.findings), one.maps.expand(-1, self.findings, -1, -1)
        return Output(logits, maps, one.changes)


class VaGanCritic(nn.Module):
    """Plain 3x3 convolutions 16/16/32/32/64/64/128/128/256/256, then 1x1 and a spatial mean; no normalisation."""

    WIDTHS = (16, 32, 64, 128, 256)

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for depth, width in enumerate(self.WIDTHS):
            layers += [nn.MaxPool2d(2)] if depth else []
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2)]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2)]
            channels = width
        self.net = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    def forward(self, inputs: Tensor) -> Float[Tensor, image]:
        """Normalised images -> how ill they look."""
        return self.net(inputs).float().mean(dim=(1, 2, 3))


class VaGan(Game):
    """Generator and critic, and what each wants.

    Args:
        findings: how many.
        backbone: whose number of input channels is used, and nothing else.
        options: VA-GAN's settings.
        seen: how the networks see an image.
    """

    def __init__(self, findings: int, backbone: BackboneOptions, options: VaGanOptions, seen: Seen) -> None:
        super().__init__()
        self.options, self.seen = options, seen
        self.generators = nn.ModuleDict({"generator": VaGanLocaliser(findings, backbone.channels)})
        self.critics = nn.ModuleDict({"critic": VaGanCritic(backbone.channels)})

    @property
    def localiser(self) -> VaGanLocaliser:
        """The generator."""
        return self.generators["generator"]  # type: ignore[return-value]

    def critic_steps(self, step: int) -> int:
        """See the module's text."""
        return self.options.first_critic_steps if step < 25 or step % 100 == 0 else self.options.critic_steps

    def generator_terms(self, batch: Batch, step: int) -> Terms:
        """Look healthy, and change little; 2 |M|, since the paper's images run from -1 to 1."""
        change = self.localiser.change(self.seen(batch.ill))
        return {
            "normal": self.critics["critic"](self.seen(batch.ill - change)).mean(),
            "sparsity": self.options.sparsity * 2 * change.abs().mean(),
        }

    def critic_terms(self, batch: Batch, step: int) -> Terms:
        """The Wasserstein distance, and the gradient's penalty between healthy and made images."""
        critic = self.critics["critic"]
        with torch.no_grad():
            made = batch.ill - self.localiser.change(self.seen(batch.ill))
        healthy, ill = critic(self.seen(torch.cat([batch.healthy, made]))).chunk(2)
        mixed = mixed_with(batch.healthy, made)
        return {
            "distance": healthy.mean() - ill.mean(),
            "penalty": self.options.penalty * gradient_penalty(critic(self.seen(mixed)), mixed).mean(),
        }

    @torch.no_grad()
    def strip(self, batch: Batch) -> Tensor:
        """See :class:`Game`; there is no way back, and the healthy image's own change stands in its place."""
        change = self.localiser.change(self.seen(batch.ill))
        idle = self.localiser.change(self.seen(batch.healthy))
        shown, quiet = ((0.5 + one).clamp(0, 1) for one in (change, idle))
        return torch.stack([batch.ill, shown, (batch.ill - change).clamp(0, 1), quiet], dim=1)


def _twice(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers)


def build(
    findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None
) -> VaGanLocaliser:
    """The part that tags, with random weights; see :class:`VaGanOptions` for ``options``."""
    VaGanOptions.model_validate(options)
    return VaGanLocaliser(findings, backbone.channels)


def game(findings: int, backbone: BackboneOptions, options: dict[str, object], seen: Seen) -> VaGan:
    """Both sides, with random weights."""
    return VaGan(findings, backbone, VaGanOptions.model_validate(options), seen)
