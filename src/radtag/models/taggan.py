"""TagGAN: what has to be taken from an abnormal image to make it normal is the map of the disease.

Nawaz, Nasir, Zia, Hussain, Moreira: "TagGAN: a generative model for data tagging", arXiv 2502.17836, 2025.

Two generators in a cycle. The forward one takes an abnormal image x and a disease c and gives a map M(x, c); the normal
counterpart is y = x - M. The backward one paints the disease c into an image. Critics tell normal images from
counterparts, and images that have c from painted ones. Nothing but image labels is used.

The paper leaves the networks, the losses and their weights open, and there is no public code. What can be inferred from
its relatives (CycleGAN-type attribution, VA-GAN, Fixed-Point GAN) is the preset "paper": U-Nets of stride-2
convolutions, PatchGAN critics, least squares, cycles of weight 10, a pool of past images. The defaults differ from it
in what made it work (docs/log.md has each step):

- The critics are one network that holds *evidence* for every disease, and for any, at a quarter of the input's side,
  pooled softly over the image: a label says that the disease is somewhere, not that every patch shows it. It learns the
  labels before the generators move, and they begin with its encoder.
- A map is gate x amount. The gate (0-1) says where. The amount says how much, and is bounded. Both come from cells of 2
  pixels, which leaves less room for a pattern that nobody but the critic sees.
- Abnormal images as they are stand beside the counterparts as "not normal", and normal ones beside the painted as "not
  ill"; so do abnormal ones that have other diseases alone, or the critic would forget which disease is which.
- What is taken away is the same whatever disease is asked for, or nearly: nothing in the game but the sum over an
  image's diseases is judged. So the critic, which the game trains anyway, is the *witness* when images are tagged: a
  map is what was taken where the critic sees this disease, and what hangs together with that. The counterpart is made
  with all that was taken. Of a finding that is a whole organ, the map also has what lies between (TagGanOptions.whole).

An image with several diseases has a map for each, and all of them are taken away.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator, model_validator
from torch import Tensor, nn

from radtag.errors import BadSetting
from radtag.models.backbone import Backbone, BackboneOptions
from radtag.models.game import (
    Batch,
    Game,
    ImagePool,
    Rule,
    Seen,
    Terms,
    gradient_penalty,
    judged_as,
    mixed_with,
    of_changes,
    taken_for_real,
)
from radtag.models.output import Output, pool

Sign = Literal["either", "adds", "removes"]

_LIMITS: dict[Sign, tuple[float, float]] = {"either": (-1.0, 1.0), "adds": (0.0, 1.0), "removes": (-1.0, 0.0)}
"""Of what is taken away, as a share of the largest amount: from a finding that adds density, density is taken."""

_BY_FINDING: dict[str, tuple[Any, Mapping[str, Any]]] = {
    "sign": ("either", {sign: sign for sign in _LIMITS}),
    "whole": (False, {"false": False, "true": True}),
}
"""Options that may be given by findings' names: what those not named have, and what each may be, as it is written."""

NOTHING_TAKEN = 0.01
"""Of the image's range: a mean change of a cell that is small beside this is no bridge for the witness's chance."""

LOGIT_SCALE = 2.0
"""The game is played on logits of about 1; a classifier's are about so many times as large."""


