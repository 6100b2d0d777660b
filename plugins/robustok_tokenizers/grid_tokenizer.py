"""Tokenizers that are convolutional networks around 1x1 convolutions: each place of the latent map is a token."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from robustok_core.kinds.tokenizer import Tokenizer


class GridTokenizer(Tokenizer):
    """What is behind the latents, and the order of the tokens: row by row.

    Attributes:
        encoder: images (B, 3, H, W) to maps; `quant_conv` brings these to the width of what is quantized.
        pixel_decoder: maps to images, with a last convolution `conv_out`; `post_quant_conv` stands before it.
    """

    encoder: nn.Module
    quant_conv: nn.Module
    post_quant_conv: nn.Module
    pixel_decoder: nn.Module

    def tokens(self, images: Tensor) -> Tensor:
        """(B, N, D) what is quantized, or the 2 D moments of a posterior, of images (B, 3, H, W)."""
        return rearrange(self.quant_conv(self.encoder(images)), "b d h w -> b (h w) d")

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        assert self.space.grid is not None
        hidden = rearrange(vectors, "b (h w) d -> b d h w", h=self.space.grid[0])
        return self.pixel_decoder(self.post_quant_conv(hidden))

    @property
    def decoder(self) -> nn.ModuleList:
        """The 1x1 convolution behind the latents, where there is one, and the decoder."""
        return nn.ModuleList([self.post_quant_conv, self.pixel_decoder])

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the convolution that outputs the pixels."""
        return self.pixel_decoder.get_parameter("conv_out.weight")
