"""Explanations: which parts of an image a classifier's logits come from, for any torch model.

    from radtag.saliency import explain

    explained = explain(model, images, "gradcam")   # all findings of the batch, from one forward pass
    explained.maps()                                # (batch, finding, row, col), 0-1, a healthy image stays dark

==================== ============================================ ================================================
method               paper                                        a value is
==================== ============================================ ================================================
cam                  Zhou et al., CVPR 2016                       the head's weights times the feature
gradcam              Selvaraju et al., ICCV 2017                  the mean gradient times the feature
gradcam++            Chattopadhay et al., WACV 2018               positive gradients, weighted, times the feature
xgradcam             Fu et al., BMVC 2020                         the feature's share of gradient times feature
hirescam             Draelos and Carin, 2020                      gradient times feature, cell by cell
layercam             Jiang et al., TIP 2021                       positive gradient times feature, cell by cell
eigencam             Muhammad and Yeasin, IJCNN 2020              the feature's first principal component
scorecam             Wang et al., CVPR workshops 2020             the logit of the image seen through each channel
ablationcam          Desai and Ramaswamy, WACV 2020               the loss of logit without each channel
occlusion            Zeiler and Fergus, ECCV 2014                 the loss of logit behind a gray square
rise                 Petsiuk, Das and Saenko, BMVC 2018           the gain of probability where a random mask lets see
integrated-gradients Sundararajan, Taly and Yan, ICML 2017        the gradient on the way from gray to the image
==================== ============================================ ================================================

Conventions
-----------
- A model takes (batch, channel, row, col) and gives logits (batch, finding), or what has them as ``logits``. It is run
  in eval mode and left as it was: modes, gradients of its parameters, hooks.
- Values are signed, on the grid of the feature (the last three: on the pixels of the input), in the method's own units
  and the same for an image whatever else is in its batch. Nothing is scaled image by image.
- A feature is (batch, channel, row, col), (batch, row, col, channel), or tokens (batch, token, channel), whose first
  ones that belong to no place (class, registers) are dropped.

How the gradients are had: the network runs without a graph up to the layer, and with one from there on, so that a
finding costs one short backward pass, from its logits to the feature. Sums over the batch are taken of logits that each
depend on one image alone.

Where this differs from the papers, and why:
- No ReLU in the values: :meth:`Explanation.maps` takes the positive part.
- Grad-CAM++: g^2 / (2 g^2 + S g^3) is 1 / (2 + S g), which needs no epsilon. Gradients of an average over many cells
  are small, and the epsilon that is usually added to the denominator then outweighs it.
- Ablation-CAM: the loss y - y_k is not divided by y. Where y is a negative logit, that turns the map around.
- Eigen-CAM: centred before the decomposition, and of the two signs the one with the larger extreme. It knows no
  findings: all have the same values.
- RISE: the mean probability over the masks is taken off, which would be added to all pixels alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import signature
from math import ceil, log
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from radtag.errors import BadSetting

Method = Literal[
    "cam",
    "gradcam",
    "gradcam++",
    "xgradcam",
    "hirescam",
    "layercam",
    "eigencam",
    "scorecam",
    "ablationcam",
    "occlusion",
    "rise",
    "integrated-gradients",
]
METHODS: tuple[Method, ...] = get_args(Method)
Scale = Literal["score", "image"]
Targets = Sequence[int] | Sequence[Sequence[int]] | Tensor | None

AT_ONCE = 32
"""Images a forward pass, where a method makes many of one."""

_MOST_PREFIX = 16  # tokens that belong to no place, at most
_PLAIN = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class Explanation:
    """What a method says of a batch.

    Args:
        values: (batch, target, row, col) float32, signed, in the method's own units.
        logits: (batch, finding) float32, all that the model gives.
        targets: (batch, target) int64, which of the findings are explained.
        layer: whose feature the grid is; None = the pixels of the input.
    """

    values: Tensor
    logits: Tensor
    targets: Tensor
    layer: str | None

    def maps(self, scores: Tensor | None = None) -> Tensor:
        """(batch, target, row, col) on one absolute scale, 0-1: the image's probability, spread by the method.

        The largest value of a map is the probability that the image has the finding; the others are as much smaller as
        the method says, down to 0 where nothing speaks for it. So an image that is called healthy is dark.

        Args:
            scores: (batch, target) probabilities; None = plain sigmoids of the logits.
        """
        if scores is None:
            scores = self.logits.gather(1, self.targets).sigmoid()
        positive = self.values.clamp(min=0)
        highest = positive.amax(dim=(2, 3), keepdim=True)
        share = torch.where(highest > 0, positive / highest, torch.zeros_like(positive))
        return share * scores.to(share)[:, :, None, None]

    def relative(self) -> Tensor:
        """(batch, target, row, col) the usual scaling, each map by itself: the positive part, from its minimum to its
        maximum. A healthy image then glows as much as an ill one; a map that is the same everywhere is 0.
        """
        positive = self.values.clamp(min=0)
        lowest = positive.amin(dim=(2, 3), keepdim=True)
        span = positive.amax(dim=(2, 3), keepdim=True) - lowest
        return torch.where(span > 0, (positive - lowest) / span, torch.zeros_like(positive))


class Explainer:
    """One method for one model, ready for many batches: the layer is chosen once.

    Args:
        model: see the conventions above.
        method: one of :data:`METHODS`.
        layer: the name of a module, as in ``model.named_modules()``, whose output is the feature; "NAME:input" is what
            goes into it. None = the last feature with rows and columns that the logits depend on
            (:func:`choose_layer`). Not for occlusion, rise and integrated-gradients, which explain by pixels.
        options: of the method: see :func:`score_weights`, :func:`ablation_weights`, :func:`occlusion`, :func:`rise`,
            :func:`integrated_gradients`; the others have none.

    Raises:
        BadSetting: an unknown method, layer or option.
    """

    def __init__(
        self, model: nn.Module, method: Method = "gradcam", *, layer: str | None = None, **options: Any
    ) -> None:
        if method not in METHODS:
            near = get_close_matches(str(method), METHODS, n=1)
            advice = f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(METHODS)}."
            raise BadSetting(f"no method explains as {method!r}. {advice}")
        if layer is not None:
            if method in _ON_PIXELS:
                raise BadSetting(f"{method} explains by pixels and has no layer, got {layer!r}. Leave it out.")
            _place(model, layer)
        function = _ON_PIXELS.get(method) or _BY_FORWARDS.get(method)
        parameters = signature(function).parameters.values() if function is not None else ()
        known = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
        for name in options:
            if name not in known:
                has = f"its options: {', '.join(known)}" if known else "it has none"
                raise BadSetting(f"{method} has no option {name!r}; {has}.")
        for name, value in options.items():
            if name != "seed" and value is not None and not value >= 1:
                raise BadSetting(f"{name} of {method} is at least 1, got {value}.")
        self.model = model
        self.method = method
        self.layer = layer
        self.options = options

    def __call__(self, images: Float[Tensor, "batch channel row col"], targets: Targets = None) -> Explanation:
        """The explanation of a batch.

        Args:
            images: as the model takes them, on its device.
            targets: findings to explain, by their numbers: the same for every image (target,), or each image's own
                (batch, target); None = all.

        Raises:
            BadSetting: targets that do not fit, or a model or layer that the method cannot explain.
        """
        if images.ndim != 4 or not len(images):
            raise BadSetting(f"images are batch x channel x row x col, got an array of shape {tuple(images.shape)}.")
        with torch.inference_mode(False), _evaluating(self.model):
            images = images.clone() if images.is_inference() else images.detach()
            if self.method in _ON_PIXELS:
                with torch.no_grad():
                    logits = logits_of(self.model(images))
                chosen = _targets(targets, logits)
                values = _ON_PIXELS[self.method](self.model, images, chosen, **self.options)
                return Explanation(values, logits, chosen, None)
            if self.layer is None:
                self.layer = choose_layer(self.model, images[:1])
            place = _place(self.model, self.layer)
            if self.method in _BY_GRADIENT:
                return self._by_gradient(place, images, targets)
            feature, logits = _run(self.model, place, images)
            chosen = _targets(targets, logits)
            with torch.no_grad():
                grid = _layout_at(feature, images, self.layer).grid(feature).float()
                if self.method == "eigencam":
                    values = eigen(grid)[:, None].expand(-1, chosen.shape[1], -1, -1)
                else:
                    if self.method == "cam":
                        weights = _head(self.model, grid.shape[1], logits.shape[1]).float()[chosen]
                    else:
                        weights = _BY_FORWARDS[self.method](self.model, place, images, chosen, **self.options)
                    values = torch.einsum("btc,bcrs->btrs", weights, grid)
        return Explanation(values.contiguous(), logits, chosen, self.layer)

    def _by_gradient(self, place: _Place, images: Tensor, targets: Targets) -> Explanation:
        """One forward pass of the batch, and for each target one backward pass from its logits to the feature."""
        assert self.layer is not None
        combine = _BY_GRADIENT[self.method]
        taken: list[Tensor] = []

        def begin(feature: Tensor) -> Tensor:
            taken.append(feature.detach().requires_grad_(True))
            torch.set_grad_enabled(True)  # until the pass ends
            return taken[-1].clone()  # what comes next may work in place

        with torch.no_grad(), _tapped(place, images, begin):
            output = logits_of(self.model(images), detach=False)
        feature = _only(taken, self.layer)
        if not output.requires_grad:
            raise BadSetting(f"the logits do not depend on the layer {self.layer}. Name another.")
        logits = output.detach()
        chosen = _targets(targets, logits)
        layout = _layout_at(feature, images, self.layer)
        grid = layout.grid(feature.detach()).float()
        with torch.enable_grad():
            wanted = output.gather(1, chosen).sum(dim=0).unbind()  # each image's logit depends on it alone
        values = torch.empty((*chosen.shape, *grid.shape[2:]), device=grid.device)
        for i, one in enumerate(wanted):
            (gradient,) = torch.autograd.grad(one, feature, retain_graph=i + 1 < len(wanted))
            values[:, i] = combine(grid, layout.grid(gradient).float())
        return Explanation(values, logits, chosen, self.layer)


def explain(
    model: nn.Module,
    images: Float[Tensor, "batch channel row col"],
    method: Method = "gradcam",
    *,
    targets: Targets = None,
    layer: str | None = None,
    **options: Any,
) -> Explanation:
    """All findings of a batch in one call; arguments as for :class:`Explainer`, which chooses the layer once for many.

    Raises:
        BadSetting: an unknown method, layer or option, or targets that do not fit.
    """
    return Explainer(model, method, layer=layer, **options)(images, targets)


# ---- from gradients: a map from a feature (batch, channel, row, col) and its gradient of the same shape --------------


def _spread(weights: Tensor, feature: Tensor) -> Tensor:
    """Channels (batch, channel, row, col) weighted by (batch, channel), summed to (batch, row, col)."""
    return torch.einsum("bc,bcrs->brs", weights, feature)


def grad_cam(feature: Tensor, gradient: Tensor) -> Tensor:
    """A channel's weight is its mean gradient (equations 1 and 2, before the ReLU)."""
    return _spread(gradient.mean(dim=(2, 3)), feature)


