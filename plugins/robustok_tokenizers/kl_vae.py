"""A convolutional variational autoencoder: latent diffusion's first stage (Rombach et al. 2022, arXiv 2112.10752).

| size | options | parameters |
|---|---|---|
| 16 pixels a token, width 16 | the defaults | 71.8 M |
| 32 x 32 images, 8 x 8 tokens | `conv_vq.SMALL`, width 4 | 0.75 M |
"""

from __future__ import annotations

from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.recipe.validators import width_range
from robustok_core.values.latents import Latents, LatentSpace
from robustok_tokenizers.conv_networks import ConvDecoder, ConvEncoder, ConvNetworkConfig
from robustok_tokenizers.gaussian_posterior import kl_weight_field, posterior_latents
from robustok_tokenizers.grid_tokenizer import GridTokenizer


@frozen(kw_only=True)
class KLVAEConfig(ConvNetworkConfig):
    """Options of `kl_vae`."""

    width: int = field(default=16, validator=width_range, metadata={"doc": "D, numbers per token"})
    kl_weight: float = kl_weight_field()


class KLVAE(GridTokenizer):
    """A convolutional encoder and decoder around a Gaussian posterior: sampled in training, its mean otherwise."""

    Config = KLVAEConfig

    def __init__(self, config: KLVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.encoder = ConvEncoder(config)
        self.quant_conv = nn.Conv2d(config.z_channels, 2 * config.width, 1)
        self.post_quant_conv = nn.Conv2d(config.width, config.z_channels, 1)
        self.pixel_decoder = ConvDecoder(config)
        side = config.side
        self.space = LatentSpace(kind="continuous", num_tokens=side * side, width=config.width, grid=(side, side))

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` are the posterior means."""
        return posterior_latents(self.tokens(images), training=self.encoder.training, kl_weight=self.config.kl_weight)
