"""Latents mixed with noise, (1 - t) z + t gamma eps, t uniform in [0, tau] for each image (l-DeTok, Yang et al. 2025).

With tau = 1 the latents range from clean to pure noise: the decoder learns to denoise as a diffusion model does.
The method's masking of the encoder's input is an option of the tokenizer `vit_kl`.
"""

from __future__ import annotations

from attrs import field, frozen, validators
from torch import Tensor

from robustok_perturbations.selection import share_field
from robustok_perturbations.vector_noise import VectorNoise, VectorNoiseConfig


@frozen(kw_only=True)
class InterpolateConfig(VectorNoiseConfig):
    """Options of `interpolate`; the defaults are l-DeTok's."""

    tau: float = share_field(1.0, "largest share of noise in the mixture")
    gamma: float = field(default=3.0, validator=validators.gt(0.0), metadata={"doc": "standard deviation of the noise"})


class Interpolate(VectorNoise):
    """Interpolates between the latents and noise."""

    Config = InterpolateConfig

    def __init__(self, config: InterpolateConfig) -> None:
        self.config = config

    def noised(self, vectors: Tensor, strength: Tensor, noise: Tensor) -> Tensor:
        return (1.0 - strength) * vectors + strength * self.config.gamma * noise
