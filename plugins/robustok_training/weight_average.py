"""The running average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from robustok_training.host_count import HostCount
from robustok_training.sharding import local


class WeightAverage(nn.Module):
    """An exponential moving average of the weights; buffers are copied.

    All weights are averaged by one operation, without a pass over them in Python. The first update takes the
    weights as they are. Its keys in checkpoints are those of `torch.optim.swa_utils.AveragedModel`.

    Args:
        model: what is averaged. decay: the share of the average that an update keeps.

    Attributes:
        module: a copy of the model that holds the average.
    """

    n_averaged: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", torch.zeros((), dtype=torch.int64))
        self._decay = decay
        self._count = HostCount()
        self.follow(model)

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Averages the weights of `model` from now on; of divided ones, each process averages what it holds."""
        held = zip(self.module.parameters(), model.parameters(), strict=True)
        pairs = [(local(own), local(other)) for own, other in held]
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]
        # By place, because a module may put another tensor there.
        self._places = [
            (own._buffers, other._buffers, name)
            for own, other in zip(self.module.modules(), model.modules(), strict=True)
            for name, buffer in own._buffers.items()
            if buffer is not None
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the weights that the model has now."""
        first = self._count.increment(self.n_averaged) == 1
        buffers = [(own[name], new[name]) for own, new, name in self._places]
        if self._averaged:
            own, new = zip(*self._averaged, strict=True)
            torch._foreach_copy_(own, new) if first else torch._foreach_lerp_(own, new, 1.0 - self._decay)
        if copied := [*self._copied, *buffers]:
            own, new = zip(*copied, strict=True)
            torch._foreach_copy_(own, new)
