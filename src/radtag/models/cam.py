"""CAM: a 1x1 convolution on the backbone's coarsest feature; its output is the class map.

Zhou, Khosla, Lapedriza, Oliva, Torralba: "Learning deep features for discriminative localization", CVPR 2016. With
average pooling the convolution is the classifier's weight vector applied cell by cell, so the map is the paper's CAM
plus the bias. With max pooling it is the baseline of the PYLON paper: same encoder, same recipe, maps of stride 32.
"""

from __future__ import annotations

from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from radtag.models.backbone import Backbone, BackboneOptions
from radtag.models.output import Output, Pooling, pool


class CamOptions(BaseModel):
    """CAM's own settings.

    Attributes:
        pool: how a map becomes an image's logit.
        sharpness: r of the "lse" pooling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: Pooling = "avg"
    sharpness: float = Field(default=10.0, gt=0)


class Cam(nn.Module):
    """Backbone and a 1x1 head.

    Args:
        findings: number of findings.
        backbone: the encoder.
        options: CAM's own settings.
        size_px: side of the square input, for backbones that are made for one.
    """

    def __init__(
        self, findings: int, backbone: BackboneOptions, options: CamOptions, size_px: int | None = None
    ) -> None:
        super().__init__()
        self.options = options
        self.backbone = Backbone(backbone, size_px, wanted="coarsest")
        self.head = nn.Conv2d(self.backbone.channels[-1], findings, kernel_size=1)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, images: Float[Tensor, "batch channel row col"]) -> Output:
        """Normalised images -> logits (batch, finding) and maps (batch, finding, row, col), of the coarsest stride."""
        maps = self.head(self.backbone(images)[-1]).float()
        return Output(self.image_logits(maps), maps)

    def image_logits(self, maps: Float[Tensor, "batch finding row col"]) -> Float[Tensor, "batch finding"]:
        """Logits of images from their maps of logits."""
        return pool(maps, self.options.pool, self.options.sharpness)


def build(findings: int, backbone: BackboneOptions, options: dict[str, object], size_px: int | None = None) -> Cam:
    """CAM with a random head; see :class:`CamOptions` for ``options``."""
    return Cam(findings, backbone, CamOptions.model_validate(options), size_px)
