"""The image encoder of OpenAI's CLIP (Radford et al. 2021), which CMMD compares images in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.values.download import Download
from robustok_metrics.timm_features import FrozenTimm
from robustok_toolkit.timm_networks import WEIGHTS_DOC, timm_downloads

#: With the activation that they were trained with: timm's networks without "quickgelu" have another.
_NETWORKS = {
    "vit_b32": ("vit_base_patch32_clip_quickgelu_224.openai", 512),
    "vit_b16": ("vit_base_patch16_clip_quickgelu_224.openai", 512),
    "vit_l14": ("vit_large_patch14_clip_quickgelu_224.openai", 768),
    "vit_l14_336": ("vit_large_patch14_clip_quickgelu_336.openai", 768),
}


@frozen(kw_only=True)
class CLIPConfig:
    """The network and its weights."""

    network: Literal["vit_b32", "vit_b16", "vit_l14", "vit_l14_336"] = field(
        default="vit_l14_336", validator=validators.in_(_NETWORKS), metadata={"doc": "the image encoder"}
    )
    weights: str = field(default="pretrained", metadata={"doc": WEIGHTS_DOC})


class CLIP(FrozenTimm):
    """The image embedding, after the projection to the space of images and texts and before it is normalised.

    The name is "clip" for ViT-L/14 at 336 pixels, which CMMD is defined with; others have theirs in the name. Images
    are resized without antialiasing, as in the code of CMMD.
    """

    Config = CLIPConfig
    antialias = False

    def __init__(self, config: CLIPConfig) -> None:
        architecture, width = _NETWORKS[config.network]
        name = "clip" if config.network == "vit_l14_336" else f"clip_{config.network}"
        super().__init__(name, architecture, config.weights, None, num_classes=width)
        self.width = width

    @classmethod
    def downloads(cls, config: CLIPConfig) -> Iterable[Download]:
        return timm_downloads(_NETWORKS[config.network][0], config.weights)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 768) image embeddings, 512 wide with ViT-B, of images (B, 3, H, W) in [-1, 1]."""
        embedding: Tensor = self.net(self._prepare(images))
        return embedding
