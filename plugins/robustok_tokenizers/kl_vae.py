"""A convolutional variational autoencoder: latent diffusion's first stage (Rombach et al. 2022, arXiv 2112.10752).

| size | options | parameters |
|---|---|---|
| 16 pixels a token, width 16 | the defaults | 71.8 M |
| VA-VAE f16d32 (arXiv 2501.01423) | double_z = true, z_channels = 32, width = 32 | 69.8 M |
| Stable Diffusion's f8 | channel_multipliers = [1, 2, 4, 4], attention_levels = [], double_z = true, \
    z_channels = 4, width = 4 | 83.7 M |
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
    double_z: bool = field(
        default=False,
        metadata={"doc": "the encoder outputs a mean and a log variance for each of the z_channels, as published"},
    )
    latent_convs: bool = field(
        default=True,
        metadata={"doc": "1x1 convolutions on both sides of the latents; without them double_z, and width z_channels"},
    )
    kl_weight: float = kl_weight_field()

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self.latent_convs and (not self.double_z or self.width != self.z_channels):
            raise ValueError("without latent_convs, double_z must be true and width equal to z_channels")


class KLVAE(GridTokenizer):
    """A convolutional encoder and decoder around a Gaussian posterior: sampled in training, its mean otherwise."""

    Config = KLVAEConfig
    also_called = ("autoencoder_kl", "vae")

    def __init__(self, config: KLVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        hidden = config.z_channels * (2 if config.double_z else 1)
        self.encoder = ConvEncoder(config, channels_out=hidden)
        self.quant_conv = nn.Conv2d(hidden, 2 * config.width, 1) if config.latent_convs else nn.Identity()
        self.post_quant_conv = nn.Conv2d(config.width, config.z_channels, 1) if config.latent_convs else nn.Identity()
        self.pixel_decoder = ConvDecoder(config)
        side = config.side
        self.space = LatentSpace(kind="continuous", num_tokens=side * side, width=config.width, grid=(side, side))

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` are the posterior means."""
        return posterior_latents(self.tokens(images), training=self.encoder.training, kl_weight=self.config.kl_weight)
