"""MAETok's transformers: ViTs over image tokens and latent tokens, with learned and rotary positions."""

from __future__ import annotations

from typing import Literal

import torch
from attrs import frozen
from einops import rearrange, repeat
from torch import Tensor, nn

from robustok_blocks.mixed_rotary import axial_rotations, mixed_rotations, random_frequencies, still_around
from robustok_blocks.rotary_transformer import RotaryBlock
from robustok_tokenizers.vit_init import initialise_linear_layers

Rotary = Literal["none", "mixed", "axial"]


@frozen(kw_only=True)
class MaeShape:
    """Sizes and options of a transformer.

    Attributes:
        side: patches per row and per column. num_latents: number of latent tokens.
        rotary: rotary positions of the image tokens' queries and keys. base: base of their frequencies.
        cls_token: whether a cls token comes first. absolute: whether image tokens also have learned positions.
    """

    width: int
    depth: int
    num_heads: int
    mlp_ratio: float
    layer_scale: float
    drop_path: float
    side: int
    num_latents: int
    rotary: Rotary
    base: float
    cls_token: bool
    absolute: bool

    @property
    def num_patches(self) -> int:
        """P, image tokens without the cls token."""
        return self.side**2

    @property
    def num_cls(self) -> int:
        """Number of cls tokens before the image tokens: 0 or 1."""
        return int(self.cls_token)


class MaeTransformer(nn.Module):
    """The base of encoder and decoders. Parameters are named as in the published weights where those have them."""

    def __init__(self, shape: MaeShape) -> None:
        super().__init__()
        self.shape = shape
        if shape.cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        if shape.absolute:
            self.pos_embed = nn.Parameter(torch.zeros(1, shape.num_cls + shape.num_patches, shape.width))
        self.latent_pos_embed = nn.Parameter(torch.zeros(1, shape.num_latents, shape.width))
        if shape.rotary == "mixed":
            heads, head_width = shape.num_heads, shape.width // shape.num_heads
            self.freqs = nn.Parameter(random_frequencies(shape.depth, heads, head_width, shape.base))
        rates = torch.linspace(0, shape.drop_path, shape.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            RotaryBlock(shape.width, shape.num_heads, shape.mlp_ratio, shape.layer_scale, rate) for rate in rates
        )
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)

    def initialise(self) -> None:
        """Initialises as timm's ViTs, and what MAETok adds with standard deviation 0.02."""
        initialise_linear_layers(self, self.shape.width)
        for name in ("latent_tokens", "mask_token"):
            if hasattr(self, name):
                nn.init.normal_(self.get_parameter(name), std=0.02)
        for name in ("pos_embed", "latent_pos_embed"):
            if hasattr(self, name):
                nn.init.trunc_normal_(self.get_parameter(name), std=0.02)
        if self.shape.cls_token:
            nn.init.normal_(self.cls_token, std=1e-6)

    def mix(self, image_tokens: Tensor, latents: Tensor) -> Tensor:
        """Passes P image tokens and N latents, which have their positions, through the blocks: (B, cls + P + N, D)."""
        if self.shape.cls_token:
            image_tokens = torch.cat([self.cls_token.expand(len(image_tokens), -1, -1), image_tokens], dim=1)
        if self.shape.absolute:
            image_tokens = image_tokens + self.pos_embed
        x = torch.cat([image_tokens, latents], dim=1)
        fixed = self._fixed_rotations(x.device)
        for layer, block in enumerate(self.blocks):
            x = block(x, self._mixed_rotations(layer) if self.shape.rotary == "mixed" else fixed)
        return self.norm(x)

    def _mixed_rotations(self, layer: int) -> Tensor:
        side = self.shape.side
        turned = mixed_rotations(self.freqs[:, layer], (side, side), self.shape.num_heads)
        return still_around(turned, self.shape.num_cls, self.shape.num_latents)

    def _fixed_rotations(self, device: torch.device) -> Tensor | None:
        if self.shape.rotary != "axial":
            return None
        side, head_width = self.shape.side, self.shape.width // self.shape.num_heads
        turned = axial_rotations((side, side), head_width, self.shape.base).to(device)
        return still_around(turned, self.shape.num_cls, self.shape.num_latents)


class MaeEncoder(MaeTransformer):
    """Images to N latent tokens; a mask token replaces the patches hidden in training."""

    def __init__(self, shape: MaeShape, patch_size: int, *, masks: bool) -> None:
        super().__init__(shape)
        self.patch_embed = nn.Conv2d(3, shape.width, patch_size, stride=patch_size)
        self.latent_tokens = nn.Parameter(torch.zeros(1, shape.num_latents, shape.width))
        if masks:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.initialise()

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps images (B, 3, H, W) to (B, N, width); mask (B, P) bool marks the hidden patches."""
        patches = rearrange(self.patch_embed(images), "b d h w -> b (h w) d")
        if mask is not None:
            patches = torch.where(mask[..., None], self.mask_token.to(patches.dtype), patches)
        latents = (self.latent_tokens + self.latent_pos_embed).expand(len(images), -1, -1)
        return self.mix(patches, latents)[:, -latents.shape[1] :]


class MaeDecoder(MaeTransformer):
    """N latent tokens to one vector per patch."""

    def __init__(self, shape: MaeShape, outputs: int) -> None:
        super().__init__(shape)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.to_patch = nn.Linear(shape.width, outputs)
        self.initialise()

    def forward(self, latents: Tensor) -> Tensor:
        """(B, N, width) to (B, P, outputs)."""
        masks = repeat(self.mask_token, "1 1 d -> b p d", b=len(latents), p=self.shape.num_patches)
        mixed = self.mix(masks, latents + self.latent_pos_embed)
        first = self.shape.num_cls
        return self.to_patch(mixed[:, first : first + self.shape.num_patches])
