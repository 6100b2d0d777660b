"""LeCAM regularisation of a discriminator (Tseng et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustok_training.distributed import all_mean

Logits = Sequence[Tensor]
"""A discriminator's opinions: one (B, places) tensor from each of its heads."""


def mean_over_heads(values: Logits) -> Tensor:
    """A scalar: the mean of each head's mean, so that heads count the same however many places they judge."""
    return torch.stack([value.float().mean() for value in values]).mean()


class LeCam(nn.Module):
    """Pulls the logits of real images towards the running mean of the fakes' and the other way round.

    mean(relu(real - fake_mean)^2) + mean(relu(real_mean - fake)^2), where the two means are exponential
    averages over the steps before this one and over all processes. They move in training mode only.
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
            self._follow(real, fake)
        return penalty

    @torch.no_grad()
    def _follow(self, real: Logits, fake: Logits) -> None:
        means = all_mean(torch.stack([mean_over_heads(real), mean_over_heads(fake)]))
        self.real_mean.lerp_(means[0], 1 - self.decay)
        self.fake_mean.lerp_(means[1], 1 - self.decay)
