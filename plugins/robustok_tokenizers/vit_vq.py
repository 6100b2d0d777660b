"""The paper's tokenizer: a ViT encoder and decoder around learnable latent tokens (RobusTok section 4, 5.1).

The encoder reads the image's patches and N latent tokens and outputs the latent tokens; the decoder reads the
quantized latent tokens and one mask token per patch and turns the mask tokens into pixels.
The defaults are the paper's: 172.3 M parameters. Sizes (width, depth, num_heads): S 384, 12, 6;
B 768, 12, 12; L 1024, 24, 16.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen, validators
from einops import rearrange, repeat
from torch import Tensor, nn

from robustok_blocks.transformer import Block
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import below_one, width_range
from robustok_core.values.download import Download, named_path
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.spec import component
from robustok_tokenizers.pretrained_vit import load_pretrained, pretrained_downloads
from robustok_tokenizers.vit_init import initialise_linear_layers
from robustok_tokenizers.vit_sizes import ViTPairConfig


@frozen(kw_only=True)
class ViTVQConfig(ViTPairConfig):
    """Options of `vit_vq`; the defaults are the paper's."""

    num_latent_tokens: int = field(default=256, validator=width_range, metadata={"doc": "N, tokens per image"})
    absolute_positions: bool = field(
        default=True,
        metadata={
            "doc": "latent tokens share the patches' positions, one each, and differ by a level embedding; "
            "false: they have their own positions and can be fewer"
        },
    )
    layer_scale: float = field(
        default=1e-5,
        validator=validators.gt(0),
        metadata={"doc": "initial LayerScale; larger learns faster from scratch"},
    )
    drop_path: float = field(
        default=0.1,
        validator=below_one,
        metadata={"doc": "share of images whose residual branch is dropped in the last block, rising linearly from 0"},
    )
    init: str = field(
        default="random",
        metadata={"doc": "where both ViTs start: random, dinov2 (fetched through timm), or a file of timm ViT weights"},
    )
    quantizer: Any = component(
        "quantizer", doc="what turns vectors into codes", default={"use": "vq", "codebook_size": 4096, "width": 64}
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.absolute_positions and self.num_latent_tokens != self.num_patches:
            raise ValueError(
                f"with absolute_positions there is one latent token per patch: num_latent_tokens must be "
                f"{self.num_patches}, not {self.num_latent_tokens}"
            )


class ViTVQ(Tokenizer):
    """Two ViTs around a quantizer; tokens are learnable queries, in the patches' order if there is one per patch."""

    Config = ViTVQConfig
    also_called = ("robustok", "vit", "vit_vqgan")
    quantizer: Quantizer

    def __init__(self, config: ViTVQConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.quantizer = config.quantizer.build()
        self.encoder = LatentEncoder(config)
        self.quant_conv = nn.Linear(config.width, self.quantizer.width)
        self.post_quant_conv = nn.Linear(self.quantizer.width, config.width)
        self.pixel_decoder = LatentDecoder(config)
        side = math.isqrt(config.num_latent_tokens)
        self.space = LatentSpace(
            kind="discrete",
            num_tokens=config.num_latent_tokens,
            width=self.quantizer.width,
            codebook_size=self.quantizer.codebook_size,
            grid=(side, side) if side * side == config.num_latent_tokens else None,
        )
        if config.init != "random" and not self.last_layer.is_meta:
            load_pretrained(
                config.init, [self.encoder, self.pixel_decoder], width=config.width, patch_size=config.patch_size
            )

    @classmethod
    def downloads(cls, config: ViTVQConfig) -> Iterable[Download]:
        return pretrained_downloads(config.init, config.width)

    @classmethod
    def files(cls, config: ViTVQConfig) -> Iterable[Path]:
        return named_path(config.init, "dinov2", "random")

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` is the quant_conv's output."""
        return self.quantizer.quantize(self.quant_conv(self.encoder(images)))

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        return self.pixel_decoder(self.post_quant_conv(vectors))

    @property
    def decoder(self) -> nn.ModuleList:
        """The projection after the quantizer and the pixel decoder."""
        return nn.ModuleList([self.post_quant_conv, self.pixel_decoder])

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the layer that outputs the pixels."""
        return self.pixel_decoder.get_parameter("to_pixel.weight")


class LatentTransformer(nn.Module):
    """The base of encoder and decoder: a ViT over image tokens followed by latent tokens."""

    def __init__(self, config: ViTVQConfig) -> None:
        super().__init__()
        self.absolute_positions = config.absolute_positions
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.num_patches, width))
        if config.absolute_positions:
            self.level_embed = nn.Embedding(2, width)  # 0: image tokens, 1: latent tokens
        else:
            self.latent_pos_embed = nn.Parameter(torch.zeros(1, config.num_latent_tokens, width))
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, config.mlp_ratio, config.layer_scale, rate) for rate in rates
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def initialise(self) -> None:
        """Initialises as timm's ViTs, and added parameters as in the released code."""
        initialise_linear_layers(self, self.cls_token.shape[-1])
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.absolute_positions:
            nn.init.trunc_normal_(self.level_embed.weight, std=math.sqrt(1 / self.cls_token.shape[-1] / 3))
        else:
            nn.init.trunc_normal_(self.latent_pos_embed, std=0.02)

    def with_positions(self, image_tokens: Tensor) -> Tensor:
        """Prepends the cls token to P tokens and adds positions: (B, 1 + P, D)."""
        cls = self.cls_token.expand(image_tokens.shape[0], -1, -1)
        return torch.cat([cls, image_tokens], dim=1) + self.pos_embed

    def mix(self, image_tokens: Tensor, latents: Tensor) -> Tensor:
        """Passes all tokens through the blocks; both arguments (B, n, D) have positions."""
        if self.absolute_positions:
            image_tokens = image_tokens + self.level_embed.weight[0]
            latents = latents + self.level_embed.weight[1]
        x = torch.cat([image_tokens, latents], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class LatentEncoder(LatentTransformer):
    """Images to N latent tokens."""

    def __init__(self, config: ViTVQConfig) -> None:
        super().__init__(config)
        self.patch_embed = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.latent_tokens = nn.Parameter(torch.zeros(1, config.num_latent_tokens, config.width))
        self.initialise()
        nn.init.normal_(self.latent_tokens, std=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, N, width)."""
        patches = rearrange(self.patch_embed(images), "b d h w -> b (h w) d")
        positions = self.pos_embed[:, 1:] if self.absolute_positions else self.latent_pos_embed
        latents = (self.latent_tokens + positions).expand(len(images), -1, -1)
        return self.mix(self.with_positions(patches), latents)[:, -latents.shape[1] :]


class LatentDecoder(LatentTransformer):
    """N latent tokens to images."""

    def __init__(self, config: ViTVQConfig) -> None:
        super().__init__(config)
        self.patch_size, self.num_patches = config.patch_size, config.num_patches
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.to_pixel = nn.Linear(config.width, 3 * config.patch_size**2)
        self.initialise()
        nn.init.normal_(self.mask_token, std=1e-6)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, N, width) to (B, 3, H, W)."""
        masks = repeat(self.mask_token, "1 1 d -> b p d", b=len(latents), p=self.num_patches)
        # Latent tokens that share the image's positions get a cls token of their own.
        latents = self.with_positions(latents) if self.absolute_positions else latents + self.latent_pos_embed
        x = self.mix(self.with_positions(masks), latents)[:, 1 : 1 + self.num_patches]
        side = math.isqrt(self.num_patches)
        return rearrange(
            self.to_pixel(x), "b (h w) (p q c) -> b c (h p) (w q)", h=side, p=self.patch_size, q=self.patch_size
        )
