"""MaskGIT's VQGAN (Chang et al. 2022, arXiv 2202.04200), in the version for PyTorch that RAR and TiTok read.

| size | options | parameters |
|---|---|---|
| 16 pixels a token, K = 1024 | the defaults | 54.5 M |

Its networks see pixels from 0 to 1; ours are from -1 to 1 outside.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from torch import Tensor, nn

from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.spec import component
from robustok_tokenizers.conv_levels import ImageLevels
from robustok_tokenizers.grid_tokenizer import GridTokenizer
from robustok_tokenizers.maskgit_networks import MaskGITDecoder, MaskGITEncoder


@frozen(kw_only=True)
class MaskGITVQConfig(ImageLevels):
    """Options of `maskgit_vq`; the defaults are the published ones."""

    quantizer: Any = component(
        "quantizer",
        doc="what turns vectors into codes; the networks have as many channels at the latents as it is wide",
        default={"use": "vq", "codebook_size": 1024, "width": 256, "l2_normalise": False},
    )


class MaskGITVQ(GridTokenizer):
    """Convolutional networks without attention around a quantizer, with nothing between them."""

    Config = MaskGITVQConfig
    quantizer: Quantizer

    def __init__(self, config: MaskGITVQConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.quantizer = config.quantizer.build()
        self.encoder = MaskGITEncoder(config, self.quantizer.width)
        self.quant_conv, self.post_quant_conv = nn.Identity(), nn.Identity()
        self.pixel_decoder = MaskGITDecoder(config, self.quantizer.width)
        side = config.side
        self.space = LatentSpace(
            kind="discrete",
            num_tokens=side * side,
            width=self.quantizer.width,
            codebook_size=self.quantizer.codebook_size,
            grid=(side, side),
        )

    def encode(self, images: Tensor) -> Latents:
        """Latents of images (B, 3, H, W) in [-1, 1]; `features` is the encoder's output."""
        return self.quantizer.quantize(self.tokens((images + 1) / 2))

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped, from vectors (B, N, D)."""
        return 2 * super().decode_vectors(vectors) - 1
