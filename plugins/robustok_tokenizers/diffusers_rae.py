"""The two halves of diffusers' AutoencoderRAE (Zheng et al. 2025, arXiv 2510.11690): frozen encoder and ViT decoder.

The model sees pixels from 0 to 1; ours are from -1 to 1 outside.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

#: Added to the deviation of latents, as published.
_EPS = 1e-5


class _Half(nn.Module):
    """One network of the model, with the statistics that both need."""

    network: Any
    image_mean: Tensor
    image_std: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, model: Any, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for module in network.modules():  # some tables are not saved, and would be lost on the meta device
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer)
        self.register_buffer("image_mean", model.encoder_mean.clone())
        self.register_buffer("image_std", model.encoder_std.clone())
        self.register_buffer("latent_mean", model._latents_mean.clone())
        self.register_buffer("latent_std", model._latents_std.clone())


class RAEEncoder(_Half):
    """Images to normalised maps of a frozen network's features, with noise in training (`noise_tau`)."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.encoder.requires_grad_(False))
        self.input_size, self.patch_size = model.encoder_input_size, model.config["encoder_patch_size"]
        self.kind = model.config["encoder_type"]
        self._tokens, self.noise = model._encoder_forward_fn, model.noise_tau

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to (B, C, h, w)."""
        pixels = (images + 1) / 2
        if pixels.shape[-1] != self.input_size:
            pixels = F.interpolate(pixels, size=(self.input_size, self.input_size), mode="bicubic", align_corners=False)
        extra = (self.patch_size,) if self.kind == "mae" else ()
        tokens = self._tokens(self.network, (pixels - self.image_mean) / self.image_std, *extra)  # (B, N, C)
        if self.training and self.noise:
            strength = self.noise * torch.rand(len(tokens), 1, 1, device=tokens.device)
            tokens = tokens + strength * torch.randn_like(tokens)
        hidden = rearrange(tokens, "b (h w) c -> b c h w", h=math.isqrt(tokens.shape[1]))
        return (hidden - self.latent_mean) / (self.latent_std + _EPS)


class RAEDecoder(_Half):
    """Normalised maps to images."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.decoder)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 3, H, W), roughly in [-1, 1]."""
        latents = hidden * (self.latent_std + _EPS) + self.latent_mean
        patches = self.network(rearrange(latents, "b c h w -> b (h w) c")).logits
        pixels = self.network.unpatchify(patches) * self.image_std + self.image_mean
        return 2 * pixels - 1