class TagGanOptions(BaseModel):
    """TagGAN's own settings. All of them are inferred or ours, since the paper states none.

    Attributes:
        generator: "encoder" is the backbone with a decoder that the disease conditions; "unet" is inferred: four
            stride-2 4x4 convolutions 32/64/128/256, the disease as input channels.
        critic: "evidence" has a map for every finding and one for any, like PYLON; "patch" is a PatchGAN,
            64/128/256/512, with as many outputs.
        judged: what of the critic's maps is judged: softly pooled over the image ("lse"), their maximum, their mean,
            or each patch by itself ("none", as PatchGAN).
        sharpness: r of "lse".
        rule: the game's loss.
        warm_up: steps in which the critic learns the labels before the generators move.
        critic_steps: of the critic to each of the generators.
        pool: past counterparts, and past painted images, of which the critic judges one in place of every second of
            now's; 0 = none.
        gate: whether a map is gate x amount, or an amount alone.
        gate_bias: what the gate's logit begins at; -3 is nearly shut.
        amplitude: the largest amount, as a share of the image's range.
        amount_stride: cells of the amount, in pixels; gates have cells of 2 ("encoder" alone).
        sign: whether disease adds density, removes it, or either; one for all findings, or one for each, in their
            order. Training takes them by name as well, and "either" for those not named:
            ``--set options.sign.pneumothorax=removes``. What is dark beside a bright place can be undone on both sides,
            and the game may choose the wrong one.
        whole: whether a finding is a whole organ that has grown, of which a game takes no more than the edge; one for
            all findings, or one for each, in their order. Training takes them by name as well, and false for those not
            named: ``--set options.whole.cardiomegaly=true``. All that lies between the parts of its map is then the
            finding's (at every height the convex hull of what is as high), and the chance that spreads (witness_spread)
            reaches parts that do not touch. The counterpart stays as it is. What is changed beside the image counts as
            a part too: it is for images that are stretched to the square and shown whole (no lungs).
        every: steps from one to the next in which healthy images pass too: painted and taken back (cycle), and as they
            are (identity), with as many times the weight. What they teach is learned soon, and they are half the cost.
        cycle: weight of |n - n'|, n painted and taken back.
        cycle_both: whether that cycle moves the backward generator too.
        cycle_ill: weight of |x - x'|, the counterpart painted again. Where a lesion was cannot be known from a normal
            image, so that this cycle asks for a hidden note of it; off by default.
        noise: standard deviation of what is added between the two generators, against such notes.
        identity: weight of |M(n, c)|: a normal image has an empty map.
        sparsity: weight of |M|.
        gate_share: what of a weight of |M| also falls on the mean gate of the forward generator.
        sparsity_painted: weight of what the backward generator adds; with little of it the whole image is painted.
        ramp: steps over which identity and sparsity rise to their weights, from a tenth.
        total_variation: weight of the maps' total variation.
        everywhere: weight of the evidence left in any cell of the counterpart, beside that of the pooled.
        guidance: weight of the evidence for the disease itself left in the counterpart.
        window_px: side of the windows, in pixels of the network's input, over which |M| is averaged (twice) for the
            map; odd, 1 leaves it as it is. The counterpart is made with M itself.
        as_they_are: weight, among what is not normal (not ill), of abnormal (normal) images as they are.
        others: weight, among what does not have a disease, of abnormal images that are known not to have it.
        witness: whether maps are weighted by the critic's chance for the finding ("evidence" alone), which has to see
            the image once more.
        witness_spread: the share that a finding has to have in what is taken from one of the critic's cells (4 pixels),
            over all findings and 0.01 of the range, for the chance to spread there whole from the cells beside it; with
            half of this share half of it gets through from each cell to the next. 0 spreads nothing. What tells a
            disease may be one end of it, and what was taken with that end is the rest. Where only one finding is
            known, the share is large wherever something is taken.
        witness_px: side of the windows, in pixels of the network's input, over which that chance is then taken at its
            largest and averaged, since what tells a disease may be its edge; odd, 1 leaves it as it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    generator: Literal["encoder", "unet"] = "encoder"
    critic: Literal["evidence", "patch"] = "evidence"
    judged: Literal["lse", "max", "avg", "none"] = "lse"
    sharpness: float = Field(default=5.0, gt=0)
    rule: Rule = "hinge"
    warm_up: int = Field(default=600, ge=0)
    critic_steps: int = Field(default=1, ge=1)
    pool: int = Field(default=0, ge=0)
    gate: bool = True
    gate_bias: float = -3.0
    amplitude: float = Field(default=0.4, gt=0, le=1)
    amount_stride: Literal[2, 4, 8] = 2
    sign: Sign | tuple[Sign, ...] = "either"
    whole: StrictBool | tuple[StrictBool, ...] = False
    every: int = Field(default=4, ge=1)
    cycle: float = Field(default=2.0, ge=0)
    cycle_both: bool = False
    cycle_ill: float = Field(default=0.0, ge=0)
    noise: float = Field(default=0.05, ge=0)
    identity: float = Field(default=10.0, ge=0)
    sparsity: float = Field(default=10.0, ge=0)
    gate_share: float = Field(default=0.3, ge=0)
    sparsity_painted: float = Field(default=10.0, ge=0)
    ramp: int = Field(default=200, ge=1)
    total_variation: float = Field(default=0.0, ge=0)
    everywhere: float = Field(default=0.5, ge=0)
    guidance: float = Field(default=0.5, ge=0)
    as_they_are: float = Field(default=1.0, ge=0)
    others: float = Field(default=1.0, ge=0)
    witness: bool = True
    witness_spread: float = Field(default=0.5, ge=0, le=1)
    witness_px: int = Field(default=9, ge=1)
    window_px: int = Field(default=5, ge=1)

    @field_validator("window_px", "witness_px")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("a window has a centre: its side is odd")
        return value

    @model_validator(mode="after")
    def _known_witness(self) -> TagGanOptions:
        if self.witness and self.critic != "evidence":
            raise ValueError('a critic of patches is no witness: set options.witness to false, or critic to "evidence"')
        return self


PUBLISHED = {
    "generator": "unet",
    "critic": "patch",
    "judged": "none",
    "rule": "lsgan",
    "warm_up": 0,
    "pool": 50,
    "gate": False,
    "amplitude": 0.5,
    "every": 1,
    "cycle": 20.0,
    "cycle_both": True,
    "cycle_ill": 20.0,
    "noise": 0.0,
    "identity": 2.0,
    "sparsity": 2.0,
    "sparsity_painted": 0.0,
    "ramp": 1,
    "everywhere": 0.0,
    "guidance": 0.0,
    "as_they_are": 0.0,
    "others": 0.0,
    "witness": False,
    "window_px": 1,
}
"""What methods near the paper do, for the preset "paper". Their images run from -1 to 1, ours from 0 to 1: amplitudes
are half of theirs, and weights of differences twice theirs."""


class Maps(NamedTuple):
    """Signed changes (pair, row, col) in units of the image's range, and the gates (pair, row, col) they passed."""

    changes: Tensor
    gates: Tensor


