"""A generator whose samples and loss a test can foresee."""

from __future__ import annotations

import torch
from attrs import field, frozen

from robustok_core import Generator, Latents


@frozen(kw_only=True)
class KnownCodesConfig:
    label_dropout: float = 0.0


@frozen(kw_only=True)
class KnownCodesSampling:
    shift: int = field(default=0, metadata={"doc": "added to every code"})


class KnownCodes(Generator):
    """Draws what a test can foresee: token n of sample i has code i + 5 label + n + shift, modulo K.

    Its loss is the mean square distance of the codes from `level`, a matrix of one number that does not decay.
    """

    Config = KnownCodesConfig
    Sampling = KnownCodesSampling
    not_decayed = ("level",)

    def __init__(self, config, space, num_classes):
        super().__init__()
        self.space, self.num_classes, self.knows_null_class = space, num_classes, config.label_dropout > 0
        self.level = torch.nn.Parameter(torch.full((1, 1), 3.0))
        self.decayed = torch.nn.Parameter(torch.ones(1, 1))

    def loss(self, latents, labels, *, draws, progress):
        return {"distance": (latents.codes - self.level).square().mean(), "none": 0.0 * self.decayed.sum()}

    def sample(self, labels, draws, *, guidance, keep=None, sampling=None):
        first = draws.indices + 5 * labels + (sampling or KnownCodesSampling()).shift
        return Latents(codes=(first[:, None] + torch.arange(self.space.num_tokens)) % self.space.codebook_size)
