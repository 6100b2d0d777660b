"""A plain ViT over patches with a Gaussian posterior: the tokenizer of l-DeTok (Yang et al. 2025, MIT).

l-DeTok is this tokenizer with perturbation `interpolate`: in training, latents are mixed with noise and the
encoder sees a random subset of the patches. Presets (width, depth, heads): S 512, 8, 8; B 768, 12, 12; L 1024, 24, 16;
XL 1152, 28, 16. B on both sides, the default, has 171.6 M parameters (171.7 M in the style "detok").

As in MAE, the encoder reads only the visible patches. In the style "plain", a learned vector replaces the latents of
the hidden ones, so the decoder, and the perturbation if any, read all N latents; in the style "detok", that of the
released files, a mask token of the decoder does. All images of a batch (on a process) share one masking
ratio, since they must have the same number of visible patches.
"""

from __future__ import annotations

from typing import Literal

import torch
from attrs import field, frozen, validators
from einops import rearrange
from torch import Tensor, nn

from robustok_blocks.rotary import grid_rotations
from robustok_blocks.rotary_transformer import GatedRotaryBlock
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import below_one, width_range
from robustok_core.values.devices import sent
from robustok_core.values.ignored import refuse_ignored
from robustok_core.values.latents import Latents, LatentSpace
from robustok_tokenizers.detok_blocks import DeTokBlock, channel_rotations
from robustok_tokenizers.gaussian_posterior import kl_weight_field, posterior_latents
from robustok_tokenizers.vit_init import initialise_linear_layers
from robustok_tokenizers.vit_sizes import PatchConfig, StackConfig


@frozen(kw_only=True)
class RotaryStackConfig(StackConfig):
    """Size of a ViT with rotary positions."""

    def __attrs_post_init__(self) -> None:
        width, _, heads = self.size
        if width % (4 * heads):
            raise ValueError(
                f"width {width} over num_heads {heads} must be a multiple of 4 for rotary positions on a grid"
            )


@frozen(kw_only=True)
class ViTKLConfig(PatchConfig):
    """Options of `vit_kl`; the defaults are l-DeTok's."""

    style: Literal["plain", "detok"] = field(
        default="plain",
        validator=validators.in_(("plain", "detok")),
        metadata={
            "doc": "plain, or as in the released files (detok): gated MLPs with biases, a mask token in the decoder, "
            "and their own turn of queries and keys by position"
        },
    )
    latent_width: int = field(default=16, validator=width_range, metadata={"doc": "D, numbers per latent token"})
    encoder: RotaryStackConfig = field(factory=RotaryStackConfig, metadata={"doc": "table: size of the encoder"})
    decoder: RotaryStackConfig = field(factory=RotaryStackConfig, metadata={"doc": "table: size of the decoder"})
    mask_low: float = field(
        default=-0.1,
        validator=[validators.gt(-1.0), validators.lt(1.0)],
        metadata={"doc": "lower bound of the uniform share of patches hidden in training; a share below 0 hides none"},
    )
    mask_high: float = field(
        default=0.7,
        validator=below_one,
        metadata={"doc": "upper bound of the uniform share; 0 hides none"},
    )
    kl_weight: float = kl_weight_field()

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.mask_low > self.mask_high:
            raise ValueError(f"mask_low {self.mask_low} is above mask_high {self.mask_high}")
        refuse_ignored(self, "mask_low", unless=self.mask_high > 0.0, needs="mask_high above 0")


