"""The latent-to-image half that the convolutional autoencoders share."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from robustok_core.kinds.tokenizer import Tokenizer


class ConvAutoencoder(Tokenizer):
    """A tokenizer whose tokens are the positions of a square latent map, in raster order.

    Attributes:
        side: h = w of the latent map.
        post_quant_conv: maps the latents' channels to the decoder's.
        pixel_decoder: maps a latent map to an image; its last layer is `conv_out`.
    """

    side: int
    post_quant_conv: nn.Module
    pixel_decoder: nn.Module

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        hidden = rearrange(vectors, "b (h w) d -> b d h w", h=self.side)
        return self.pixel_decoder(self.post_quant_conv(hidden))

    @property
    def decoder(self) -> nn.ModuleList:
        """The convolution after the latents, if any, and the decoder."""
        return nn.ModuleList([self.post_quant_conv, self.pixel_decoder])

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the convolution that outputs the pixels."""
        return self.pixel_decoder.get_parameter("conv_out.weight")
