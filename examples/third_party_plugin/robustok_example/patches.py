"""A tokenizer with a linear encoder and decoder; each patch of 4 x 4 pixels is a token."""

from typing import Any

from attrs import field, frozen
from einops import rearrange
from robustok_core import LatentSpace, Tokenizer, component
from torch import nn

PATCH = 4


@frozen(kw_only=True)
class PatchesConfig:
    image_size: int = field(default=32, metadata={"doc": "height and width of the images, a multiple of 4"})
    quantizer: Any = component("quantizer", doc="quantizer", default={"use": "nearest"})


class Patches(Tokenizer):
    """Encodes each patch independently."""

    Config = PatchesConfig

    def __init__(self, config):
        super().__init__()
        self.image_size, self.quantizer = config.image_size, config.quantizer.build()
        size, width, side = self.quantizer.codebook_size, self.quantizer.width, config.image_size // PATCH
        self.space = LatentSpace(
            kind="discrete", num_tokens=side**2, width=width, codebook_size=size, grid=(side, side)
        )
        self.to_vectors, self.to_pixels = nn.Conv2d(3, width, PATCH, PATCH), nn.ConvTranspose2d(width, 3, PATCH, PATCH)

    def encode(self, images):
        return self.quantizer.quantize(rearrange(self.to_vectors(images), "b d h w -> b (h w) d"))

    def decode_vectors(self, vectors):
        return self.to_pixels(rearrange(vectors, "b (h w) d -> b d h w", h=self.space.grid[0]))

    @property
    def decoder(self):
        return nn.ModuleList([self.to_pixels])

    @property
    def last_layer(self):
        return self.to_pixels.weight
