"""Noise added to latents, z + s eps, s uniform in [0, tau] for each image (RAE, Zheng et al. 2025, arXiv 2510.11690).

The strength s is "absolute", as published: good for latents whose spread is known to be 1. A tokenizer that
learns its latents along with the noise can make absolute noise small by making its latents large. Hence
"relative": s counts standard deviations, those of each channel over the tokens of the same image. The unit
is an image's own, instead of a batch's or a running one, so that an image meets the same noise whatever
batch, micro-batch or process it falls on, and no state has to be kept. No gradient passes through it.
"""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.recipe.validators import finite
from robustok_core.values.latents import LatentSpace
from robustok_perturbations.vector_noise import VectorNoise, VectorNoiseConfig


@frozen(kw_only=True)
class GaussianConfig(VectorNoiseConfig):
    """Options of `gaussian`; the defaults are RAE's."""

    tau: float = field(
        default=0.8, validator=[validators.ge(0.0), finite], metadata={"doc": "largest strength of the noise"}
    )
    scale: Literal["absolute", "relative"] = field(
        default="absolute",
        validator=validators.in_(("absolute", "relative")),
        metadata={
            "doc": "unit of tau: 1 (as published), or each channel's standard deviation over the tokens of the image"
        },
    )


class Gaussian(VectorNoise):
    """Adds normal noise."""

    Config = GaussianConfig

    def __init__(self, config: GaussianConfig) -> None:
        self.config = config

    def noised(self, vectors: Tensor, strength: Tensor, noise: Tensor) -> Tensor:
        if self.config.scale == "relative":
            noise = noise * spread(vectors)
        return vectors + strength * noise

    def check(self, space: LatentSpace, batch_size: int | None = None) -> None:
        """As all noise; a relative scale needs two tokens to have a spread."""
        super().check(space, batch_size)
        if self.config.scale == "relative" and space.num_tokens == 1:
            raise RobustokError(
                "an image of one token has no spread that noise could be relative to",
                where="perturbation.scale",
                hint='use scale = "absolute"',
            )


def spread(vectors: Tensor) -> Tensor:
    """(B, 1, D) standard deviation of each channel over the tokens of each image of vectors (B, N, D); no gradient."""
    centred = vectors.detach() - vectors.detach().mean(dim=1, keepdim=True)
    return centred.square().mean(dim=1, keepdim=True).sqrt()
