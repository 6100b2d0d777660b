"""The image encoder of OpenAI's CLIP (Radford et al. 2021), which CMMD compares images in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.values.download import Download
from robustok_metrics.frozen import rounded
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
    are cropped and resized as the code of CMMD does with Pillow, in 8 bits.
    """

    Config = CLIPConfig
    resizing = "the central square of 8-bit pixels, as Pillow's bicubic, rounded after each axis"

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

    def _resized(self, images: Tensor) -> Tensor:
        return resized_as_by_pillow(images, self.image_size) / 255


def resized_as_by_pillow(images: Tensor, side: int) -> Tensor:
    """(B, C, side, side) float32 grey levels 0..255 of the central square of images (B, C, H, W) in [-1, 1].

    They are within one grey level, rarely two, of Pillow's `crop` and `resize(BICUBIC)` of the images in 8 bits:
    columns first, then rows, rounded after each. They are differentiable in the images, as if nothing were rounded.
    """
    height, width = images.shape[-2:]
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    images = images[..., top : top + square, left : left + square]
    pixels = rounded((images.float().clamp(-1, 1) + 1) * 127.5)
    for size in ((square, side), (side, side)) if square != side else ():
        pixels = rounded(F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 255))
    return pixels
