"""Mean and variance of latents, for each token and channel, measured while a tokenizer trains."""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_toolkit.weight_files import read_weights
from robustok_training.distributed import all_sum

_EPS = 1e-5


class LatentStatistics(nn.Module):
    """Makes latents (B, N, D) of mean 0 and variance 1 at each token and channel, and undoes it.

    They are measured over the first latents that it meets in training mode, of all processes, until there
    were `enough`; then they stay. At first, before a single image, they are those of a standard normal (which
    counts as one image): normalising changes nothing.

    Args:
        num_tokens: N. width: D.
        enough: images to measure over; 0 for none.
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
        """Takes in latents (B, N, D) of this process; all processes must call it. Nothing in eval mode."""
        if not self.training:
            return
        apart = latents.float() - self.mean
        sums = all_sum(torch.stack([apart.sum(0), apart.square().sum(0), torch.full_like(self.mean, len(latents))]))
        first, second, new = sums
        total = self.count + new
        variance = (self.count * self.variance + second - first.square() / total) / total
        going = self.count <= self.enough  # on the device: reading it would wait for it
        self.variance.copy_(torch.where(going, variance, self.variance))
        self.mean.copy_(torch.where(going, self.mean + first / total, self.mean))
        self.count.copy_(torch.where(going, total[0, 0], self.count))

    def load(self, file: Path) -> None:
        """Statistics from a file with `mean` and `var`, (N, D) or (D, h, w); they stay from then on.

        Raises:
            RobustokError: it has none, those of another latent space, or numbers that are none of latents.
        """
        weights = read_weights(file).weights
        for name, buffer in (("mean", self.mean), ("var", self.variance)):
            if name not in weights:
                raise RobustokError(f"these are no statistics of latents: {name!r} is missing", where=str(file))
            value = weights[name].float()
            if value.ndim == 3:
                value = rearrange(value, "d h w -> (h w) d")
            if value.shape != buffer.shape:
                what = f"its {name} is {tuple(value.shape)}, the latents are {tuple(buffer.shape)}"
                raise RobustokError(what, where=str(file))
            if not value.isfinite().all() or (name == "var" and (value < 0.0).any()):
                raise RobustokError(f"its {name} holds numbers that no {name} can be", where=str(file))
            buffer.copy_(value)
        self.count.fill_(self.enough + 1)
