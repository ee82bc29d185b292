"""What the segmentation networks share: a decoder of segmentation_models_pytorch that learns from image labels.

PYLON's paper trains U-Net, FPN, DeepLabV3+ and PAN as it trains PYLON: the same encoder and recipe, the map of logits
as the decoder's head gives it, without a last enlargement, and the map's maximum as the image's logit. The decoder is
the package's; the encoder is that of every other method, with its names, its weights and its own learning rate.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from torch import Tensor, nn

from radtag.models.backbone import Backbone, BackboneOptions
from radtag.models.output import Output, Pooling, pool


@runtime_checkable
class PooledBy(Protocol):
    """The settings that every one of them has."""

    @property
    def pool(self) -> Pooling: ...

    @property
    def sharpness(self) -> float: ...


class Segmenter(nn.Module):
    """Backbone, decoder, head; a map of logits, and an image's logit pooled from it.

    Args:
        backbone: the encoder, of :func:`pyramid`.
        decoder: takes the images and the features, finest first, as the package's decoders do.
        head: one channel a finding.
        options: how the map is pooled; kept.
    """

    def __init__(self, backbone: Backbone, decoder: nn.Module, head: nn.Conv2d, options: PooledBy) -> None:
        super().__init__()
        self.options = options
        self.backbone = backbone
        self.decoder = decoder
        self.head = head

    def forward(self, images: Float[Tensor, "batch channel row col"]) -> Output:
        """Normalised images -> logits (batch, finding) and maps (batch, finding, row, col) of the decoder's stride."""
        features = self.backbone(images)
        if 2 not in self.backbone.strides:
            batch, _, rows, cols = images.shape
            features = [images.new_empty(batch, 0, rows // 2, cols // 2), *features]
        maps = self.head(self.decoder([images, *features])).float()
        return Output(self.image_logits(maps), maps)

    def image_logits(self, maps: Float[Tensor, "batch finding row col"]) -> Float[Tensor, "batch finding"]:
        """Logits of images from their maps of logits."""
        return pool(maps, self.options.pool, self.options.sharpness)


def pyramid(options: BackboneOptions, size_px: int | None, coarsest: int = 32) -> tuple[Backbone, list[int]]:
    """An encoder with every stride from 2 to ``coarsest``, and the channels of what the decoder takes, images first.

    A network without a feature of stride 2 (ConvNeXt, Swin) has one of no channels there.
    """
    wanted = tuple(stride for stride in (2, 4, 8, 16, 32) if stride <= coarsest)
    output_stride = None if coarsest == 32 else coarsest
    backbone = Backbone(options, size_px, wanted, may_lack=(2,), output_stride=output_stride)
    missing = [] if 2 in backbone.strides else [0]
    return backbone, [options.channels, *missing, *backbone.channels]


def initialise(decoder: nn.Module, head: nn.Module) -> None:
    """First weights as the package's models have them: Kaiming-uniform, the head Xavier-uniform, biases 0."""
    initialize_decoder(decoder)
    initialize_head(head)