def grad_cam_pp(feature: Tensor, gradient: Tensor) -> Tensor:
    """Positive gradients weighted by alpha = 1 / (2 + S g), S the channel's sum over cells (equation 19)."""
    below = 2 + feature.sum(dim=(2, 3), keepdim=True) * gradient
    alpha = torch.where(below != 0, 1 / below, torch.zeros_like(below))
    return _spread((alpha * gradient.clamp(min=0)).sum(dim=(2, 3)), feature)


def x_grad_cam(feature: Tensor, gradient: Tensor) -> Tensor:
    """A channel's weight is its gradient's mean over cells, each counted as its share of the channel's sum."""
    total = feature.sum(dim=(2, 3))
    pulled = (gradient * feature).sum(dim=(2, 3))
    return _spread(torch.where(total != 0, pulled / total, torch.zeros_like(total)), feature)


def hires_cam(feature: Tensor, gradient: Tensor) -> Tensor:
    """Gradient times feature, summed over channels."""
    return (gradient * feature).sum(dim=1)


def layer_cam(feature: Tensor, gradient: Tensor) -> Tensor:
    """Positive gradient times feature, summed over channels."""
    return (gradient.clamp(min=0) * feature).sum(dim=1)


_BY_GRADIENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": grad_cam,
    "gradcam++": grad_cam_pp,
    "xgradcam": x_grad_cam,
    "hirescam": hires_cam,
    "layercam": layer_cam,
}


