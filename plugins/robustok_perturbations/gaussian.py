"""Noise added to latents, z + s eps, s uniform in [0, tau] for each image (RAE, Zheng et al. 2025, arXiv 2510.11690).

So RAE's code draws s; its paper has |N(0, tau^2)|. With scale "absolute", as published, s is in the units of the
latents, which suits latents of standard deviation 1. A tokenizer that learns its latents together with the noise can
make absolute noise negligible by making its latents large. With "relative", s is in units of each channel's standard
deviation over the tokens of the image. It is taken per image, not per batch or as a running average, so that an image
gets the same noise in any batch, micro-batch or process, and there is no state. No gradient passes through it.
"""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen, validators
from torch import Tensor

from robustok_blocks.spread import spread
from robustok_core.errors import RobustokError
from robustok_core.values.latents import LatentSpace
from robustok_perturbations.vector_noise import VectorNoise, VectorNoiseConfig


@frozen(kw_only=True)
class GaussianConfig(VectorNoiseConfig):
    """Options of `gaussian`; the defaults are RAE's."""

    tau: float = field(default=0.8, validator=validators.ge(0.0), metadata={"doc": "largest strength of the noise"})
    scale: Literal["absolute", "relative"] = field(
        default="absolute",
        validator=validators.in_(("absolute", "relative")),
        metadata={
            "doc": "unit of tau: 1 (as published), or each channel's standard deviation over the tokens of the image"
        },
    )


class Gaussian(VectorNoise):
    """Adds Gaussian noise."""

    Config = GaussianConfig
    also_called = ("noise",)

    def __init__(self, config: GaussianConfig) -> None:
        self.config = config

    def noised(self, vectors: Tensor, strength: Tensor, noise: Tensor) -> Tensor:
        if self.config.scale == "relative":
            noise = noise * spread(vectors)
        return vectors + strength * noise

    def check(self, space: LatentSpace, batch_size: int | None = None) -> None:
        """Checks as for all noise; a relative scale also needs at least two tokens."""
        super().check(space, batch_size)
        if self.config.scale == "relative" and space.num_tokens == 1:
            raise RobustokError(
                "a relative scale needs more than one token per image",
                where="perturbation.scale",
                hint='use scale = "absolute"',
            )
