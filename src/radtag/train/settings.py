"""Everything a training run can be told, with the paper's recipe as the defaults."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from radtag.calibration import HEALTHY_SHARE, PEAK_SHARE
from radtag.data.augment import AugmentOptions
from radtag.data.prepare import Fit
from radtag.errors import BadSetting
from radtag.models import GAMES, STUDENTS, taggan
from radtag.models.backbone import BackboneOptions
from radtag.words import own_words


class Settings(BaseModel):
    """What every method's training can be told.

    Attributes:
        method: which localiser.
        options: the method's own settings (see its file), for instance ``{"pool": "max"}``.
        backbone: the encoder and its first weights.
        size_px: side of the network's input, a multiple of 32.
        fit: how an image is fitted into that square.
        lungs: a run that outlines the lungs ("lungs" is a finding of it): the network is shown the lungs alone, cut out
            and all else black, and its maps are 0 outside. The run folder keeps a copy of it.
        mean, sd: normalisation on the 0-1 scale; left out, what the first weights expect.
        batch_size: images a step (of each side, where there are two), over all processes together.
        augment: what happens to a training image.
        mixed_precision: of the forward pass.
        healthy_share: share of a healthy validation image that a mask may cover; sets the mask thresholds.
        peak_share: share of a positive validation image's typical peak that the mask threshold is not below.
        seed: of everything random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = "pylon"
    options: dict[str, Any] = Field(default_factory=dict)
    backbone: BackboneOptions = BackboneOptions()
    size_px: int = Field(default=256, ge=32)
    fit: Fit = "stretch"
    lungs: str | None = None
    mean: float | None = None
    sd: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=64, ge=1)
    augment: AugmentOptions = AugmentOptions()
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    healthy_share: float = Field(default=HEALTHY_SHARE, gt=0, lt=1)
    peak_share: float = Field(default=PEAK_SHARE, ge=0, le=1)
    seed: int = Field(default=0, ge=0)

    def told(self) -> dict[str, Any]:
        """All of them as plain values; ``lungs`` is left out where it is None, as before there was such a setting."""
        values = self.model_dump(mode="json")
        if self.lungs is None:
            del values["lungs"]
        return values

    @field_validator("size_px")
    @classmethod
    def _multiple_of_32(cls, value: int) -> int:
        if value % 32:
            raise ValueError(
                f"the side is a multiple of 32, got {value}; near it are {value // 32 * 32} and {value // 32 * 32 + 32}"
            )
        return value


