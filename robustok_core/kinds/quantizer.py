"""Quantizers map vectors to codewords."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from robustok_core.kinds.component import Component
from robustok_core.kinds.nearest import distance_scores, smallest
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents


class Quantizer(Component, nn.Module, ABC):
    """Maps vectors to codewords. Built as `Quantizer(config)`.

    Attributes:
        codebook_size: K.
        width: D.
    """

    codebook_size: int
    width: int

    @abstractmethod
    def quantize(self, z: Tensor) -> Latents:
        """Quantizes z (B, N, D), the encoder's output.

        Returns latents with `vectors` (codewords, with a straight-through gradient to z), `codes`,
        `features` (z in the codebook's scale, as `nearest` expects it: bounded if the quantizer bounds z)
        and, in training mode only, `losses` (weighted scalars, e.g. "codebook", "commitment").
        """

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """(..., D) the vectors that the decoder reads, for codes (...) int64."""

    @property
    @abstractmethod
    def codebook(self) -> Tensor:
        """(K, D) the codewords as the decoder reads them, in the codebook's own metric (L2).

        Raises RobustokError if K is too large to list.
        """

    def after_step(self, draws: Draws) -> None:
        """Called once after each optimiser step, to update codebook averages and restart dead codes."""

    def nearest(self, z: Tensor, count: int) -> Tensor:
        """(M, count) int64, the codes nearest to each row of z (M, D) in the codebook's metric, nearest first.

        Codewords at equal distance are ordered by code.
        """
        return torch.cat([smallest(scores, count) for scores in distance_scores(z, self.codebook)])