# ---- from the feature alone, or from further forward passes ---------------------------------------------------------


def eigen(feature: Tensor) -> Tensor:
    """Each cell's part (batch, row, col) of the first principal component of a feature (batch, channel, row, col)."""
    cells = feature.flatten(2).transpose(1, 2)
    left, strength, _ = torch.linalg.svd(cells - cells.mean(dim=1, keepdim=True), full_matrices=False)
    part = left[:, :, 0] * strength[:, :1]
    turned = part.amax(dim=1, keepdim=True) < -part.amin(dim=1, keepdim=True)
    return torch.where(turned, -part, part).reshape(len(feature), *feature.shape[2:])


def score_weights(
    model: nn.Module, place: _Place, images: Tensor, targets: Tensor, *, at_once: int = AT_ONCE
) -> Tensor:
    """Score-CAM's weights (batch, target, channel): the softmax of the logits of the image seen through each channel.

    Args:
        model: in eval mode.
        place: where the feature is.
        images: (batch, channel, row, col).
        targets: (batch, target).
        at_once: images a forward pass.
    """
    feature, _ = _run(model, place, images)
    grid = _layout_at(feature, images, place.name).grid(feature).float()
    weights = []
    for image, channels, wanted in zip(images, grid, targets, strict=True):
        logits = []
        for some in channels.split(at_once):
            seen = F.interpolate(some[:, None], size=image.shape[1:], mode="bilinear", align_corners=True)
            lowest, highest = seen.amin(dim=(2, 3), keepdim=True), seen.amax(dim=(2, 3), keepdim=True)
            masks = (seen - lowest) / (highest - lowest + 1e-8)
            logits.append(logits_of(model(image * masks.to(image)))[:, wanted])
        weights.append(torch.cat(logits).softmax(dim=0).T)
    return torch.stack(weights)


