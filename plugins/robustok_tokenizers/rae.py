"""A representation autoencoder: a frozen pretrained ViT and a trained decoder (Zheng et al. 2025, arXiv 2510.11690).

Latents are what the ViT's last norm, without its scale and shift, makes of each patch, normalised to mean 0
and variance 1 at each place and channel. The statistics are measured over the first images of training (the
published ones can be loaded instead). The decoder reads latents after the normalisation is undone, so what it
learns does not depend on when they were measured.

Published: DINOv2-B with registers at 224 pixels, 256 tokens of 768 numbers, a MAE-type ViT-XL as the decoder,
and perturbation `gaussian` with tau 0.8. There the noise is added before the normalisation, here after it: in
units of each place's and channel's own spread, whose mean square is 1 there too, less what the mean takes.
Decoder sizes (width, depth, heads): B 768, 12, 12; L 1024, 24, 16; XL 1152, 28, 16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from robustok_blocks.transformer import Block
from robustok_core.errors import RobustokError
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import require_multiple
from robustok_core.values.latents import Latents, LatentSpace
from robustok_tokenizers.latent_statistics import LatentStatistics
from robustok_tokenizers.vit_init import initialise_linear_layers
from robustok_toolkit.timm_networks import WEIGHTS_DOC, timm_network


@frozen(kw_only=True)
class RAEConfig:
    """Options of `rae`."""

    image_size: int = field(
        default=256, validator=validators.ge(1), metadata={"doc": "height and width of the images, in pixels"}
    )
    encoder: str = field(
        default="vit_base_patch14_reg4_dinov2.lvd142m", metadata={"doc": "timm's name of the frozen ViT"}
    )
    weights: str = field(default="pretrained", metadata={"doc": WEIGHTS_DOC})
    encoder_image_size: int = field(
        default=224, validator=validators.ge(1), metadata={"doc": "side in pixels that images are resized to for it"}
    )
    decoder_width: int = field(default=1152, validator=validators.ge(1), metadata={"doc": "numbers per token"})
    decoder_depth: int = field(default=28, validator=validators.ge(1), metadata={"doc": "blocks of the decoder"})
    decoder_num_heads: int = field(default=16, validator=validators.ge(1), metadata={"doc": "its attention heads"})
    statistics: str = field(
        default="measured",
        metadata={
            "doc": '"measured" while training, or a file with the latents\' `mean` and `var` (published: stat.pt)'
        },
    )
    statistics_images: int = field(
        default=50_000,
        validator=validators.ge(0),
        metadata={"doc": "measured over the first so many images of training; 0 leaves latents as they are"},
    )

    def __attrs_post_init__(self) -> None:
        require_multiple(self, "decoder_width", "decoder_num_heads")
        if self.statistics != "measured" and self.statistics_images != 50_000:
            raise ValueError("statistics_images is for measuring, and statistics names a file")


class RAE(Tokenizer):
    """Latents of a network that was trained for something else; only the decoder is trained."""

    Config = RAEConfig

    def __init__(self, config: RAEConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.encoder = FrozenViT(config)
        side, width = self.encoder.side, self.encoder.width
        if config.image_size % side:
            raise RobustokError(
                f"image_size {config.image_size} is no multiple of {side}, the side of the token grid that "
                f"{config.encoder} makes of {config.encoder_image_size} pixels",
                where="tokenizer.image_size",
            )
        self.statistics = LatentStatistics(side * side, width, config.statistics_images)
        self.pixel_decoder = PixelDecoder(config, side, width)
        self.space = LatentSpace(kind="continuous", num_tokens=side * side, width=width, grid=(side, side))
        if config.statistics != "measured" and not self.last_layer.is_meta:
            self.statistics.load(Path(config.statistics).expanduser())

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1], without a gradient; `features` are the same."""
        found = self.encoder(images)
        self.statistics.observe(found)
        vectors = self.statistics.normalise(found)
        return Latents(vectors=vectors, features=vectors)

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        drawn = self.pixel_decoder(self.statistics.restore(vectors))
        return self.encoder.to_images(drawn)

    @property
    def decoder(self) -> nn.ModuleList:
        """The decoder: all that is ever trained."""
        return nn.ModuleList([self.pixel_decoder])

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the layer that draws the pixels."""
        return self.pixel_decoder.get_parameter("to_pixels.weight")


class FrozenViT(nn.Module):
    """A ViT of timm in eval mode for good; images to what its last norm makes of each patch, not scaled or shifted.

    Attributes:
        side: tokens in a row, and in a column. width: numbers per token.
    """

    def __init__(self, config: RAEConfig) -> None:
        super().__init__()
        self.net: Any = timm_network(config.encoder, config.weights, config.encoder_image_size, where="tokenizer")
        self.image_size = config.encoder_image_size
        if not hasattr(self.net, "num_prefix_tokens") or not hasattr(self.net.patch_embed, "grid_size"):
            raise RobustokError(f"{config.encoder} is no plain ViT", where="tokenizer.encoder")
        if not hasattr(self.net.norm, "eps"):
            what = f"{config.encoder} has no last norm over its tokens: latents are what that makes of them"
            raise RobustokError(what, where="tokenizer.encoder")
        patch = self.net.patch_embed.patch_size[0]
        if self.image_size % patch:
            raise RobustokError(
                f"encoder_image_size {self.image_size} is no multiple of {patch}, the side of its patches",
                where="tokenizer.encoder_image_size",
            )
        self.side, self.width = self.image_size // patch, self.net.num_features
        self.net.norm = nn.LayerNorm(self.width, eps=self.net.norm.eps, elementwise_affine=False)
        self.mean, self.std = self.net.pretrained_cfg["mean"], self.net.pretrained_cfg["std"]
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenViT:
        """Stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to (B, N, width)."""
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images.float(), size=size, mode="bicubic", align_corners=False)
        tokens = self.net.forward_features(
            ((images + 1.0) / 2.0 - self._of(self.mean, images)) / self._of(self.std, images)
        )
        return tokens[:, self.net.num_prefix_tokens :]

    def to_images(self, normalised: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], of images in the statistics that the ViT reads."""
        return 2.0 * (normalised * self._of(self.std, normalised) + self._of(self.mean, normalised)) - 1.0

    @staticmethod
    def _of(values: tuple[float, ...], like: Tensor) -> Tensor:
        return like.new_tensor(values)[:, None, None]


class PixelDecoder(nn.Module):
    """A ViT over the tokens' grid, each of which becomes a patch of pixels."""

    def __init__(self, config: RAEConfig, side: int, latent_width: int) -> None:
        super().__init__()
        width = config.decoder_width
        self.side, self.patch_size = side, config.image_size // side
        self.from_latents = nn.Linear(latent_width, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side, width))
        self.blocks = nn.ModuleList(
            Block(width, config.decoder_num_heads, mlp_ratio=4.0, layer_scale=1.0, drop_path=0.0)
            for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.to_pixels = nn.Linear(width, 3 * self.patch_size**2)
        initialise_linear_layers(self, width)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, latents: Tensor) -> Tensor:
        """(B, N, D) to (B, 3, H, W) in the statistics that the encoder reads."""
        x = self.from_latents(latents) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return rearrange(
            self.to_pixels(self.norm(x)),
            "b (h w) (p q c) -> b c (h p) (w q)",
            h=self.side,
            p=self.patch_size,
            q=self.patch_size,
        )
