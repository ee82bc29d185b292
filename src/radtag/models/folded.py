"""A trained network as it is cheapest to run: what is a constant at inference is worked into the convolutions.

- A BatchNorm after a convolution is a factor and an offset a channel, which go into the convolution's weights and bias.
- TensorFlow's "same" padding (timm's ``tf_`` networks) pads a copy of the whole feature, more on its far sides than on
  its near ones. For inputs of one size, a kernel with as many more zeros on its near sides, and the same padding on
  all, reads the same pixels without the copy.

Which layers follow one another is seen by running the network once, since its code may say so in any way. What cannot
be seen so, such as a feature taken from between the two, shows in the output: it is compared, and a network whose
output would change is left as it is.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from radtag.models.output import Output

TOLERANCE = 1e-4
"""Of the largest output: by so much may a folded network's differ. Float32 rounding makes about a tenth of it."""


@torch.no_grad()
def folded(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy of a network, folded; or the network itself where that would change what it says.

    Args:
        model: in eval mode.
        inputs: (batch, channel, row, col) normalised images, of the size and memory format that it will be given.
    """
    cheaper = copy.deepcopy(model)
    try:
        sizes, pairs = _seen(cheaper, inputs)
        for convolution, norm in pairs:
            _fold(convolution, norm)
            _replace(cheaper, norm, _after(norm))
        unlike = {layer: size_rc for layer, size_rc in sizes.items() if isinstance(layer, Conv2dSame)}
        if not pairs and not unlike:
            return model
        for convolution, size_rc in unlike.items():
            _replace(cheaper, convolution, _padded_alike(convolution, size_rc))
        cheaper = cheaper.to(memory_format=torch.channels_last)
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            # In TF32, which GPUs use for convolutions, rounding is a thousand times as coarse and hides a true change.
            return cheaper if _alike(model(inputs), cheaper(inputs)) else model
    except (RuntimeError, AttributeError, TypeError, ValueError):  # a network that does not take such changes
        return model


def _seen(
    model: nn.Module, inputs: Tensor
) -> tuple[dict[nn.Conv2d, tuple[int, int]], list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """The convolutions that run once, with their inputs' sizes; and which of them a BatchNorm takes the output of."""
    sizes: dict[nn.Conv2d, tuple[int, int]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    runs: Counter[nn.Module] = Counter()
    made: dict[int, nn.Conv2d] = {}
    alive: list[Tensor] = []  # or another tensor would come to have the same id

    def note(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        runs[layer] += 1
        if isinstance(layer, nn.Conv2d):
            sizes[layer] = (given[0].shape[-2], given[0].shape[-1])
            made[id(output)] = layer
            alive.append(output)
        elif isinstance(layer, nn.BatchNorm2d) and id(given[0]) in made:
            pairs.append((made[id(given[0])], layer))

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    once = {layer: size for layer, size in sizes.items() if runs[layer] == 1}
    return once, [(layer, norm) for layer, norm in pairs if layer in once and runs[norm] == 1]


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Works a BatchNorm into the convolution before it."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a BatchNorm that keeps no statistics is no constant")
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
    )
    convolution.weight = weight
    convolution.register_parameter("bias", bias)


def _after(norm: nn.BatchNorm2d) -> nn.Module:
    """What is left of a BatchNorm that was folded: nothing, or the activation that timm's carries."""
    activation = getattr(norm, "act", None)
    return nn.Identity() if activation is None else activation


def _padded_alike(convolution: Conv2dSame, size_rc: tuple[int, int]) -> nn.Conv2d:
    """A convolution with fixed padding that does as one with "same" padding does on inputs (row, col) of this size."""
    kernel, padding, more = [], [], []
    for axis, size in enumerate(size_rc):
        side, stride, dilation = convolution.kernel_size[axis], convolution.stride[axis], convolution.dilation[axis]
        total = max(0, (-(-size // stride) - 1) * stride + (side - 1) * dilation + 1 - size)
        far = total - total // 2
        taps, rest = divmod(far - total // 2, dilation)
        if rest:
            raise ValueError("a dilated kernel has no tap there")
        kernel.append(side + taps)
        padding.append(far)
        more.append(taps)
    alike = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        (kernel[0], kernel[1]),
        stride=(convolution.stride[0], convolution.stride[1]),
        padding=(padding[0], padding[1]),
        dilation=(convolution.dilation[0], convolution.dilation[1]),
        groups=convolution.groups,
    )
    alike.weight = nn.Parameter(nn.functional.pad(convolution.weight, (more[1], 0, more[0], 0)))
    alike.bias = convolution.bias
    return alike.eval()


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts a layer in the place of another, under every name that has it."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new


def _alike(plain: Output, cheaper: Output) -> bool:
    """Whether two outputs differ by rounding alone; what one method gives and another does not is passed over."""
    return all(
        bool((one - other).abs().max() <= TOLERANCE * one.abs().max().clamp(min=1))
        for one, other in zip((*plain[:3], *plain.heads), (*cheaper[:3], *cheaper.heads), strict=True)
        if one is not None and other is not None
    )
