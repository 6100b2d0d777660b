"""TiTok: an image as a short sequence of tokens without a position in it (Yu et al. 2024, arXiv 2406.07550).

The encoder reads the patches and N learned latent tokens and outputs the latent tokens. The decoder reads them,
quantized, with one mask token per patch. Its output is either pixels, or for each patch a distribution over the codes
of MaskGIT's VQGAN, whose decoder turns the mean codeword into pixels.

| size | num_latent_tokens | encoder, decoder | output | quantizer |
|---|---|---|---|---|
| L-32 | 32 | L, L | codes | K 4096, D 12 |
| B-64 | 64 | B, B | codes | K 4096, D 12 |
| S-128 | 128 | S, S | codes | K 4096, D 12 |
| SL-256 | 256 | S, L | pixels | K 8192, D 64, not l2_normalise |
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from attrs import field, frozen, validators
from einops import rearrange, repeat
from torch import Tensor, nn

from robustok_blocks.transformer import Block
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.validators import codebook_range, width_range
from robustok_core.values.ignored import refuse_ignored
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.spec import component
from robustok_tokenizers.maskgit_networks import MaskGITConfig, MaskGITDecoder
from robustok_tokenizers.vit_init import initialise_linear_layers
from robustok_tokenizers.vit_sizes import PatchConfig, StackConfig

#: Epsilon of the norms.
_EPS = 1e-5


@frozen(kw_only=True)
class TiTokConfig(PatchConfig):
    """Options of `titok`; the defaults are TiTok-B-64's."""

    num_latent_tokens: int = field(default=64, validator=width_range, metadata={"doc": "N, tokens per image"})
    encoder: StackConfig = field(factory=StackConfig, metadata={"doc": "table: size of the encoder"})
    decoder: StackConfig = field(factory=StackConfig, metadata={"doc": "table: size of the decoder"})
    output: Literal["codes", "pixels"] = field(
        default="codes",
        validator=validators.in_(("codes", "pixels")),
        metadata={
            "doc": "what the decoder outputs: pixels, or codes that a convolutional decoder turns into pixels, as in "
            "the first published files (with their order of the encoder's outputs)"
        },
    )
    inner_codes: int = field(
        default=1024,
        validator=codebook_range,
        metadata={"doc": "codes that the decoder chooses from (output = codes)"},
    )
    pixel_decoder: MaskGITConfig = field(
        factory=MaskGITConfig, metadata={"doc": "table: the decoder of these codes (output = codes)"}
    )
    quantizer: Any = component(
        "quantizer", doc="what turns vectors into codes", default={"use": "vq", "codebook_size": 4096, "width": 12}
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        refuse_ignored(self, "inner_codes", "pixel_decoder", unless=self.output == "codes", needs='output = "codes"')
        if self.output == "codes" and self.pixel_decoder.downsampling != self.patch_size:
            raise ValueError(
                f"patch_size {self.patch_size} is not {self.pixel_decoder.downsampling}, the size of a code of the "
                f"pixel_decoder with {len(self.pixel_decoder.channel_multipliers)} levels"
            )


class TiTok(Tokenizer):
    """Two ViTs around a quantizer; the tokens have no position in the image."""

    Config = TiTokConfig
    quantizer: Quantizer

    def __init__(self, config: TiTokConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.quantizer = config.quantizer.build()
        self.encoder = TokenEncoder(config, self.quantizer.width)
        self.token_decoder = TokenDecoder(config, self.quantizer.width)
        self.code_decoder = CodeDecoder(config) if config.output == "codes" else None
        self.space = LatentSpace(
            kind="discrete",
            num_tokens=config.num_latent_tokens,
            width=self.quantizer.width,
            codebook_size=self.quantizer.codebook_size,
        )

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` is the encoder's output."""
        return self.quantizer.quantize(self.encoder((images + 1.0) / 2.0))  # the networks work in [0, 1]

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        decoded = self.token_decoder(vectors)
        if self.code_decoder is not None:
            decoded = self.code_decoder(decoded)
        return 2.0 * decoded - 1.0

    @property
    def decoder(self) -> nn.ModuleList:
        """The ViT behind the quantizer and, where there is one, the decoder of its codes."""
        return nn.ModuleList([self.token_decoder, *([] if self.code_decoder is None else [self.code_decoder])])

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the convolution that outputs the pixels."""
        if self.code_decoder is None:
            return self.token_decoder.get_parameter("conv_out.weight")
        return self.code_decoder.get_parameter("pixel_decoder.conv_out.weight")


class TokenTransformer(nn.Module):
    """The base of encoder and decoder: a ViT over a class token, the image's tokens and the latent tokens."""

    def __init__(self, size: StackConfig, num_patches: int, num_latents: int) -> None:
        super().__init__()
        self.width, depth, num_heads = size.size
        self.class_embedding = nn.Parameter(torch.zeros(1, self.width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + num_patches, self.width))
        self.latent_token_positional_embedding = nn.Parameter(torch.zeros(num_latents, self.width))
        self.ln_pre = nn.LayerNorm(self.width, eps=_EPS)
        self.transformer = nn.ModuleList(Block(self.width, num_heads, eps=_EPS) for _ in range(depth))
        self.ln_post = nn.LayerNorm(self.width, eps=_EPS)

    def initialise(self) -> None:
        """Initialises as timm's ViTs; tokens and positions with standard deviation width^-1/2."""
        initialise_linear_layers(self, self.width)
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter, std=self.width**-0.5)

    def mix(self, image_tokens: Tensor, latents: Tensor) -> Tensor:
        """Passes P image tokens and N latents (B, n, D), still without positions, through the blocks."""
        classes = self.class_embedding.expand(len(image_tokens), 1, -1)
        image_tokens = torch.cat([classes, image_tokens], dim=1) + self.positional_embedding
        x = self.ln_pre(torch.cat([image_tokens, latents + self.latent_token_positional_embedding], dim=1))
        for block in self.transformer:
            x = block(x)
        return x  # (B, 1 + P + N, D)


class TokenEncoder(TokenTransformer):
    """Images to N latent tokens."""

    def __init__(self, config: TiTokConfig, latent_width: int) -> None:
        super().__init__(config.encoder, config.num_patches, config.num_latent_tokens)
        self.scrambled = config.output == "codes"
        self.patch_embed = nn.Conv2d(3, self.width, config.patch_size, stride=config.patch_size)
        self.latent_tokens = nn.Parameter(torch.zeros(config.num_latent_tokens, self.width))
        self.to_latents = nn.Linear(self.width, latent_width)
        self.initialise()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, N, D)."""
        patches = rearrange(self.patch_embed(images), "b d h w -> b (h w) d")
        latents = self.latent_tokens.expand(len(images), -1, -1)
        outputs = self.ln_post(self.mix(patches, latents)[:, -latents.shape[1] :])  # (B, N, width)
        if self.scrambled:
            # The first published code reads the N x width numbers of an image as width x N without transposing them.
            outputs = outputs.reshape(len(images), self.width, -1).transpose(1, 2)
        return self.to_latents(outputs)


class TokenDecoder(TokenTransformer):
    """N latent tokens to pixels, or to the logits of a code for each patch."""

    def __init__(self, config: TiTokConfig, latent_width: int) -> None:
        super().__init__(config.decoder, config.num_patches, config.num_latent_tokens)
        self.side, self.patch_size = config.side, config.patch_size
        self.from_latents = nn.Linear(latent_width, self.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.width))
        if config.output == "codes":
            hidden = 2 * self.width
            self.ffn = nn.Sequential(nn.Linear(self.width, hidden), nn.Tanh(), nn.Linear(hidden, config.inner_codes))
        else:
            self.ffn = nn.Sequential(nn.Linear(self.width, 3 * config.patch_size**2))
            self.conv_out = nn.Conv2d(3, 3, 3, padding=1)
        self.initialise()

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, N, D) to images (B, 3, H, W) in about [0, 1], or to logits (B, K, h, w) of a code for each patch."""
        masks = repeat(self.mask_token, "1 1 d -> b p d", b=len(vectors), p=self.side**2)
        x = self.mix(masks, self.from_latents(vectors))[:, 1 : 1 + self.side**2]
        x = self.ffn(self.ln_post(x))
        if not hasattr(self, "conv_out"):
            return rearrange(x, "b (h w) k -> b k h w", h=self.side)
        return self.conv_out(
            rearrange(x, "b (h w) (p q c) -> b c (h p) (w q)", h=self.side, p=self.patch_size, q=self.patch_size)
        )


class CodeDecoder(nn.Module):
    """Distributions over codes to images: MaskGIT's decoder reads the mean codeword of each place."""

    def __init__(self, config: TiTokConfig) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(config.inner_codes, config.pixel_decoder.z_channels))
        nn.init.uniform_(self.embedding, -1.0 / config.inner_codes, 1.0 / config.inner_codes)
        self.pixel_decoder = MaskGITDecoder(config.pixel_decoder, config.pixel_decoder.z_channels)

    def forward(self, logits: Tensor) -> Tensor:
        """(B, K, h, w) to (B, 3, H, W) in about [0, 1]."""
        mean = torch.einsum("b k h w, k d -> b d h w", logits.softmax(dim=1), self.embedding)
        return self.pixel_decoder(mean)