class Made(NamedTuple):
    """What the generators make of a batch, all (image, row, col): what is taken from the ill images, through which
    gates, and what is left; in some steps, what is added to the healthy ones, and what comes of it."""

    removed: Tensor
    gates: Tensor
    counterpart: Tensor
    added: Tensor | None
    painted: Tensor | None


class Pairs(NamedTuple):
    """Which image and which finding each map is of, both (pair,)."""

    image: Tensor
    finding: Tensor

    @classmethod
    def of(cls, labels: Float[Tensor, "image finding"]) -> Pairs:
        """The pairs whose label is 1."""
        image, finding = labels.nonzero(as_tuple=True)
        return cls(image, finding)

    @classmethod
    def all(cls, images: int, findings: int, device: torch.device) -> Pairs:
        """Every finding of every image, image by image."""
        at = torch.arange(images * findings, device=device)
        return cls(at // findings, at % findings)

    def per_image(self, values: Float[Tensor, "pair ..."], images: int) -> Float[Tensor, "image ..."]:
        """The sum of what an image's pairs have."""
        return values.new_zeros(images, *values.shape[1:]).index_add(0, self.image, values)


class Generator(nn.Module, ABC):
    """An image and a finding -> a gate and an amount. What is below it differs; what comes out is shaped here.

    Args:
        options: TagGAN's settings.
    """

    def __init__(self, options: TagGanOptions) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def raw(self, inputs: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Normalised images -> (pair, 1, row, col) logits of the gate, and amounts before they are bounded."""

    def forward(self, inputs: Float[Tensor, "image channel row col"], pairs: Pairs) -> Maps:
        """Normalised images -> the changes and gates of the pairs, in the images' size."""
        size = inputs.shape[-2:]
        gate, amount = (
            F.interpolate(one.float(), size=size, mode="bilinear", align_corners=False)[:, 0]
            for one in self.raw(inputs, pairs)
        )
        amount = self.options.amplitude * self._of_sign(amount.tanh(), pairs.finding)
        gate = gate.sigmoid() if self.options.gate else torch.ones_like(gate)
        return Maps(gate * amount, gate)

    def _of_sign(self, amounts: Float[Tensor, "pair row col"], finding: Int[Tensor, pair]) -> Tensor:
        """Amounts (-1 to 1), those of the wrong sign 0."""
        sign = self.options.sign
        if isinstance(sign, str):
            low, high = _LIMITS[sign]
            return amounts.clamp(low, high)
        limits = amounts.new_tensor([_LIMITS[one] for one in sign])[finding, :, None, None]
        return amounts.clamp(limits[:, 0], limits[:, 1])


class EncoderGenerator(Generator):
    """The backbone's features at strides 2 to 16, and a decoder back to stride 2 that each finding conditions.

    The encoder runs once an image, however many findings are asked for. There is no normalisation in the decoder, which
    would take away the very differences in intensity that a lesion is, and BatchNorm in the backbone stays as it was
    found: healthy, ill and painted images pass in different batches.
    """

    WIDTHS = (96, 64, 32, 24)

    def __init__(self, findings: int, backbone: BackboneOptions, options: TagGanOptions, noise_channels: int) -> None:
        super().__init__(options)
        self.backbone = Backbone(backbone, None, wanted=(2, 4, 8, 16))
        self.noise_channels = noise_channels
        at2, at4, at8, at16 = self.backbone.channels
        wide, middle, narrow, last = self.WIDTHS
        self.coarsest = nn.Conv2d(at16 + noise_channels, wide, 1)
        self.of_finding = nn.Embedding(findings, wide)
        self.to8 = Finer(wide, at8, middle, findings)
        self.to4 = Finer(middle, at4, narrow, findings)
        self.to2 = Finer(narrow, at2, last, findings)
        width = {2: last, 4: narrow, 8: middle}[options.amount_stride]
        self.amount = nn.Conv2d(width, 1, 3, padding=1)
        self.gate = nn.Conv2d(last, 1, 3, padding=1)
        with torch.no_grad():
            self.gate.weight *= 0.5
            self.gate.bias.fill_(options.gate_bias)  # type: ignore[union-attr]

    def train(self, mode: bool = True) -> EncoderGenerator:
        """As ever, but that the backbone's BatchNorm keeps its statistics."""
        super().train(mode)
        self.backbone.eval()
        return self

    def raw(self, inputs: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """See :meth:`Generator.raw`."""
        at2, at4, at8, at16 = self.backbone(inputs)
        if self.noise_channels:  # where and how to paint is free
            noise = torch.randn(len(at16), self.noise_channels, *at16.shape[2:], device=at16.device, dtype=at16.dtype)
            at16 = torch.cat([at16, noise], dim=1)
        image, finding = pairs
        x = F.leaky_relu(self.coarsest(at16)[image] + self.of_finding(finding)[:, :, None, None], 0.2)
        cells = {8: self.to8(x, at8[image], finding)}
        cells[4] = self.to4(cells[8], at4[image], finding)
        cells[2] = self.to2(cells[4], at2[image], finding)
        return self.gate(cells[2]), self.amount(cells[self.options.amount_stride])


class Finer(nn.Module):
    """Twice as fine: upsample, join the skip, two convolutions; scale and shift by finding between them (FiLM)."""

    def __init__(self, channels: int, skip: int, width: int, findings: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels + skip, width, 3, padding=1)
        self.by_finding = nn.Embedding(findings, 2 * width)
        nn.init.zeros_(self.by_finding.weight)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor, finding: Int[Tensor, pair]) -> Tensor:
        """(pair, channel, row, col), and the skip of twice the size."""
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        x = F.leaky_relu(self.first(torch.cat([x, skip], dim=1)), 0.2)
        scale, shift = self.by_finding(finding)[:, :, None, None].chunk(2, dim=1)
        return F.leaky_relu(self.second(x * (1 + scale) + shift), 0.2)


class UnetGenerator(Generator):
    """Inferred: stride-2 4x4 convolutions 32/64/128/256 with InstanceNorm and skips; the finding as input channels."""

    WIDTHS = (32, 64, 128, 256)

    def __init__(self, findings: int, channels: int, options: TagGanOptions, noise_channels: int) -> None:
        super().__init__(options)
        self.findings, self.noise_channels = findings, noise_channels
        widths = self.WIDTHS
        inward = [channels + findings + noise_channels, *widths]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(inward, widths, strict=False))
        self.down_norms = nn.ModuleList(nn.InstanceNorm2d(width) for width in widths)
        outward = list(zip((widths[3], 2 * widths[2], 2 * widths[1]), (widths[2], widths[1], widths[0]), strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in outward)
        self.up_norms = nn.ModuleList(nn.InstanceNorm2d(b) for _, b in outward)
        self.last = nn.ConvTranspose2d(2 * widths[0], 2, 4, 2, 1)
        with torch.no_grad():
            self.last.bias[0] = options.gate_bias  # type: ignore[index]

    def raw(self, inputs: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """See :meth:`Generator.raw`."""
        x = inputs[pairs.image]
        planes = F.one_hot(pairs.finding, self.findings).to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        noise = torch.randn(len(x), self.noise_channels, *x.shape[2:], device=x.device, dtype=x.dtype)
        x = torch.cat([x, planes, noise], dim=1)
        skips: list[Tensor] = []
        for depth, (down, norm) in enumerate(zip(self.down, self.down_norms, strict=True)):
            x = down(x)
            x = F.leaky_relu(norm(x) if depth else x, 0.2)  # none on the first, as in pix2pix
            skips.append(x)
        for up, norm, skip in zip(self.up, self.up_norms, reversed(skips[:-1]), strict=True):
            x = torch.cat([F.relu(norm(up(x))), skip], dim=1)
        gate, amount = self.last(x).chunk(2, dim=1)
        return gate, amount


class EvidenceCritic(nn.Module):
    """Evidence for any finding (first) and for each, (image, 1 + finding, row / 4, col / 4).

    PYLON's idea, a decoder of 1x1 convolutions, without its attention and its normalisation: features at strides 4 to
    32, each to 64 channels, summed from the coarsest to the finest, and a 1x1 head. BatchNorm in the backbone keeps its
    statistics, for the reason given at :class:`EncoderGenerator`.
    """

    WIDTH = 64

    def __init__(self, findings: int, backbone: BackboneOptions) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, None)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, self.WIDTH, 1) for channels in self.backbone.channels)
        self.head = nn.Conv2d(self.WIDTH, 1 + findings, 1)
        with torch.no_grad():
            self.head.weight *= 0.3

    def train(self, mode: bool = True) -> EvidenceCritic:
        """As ever, but that the backbone's BatchNorm keeps its statistics."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised images -> evidence, as logits."""
        *finer, coarsest = (
            F.leaky_relu(lateral(feature), 0.2)
            for lateral, feature in zip(self.lateral, self.backbone(inputs), strict=True)
        )
        x = coarsest
        for feature in reversed(finer):
            x = feature + F.interpolate(x, size=feature.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(x)


class PatchCritic(nn.Module):
    """PatchGAN (Isola et al. 2017), 64/128/256/512, without normalisation: it would remove what a lesion is."""

    def __init__(self, findings: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, stride in ((64, 2), (128, 2), (256, 2), (512, 1)):
            layers += [nn.Conv2d(channels, width, 4, stride, 1), nn.LeakyReLU(0.2)]
            channels = width
        self.net = nn.Sequential(*layers, nn.Conv2d(channels, 1 + findings, 4, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalised images -> evidence that they are not normal (first), and of each finding, by patch."""
        return self.net(inputs)


class TagGan(Game):
    """Both generators, the critics, and what each side wants.

    Args:
        findings: how many.
        backbone: the encoder of generators and critics.
        options: TagGAN's settings.
        seen: how the networks see an image.
    """

    def __init__(self, findings: int, backbone: BackboneOptions, options: TagGanOptions, seen: Seen) -> None:
        super().__init__()
        self.options, self.seen, self.findings = options, seen, findings
        self.generators = nn.ModuleDict(
            {
                "to_normal": self._forward_generator(findings, backbone),
                "to_ill": generator(findings, backbone, options, noise_channels=4),
            }
        )
        critic: nn.Module
        if options.critic == "evidence":
            critic = EvidenceCritic(findings, backbone)
        else:
            critic = PatchCritic(findings, backbone.channels)
        self.critics = nn.ModuleDict({"critic": critic})
        self.pools = {name: ImagePool(options.pool) for name in ("counterparts", "painted")} if options.pool else {}
        self._made: tuple[Batch, Made] | None = None

    def _forward_generator(self, findings: int, backbone: BackboneOptions) -> Generator:
        return generator(findings, backbone, self.options, noise_channels=0)

    @property
    def localiser(self) -> TagGanLocaliser:
        """The forward generator, with the critic for a witness."""
        forward: Generator = self.generators["to_normal"]  # type: ignore[assignment]
        witness = self.critic if self.options.witness else None
        return TagGanLocaliser(forward, self.findings, witness)  # type: ignore[arg-type]

    @property
    def critic(self) -> EvidenceCritic | PatchCritic:
        """The critics, which are one network."""
        return self.critics["critic"]  # type: ignore[return-value]

    @property
    def warm_up_steps(self) -> int:
        """See :class:`Game`."""
        return self.options.warm_up

    def critic_steps(self, step: int) -> int:
        """See :class:`Game`."""
        return self.options.critic_steps

    def warm_up_terms(self, batch: Batch) -> Terms:
        """The labels alone: which image has which finding, and which has any."""
        images = torch.cat([batch.ill, batch.healthy])
        labels = torch.cat([batch.labels, torch.zeros_like(batch.labels)])
        target = torch.cat([labels.amax(dim=1, keepdim=True), labels], dim=1)
        judged = self._judged(self.critic(self.seen(images))).mean(dim=2)
        losses = F.binary_cross_entropy_with_logits(LOGIT_SCALE * judged, target, reduction="none")
        if batch.known is None:
            return {"labels": losses.mean()}
        # An ill image is ill, and a healthy one has nothing, whatever else is unknown.
        sure = torch.ones_like(losses)
        sure[: len(batch.ill), 1:] = batch.known
        return {"labels": (losses * sure).mean()}

    def begin(self) -> None:
        """The generators begin with the critic's encoder, which knows by now what disease looks like."""
        if isinstance(self.critic, EvidenceCritic) and self.options.warm_up:
            learned = self.critic.backbone.state_dict()
            for module in self.generators.modules():
                if isinstance(module, EncoderGenerator):
                    module.backbone.load_state_dict(learned)

    def generator_terms(self, batch: Batch, step: int) -> Terms:
        """See the module's text and :class:`TagGanOptions`."""
        o = self.options
        made = self._make(batch, step)
        self._made = None  # nobody needs it after this
        risen = 0.1 + 0.9 * min(step / o.ramp, 1.0)
        images = [made.counterpart] if made.painted is None else [made.counterpart, made.painted]
        evidence = self.critic(self.seen(torch.cat(images))).float()
        left, *shown = self._judged(evidence).split(len(batch.ill))
        terms = {
            "normal": taken_for_real(o.rule, -left[:, 0]).mean(),
            "sparsity": o.sparsity * risen * self._size(made.removed, made.gates),
        }
        if o.everywhere:
            cells = evidence[: len(batch.ill), 0]
            terms["everywhere"] = o.everywhere * judged_as("hinge", -cells, real=True).mean()
        if o.guidance:
            terms["guidance"] = o.guidance * _of_labels(left[:, 1:].mean(dim=2), batch.labels)
        if o.total_variation:
            terms["total_variation"] = o.total_variation * _variation(made.removed)
        if o.cycle_ill:
            back, _ = self._paint(self._noisy(made.counterpart), batch.labels)
            terms["cycle_ill"] = o.cycle_ill * (made.counterpart + back - batch.ill).abs().mean()
        if made.painted is not None and made.added is not None:
            # It teaches the one that takes away. For the one that paints it is a penalty on painting at all.
            given = made.painted if o.cycle_both else made.painted.detach()
            again, _ = self._take(self._noisy(given), batch.asked)
            empty, idle = self._take(batch.healthy, batch.asked)
            terms |= {
                "disease": _of_labels(each_taken_for_real(o.rule, shown[0][:, 1:]), batch.asked),
                "sparsity_painted": o.sparsity_painted * made.added.abs().mean(),
                "cycle": o.every * o.cycle * (given - again - batch.healthy).abs().mean(),
                "identity": o.every * o.identity * risen * self._size(empty, idle),
            }
        return terms

    def critic_terms(self, batch: Batch, step: int) -> Terms:
        """Normal or not; each disease, shown or painted."""
        o = self.options
        made = self._make(batch, step)
        counterparts, painted, shown = self._to_judge(made, batch.asked)
        images = torch.cat([batch.healthy, batch.ill, counterparts, *painted])
        judged = self._judged(self.critic(self.seen(images)))
        healthy, ill, made_normal, *made_ill = judged.split(len(batch.ill))
        not_normal = [(1.0, judged_as(o.rule, -made_normal[:, 0], real=False).mean())]
        not_ill = [(1.0, _of_labels(judged_each(o.rule, one[:, 1:], real=False), shown)) for one in made_ill]
        if o.others and self.findings > 1:  # not by what this batch has: processes share it, and have to agree
            without = (1 - batch.labels) * (1 if batch.known is None else batch.known)
            not_ill.append((o.others, _of_labels(judged_each(o.rule, ill[:, 1:], real=False), without)))
        if o.as_they_are:
            well = _of_labels(judged_each(o.rule, healthy[:, 1:], real=False), batch.asked)
            not_normal.append((o.as_they_are, judged_as(o.rule, -ill[:, 0], real=False).mean()))
            not_ill.append((o.as_they_are, well))
        terms = {
            "normal": judged_as(o.rule, -healthy[:, 0], real=True).mean() + _weighted(not_normal),
            "disease": _of_labels(judged_each(o.rule, ill[:, 1:], real=True), batch.labels) + _weighted(not_ill),
        }
        if o.rule == "wgan-gp":
            terms["penalty"] = 10 * self._penalty(batch.healthy, made.counterpart, None)
            if made.painted is not None:
                terms["penalty"] = terms["penalty"] + 10 * self._penalty(batch.ill, made.painted, batch.asked)
        return terms

    @torch.no_grad()
    def strip(self, batch: Batch) -> Tensor:
        """See :class:`Game`."""
        removed, _ = self._take(batch.ill, batch.labels)
        counterpart = (batch.ill - removed).clamp(0, 1)
        back, _ = self._paint(counterpart, batch.labels)
        shown = (0.5 + removed / (2 * self.options.amplitude)).clamp(0, 1)
        return torch.stack([batch.ill, shown, counterpart, (counterpart + back).clamp(0, 1)], dim=1)

    def _make(self, batch: Batch, step: int) -> Made:
        """What the generators make of a batch; once for both sides, if it is the same batch."""
        if self._made is None or self._made[0] is not batch:
            removed, gates = self._take(batch.ill, batch.labels)
            counterpart = (batch.ill - removed).clamp(0, 1)
            added = painted = None
            if step % self.options.every == 0:
                added, _ = self._paint(batch.healthy, batch.asked)
                painted = (batch.healthy + added).clamp(0, 1)
            self._made = (batch, Made(removed, gates, counterpart, added, painted))
        return self._made[1]

    def _to_judge(self, made: Made, asked: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Counterparts, painted images if there are any, and what those show: of now, or of the pools."""
        counterparts = made.counterpart.detach()
        painted = [] if made.painted is None else [made.painted.detach()]
        if self.pools:
            (counterparts,) = self.pools["counterparts"].exchange(counterparts)
            if painted:
                painted[0], asked = self.pools["painted"].exchange(painted[0], asked)
        return counterparts, painted, asked

    def _take(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What the forward generator takes for these labels: changes and gates (image, row, col), summed over them."""
        return _summed(self.generators["to_normal"], self.seen(images), labels)

    def _paint(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What the backward generator adds."""
        return _summed(self.generators["to_ill"], self.seen(images), labels)

    def _judged(self, evidence: Tensor) -> Tensor:
        """(image, 1 + finding, cell): one pooled cell, or all."""
        if self.options.judged == "none":
            return evidence.float().flatten(2)
        return pool(evidence.float(), self.options.judged, self.options.sharpness)[:, :, None]

    def _noisy(self, images: Tensor) -> Tensor:
        return images + self.options.noise * torch.randn_like(images) if self.options.noise else images

    def _size(self, changes: Tensor, gates: Tensor) -> Tensor:
        """How much is changed: the mean |M|, and a share of the mean gate."""
        size = changes.abs().mean()
        return size + self.options.gate_share * gates.mean() if self.options.gate else size

    def _penalty(self, real: Tensor, made: Tensor, asked: Tensor | None) -> Tensor:
        mixed = mixed_with(real, made)
        judged = self._judged(self.critic(self.seen(mixed))).mean(dim=2)
        value = judged[:, 0] if asked is None else (judged[:, 1:] * asked).sum(dim=1)
        return gradient_penalty(value, mixed).mean()


class TagGanLocaliser(nn.Module):
    """The forward generator as a localiser: every finding is asked for, and the witness heard.

    Args:
        generator: trained or not.
        findings: how many it knows.
        witness: the critic, or None.
    """

    def __init__(self, generator: Generator, findings: int, witness: EvidenceCritic | None) -> None:
        super().__init__()
        self.generator, self.findings, self.witness = generator, findings, witness
        whole = generator.options.whole
        self.whole = [at for at in range(findings) if (whole if isinstance(whole, bool) else whole[at])]

    def forward(self, inputs: Float[Tensor, "image channel row col"]) -> Output:
        """Normalised images -> logits (image, finding), maps and changes (image, finding, row, col).

        Maps are |changes|, averaged over windows, times the largest chance (0-1) that the witness gives the finding
        near there, or that reaches there along what was taken; of a whole organ, with all that lies between.
        """
        pairs = Pairs.all(len(inputs), self.findings, inputs.device)
        changes = self.generator(inputs, pairs).changes.unflatten(0, (len(inputs), self.findings))
        options, chance = self.generator.options, None
        if self.witness is not None:
            chance = (LOGIT_SCALE * self.witness(inputs)[:, 1:].float()).sigmoid()
            if options.witness_spread:
                chance = _spread(chance, changes, options.witness_spread, self.whole)
            chance = F.interpolate(chance, size=inputs.shape[-2:], mode="bilinear", align_corners=False)
            chance = _nearby(chance, options.witness_px)
        return of_changes(changes, options.window_px, chance, self.whole)


def by_finding(options: Mapping[str, Any], findings: Sequence[str]) -> dict[str, Any]:
    """The options with what is given by findings' names (signs, and which are whole organs) in the findings' order.

    Raises:
        BadSetting: a name that is no finding, or a value that the option cannot have.
    """
    ordered = dict(options)
    for option, (unnamed, allowed) in _BY_FINDING.items():
        named = options.get(option)
        if not isinstance(named, Mapping):
            continue
        for name, value in named.items():
            if name not in findings:
                raise BadSetting(f"options.{option} names {name!r}; the findings are {', '.join(findings)}.")
            if not any(value == one and type(value) is type(one) for one in allowed.values()):  # 1 is not true
                raise BadSetting(f"options.{option}.{name} = {value!r}; it is one of {', '.join(allowed)}.")
        ordered[option] = tuple(named.get(name, unnamed) for name in findings)
    return ordered


def generator(findings: int, backbone: BackboneOptions, options: TagGanOptions, noise_channels: int) -> Generator:
    """The generator that the options ask for.

    Raises:
        BadSetting: signs or whole organs that are given for another number of findings.
    """
    refuse_other_count(options, findings)
    if options.generator == "encoder":
        return EncoderGenerator(findings, backbone, options, noise_channels)
    return UnetGenerator(findings, backbone.channels, options, noise_channels)


def localiser(forward: Generator, findings: int, backbone: BackboneOptions) -> TagGanLocaliser:
    """The part that tags, of a forward generator; the witness, if its options ask for one, has random weights."""
    witness = EvidenceCritic(findings, backbone) if forward.options.witness else None
    return TagGanLocaliser(forward, findings, witness)


def refuse_other_count(options: TagGanOptions, findings: int) -> None:
    """Refuses options that are given finding by finding, for another number of findings.

    Raises:
        BadSetting: with both numbers.
    """
    for option in _BY_FINDING:
        value = getattr(options, option)
        if isinstance(value, tuple) and len(value) != findings:
            raise BadSetting(
                f"options.{option} has {len(value)} values for {findings} findings. Give one for all, or one for each."
            )


def judged_each(rule: Rule, judgement: Float[Tensor, "image finding cell"], *, real: bool) -> Tensor:
    """:func:`judged_as` for each finding by itself, (image, finding)."""
    return judged_as(rule, judgement.flatten(0, 1), real=real).unflatten(0, judgement.shape[:2])


def each_taken_for_real(rule: Rule, judgement: Float[Tensor, "image finding cell"]) -> Tensor:
    """:func:`taken_for_real` for each finding by itself, (image, finding)."""
    return taken_for_real(rule, judgement.flatten(0, 1)).unflatten(0, judgement.shape[:2])


def _of_labels(values: Float[Tensor, "image finding"], labels: Float[Tensor, "image finding"]) -> Float[Tensor, ""]:
    """The mean over images of each image's mean over its own findings."""
    return ((values * labels).sum(dim=1) / labels.sum(dim=1).clamp(min=1)).mean()


def _weighted(parts: list[tuple[float, Tensor]]) -> Tensor:
    """The weighted mean; 0 of nothing."""
    total = sum(weight for weight, _ in parts)
    return torch.stack([weight / total * value for weight, value in parts]).sum() if parts else torch.zeros(())


def _summed(
    generator: nn.Module, inputs: Tensor, labels: Float[Tensor, "image finding"]
) -> tuple[Float[Tensor, "image row col"], Float[Tensor, "image row col"]]:
    pairs = Pairs.of(labels)
    maps: Maps = generator(inputs, pairs)
    return pairs.per_image(maps.changes, len(inputs)), pairs.per_image(maps.gates, len(inputs))


def _spread(
    chance: Float[Tensor, "image finding cell_row cell_col"],
    changes: Float[Tensor, "image finding row col"],
    share: float,
    whole: Sequence[int] = (),
) -> Float[Tensor, "image finding cell_row cell_col"]:
    """The chance that reaches a cell along what was taken, if that is larger than its own.

    From a cell to each of its eight neighbours gets taken / (sum of taken over findings + NOTHING_TAKEN) / share of the
    chance, at most all of it, where taken is the mean |change| of the neighbour. Of the ``whole`` findings, given by
    number, all cells in which something of them was taken are neighbours.
    """
    rows, cols = chance.shape[2:]
    taken = F.adaptive_avg_pool2d(changes.abs(), (rows, cols))
    passes = (taken / (taken.sum(dim=1, keepdim=True) + NOTHING_TAKEN) / share).clamp(max=1)
    if whole:
        organs = list(whole)
        own, let_through = chance[:, organs], passes[:, organs]
        of_taken = (let_through * own).amax(dim=(2, 3), keepdim=True)
        chance = chance.clone()
        chance[:, organs] = torch.maximum(own, let_through * of_taken)
    for _ in range(rows + cols):  # from one corner to the other, along the sides
        chance = torch.maximum(chance, passes * F.max_pool2d(chance, 3, stride=1, padding=1))
    return chance


def _nearby(chance: Float[Tensor, "image finding row col"], side: int) -> Float[Tensor, "image finding row col"]:
    """The largest value within windows of ``side`` pixels (odd), averaged over such windows.

    Columns first and then rows: the same as squares, for a fraction of their cost.
    """
    lines: tuple[tuple[int, int], ...] = ((side, 1), (1, side))
    for line in lines:
        chance = F.max_pool2d(chance, line, stride=1, padding=(line[0] // 2, line[1] // 2))
    for line in lines:
        padding = (line[0] // 2, line[1] // 2)
        chance = F.avg_pool2d(chance, line, stride=1, padding=padding, count_include_pad=False)
    return chance


def _variation(maps: Float[Tensor, "image row col"]) -> Float[Tensor, ""]:
    return maps.diff(dim=1).abs().mean() + maps.diff(dim=2).abs().mean()


def build(
    findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None
) -> TagGanLocaliser:
    """The part that tags, with random weights; see :class:`TagGanOptions` for ``options``."""
    chosen = TagGanOptions.model_validate(options)
    return localiser(generator(findings, backbone, chosen, noise_channels=0), findings, backbone)


def game(findings: int, backbone: BackboneOptions, options: dict[str, object], seen: Seen) -> TagGan:
    """Both sides, with random weights."""
    return TagGan(findings, backbone, TagGanOptions.model_validate(options), seen)