def ablation_weights(
    model: nn.Module, place: _Place, images: Tensor, targets: Tensor, *, at_once: int = AT_ONCE
) -> Tensor:
    """Ablation-CAM's weights (batch, target, channel): by how much the logit falls where a channel is 0 everywhere.

    What comes before the feature is run on one image, where the network allows it.

    Args:
        model: in eval mode.
        place: where the feature is.
        images: (batch, channel, row, col).
        targets: (batch, target).
        at_once: channels left out a forward pass, each in a copy of the feature.
    """
    feature, logits = _run(model, place, images)
    layout = _layout_at(feature, images, place.name)
    axis = layout.channel_axis
    weights = []
    for i, wanted in enumerate(targets):
        lost = []
        for some in torch.arange(feature.shape[axis], device=feature.device).split(at_once):
            copies = feature[i : i + 1].repeat(len(some), *[1] * (feature.ndim - 1))
            copies.movedim(axis, 1)[torch.arange(len(some), device=feature.device), some] = 0
            lost.append(logits[i, wanted] - _from(model, place, images[i : i + 1], copies)[:, wanted])
        weights.append(torch.cat(lost).T)
    return torch.stack(weights)


_BY_FORWARDS: dict[str, Callable[..., Tensor]] = {"scorecam": score_weights, "ablationcam": ablation_weights}


