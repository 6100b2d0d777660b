"""A convolutional tokenizer: the VQGAN published by LlamaGen (arXiv 2406.06525), also for small images.

| size | options | parameters |
|---|---|---|
| LlamaGen VQ-16 | the defaults | 71.9 M |
| LlamaGen VQ-8 | channel_multipliers = [1, 2, 2, 4] | 70.1 M |
| 32 x 32 images, 8 x 8 tokens | `SMALL`, quantizer K 512, D 16 | 0.76 M |

It is fast on small images with a patch stem (the first level then works at 1/2 or 1/4 of the resolution),
few residual blocks, no attention and no middle blocks. Each coarser level costs a quarter for the same number of
parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from torch import Tensor, nn

from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.spec import component
from robustok_tokenizers.conv_networks import ConvDecoder, ConvEncoder, ConvNetworkConfig
from robustok_tokenizers.grid_tokenizer import GridTokenizer

#: Starting point for small images: forward and backward of 64 images take 0.2 s on one core.
SMALL: Mapping[str, Any] = {
    "image_size": 32,
    "channels": 96,
    "channel_multipliers": (1,),
    "num_res_blocks": 1,
    "stem_patch": 4,
    "norm_groups": 8,
    "z_channels": 96,
    "attention": False,
    "middle": False,
}


@frozen(kw_only=True)
class ConvVQConfig(ConvNetworkConfig):
    """Options of `conv_vq`; the defaults are LlamaGen's VQ-16."""

    quantizer: Any = component(
        "quantizer",
        doc="what turns vectors into codes",
        default={"use": "vq", "codebook_size": 16384, "width": 8},
    )


class ConvVQ(GridTokenizer):
    """A convolutional encoder and decoder around a quantizer; the coarsest level's positions are the tokens."""

    Config = ConvVQConfig
    also_called = ("vqgan",)
    quantizer: Quantizer

    def __init__(self, config: ConvVQConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.quantizer = config.quantizer.build()
        self.encoder = ConvEncoder(config)
        self.quant_conv = nn.Conv2d(config.z_channels, self.quantizer.width, 1)
        self.post_quant_conv = nn.Conv2d(self.quantizer.width, config.z_channels, 1)
        self.pixel_decoder = ConvDecoder(config)
        side = config.side
        self.space = LatentSpace(
            kind="discrete",
            num_tokens=side * side,
            width=self.quantizer.width,
            codebook_size=self.quantizer.codebook_size,
            grid=(side, side),
        )

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` is the quant_conv's output."""
        return self.quantizer.quantize(self.tokens(images))
