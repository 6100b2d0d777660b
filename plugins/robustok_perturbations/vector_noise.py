"""The base of noise on continuous latents: which images and tokens, how strong, and its annealing."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.perturbation import Perturbation
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.devices import sent
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_perturbations.selection import (
    Anneal,
    check_images,
    check_tokens,
    pick,
    share_field,
)

Strength = Literal["uniform", "fixed"]


@frozen(kw_only=True)
class VectorNoiseConfig:
    """Options of noise on vectors; by default all images and tokens are perturbed, as published."""

    beta: float = share_field(1.0, "share of the images of a batch that are perturbed")
    alpha: float = share_field(1.0, "share of the tokens of a perturbed image that are perturbed")
    strength: Strength = field(
        default="uniform",
        validator=validators.in_(("uniform", "fixed")),
        metadata={"doc": "strength per image: uniform in [0, tau] (as in RAE's code), or fixed at tau (for measuring)"},
    )
    anneal: Anneal | None = field(
        default=None, metadata={"doc": "how alpha and tau fall during training; left out: constant"}
    )


class VectorNoise(Perturbation):
    """Replaces vectors by noised ones; the gradient flows to the clean vectors.

    The result for an image depends on its latents, the seed and its index, not on how batches are split.
    """

    config: Any  # a VectorNoiseConfig with `tau`

    @abstractmethod
    def noised(self, vectors: Tensor, strength: Tensor, noise: Tensor) -> Tensor:
        """Applies standard normal noise (P, N, D) to vectors (P, N, D) at strength (P, 1, 1); all float32."""

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
        picked = pick(draws, vectors.shape[1], beta=self.config.beta, images="random", alpha=alpha, tokens="exact")
        images, tokens, mask = (
            sent(of, vectors.device) for of in (picked.images, picked.tokens, picked.mask(len(mask)))
        )
        clean, draws = vectors[images], draws[images]  # (P, N, D)
        strength = self._strength(draws.child("strength"), tau)
        noise = draws.child("noise").normal(*vectors.shape[1:])
        noised = self.noised(clean.float(), strength, noise).to(vectors.dtype)
        changed = torch.where(tokens[..., None], noised, clean)
        return latents.evolve(vectors=vectors.index_put((images,), changed)), mask

    def _strength(self, draws: Draws, tau: float) -> Tensor:
        drawn = draws.uniform(1, 1)  # (P, 1, 1)
        return drawn * tau if self.config.strength == "uniform" else torch.full_like(drawn, tau)

    def strengths(self, progress: float) -> tuple[float, float]:
        """Alpha and tau at `progress`, a share of training."""
        factor = 1.0 if self.config.anneal is None else self.config.anneal.factor(progress)
        return self.config.alpha * factor, self.config.tau * factor

    def check(self, space: LatentSpace, batch_size: int | None = None) -> None:
        """Raises RobustokError if the space has codes, or if alpha or beta selects no token or image."""
        if space.codebook_size is not None:
            raise RobustokError(
                f"noise is for vectors, and this latent space has codes ({space.describe()})",
                where="perturbation.use",
                hint='use a continuous tokenizer, or perturbation "top_delta"',
            )
        check_tokens(space, self.config.alpha, self.config.anneal)
        check_images(batch_size, self.config.beta, "random")
