"""What methods of two sides have in common: generators that change an image, critics that judge it.

A game knows its networks and its losses; :mod:`radtag.train.adversarial` knows the order of steps, the optimisers, the
machines. Images come and go in the range 0-1 of :class:`radtag.images.Image`; a network sees them normalised.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from radtag.models.envelope import quasiconcave_envelope
from radtag.models.output import Output

Terms = dict[str, Tensor]
"""Weighted losses, by name; their sum is what is minimised. Each is a mean over the batch's images."""

Rule = Literal["hinge", "lsgan", "wgan-gp"]


class Batch(NamedTuple):
    """Unpaired images of both sides.

    ``ill`` and ``healthy`` are (image, row, col) in 0-1. ``labels`` (image, finding) are 1 where the ill image is known
    to have the finding, else 0; ``asked`` likewise names what is to be painted into the healthy image. ``known`` is 0
    where the ill image's label is unknown, and is not to be learned from, else 1; None where all are known.
    """

    ill: Tensor
    labels: Tensor
    healthy: Tensor
    asked: Tensor
    known: Tensor | None = None


class Seen(NamedTuple):
    """How a network sees an image: normalised, with as many channels as it takes."""

    mean: float
    sd: float
    channels: int

    def __call__(self, images: Float[Tensor, "image row col"]) -> Float[Tensor, "image channel row col"]:
        inputs = ((images - self.mean) / self.sd)[:, None].expand(-1, self.channels, -1, -1)
        return inputs.contiguous(memory_format=torch.channels_last)


class ImagePool:
    """Images made in earlier steps, which a critic judges in place of some of now's (Shrivastava et al. 2017).

    Args:
        size: images that are kept.

    Attributes:
        kept: their pixels, and what goes with them, each (image, ...); empty at first.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: tuple[Tensor, ...] = ()

    def exchange(self, *made: Tensor) -> tuple[Tensor, ...]:
        """What the critic is to see: each made image or, once the pool is full, by even chance one that it gives back.

        Args:
            made: (image, ...) pixels, and what goes with them, without gradients.
        """
        room = self.size - len(self.kept[0]) if self.kept else self.size
        if room:
            added = tuple(one[:room].clone() for one in made)
            self.kept = tuple(map(torch.cat, zip(self.kept, added, strict=True))) if self.kept else added
            return made
        count, device = min(len(made[0]), self.size), made[0].device
        given = torch.rand(count, device=device) < 0.5
        places = torch.randperm(self.size, device=device)[:count]
        seen = []
        for now, kept in zip(made, self.kept, strict=True):
            old, chosen = kept[places], given.view(-1, *[1] * (now.ndim - 1))
            seen.append(torch.cat([torch.where(chosen, old, now[:count]), now[count:]]))
            kept[places] = torch.where(chosen, now[:count], old)
        return tuple(seen)


class Game(nn.Module, ABC):
    """Generators against critics.

    Attributes:
        generators: moved by the generators' optimiser.
        critics: moved by the critics' optimiser.
        pools: of made images, by name; each process has its own.
    """

    generators: nn.ModuleDict
    critics: nn.ModuleDict
    pools: Mapping[str, ImagePool] = MappingProxyType({})

    @property
    @abstractmethod
    def localiser(self) -> nn.Module:
        """The part of the generators that tagging needs; takes normalised images and gives an ``Output``."""

    @abstractmethod
    def generator_terms(self, batch: Batch, step: int) -> Terms:
        """What the generators minimise; gradients of the critics' weights are not wanted."""

    @abstractmethod
    def critic_terms(self, batch: Batch, step: int) -> Terms:
        """What the critics minimise."""

    @abstractmethod
    def strip(self, batch: Batch) -> Float[Tensor, "image picture row col"]:
        """Pictures to look at, in 0-1: image, map (grey is no change), normal counterpart, and back again."""

    def critic_steps(self, step: int) -> int:
        """Steps of the critics before each of the generators."""
        return 1

    @property
    def warm_up_steps(self) -> int:
        """Steps of the critics on labels alone, before anything else."""
        return 0

    def warm_up_terms(self, batch: Batch) -> Terms:
        """What the critics minimise in the warm-up."""
        raise NotImplementedError

    def begin(self) -> None:
        """Called once, between the warm-up and the first step."""


def judged_as(rule: Rule, judgement: Tensor, *, real: bool) -> Tensor:
    """The critic's loss for images that are (or are not) real, one an image.

    Args:
        rule: hinge (Lim and Ye 2017), least squares (Mao et al. 2017), or Wasserstein (Arjovsky et al. 2017), whose
            gradient penalty is :func:`gradient_penalty`.
        judgement: (image, ...) high where the critic takes it for real.
        real: whether it is.
    """
    if rule == "hinge":
        loss = F.relu(1 - judgement) if real else F.relu(1 + judgement)
    elif rule == "lsgan":
        loss = (judgement - 1) ** 2 if real else judgement**2
    else:
        loss = -judgement if real else judgement
    return loss.flatten(1).mean(dim=1)


def taken_for_real(rule: Rule, judgement: Tensor) -> Tensor:
    """The generator's loss: how far its images are from being taken for real, one an image."""
    loss = (judgement - 1) ** 2 if rule == "lsgan" else -judgement
    return loss.flatten(1).mean(dim=1)


def gradient_penalty(judgement: Tensor, mixed: Tensor) -> Tensor:
    """(|gradient| - 1)^2 of the summed judgement at mixed images (Gulrajani et al. 2017), one an image.

    The gradient is by an image of -1 to 1, as papers have them: half of that by one of 0 to 1.
    """
    (gradient,) = torch.autograd.grad(judgement.sum(), mixed, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) / 2 - 1) ** 2


def mixed_with(real: Tensor, made: Tensor) -> Tensor:
    """A random point between each real image and a made one, which gradients can be taken at."""
    share = torch.rand(len(real), 1, 1, device=real.device)
    return torch.lerp(real, made.detach(), share).requires_grad_()


def of_changes(
    changes: Float[Tensor, "image finding row col"],
    window_px: int = 1,
    weights: Float[Tensor, "image finding row col"] | None = None,
    whole: Sequence[int] = (),
) -> Output:
    """The output of a localiser whose maps are amounts of change, in units of the image's range.

    A lesion hides texture as well as adding density, and where the two cancel the change is 0 inside it: maps are
    |change|, averaged twice over windows of ``window_px`` (odd; 1 = as it is), times ``weights`` (0-1), if there are
    any. The maps of the ``whole`` findings, given by number, also have what lies between their parts, which no change
    was made to. The changes themselves stay exact.

    The image's logit is the logarithm of the mean of the map's strongest hundredth, which is also defined (and very
    low) for a map of nothing.
    """
    maps = changes.abs()
    if window_px > 1:
        for _ in range(2):
            maps = F.avg_pool2d(maps, window_px, stride=1, padding=window_px // 2, count_include_pad=False)
    if weights is not None:
        maps = maps * weights
    if whole:
        maps[:, list(whole)] = quasiconcave_envelope(maps[:, list(whole)])
    strongest = max(maps[0, 0].numel() // 100, 1)
    logits = (maps.flatten(2).topk(strongest, dim=2).values.mean(dim=2) + 1e-4).log()
    return Output(logits, maps, changes)
