"""A quantizer that picks the nearest of K trained codewords."""

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from robustok_core import Latents, Quantizer


@frozen(kw_only=True)
class NearestConfig:
    codebook_size: int = field(default=32, validator=validators.ge(2), metadata={"doc": "K"})
    width: int = field(default=8, validator=validators.ge(1), metadata={"doc": "D, numbers per token"})


class Nearest(Quantizer):
    """Gradients move codewords towards vectors, and vectors towards codewords."""

    Config = NearestConfig

    def __init__(self, config):
        super().__init__()
        self.codebook_size, self.width = config.codebook_size, config.width
        self.words = torch.nn.Parameter(torch.randn(config.codebook_size, config.width))

    def quantize(self, z):
        codes = self.nearest(z.detach().flatten(0, 1), 1).view(z.shape[:2])
        words = self.lookup(codes)  # (B, N, D)
        if not self.training:
            return Latents(vectors=words, codes=codes, features=z)
        losses = {"codebook": F.mse_loss(words, z.detach()), "commitment": 0.25 * F.mse_loss(z, words.detach())}
        return Latents(vectors=z + (words - z).detach(), codes=codes, features=z, losses=losses)

    def lookup(self, codes):
        return self.words[codes]

    @property
    def codebook(self):
        return self.words
