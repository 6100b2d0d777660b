"""Codebooks and latents for tests of perturbations."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor, nn

from robustok_core import Draws, Latents, Quantizer
from robustok_perturbations.top_delta import TopDelta, TopDeltaConfig


class Fixed(Quantizer):
    """A fixed codebook that counts the rows whose neighbours are requested."""

    def __init__(self, codebook: Tensor) -> None:
        super().__init__()
        self.codebook_size, self.width = codebook.shape
        self.codewords = nn.Parameter(codebook)
        self.asked = 0

    @property
    def codebook(self) -> Tensor:
        return self.codewords

    def lookup(self, codes: Tensor) -> Tensor:
        return self.codewords[codes]

    def quantize(self, z: Tensor) -> Latents:
        codes = torch.cdist(z.detach(), self.codewords.detach()).argmin(-1)
        vectors = z + (self.lookup(codes) - z).detach()
        return Latents(vectors=vectors, codes=codes, features=z)

    def nearest(self, z: Tensor, count: int) -> Tensor:
        self.asked += len(z)
        return super().nearest(z, count)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_codebook(size: int = 40, width: int = 3, seed: int = 0) -> Fixed:
    return Fixed(torch.randn(size, width, generator=rng(seed)))


def a_grid(seed: int = 0) -> Fixed:
    """Shuffled integers: distances are exact, most of them are tied, and some codewords coincide."""
    points = torch.cartesian_prod(*[torch.arange(4.0)] * 2).repeat(2, 1)
    return Fixed(points[torch.randperm(len(points), generator=rng(seed))])


def latents_of(quantizer: Fixed, images: int, tokens: int, seed: int = 1) -> Latents:
    codes = torch.randint(quantizer.codebook_size, (images, tokens), generator=rng(seed))
    vectors = quantizer.lookup(codes).detach()
    features = vectors + 0.3 * torch.randn(vectors.shape, generator=rng(seed + 1))
    return Latents(vectors=vectors, codes=codes, features=features)


def half_up(share: float, count: int) -> int:
    return math.floor(Fraction(str(share)) * count + Fraction(1, 2))


def distances(codebook: Tensor, codes: Tensor) -> Tensor:
    """(..., K) squared distances of codes' codewords to all codewords, in float64, not from a matrix product."""
    exact = codebook.detach().double()
    return (exact[codes][..., None, :] - exact).square().sum(-1)


def perturb(latents: Latents, quantizer: Fixed, draws: Draws, progress: float = 0.0, **options: object):
    return TopDelta(TopDeltaConfig(**options)).perturb(latents, quantizer, draws=draws, progress=progress)
