"""No perturbation: the decoder reads what the encoder wrote. The baseline of every comparison."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from robustok_core.kinds.perturbation import Perturbation
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents


@frozen(kw_only=True)
class NoPerturbationConfig:
    """No options."""


class NoPerturbation(Perturbation):
    """Returns latents as they are, in any latent space."""

    Config = NoPerturbationConfig

    def __init__(self, config: NoPerturbationConfig) -> None:
        self.config = config

    def perturb(
        self, latents: Latents, quantizer: Quantizer | None, *, draws: Draws, progress: float
    ) -> tuple[Latents, Tensor]:
        held = latents.vectors if latents.codes is None else latents.codes
        assert held is not None
        return latents, torch.zeros(held.shape[:2], dtype=torch.bool, device=held.device)
