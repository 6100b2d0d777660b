"""The chain of diffusion steps from data to noise: DDPM (Ho et al. 2020, arXiv 2006.11239), with learned variances
and fewer steps in sampling (Nichol & Dhariwal 2021, arXiv 2102.09672), and DDIM (Song et al. 2020, arXiv 2010.02502).

Step s in [0, 1000) turns the state before it into a little noisier one; x_s is the state after it.
"""

from __future__ import annotations

import math
from itertools import accumulate, repeat

import torch
from attrs import frozen
from torch import Tensor

from robustok_core.values.devices import sent

#: Steps of the whole chain, and the variances of the noise of the first and the last.
NUM_STEPS = 1000
_FIRST_BETA, _LAST_BETA = 1e-4, 0.02
#: Half the width of a bin of 8-bit values in [-1, 1].
_HALF_BIN = 1 / 255


def spaced_steps(count: int, last: int) -> list[int]:
    """At most `count` of the steps from 0 to `last`, evenly spaced, both ends included; one step is `last`.

    Multiples of the spacing are sums, as in improved DDPM's code: it matters where they end in one half.
    """
    count = min(count, last + 1)
    if count == 1:
        return [last]
    return [round(step) for step in accumulate(repeat(last / (count - 1), count - 1), initial=0.0)]


@frozen(kw_only=True, eq=False)
class NoiseChain:
    """Some steps of the chain, and what they do. Methods take indices (B,) int64 into `steps`, or (1,) for all rows.

    Attributes:
        steps: numbers of the steps in the whole chain, ascending.
        table: (n, 6) float32, for each step: the shares of data and noise in x, the weights of data and x in the mean
            before the step, and the logarithms of the least and largest variance before the step.
    """

    steps: list[int]
    table: Tensor

    @classmethod
    def of(cls, steps: list[int], device: torch.device) -> NoiseChain:
        """The chain of these steps, each of which adds the noise of all up to it since the one before."""
        betas = torch.linspace(_FIRST_BETA, _LAST_BETA, NUM_STEPS, dtype=torch.float64, device="cpu")
        kept = (1.0 - betas).cumprod(0)[steps]  # alpha bar: the variance of the data's share
        before = torch.cat([kept.new_ones(1), kept[:-1]])
        betas = 1.0 - kept / before
        variances = betas * (1.0 - before) / (1.0 - kept)  # of the state before the step, if the data are known
        # The first is 0, and has no logarithm: improved DDPM takes that of the second.
        least = torch.cat([variances[1:2] if len(steps) > 1 else betas, variances[1:]])
        columns = [
            kept.sqrt(),
            (1.0 - kept).sqrt(),
            before.sqrt() * betas / (1.0 - kept),
            (kept / before).sqrt() * (1.0 - before) / (1.0 - kept),
            least.log(),
            betas.log(),
        ]
        return cls(steps=steps, table=sent(torch.stack(columns, dim=1).float(), device))

    def _columns(self, index: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Two columns of the table, (B, 1, 1)."""
        one, other = self.table[index, first : first + 2, None, None].unbind(1)
        return one, other

    def noised(self, data: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """The state (B, N, D) after the step, of these data and noise."""
        of_data, of_noise = self._columns(index, 0)
        return of_data * data + of_noise * noise

    def denoised(self, x: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """The data (B, N, D) of which x has this noise."""
        of_data, of_noise = self._columns(index, 0)
        return (x - of_noise * noise) / of_data

    def mean_before(self, data: Tensor, x: Tensor, index: Tensor) -> Tensor:
        """The mean (B, N, D) of the state before the step, given the data and x."""
        of_data, of_x = self._columns(index, 2)
        return of_data * data + of_x * x

    def log_variance(self, raw: Tensor, index: Tensor) -> Tensor:
        """The log variance (B, N, D) of the state before the step: the least for raw = -1, the largest for 1."""
        least, largest = self._columns(index, 4)
        return torch.lerp(least, largest, (raw + 1.0) / 2.0)

    def least_log_variance(self, index: Tensor) -> Tensor:
        """The log variance (B, 1, 1) of the state before the step, given the data and x."""
        return self._columns(index, 4)[0]


def variational_bound(chain: NoiseChain, data: Tensor, x: Tensor, noise: Tensor, raw: Tensor, index: Tensor) -> Tensor:
    """Bits per number that x and a network's predictions do not say about the state before the step: (B,).

    The divergence of the predicted state from the true one; for the first step, from which data come, the bits of
    data that are 8-bit values in [-1, 1] (Ho et al. 2020, equations 5 and 13).

    Args:
        chain: the steps.
        data: (B, N, D).
        x: (B, N, D), noised.
        noise: (B, N, D), predicted.
        raw: (B, N, D), predicted; see `NoiseChain.log_variance`.
        index: (B,) int64.
    """
    mean = chain.mean_before(chain.denoised(x, noise, index), x, index)
    log_variance = chain.log_variance(raw, index)
    true_mean, true_log_variance = chain.mean_before(data, x, index), chain.least_log_variance(index)
    difference = true_log_variance - log_variance
    divergence = 0.5 * (difference.exp() - 1.0 - difference + (true_mean - mean).square() * (-log_variance).exp())
    nats = torch.where((index == 0)[:, None, None], -_log_probability(data, mean, log_variance), divergence)
    return nats.mean(dim=(1, 2)) / math.log(2.0)


def _log_probability(data: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of the bin of 8-bit values that holds `data`, under a Gaussian; the outermost bins reach to infinity."""
    scale = (-0.5 * log_variance).exp()
    upper = torch.special.ndtr(scale * (data + _HALF_BIN - mean)).masked_fill(data > 0.999, 1.0)
    lower = torch.special.ndtr(scale * (data - _HALF_BIN - mean)).masked_fill(data < -0.999, 0.0)
    return (upper - lower).clamp(min=1e-12).log()
