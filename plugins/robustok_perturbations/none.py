"""No perturbation, the baseline: the decoder reads the clean latents."""

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
    """Returns latents unchanged, in any latent space."""

    Config = NoPerturbationConfig

    def __init__(self, config: NoPerturbationConfig) -> None:
        self.config = config

    def perturb(
        self, latents: Latents, quantizer: Quantizer | None, *, draws: Draws, progress: float
    ) -> tuple[Latents, Tensor]:
        tokens = latents.vectors if latents.codes is None else latents.codes
        assert tokens is not None
        return latents, torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
