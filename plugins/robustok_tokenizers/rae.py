"""A representation autoencoder: a frozen pretrained ViT and a trained decoder (Zheng et al. 2025, arXiv 2510.11690).

Latents are the output of the ViT's last norm, without its scale and shift, normalised to mean 0 and variance 1 at
each position and channel. The statistics are measured over the first images of training, or loaded from the
published file. The decoder undoes the normalisation first, so what it learns does not depend on when they were
measured.

Published: DINOv2-B with registers at 224 pixels, 256 tokens of 768 numbers, a MAE-type ViT-XL as the decoder,
and perturbation `gaussian` with tau 0.8. The published code adds the noise before the normalisation, we add it
after, so in units of the standard deviation at each position and channel. The scales are close: the last norm's
output has mean square 1, of which the mean takes a share.
Decoder sizes (width, depth, heads): B 768, 12, 12; L 1024, 24, 16; XL 1152, 28, 16. The released decoders have the
style "mae" and, in XL, MLPs of width 4096: 415.4 M parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from robustok_blocks.sinusoids import grid_positions
from robustok_blocks.transformer import Block
from robustok_core.errors import RobustokError
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import depth_range, require_multiple, side_range, width_range
from robustok_core.values.download import Download, local_file, named_path
from robustok_core.values.ignored import refuse_ignored
from robustok_core.values.latents import Latents, LatentSpace
from robustok_tokenizers.latent_statistics import LatentStatistics
from robustok_tokenizers.vit_init import initialise_linear_layers
from robustok_toolkit.timm_networks import WEIGHTS_DOC, timm_downloads, timm_network


@frozen(kw_only=True)
class RAEConfig:
    """Options of `rae`."""

    image_size: int = field(
        default=256, validator=side_range, metadata={"doc": "height and width of the images, in pixels"}
    )
    encoder: str = field(
        default="vit_base_patch14_reg4_dinov2.lvd142m", metadata={"doc": "name of the frozen ViT in timm"}
    )
    weights: str = field(default="pretrained", metadata={"doc": WEIGHTS_DOC})
    encoder_image_size: int = field(
        default=224,
        validator=side_range,
        metadata={"doc": "height and width of the images that the ViT reads, in pixels"},
    )
    decoder_width: int = field(default=1152, validator=width_range, metadata={"doc": "width of the decoder's tokens"})
    decoder_depth: int = field(default=28, validator=depth_range, metadata={"doc": "blocks of the decoder"})
    decoder_num_heads: int = field(
        default=16, validator=width_range, metadata={"doc": "attention heads of the decoder"}
    )
    decoder_mlp_width: int | None = field(
        default=None,
        validator=validators.optional(width_range),
        metadata={"doc": "hidden width of the decoder's MLPs; left out: 4 times decoder_width"},
    )
    decoder_style: Literal["plain", "mae"] = field(
        default="plain",
        validator=validators.in_(("plain", "mae")),
        metadata={
            "doc": "plain: learned positions and LayerScale; mae, as in the released files: fixed positions and a "
            "class token"
        },
    )
    statistics: str = field(
        default="measured",
        metadata={
            "doc": '"measured" while training, or a file with the latents\' `mean` and `var` (published: stat.pt)'
        },
    )
    statistics_images: int = field(
        default=50_000,
        validator=validators.ge(0),
        metadata={"doc": "number of training images to measure over; 0: no normalisation"},
    )

    def __attrs_post_init__(self) -> None:
        require_multiple(self, "decoder_width", "decoder_num_heads")
        if self.decoder_style == "mae" and self.decoder_width % 4:
            raise ValueError(f"fixed positions need a decoder_width that is a multiple of 4, not {self.decoder_width}")
        measured = self.statistics == "measured"
        refuse_ignored(self, "statistics_images", unless=measured, needs='statistics = "measured"')


class RAE(Tokenizer):
    """A frozen, pretrained encoder; only the decoder is trained."""

    Config = RAEConfig

    def __init__(self, config: RAEConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.encoder = FrozenViT(config)
        side, width = self.encoder.side, self.encoder.width
        if config.image_size % side:
            raise RobustokError(
                f"image_size {config.image_size} is not a multiple of {side}, the tokens per row of "
                f"{config.encoder} at {config.encoder_image_size} pixels",
                where="tokenizer.image_size",
            )
        self.statistics = LatentStatistics(side * side, width, config.statistics_images)
        self.pixel_decoder = PixelDecoder(config, side, width)
        self.space = LatentSpace(kind="continuous", num_tokens=side * side, width=width, grid=(side, side))
        if config.statistics != "measured" and not self.last_layer.is_meta:
            self.statistics.load(Path(config.statistics).expanduser())

    @classmethod
    def downloads(cls, config: RAEConfig) -> Iterable[Download]:
        if config.statistics != "measured":
            local_file(config.statistics, hint='set statistics = "measured", or to the published stat.pt')
        return timm_downloads(config.encoder, config.weights)

    @classmethod
    def files(cls, config: RAEConfig) -> Iterable[Path]:
        return [*named_path(config.weights, "pretrained", "random"), *named_path(config.statistics, "measured")]

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1], without a gradient; `features` are the same."""
        tokens = self.encoder(images)
        self.statistics.observe(tokens)
        vectors = self.statistics.normalise(tokens)
        return Latents(vectors=vectors, features=vectors)

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        normalised = self.pixel_decoder(self.statistics.restore(vectors))
        return self.encoder.to_images(normalised)

    @property
    def decoder(self) -> nn.ModuleList:
        """The pixel decoder, the only trained part."""
        return nn.ModuleList([self.pixel_decoder])

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the layer that outputs the pixels."""
        return self.pixel_decoder.get_parameter("to_pixels.weight")


class FrozenViT(nn.Module):
    """A ViT of timm, always in eval mode: images to each patch's output of the last norm without scale and shift.

    Attributes:
        side: tokens per row and per column. width: numbers per token.
    """

    def __init__(self, config: RAEConfig) -> None:
        super().__init__()
        self.net: Any = timm_network(config.encoder, config.weights, config.encoder_image_size, where="tokenizer")
        self.image_size = config.encoder_image_size
        if not hasattr(self.net, "num_prefix_tokens") or not hasattr(self.net.patch_embed, "grid_size"):
            raise RobustokError(f"{config.encoder} is not a plain ViT", where="tokenizer.encoder")
        if not hasattr(self.net.norm, "eps"):
            what = f"{config.encoder} has no last norm over its tokens, whose output would be the latents"
            raise RobustokError(what, where="tokenizer.encoder")
        patch = self.net.patch_embed.patch_size[0]
        if self.image_size % patch:
            raise RobustokError(
                f"encoder_image_size {self.image_size} is not a multiple of {patch}, the side of a patch",
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
        """Images (B, 3, H, W) in [-1, 1] from images normalised as the ViT reads them."""
        return 2.0 * (normalised * self._of(self.std, normalised) + self._of(self.mean, normalised)) - 1.0

    @staticmethod
    def _of(values: tuple[float, ...], like: Tensor) -> Tensor:
        return like.new_tensor(values)[:, None, None]


class PixelDecoder(nn.Module):
    """A ViT over the grid of tokens that turns each into a patch of pixels."""

    def __init__(self, config: RAEConfig, side: int, latent_width: int) -> None:
        super().__init__()
        width, plain = config.decoder_width, config.decoder_style == "plain"
        self.side, self.patch_size = side, config.image_size // side
        self.from_latents = nn.Linear(latent_width, width)
        eps = 1e-6 if plain else 1e-12
        self.blocks = nn.ModuleList(
            Block(
                width,
                config.decoder_num_heads,
                layer_scale=1.0 if plain else None,
                mlp_width=config.decoder_mlp_width,
                eps=eps,
            )
            for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.to_pixels = nn.Linear(width, 3 * self.patch_size**2)
        initialise_linear_layers(self, width)
        if plain:
            self.pos_embed = nn.Parameter(torch.zeros(1, side * side, width))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        else:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
            positions = grid_positions((side, side), width)
            self.register_buffer("pos_embed", torch.cat([torch.zeros_like(positions[:1]), positions])[None])

    def forward(self, latents: Tensor) -> Tensor:
        """(B, N, D) to images (B, 3, H, W), normalised as the encoder reads them."""
        x = self.from_latents(latents)
        if hasattr(self, "cls_token"):
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return rearrange(
            self.to_pixels(self.norm(x[:, -latents.shape[1] :])),
            "b (h w) (p q c) -> b c (h p) (w q)",
            h=self.side,
            p=self.patch_size,
            q=self.patch_size,
        )
