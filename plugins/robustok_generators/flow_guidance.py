"""A model's velocity along a sampling, guided where guidance is on."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from robustok_core.values.guidance import Guidance

_JUST_BELOW_ONE = math.nextafter(1.0, 0.0)


class ClassVelocity(Protocol):
    """A model that knows all rows of one time at once: `velocity(x, t, classes, row)`."""

    def __call__(self, x: Tensor, t: float, classes: Tensor, row: Tensor) -> Tensor:
        """(rows, N, D) float32 from states x at time t; row i is of class `classes[row[i]]`."""


class GuidedVelocity:
    """v(x, t) of a batch; conditional and unconditional rows go through the model in one pass.

    Guidance follows the time: at t a share 1 - t of the sampling is done. So an interval of noise levels
    [low, high] of t is start = 1 - high and stop = 1 - low, and SDEdit, which begins at t = 1 - sigma, begins with
    sigma done: what is kept counts as done.

    Args:
        model: velocities without guidance.
        labels: (B,) int64.
        null_label: the class of unconditional rows.
        guidance: its weight over time.
        channels: guide the first so many channels only and leave the others conditional; None for all.
    """

    def __init__(
        self, model: ClassVelocity, labels: Tensor, *, null_label: int, guidance: Guidance, channels: int | None
    ) -> None:
        self.model, self.guidance, self.channels = model, guidance, channels
        rows = torch.cat([labels, torch.full_like(labels, null_label)]) if guidance.active else labels
        # What modulates the blocks depends on time and class alone: it is computed once for each class.
        self.classes, self.row = rows.unique(return_inverse=True)

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """(B, N, D) float32 at states x (B, N, D)."""
        # Rounded, since 1 - t of a step at t = 0.8 is just below 0.2, where an interval may begin. [start, stop) never
        # holds 1, and the methods that look at t = 0 must find there what is just before.
        weight = self.guidance.weight(min(round(1.0 - t, 9), _JUST_BELOW_ONE))
        if weight == 1.0:
            return self.model(x, t, self.classes, self.row[: len(x)])
        conditional, unconditional = self.model(torch.cat([x, x]), t, self.classes, self.row).chunk(2)
        guided = torch.lerp(unconditional, conditional, weight)
        if self.channels is None:
            return guided
        return torch.cat([guided[..., : self.channels], conditional[..., self.channels :]], dim=-1)