class ViTKL(Tokenizer):
    """Two plain ViTs around a Gaussian posterior of each patch: sampled in training, its mean otherwise."""

    Config = ViTKLConfig

    def __init__(self, config: ViTKLConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.encoder = PatchEncoder(config)
        if config.style == "plain":
            self.mask_latent = nn.Parameter(torch.zeros(1, 1, config.latent_width))
            nn.init.normal_(self.mask_latent, std=0.02)
        self.pixel_decoder = PatchDecoder(config)
        if config.style == "detok":  # not within the decoder: without hidden patches it has no gradient
            self.mask_token = nn.Parameter(torch.zeros(1, 1, self.pixel_decoder.width))
            nn.init.normal_(self.mask_token, std=0.02)
        side = config.side
        self.space = LatentSpace(
            kind="continuous", num_tokens=side * side, width=config.latent_width, grid=(side, side)
        )

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` are the posterior means.

        In training, hidden patches do not count in the loss "kl". They all have the same latent vector, or are marked
        in `hidden` for the decoder.
        """
        training = self.encoder.training
        visible = self._visible(images) if training and self.config.mask_high > 0 else None
        latents = posterior_latents(self.encoder(images, visible), training=training, kl_weight=self.config.kl_weight)
        if visible is None:
            return latents
        assert latents.vectors is not None
        assert latents.features is not None
        vectors, features = (self._with_hidden(part, visible) for part in (latents.vectors, latents.features))
        if self.config.style == "plain":
            return latents.evolve(vectors=vectors, features=features)
        hidden = torch.ones(len(images), self.config.side**2, dtype=torch.bool, device=visible.device)
        return latents.evolve(vectors=vectors, features=features, hidden=hidden.scatter(1, visible, value=False))

    def _visible(self, images: Tensor) -> Tensor:
        """(B, n) int64, the patches that the encoder sees, from torch's global generators, seeded at each step."""
        low, high, patches = self.config.mask_low, self.config.mask_high, self.config.side**2
        share = max(0.0, low + (high - low) * torch.rand((), device="cpu").item())
        order = torch.rand(len(images), patches, device=images.device).argsort(dim=1)
        return order[:, : patches - int(share * patches)]

    def _with_hidden(self, vectors: Tensor, visible: Tensor) -> Tensor:
        """(B, N, D): vectors (B, n, D) of visible patches at their positions, elsewhere the mask latent or zeros."""
        mask = self.mask_latent if self.config.style == "plain" else vectors.new_zeros(1, 1, vectors.shape[-1])
        hidden = mask.to(vectors.dtype).expand(len(vectors), self.config.side**2, -1)
        return hidden.scatter(1, visible[..., None].expand_as(vectors), vectors)

    def decode(self, latents: Latents) -> Tensor:
        """Images (B, 3, H, W), not clamped, from latents with vectors, of which some may be hidden in training."""
        if latents.hidden is None:
            return super().decode(latents)
        tokens = self.pixel_decoder.from_latents(self.vectors_of(latents))
        return self.pixel_decoder.draw(torch.where(latents.hidden[..., None], self.mask_token.to(tokens.dtype), tokens))

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        return self.pixel_decoder(vectors)

    @property
    def decoder(self) -> nn.ModuleList:
        """The decoder, with its projection from the latents."""
        return nn.ModuleList([self.pixel_decoder])

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the convolution that smooths the borders of the patches."""
        return self.pixel_decoder.get_parameter("smooth.weight")


class PatchStack(nn.Module):
    """A ViT over tokens on a grid: learned and rotary positions, norms before and after the blocks."""

    def __init__(self, size: StackConfig, side: int, style: str) -> None:
        super().__init__()
        self.side, self.style = side, style
        self.width, depth, self.num_heads = size.size
        self.pos_embed = nn.Parameter(torch.zeros(1, side * side, self.width))
        self.norm_in = nn.RMSNorm(self.width, eps=1e-6)
        block = GatedRotaryBlock if style == "plain" else DeTokBlock
        self.blocks = nn.ModuleList(block(self.width, self.num_heads) for _ in range(depth))
        self.norm_out = nn.RMSNorm(self.width, eps=1e-6)

    def initialise(self) -> None:
        """Initialises as timm's ViTs; positions with standard deviation width^-1/2."""
        initialise_linear_layers(self, self.width)
        nn.init.trunc_normal_(self.pos_embed, std=self.width**-0.5)

    def mix(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Maps all tokens (B, N, D) of a grid to (B, N, D), or only those at positions visible (B, n) to (B, n, D)."""
        x = x + self.pos_embed
        rotations_of = grid_rotations if self.style == "plain" else channel_rotations
        rotations = sent(rotations_of((self.side, self.side), self.width // self.num_heads), x.device)
        if visible is not None:
            x = x.gather(1, visible[..., None].expand(-1, -1, x.shape[-1]))
            rotations = rotations[visible][:, None]  # (B, 1, n, ..., 2)
        x = self.norm_in(x)
        for block in self.blocks:
            x = block(x, rotations)
        return self.norm_out(x)


class PatchEncoder(PatchStack):
    """Images to the moments of a posterior for each patch."""

    def __init__(self, config: ViTKLConfig) -> None:
        super().__init__(config.encoder, config.side, config.style)
        self.patch_embed = nn.Conv2d(3, self.width, config.patch_size, stride=config.patch_size)
        self.to_moments = nn.Linear(self.width, 2 * config.latent_width)
        self.initialise()

    def forward(self, images: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) to (B, N, 2 D), or to (B, n, 2 D) for the visible patches (B, n)."""
        patches = rearrange(self.patch_embed(images), "b d h w -> b (h w) d")
        return self.to_moments(self.mix(patches, visible))


class PatchDecoder(PatchStack):
    """Latents of patches to images."""

    def __init__(self, config: ViTKLConfig) -> None:
        super().__init__(config.decoder, config.side, config.style)
        self.patch_size = config.patch_size
        self.from_latents = nn.Linear(config.latent_width, self.width)
        self.to_pixels = nn.Linear(self.width, 3 * config.patch_size**2)
        self.smooth = nn.Conv2d(3, 3, 3, padding=1)
        self.initialise()

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, N, D) to (B, 3, H, W)."""
        return self.draw(self.from_latents(vectors))

    def draw(self, tokens: Tensor) -> Tensor:
        """Embedded latents (B, N, width) to (B, 3, H, W)."""
        images = rearrange(
            self.to_pixels(self.mix(tokens)),
            "b (h w) (p q c) -> b c (h p) (w q)",
            h=self.side,
            p=self.patch_size,
            q=self.patch_size,
        )
        return self.smooth(images)
