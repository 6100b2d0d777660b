"""What the convolutional autoencoders have in common behind their latents."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from robustok_core.kinds.tokenizer import Tokenizer


class ConvAutoencoder(Tokenizer):
    """A tokenizer whose tokens are the places of a square latent map, in raster order.

    Attributes:
        side: h = w of the latent map.
        post_quant_conv: from the channels of the latents to those that the decoder takes.
        pixel_decoder: from a latent map to an image; its last layer is `conv_out`.
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
        """The convolution behind the latents, where there is one, and the decoder."""
        return nn.ModuleList([self.post_quant_conv, self.pixel_decoder])

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the convolution that draws the pixels."""
        return self.pixel_decoder.get_parameter("conv_out.weight")
