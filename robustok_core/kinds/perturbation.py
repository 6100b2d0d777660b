"""Perturbations of latents in training."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from robustok_core.kinds.component import Component
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace


class Perturbation(Component, ABC):
    """Perturbs latents in training, so that the decoder learns to handle errors. Built as `Perturbation(config)`."""

    @abstractmethod
    def perturb(
        self, latents: Latents, quantizer: Quantizer | None, *, draws: Draws, progress: float
    ) -> tuple[Latents, Tensor]:
        """Perturbs a batch.

        Args:
            latents: clean latents; the gradient must reach `latents.vectors`.
            quantizer: the tokenizer's quantizer, None in a continuous space.
            draws: the batch's random numbers; a choice among images is made over `draws.total`.
            progress: completed share of the training, in [0, 1]; drives the annealing.

        Returns:
            The perturbed latents, and a mask (B, N) bool of the tokens that were replaced.
        """

    def check(self, space: LatentSpace, batch_size: int | None = None) -> None:
        """Raises RobustokError if this perturbation does not fit the latent space or the global batch size."""