# ---- by pixels of the input: (batch, target, row, col) ---------------------------------------------------------------


@torch.no_grad()
def occlusion(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    window_px: int | None = None,
    stride_px: int | None = None,
    at_once: int = AT_ONCE,
) -> Tensor:
    """By how much the logit falls behind a square of zeros (the mean gray of normalised images).

    A pixel has the mean over the squares that cover it.

    Args:
        model: in eval mode.
        images: (batch, channel, row, col).
        targets: (batch, target).
        window_px: side of the square; None = an eighth of the shorter side.
        stride_px: from one square to the next; None = half a square.
        at_once: images a forward pass.
    """
    size_rc = images.shape[2:]
    side = window_px or max(1, min(size_rc) // 8)
    stride = stride_px or max(1, side // 2)
    starts = [[stride * i for i in range(ceil(max(0, size - side) / stride) + 1)] for size in size_rc]
    squares = [(slice(row, row + side), slice(col, col + side)) for row in starts[0] for col in starts[1]]
    whole = logits_of(model(images)).gather(1, targets)
    fallen = torch.zeros((*targets.shape, *size_rc), device=images.device)
    covered = torch.zeros(size_rc, device=images.device)
    few = max(1, at_once // len(images))
    for first in range(0, len(squares), few):
        some = squares[first : first + few]
        hidden = images.repeat(len(some), 1, 1, 1)
        for i, (rows, cols) in enumerate(some):
            hidden[i * len(images) : (i + 1) * len(images), :, rows, cols] = 0
        logits = logits_of(model(hidden)).view(len(some), len(images), -1)
        for (rows, cols), one in zip(some, logits, strict=True):
            fallen[:, :, rows, cols] += (whole - one.gather(1, targets))[:, :, None, None]
            covered[rows, cols] += 1
    return torch.where(covered > 0, fallen / covered, torch.zeros_like(fallen))  # a stride wider than the square


@torch.no_grad()
def rise(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    masks: int = 1000,
    cells: int = 8,
    seed: int = 0,
    at_once: int = AT_ONCE,
) -> Tensor:
    """The probability where a random mask lets a pixel through, above the mean over all masks.

    The masks are those of the paper: ``cells`` x ``cells`` coarse cells, each open with probability 0.5, enlarged
    bilinearly and shifted by less than a cell. All images have the same.

    Args:
        model: in eval mode.
        images: (batch, channel, row, col).
        targets: (batch, target).
        masks: how many; noise falls with their root.
        cells: along a side of the image.
        seed: of the masks.
        at_once: images a forward pass.
    """
    size_rc = images.shape[2:]
    generator = torch.Generator().manual_seed(seed)
    steps = [ceil(size / cells) for size in size_rc]
    enlarged = [(cells + 1) * step for step in steps]
    product = torch.zeros((*targets.shape, *size_rc), device=images.device)
    mass = torch.zeros(size_rc, device=images.device)
    total = torch.zeros(targets.shape, device=images.device)
    few = max(1, at_once // len(images))
    for first in range(0, masks, few):
        made = []
        for _ in range(min(few, masks - first)):
            is_open = (torch.rand((1, 1, cells, cells), generator=generator) < 0.5).float()
            down, across = (int(torch.randint(step, (1,), generator=generator)) for step in steps)
            large = F.interpolate(is_open, size=enlarged, mode="bilinear", align_corners=False)
            made.append(large[0, 0, down : down + size_rc[0], across : across + size_rc[1]])
        through = torch.stack(made).to(images)
        logits = logits_of(model((images * through[:, None, None]).flatten(0, 1)))
        sure = logits.view(len(made), len(images), -1).sigmoid()
        chosen = sure.gather(2, targets.expand(len(made), -1, -1))  # (mask, batch, target)
        product += torch.einsum("mbt,mrs->btrs", chosen, through.float())
        mass += through.sum(dim=0)
        total += chosen.sum(dim=0)
    return (product - (total / masks)[:, :, None, None] * mass) / (0.5 * masks)


def integrated_gradients(model: nn.Module, images: Tensor, targets: Tensor, *, steps: int = 32) -> Tensor:
    """The image times its mean gradient on the straight way from zeros (mean gray); over all pixels, what it adds.

    Args:
        model: in eval mode.
        images: (batch, channel, row, col).
        targets: (batch, target).
        steps: points on the way (Gauss-Legendre), each a forward pass and for each target a backward pass.
    """
    points, shares = np.polynomial.legendre.leggauss(steps)
    values = torch.zeros((*targets.shape, *images.shape[2:]), device=images.device)
    for point, share in zip(points, shares, strict=True):
        inputs = (images * ((1 + point) / 2)).requires_grad_(True)
        with torch.enable_grad():
            wanted = logits_of(model(inputs), detach=False).gather(1, targets).sum(dim=0).unbind()
        for i, one in enumerate(wanted):
            (gradient,) = torch.autograd.grad(one, inputs, retain_graph=i + 1 < len(wanted))
            values[:, i] += (share / 2) * (gradient * images).sum(dim=1).float()
    return values


_ON_PIXELS: dict[str, Callable[..., Tensor]] = {
    "occlusion": occlusion,
    "rise": rise,
    "integrated-gradients": integrated_gradients,
}


# ---- the model, its layers and what they give ------------------------------------------------------------------------


def logits_of(output: Any, *, detach: bool = True) -> Tensor:
    """The logits (batch, finding) of what a model gives, float32.

    Raises:
        BadSetting: it gives none.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        what = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(output).__name__
        raise BadSetting(f"the model gives {what}, not logits of batch x finding. Wrap it in a module that does.")
    logits = logits.float()
    return logits.detach() if detach else logits


def choose_layer(model: nn.Module, images: Float[Tensor, "batch channel row col"]) -> str:
    """The last feature with rows and columns that the logits depend on, as :class:`Explainer` names it.

    For a model that makes a class map (an :class:`~radtag.models.Output`), that is what goes into the module that makes
    it. For others the output of the last module that is no pooling; of a transformer whose logits are read from a class
    token, the last tokens whose patches still matter (the first normalisation in its last block).

    Args:
        model: in eval mode.
        images: one is enough.

    Raises:
        BadSetting: there is no such layer.
    """
    names = {module: name for name, module in model.named_modules() if name}
    runs: Counter[str] = Counter()
    seen: list[tuple[str, Tensor, _Layout, Any]] = []  # in the order in which modules end

    def note(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        runs[names[module]] += 1
        value = _pick(output, images)
        layout = _layout(value, images) if value is not None else None
        if value is not None and layout is not None and not isinstance(module, _PLAIN):
            seen.append((names[module], value, layout, given[0] if given else None))

    handles = [module.register_forward_hook(note) for module in names]
    try:
        with torch.inference_mode(False), torch.enable_grad(), _evaluating(model):
            probe = images[:1].detach().clone().requires_grad_(True)
            output = model(probe)
            logits = logits_of(output, detach=False)
            maps = getattr(output, "maps", None)
            if isinstance(maps, Tensor):
                for name, value, _, given in seen:
                    made_here = value.shape == maps.shape and torch.equal(value.float(), maps)
                    if not (made_here and runs[name] == 1 and isinstance(given, Tensor)):
                        continue
                    layout = _layout(given, images)
                    # What has a channel for each finding is a map already, about to be resized.
                    if layout is not None and layout.grid(given).shape[1] != maps.shape[1]:
                        return f"{name}:input"
            found = [one for one in seen if runs[one[0]] == 1 and one[1].requires_grad]
            if isinstance(maps, Tensor):
                found = [one for one in found if one[2].grid(one[1]).shape[1] != maps.shape[1]]
            if found:
                # Each with a weight of its own: logits may add up to a constant.
                weights = torch.arange(1, logits.shape[1] + 1, device=logits.device, dtype=logits.dtype)
                gradients = torch.autograd.grad((logits * weights).sum(), [one[1] for one in found], allow_unused=True)
                widths = [one[1].shape[2] for one in found if one[2].kind == "tokens"]
                for (name, value, layout, _), gradient in zip(reversed(found), reversed(gradients), strict=True):
                    # Queries and the like are no feature: the tokens themselves are as wide as the last ones.
                    if layout.kind == "tokens" and value.shape[2] != widths[-1]:
                        continue
                    if gradient is not None and bool(layout.grid(gradient).any()):
                        return name
    finally:
        for handle in handles:
            handle.remove()
        seen.clear()
    raise BadSetting(
        "no layer of the model has a feature with rows and columns that its logits depend on."
        " Name one, or use occlusion, rise or integrated-gradients."
    )


class _Place(NamedTuple):
    """Where in a network a feature is taken."""

    name: str
    module: nn.Module
    side: Literal["output", "input"]


class _Layout(NamedTuple):
    """How a feature's values lie: rows and columns, where its channels are, tokens before those of places."""

    kind: Literal["channels first", "channels last", "tokens"]
    rows: int
    cols: int
    prefix: int = 0

    @property
    def channel_axis(self) -> int:
        return {"channels first": 1, "channels last": 3, "tokens": 2}[self.kind]

    def grid(self, feature: Tensor) -> Tensor:
        """The feature as (batch, channel, row, col)."""
        if self.kind == "channels first":
            return feature
        if self.kind == "tokens":
            feature = feature[:, self.prefix :].unflatten(1, (self.rows, self.cols))
        return feature.permute(0, 3, 1, 2)


def _layout(feature: Tensor, images: Tensor) -> _Layout | None:
    """How a feature lies over images; None if it has no rows and columns, or one of each."""
    size_rc = images.shape[2:]
    if feature.ndim == 4:
        _, first, second, third = feature.shape
        kinds: list[tuple[Literal["channels first", "channels last"], int, int]] = [
            ("channels first", second, third),
            ("channels last", first, second),
        ]
        fits = [
            (abs(log(size_rc[0] * cols / (size_rc[1] * rows))), kind, rows, cols)
            for kind, rows, cols in kinds
            if rows * cols > 1 and rows <= size_rc[0] and cols <= size_rc[1]
        ]
        if not fits:
            return None
        off, kind, rows, cols = min(fits, key=lambda one: one[0])  # of equal ones channels first
        return _Layout(kind, rows, cols) if off < log(2) else None
    if feature.ndim == 3:
        for prefix in range(min(_MOST_PREFIX, feature.shape[1])):
            places = feature.shape[1] - prefix
            rows = round((places * size_rc[0] / size_rc[1]) ** 0.5)
            if rows > 0 and places % rows == 0 and rows * size_rc[1] == places // rows * size_rc[0] and places > 1:
                return _Layout("tokens", rows, places // rows, prefix)
    return None


def _layout_at(feature: Tensor, images: Tensor, layer: str) -> _Layout:
    layout = _layout(feature, images)
    if layout is None:
        raise BadSetting(
            f"the layer {layer} gives {tuple(feature.shape)}, which has no rows and columns. Name an earlier one."
        )
    return layout


def _place(model: nn.Module, layer: str) -> _Place:
    """Where a layer of this name is."""
    name, _, side = layer.partition(":")
    modules = dict(model.named_modules())
    if name not in modules or not name:
        near = get_close_matches(name, modules, n=3)
        advice = f"Did you mean {' or '.join(near)}?" if near else "dict(model.named_modules()) has their names."
        raise BadSetting(f"the model has no layer {name!r}. {advice}")
    if side not in ("", "input"):
        raise BadSetting(f"a layer is NAME, for what comes out of it, or NAME:input, got {layer!r}.")
    return _Place(name, modules[name], "input" if side else "output")


def _pick(value: Any, images: Tensor) -> Tensor | None:
    """The feature in what a module gives; of several the one with the fewest cells, and of equal ones the first."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, list | tuple):
        return None
    laid = [(one, _layout(one, images)) for one in value if isinstance(one, Tensor)]
    spatial = [(one, layout.rows * layout.cols) for one, layout in laid if layout is not None]
    return min(spatial, key=lambda one: one[1])[0] if spatial else None


def _put(value: Any, old: Tensor, new: Tensor) -> Any:
    """What a module gives, with another feature in it."""
    if value is old:
        return new
    parts = [new if one is old else one for one in value]
    if isinstance(value, list):
        return parts
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


@contextmanager
def _tapped(place: _Place, images: Tensor, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While it lasts, the feature at a place is what ``replace`` makes of it."""

    def changed(value: Any) -> Any:
        feature = _pick(value, images)
        if feature is None:
            raise BadSetting(f"the layer {place.name} gives no feature with rows and columns. Name another.")
        return _put(value, feature, replace(feature))

    if place.side == "input":
        handle: Any = place.module.register_forward_pre_hook(lambda _, given: (changed(given[0]), *given[1:]))
    else:
        handle = place.module.register_forward_hook(lambda _, given, output: changed(output))
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def _run(model: nn.Module, place: _Place, images: Tensor) -> tuple[Tensor, Tensor]:
    """The feature at a place, and the logits."""
    taken: list[Tensor] = []

    def take(feature: Tensor) -> Tensor:
        taken.append(feature.clone())  # what comes next may work in place
        return feature

    with _tapped(place, images, take):
        logits = logits_of(model(images))
    return _only(taken, place.name), logits


@torch.no_grad()
def _from(model: nn.Module, place: _Place, image: Tensor, features: Tensor) -> Tensor:
    """The logits of one image (1, channel, row, col) with other features (n, ...) in place of its own."""
    with _tapped(place, image, lambda _: features.clone()):
        try:
            logits = logits_of(model(image))
            if len(logits) == len(features):
                return logits
        except (RuntimeError, ValueError, BadSetting):
            pass  # it joins the feature with others of the image, of which there is one
        return logits_of(model(image.expand(len(features), -1, -1, -1)))


def _only(taken: Sequence[Tensor], layer: str) -> Tensor:
    """The feature, of a layer that runs once."""
    if len(taken) != 1:
        runs = "does not run" if not taken else f"runs {len(taken)} times"
        raise BadSetting(f"the layer {layer} {runs} for an image. Name one that runs once.")
    return taken[0]


def _head(model: nn.Module, channels: int, findings: int) -> Tensor:
    """The weights (finding, channel) of the last linear layer, or 1x1 convolution, that makes the logits."""
    weights = [one.weight for one in model.modules() if isinstance(one, nn.Linear)]
    weights += [one.weight for one in model.modules() if isinstance(one, nn.Conv2d) and one.kernel_size == (1, 1)]
    for weight in reversed(weights):
        if weight.shape[:2] == (findings, channels):
            return weight.detach().flatten(1)
    raise BadSetting(
        f"CAM needs a network whose head is one linear layer from the layer's {channels} channels to {findings} logits,"
        " and this one has none. Use gradcam, which is the same where there is one."
    )


def _targets(targets: Targets, logits: Tensor) -> Int[Tensor, "batch target"]:
    """Targets as (batch, target), checked."""
    images, findings = logits.shape
    try:
        given = torch.arange(findings) if targets is None else torch.as_tensor(targets)
    except (ValueError, TypeError) as error:
        raise BadSetting(f"targets are numbers of findings, as many for each image, got {targets!r}.") from error
    if given.ndim not in (1, 2) or not given.numel() or given.is_floating_point() or given.dtype == torch.bool:
        raise BadSetting(f"targets are numbers of findings, (target,) or (batch, target), got {targets!r}.")
    if given.ndim == 2 and len(given) != images:
        raise BadSetting(f"{len(given)} rows of targets for {images} images. Give a row for each, or one for all.")
    if int(given.min()) < 0 or int(given.max()) >= findings:
        raise BadSetting(f"the model has {findings} findings, numbered from 0; targets are {given.tolist()}.")
    return given.to(logits.device, torch.int64).expand(images, -1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards each module as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
