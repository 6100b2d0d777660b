"""What noise on the vectors of a continuous space has in common: whom it meets, how strong it is, how it weakens."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.perturbation import Perturbation
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_perturbations.selection import (
    Anneal,
    check_images,
    check_tokens,
    pick_images,
    pick_tokens,
    share_field,
)

Strength = Literal["uniform", "fixed"]


@frozen(kw_only=True)
class VectorNoiseConfig:
    """Options of noise on vectors; every image and every token meets it, as published."""

    beta: float = share_field(1.0, "share of the images of a batch that are perturbed")
    alpha: float = share_field(1.0, "share of the tokens of a perturbed image that are perturbed")
    strength: Strength = field(
        default="uniform",
        validator=validators.in_(("uniform", "fixed")),
        metadata={"doc": "of each image: uniform in [0, tau] (as published), or tau itself (to measure with)"},
    )
    anneal: Anneal | None = field(
        default=None, metadata={"doc": "how alpha and tau fall in the course of the training; left out: they stay"}
    )


class VectorNoise(Perturbation):
    """Replaces vectors by noised ones; the gradient passes on to the clean vectors.

    What an image becomes is a function of its latents, the seed and its index, however batches are cut.
    """

    config: Any  # a VectorNoiseConfig with `tau`

    @abstractmethod
    def noised(self, vectors: Tensor, strength: Tensor, noise: Tensor) -> Tensor:
        """(P, N, D) vectors at strength (P, 1, 1), from standard normal noise (P, N, D); all float32."""

    def perturb(
        self, latents: Latents, quantizer: Quantizer | None, *, draws: Draws, progress: float
    ) -> tuple[Latents, Tensor]:
        vectors = latents.vectors
        if vectors is None or latents.codes is not None:
            raise ValueError("noise is for the vectors of a continuous space")
        mask = torch.zeros(vectors.shape[:2], dtype=torch.bool, device=vectors.device)  # (B, N)
        alpha, tau = self.strengths(progress)
        if self.config.beta == 0 or alpha == 0 or tau == 0:
            return latents, mask
        picked = pick_images(draws.child("images"), self.config.beta, "random")  # (B,), P of them
        tokens = pick_tokens(draws.child("tokens")[picked], vectors.shape[1], alpha, "exact")  # (P, N)
        mask[picked] = tokens
        clean = vectors[picked]  # (P, N, D)
        strength = self._strength(draws.child("strength")[picked], tau)
        noise = draws.child("noise")[picked].normal(*vectors.shape[1:])
        noised = self.noised(clean.float(), strength, noise).to(vectors.dtype)
        changed = torch.where(tokens[..., None], noised, clean)
        return latents.evolve(vectors=vectors.index_put((picked.nonzero()[:, 0],), changed)), mask

    def _strength(self, draws: Draws, tau: float) -> Tensor:
        drawn = draws.uniform(1, 1)  # (P, 1, 1)
        return drawn * tau if self.config.strength == "uniform" else torch.full_like(drawn, tau)

    def strengths(self, progress: float) -> tuple[float, float]:
        """Alpha and tau at this share of the training."""
        factor = 1.0 if self.config.anneal is None else self.config.anneal.factor(progress)
        return self.config.alpha * factor, self.config.tau * factor

    def check(self, space: LatentSpace, batch_size: int | None = None) -> None:
        """Raises RobustokError where the space has codes, or alpha and beta come to no token or image."""
        if space.codebook_size is not None:
            raise RobustokError(
                f"noise is for vectors, and this latent space has codes ({space.describe()})",
                where="perturbation.use",
                hint='take a continuous tokenizer, or perturbation "top_delta"',
            )
        check_tokens(space, self.config.alpha)
        check_images(batch_size, self.config.beta, "random")
