"""LeCAM regularisation of a discriminator (Tseng et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustok_training.distributed import all_mean

Logits = Sequence[Tensor]
"""A discriminator's output: one (B, positions) tensor from each of its heads."""


def mean_over_heads(values: Logits) -> Tensor:
    """The mean of the heads' means, a scalar: all heads have the same weight, whatever their numbers of positions."""
    return torch.stack([value.float().mean() for value in values]).mean()


class LeCam(nn.Module):
    """Pulls the logits of real images towards the running mean of the fake ones, and vice versa.

    mean(relu(real - fake_mean)^2) + mean(relu(real_mean - fake)^2), where both means are exponential
    averages over earlier steps and all processes. They are updated in training mode only.
    """

    real_mean: Tensor
    fake_mean: Tensor

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("real_mean", torch.zeros(()))
        self.register_buffer("fake_mean", torch.zeros(()))

    def forward(self, real: Logits, fake: Logits) -> Tensor:
        """The unweighted penalty, a scalar."""
        too_real = [(logits.float() - self.fake_mean).relu().square() for logits in real]
        too_fake = [(self.real_mean - logits.float()).relu().square() for logits in fake]
        penalty = mean_over_heads(too_real) + mean_over_heads(too_fake)
        if self.training:
            self._update_means(real, fake)
        return penalty

    @torch.no_grad()
    def _update_means(self, real: Logits, fake: Logits) -> None:
        means = all_mean(torch.stack([mean_over_heads(real), mean_over_heads(fake)]))
        self.real_mean.lerp_(means[0], 1 - self.decay)
        self.fake_mean.lerp_(means[1], 1 - self.decay)
