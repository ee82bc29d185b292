"""What every localiser returns, and the poolings that turn a map into an image's logit."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Pooling = Literal["max", "avg", "lse"]


class Output(NamedTuple):
    """Logits of the images and of the cells of their maps, both before any sigmoid.

    ``logits`` is (batch, finding), ``maps`` is (batch, finding, row, col), both float32.

    A method that changes the image has ``changes`` as well, of the maps' shape: what it takes away, signed, in units of
    the image's range; (batch, 1, row, col) where one change stands for all findings. Its maps are amounts made from
    |changes|, not logits: 0-1, or more where nothing bounds them.

    A network with several heads has their logits in ``heads``, of the shape of ``logits``, which is their mean; each is
    trained on the labels.
    """

    logits: Tensor
    maps: Tensor
    changes: Tensor | None = None
    heads: tuple[Tensor, ...] = ()


def pool(
    maps: Float[Tensor, "batch finding row col"], kind: Pooling, sharpness: float = 10.0
) -> Float[Tensor, "batch finding"]:
    """One logit an image and finding from its map of logits.

    max: the strongest cell (PYLON). avg: the mean (CAM). lse: log-sum-exp, ``log(mean(exp(r m))) / r``, between the
    two (Pinheiro and Collobert, CVPR 2015); r is ``sharpness``: towards 0 it is avg, towards infinity max.
    """
    if kind == "max":
        return maps.amax(dim=(2, 3))
    if kind == "avg":
        return maps.mean(dim=(2, 3))
    cells = maps.shape[2] * maps.shape[3]
    return (torch.logsumexp(maps.flatten(2) * sharpness, dim=2) - math.log(cells)) / sharpness
