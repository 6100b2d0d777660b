"""Mean and variance of latents per token and channel, measured while a tokenizer trains."""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.values.finite import all_finite
from robustok_toolkit.weight_files import read_weights
from robustok_training.distributed import all_sum

_EPS = 1e-5


class LatentStatistics(nn.Module):
    """Normalises latents (B, N, D) to mean 0 and variance 1 at each token and channel, and back.

    The statistics are measured over the first `enough` images observed in training mode, over all processes,
    and then frozen. They start as those of a standard normal, counted as one image, which normalises nothing.

    Args:
        num_tokens: N. width: D.
        enough: number of images to measure over; 0 for none.
    """

    def __init__(self, num_tokens: int, width: int, enough: int) -> None:
        super().__init__()
        self.enough = enough
        self.mean: Tensor
        self.variance: Tensor
        self.count: Tensor
        self.register_buffer("mean", torch.zeros(num_tokens, width))
        self.register_buffer("variance", torch.ones(num_tokens, width))
        self.register_buffer("count", torch.ones(()))

    def normalise(self, latents: Tensor) -> Tensor:
        """(B, N, D) to the same shape."""
        return (latents - self.mean) / self._std

    def restore(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return latents * self._std + self.mean

    @property
    def _std(self) -> Tensor:
        return (self.variance + _EPS).sqrt()

    @torch.no_grad()
    def observe(self, latents: Tensor) -> None:
        """Adds latents (B, N, D) of this process; all processes must call it. Does nothing in eval mode."""
        if not self.training:
            return
        deviations = latents.float() - self.mean
        sums = all_sum(
            torch.stack([deviations.sum(0), deviations.square().sum(0), torch.full_like(self.mean, len(latents))])
        )
        sum_deviations, sum_squares, new_count = sums
        total = self.count + new_count
        variance = (self.count * self.variance + sum_squares - sum_deviations.square() / total) / total
        measuring = self.count <= self.enough  # stays on the device: reading it would synchronise
        self.variance.copy_(torch.where(measuring, variance, self.variance))
        self.mean.copy_(torch.where(measuring, self.mean + sum_deviations / total, self.mean))
        self.count.copy_(torch.where(measuring, total[0, 0], self.count))

    def load(self, file: Path) -> None:
        """Loads `mean` and `var`, (N, D) or (D, h, w), from a file and freezes them.

        Raises:
            RobustokError: one is missing, has the wrong shape, is not finite, or is a negative variance.
        """
        weights = read_weights(file).weights
        for name, buffer in (("mean", self.mean), ("var", self.variance)):
            if name not in weights:
                raise RobustokError(
                    f"this file does not hold statistics of latents: {name!r} is missing", where=str(file)
                )
            value = weights[name].float()
            if value.ndim == 3:
                value = rearrange(value, "d h w -> (h w) d")
            if value.shape != buffer.shape:
                what = f"its {name} has shape {tuple(value.shape)}, the latents have {tuple(buffer.shape)}"
                raise RobustokError(what, where=str(file))
            if not all_finite(value) or (name == "var" and (value < 0.0).any()):
                raise RobustokError(
                    f"its {name} holds invalid numbers (not finite, or a negative variance)", where=str(file)
                )
            buffer.copy_(value)
        self.count.fill_(self.enough + 1)
