"""Vectors to codewords."""

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

        Returns latents with `vectors` (codewords, with the straight-through gradient to z), `codes`,
        `features` (z, in the codebook's own scale: bounded where the quantizer bounds it, so that
        `nearest` reads it), and, in training mode only, `losses` (weighted scalars, e.g. "codebook",
        "commitment").
        """

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """(..., D) the vectors that the decoder reads for codes (...) int64."""

    @property
    @abstractmethod
    def codebook(self) -> Tensor:
        """(K, D) the codewords as the decoder reads them, in the codebook's own metric (L2).

        Raises RobustokError where K is too large to list.
        """

    def after_step(self, draws: Draws) -> None:
        """Called once after each optimiser step: codebook averages, restart of dead codes."""

    def nearest(self, z: Tensor, count: int) -> Tensor:
        """(M, count) int64, the codes nearest to each row of z (M, D) in the codebook's metric, nearest first.

        Of codewords at the same distance the lower code comes first.
        """
        return torch.cat([smallest(scores, count) for scores in distance_scores(z, self.codebook)])