class TrainSettings(Settings):
    """Settings of a classifier's training; the defaults are PYLON's (Preechakul et al. 2022, and its code).

    Attributes:
        stored_px: side at which images are decoded and kept, from which training takes its random crops; left out,
            ``size_px``. Twice ``size_px`` lets a crop of half the side keep its detail.
        start_from: a run whose weights training begins with, in place of ``backbone.weights``: all of its backbone, and
            the head of every finding that both know.
        head_start: "zero" is the paper's bias; "prior" starts the head quiet, with a bias at which the new network
            says each finding's frequency, which saves the epochs in which a maximum over random cells is unlearned.
        epochs: at most so many passes over the training images.
        optimiser: "adam" or "adamw".
        lr: learning rate at its highest.
        weight_decay: of the optimiser.
        backbone_lr: learning rate of the backbone, as a share of ``lr``.
        schedule: "plateau" cuts the rate when the validation loss stalls; "cosine" warms up and falls to 0.
        plateau_patience: epochs without a better loss before a cut.
        plateau_factor: what the rate is multiplied by.
        min_lr: training stops at this rate ("plateau").
        warmup: share of all steps in which the rate rises ("cosine").
        ema: decay of a running average of the weights, which is then what is validated and kept; 0 is none.
        keep: which epoch is kept.
        class_weights: "balanced" weighs a positive by the finding's negatives over positives (at most 20).
        sampling: "balanced" draws an image by its rarest positive finding; "uniform" takes every image once.
        label_smoothing: share by which a label is moved towards 0.5.
        clip_norm: largest norm of the gradient; 0 does not clip.
    """

    stored_px: int | None = Field(default=None, ge=32)
    start_from: str | None = None
    head_start: Literal["zero", "prior"] = "zero"
    epochs: int = Field(default=40, ge=1)
    optimiser: Literal["adam", "adamw"] = "adam"
    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    backbone_lr: float = Field(default=1.0, gt=0)
    schedule: Literal["plateau", "cosine"] = "plateau"
    plateau_patience: int = Field(default=1, ge=0)
    plateau_factor: float = Field(default=0.2, gt=0, lt=1)
    min_lr: float = Field(default=1e-6, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    keep: Literal["loss", "auroc", "last"] = "loss"
    class_weights: Literal["none", "balanced"] = "none"
    sampling: Literal["uniform", "balanced"] = "uniform"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_norm: float = Field(default=0.0, ge=0)


class AdversarialSettings(Settings):
    """Settings of the methods of two sides, TagGAN and its kin; see docs/results.md for how they were chosen.

    Attributes:
        steps: of the generators.
        batch_size: ill images a step, and as many healthy ones.
        lr: of generators and critics.
        warm_up_lr: learning rate of the critics while they learn the labels alone.
        warm_up_batch_size: ill images a step while they do, and as many healthy ones.
        betas: Adam's; (0.5, 0.999) is customary in GANs.
        decay_from: share of the steps after which the rate falls in a line to 0.
        ema: decay of the running average of what tags, which is what is kept: the forward generator, and its witness.
        clip_norm: largest norm of a side's gradient; 0 does not clip.
        look_every: steps between looks at the validation images, each with a strip of pictures and a place to go on
            from.
        peak_share: share of a positive validation image's typical peak that the mask threshold is not below. Less than
            of a probability: an amount falls off towards a lesion's edge, where a probability saturates. At .15 to
            .2 masks overlapped best with lesions planted in validation images (docs/log.md).
    """

    method: str = "taggan"
    size_px: int = Field(default=128, ge=32)
    batch_size: int = Field(default=6, ge=1)
    steps: int = Field(default=2000, ge=1)
    lr: float = Field(default=4e-4, gt=0)
    warm_up_lr: float = Field(default=5e-4, gt=0)
    warm_up_batch_size: int = Field(default=16, ge=1)
    betas: tuple[float, float] = (0.5, 0.999)
    decay_from: float = Field(default=0.5, ge=0, le=1)
    ema: float = Field(default=0.99, ge=0, lt=1)
    clip_norm: float = Field(default=5.0, ge=0)
    look_every: int = Field(default=200, ge=1)
    peak_share: float = Field(default=0.2, ge=0, le=1)
    augment: AugmentOptions = AugmentOptions(
        rotate_deg=10,
        rotate_p=0.7,
        area=(0.75, 1.0),
        ratio=(0.9, 1.1),
        brightness=0.1,
        contrast=0.15,
        tone_p=0.7,
        interpolation="bilinear",
    )


class StudentSettings(Settings):
    """Settings of a student's training, a segmentation network that learns from proposed masks.

    Attributes:
        epochs: passes over the training images; the one with the lowest validation loss is kept.
        lr: learning rate at its highest; it warms up, and falls as a cosine does.
        weight_decay: of AdamW.
        backbone_lr: learning rate of the encoder, as a share of ``lr``.
        warmup: share of all steps in which the rate rises.
        ema: decay of the running average of the weights, which is what is validated and kept; 0 is none.
        clip_norm: largest norm of the gradient; 0 does not clip.
        dice: weight of the soft Dice loss beside the cross-entropy.
        labels: weight of the image labels' cross-entropy, by the logit pooled from the map; 0 = masks alone.
        trust_masks: train on masks that no run proposed, the data set's own.
    """

    method: str = "student"
    backbone: BackboneOptions = BackboneOptions(name="tf_efficientnet_lite0")
    batch_size: int = Field(default=16, ge=1)
    epochs: int = Field(default=30, ge=1)
    lr: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    backbone_lr: float = Field(default=1.0, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    ema: float = Field(default=0.99, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, ge=0)
    dice: float = Field(default=1.0, ge=0)
    labels: float = Field(default=0.3, ge=0)
    trust_masks: bool = False
    augment: AugmentOptions = AugmentOptions(
        rotate_deg=15, area=(0.6, 1.0), brightness=0.2, contrast=0.3, interpolation="bilinear"
    )


def settings_class(method: str) -> type[Settings]:
    """The class of a method's settings."""
    if method in STUDENTS:
        return StudentSettings
    return AdversarialSettings if method in GAMES else TrainSettings


# What differs from the paper's recipe. "small" is for sets of a few thousand images; docs/results.md says how it was
# chosen.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "small": {
        "epochs": 20,
        "batch_size": 16,
        "optimiser": "adamw",
        "lr": 5e-4,
        "weight_decay": 0.02,
        "schedule": "cosine",
        "head_start": "prior",
        "keep": "last",
        "ema": 0.99,
        "augment": {
            "rotate_deg": 15,
            "area": (0.6, 1.0),
            "brightness": 0.2,
            "contrast": 0.3,
            "interpolation": "bilinear",
        },
    },
}


