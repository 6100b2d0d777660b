"""timm's self-supervised vision transformers as feature networks."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from robustok_metrics.frozen import FrozenFeatures
from robustok_toolkit.timm_networks import timm_network

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class FrozenTransformer(FrozenFeatures):
    """A timm ViT; pooled features are its class token after the last norm.

    Args:
        name: for metric keys; "_random" or "_other" is appended if the weights are not the published ones.
        architecture: timm's name of the network.
        weights: "pretrained", "random", or a file.
        image_size: side, in pixels, that images are resized to.
    """

    def __init__(self, name: str, architecture: str, weights: str, image_size: int) -> None:
        super().__init__()
        self.name = name + {"pretrained": "", "random": "_random"}.get(weights, "_other")
        self.image_size = image_size
        self.net = timm_network(architecture, weights, image_size, where="features")
        self.width = self.net.num_features
        self.freeze()

    @property
    def preparation(self) -> str:
        return f"to {self.image_size}x{self.image_size}, averaged over areas or bicubic; ImageNet mean and deviation"

    def forward(self, images: Tensor) -> Tensor:
        """(B, F) the class token of images (B, 3, H, W) in [-1, 1]."""
        return self.net.norm(self._tokens(images)[-1])[:, 0]

    def _tokens(self, images: Tensor) -> list[Tensor]:
        """(B, 1 + h*w, F) tensors: the input of the first block and the output of each block."""
        tokens = [self.net._pos_embed(self.net.patch_embed(self._prepare(images)))]
        for block in self.net.blocks:
            tokens.append(block(tokens[-1]))
        return tokens

    def _maps(self, tokens: Tensor) -> Tensor:
        """(B, F, h, w) maps from patch tokens (B, h*w, F)."""
        rows, _ = self.net.patch_embed.grid_size
        return rearrange(tokens, "b (h w) f -> b f h w", h=rows)

    def _prepare(self, images: Tensor) -> Tensor:
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            larger = images.shape[-1] > self.image_size
            images = F.interpolate(images, size=size, mode="area" if larger else "bicubic")
        mean = images.new_tensor(IMAGENET_MEAN)[:, None, None]
        std = images.new_tensor(IMAGENET_STD)[:, None, None]
        return ((images + 1) / 2 - mean) / std