# What differs from the defaults, which are ours, for a few thousand images; "paper" is what is published or inferred.
_FLIPS: dict[str, Any] = {"rotate_p": 0.0, "area": (1.0, 1.0), "ratio": (1.0, 1.0), "tone_p": 0.0}
_VAGAN: dict[str, Any] = {"betas": (0.0, 0.9), "lr": 1e-3, "decay_from": 1.0, "clip_norm": 0.0}
GAME_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "small": {"vagan": _VAGAN},
    "paper": {
        "taggan": {"lr": 2e-4, "clip_norm": 0.0, "ema": 0.0, "augment": _FLIPS, "options": taggan.PUBLISHED},
        "vagan": _VAGAN,
    },
}


def settings_from(preset: str | None = None, *, method: str = "pylon", **changes: Any) -> Settings:
    """A preset's settings with changes on top; nested settings are merged, ``augment={"flip_p": 0}`` keeps the rest.

    Args:
        preset: "paper" or "small"; left out, "paper" for classifiers and "small" for adversarial methods, of which the
            papers say too little. A student has its defaults alone.
        method: whose settings.
        changes: settings by name.

    Raises:
        BadSetting: an unknown preset or setting, or a value out of range.
    """
    game = method in GAMES
    chosen, preset = preset, preset or ("small" if game else "paper")
    if preset not in PRESETS:
        raise BadSetting(f"unknown preset {preset!r}; use one of {', '.join(PRESETS)}.")
    ours = game and method not in GAME_PRESETS["paper"]  # of a game that no paper has
    if chosen is not None and (method in STUDENTS or (chosen == "paper" and ours)):
        raise BadSetting(f"preset {chosen!r}: {method} has its defaults alone. Leave the preset out.")
    own: dict[str, Any] = (
        {} if method in STUDENTS else GAME_PRESETS[preset].get(method, {}) if game else PRESETS[preset]
    )
    merged: dict[str, Any] = {**own, "method": method}
    kind = settings_class(method)
    for name, value in changes.items():
        before = merged.get(name)
        if before is None and isinstance(value, dict) and name in kind.model_fields:
            default = kind.model_fields[name].get_default(call_default_factory=True)
            before = default.model_dump() if isinstance(default, BaseModel) else default
        if isinstance(value, dict) and isinstance(before, dict):
            value = {**before, **value}
        merged[name] = value
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise BadSetting(f"there is no setting {where}. {_nearest(where, kind)}") from error
        told = own_words(first["msg"])
        raise BadSetting(f"setting {where} = {first['input']!r}: {told}.") from error


def _nearest(name: str, kind: type[Settings]) -> str:
    """What to write in place of an unknown setting: the one whose name is nearest, or any of all."""
    groups: dict[str, type[BaseModel]] = {"backbone": BackboneOptions, "augment": AugmentOptions}
    known = [field for field in kind.model_fields if field not in groups]
    known += [f"{group}.{field}" for group, options in groups.items() for field in options.model_fields]
    last = {one.rpartition(".")[2]: one for one in reversed(known)}  # a name without its group
    near = get_close_matches(name, known, n=1) or [last[one] for one in get_close_matches(name, last, n=1)]
    return f"Did you mean {near[0]}?" if near else f"Known settings: {', '.join(known)}."
