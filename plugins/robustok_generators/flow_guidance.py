"""A model's velocity, or another prediction, during sampling with classifier-free guidance."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from robustok_core.values.guidance import Guidance

_JUST_BELOW_ONE = math.nextafter(1.0, 0.0)


class ClassVelocity(Protocol):
    """A model's velocity for rows at one common time: `velocity(x, t, classes, row)`.

    It may be any prediction, with any number of channels: that of `dit` is noise and its variance.
    """

    def __call__(self, x: Tensor, t: float, classes: Tensor, row: Tensor) -> Tensor:
        """Velocities (rows, N, D) float32 of states x at time t; row i has class `classes[row[i]]`."""


class GuidedVelocity:
    """v(x, t) of a batch; conditional and unconditional rows go through the model in one pass.

    Guidance depends on the time: at t a share 1 - t of the sampling is done. So an interval [low, high] of t is
    start = 1 - high and stop = 1 - low, and SDEdit, which starts at t = 1 - sigma, starts with a share sigma done.

    Args:
        model: velocities without guidance.
        labels: (B,) int64.
        null_label: the class of unconditional rows.
        guidance: gives the weight over time.
        channels: number of first channels to guide, the others stay conditional; None for all.
    """

    def __init__(
        self, model: ClassVelocity, labels: Tensor, *, null_label: int, guidance: Guidance, channels: int | None
    ) -> None:
        self.model, self.guidance, self.channels = model, guidance, channels
        rows = torch.cat([labels, torch.full_like(labels, null_label)]) if guidance.active else labels
        # Modulations depend only on time and class: they are computed once per class.
        self.classes, self.row = rows.unique(return_inverse=True)

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """(B, N, D) float32 at states x (B, N, D)."""
        # Rounded, since at t = 0.8 the float 1 - t is just below 0.2, where an interval may start. [start, stop) never
        # contains 1, so methods that evaluate t = 0 get the weight just before it.
        weight = self.guidance.weight(min(round(1.0 - t, 9), _JUST_BELOW_ONE))
        if weight == 1.0:
            return self.model(x, t, self.classes, self.row[: len(x)])
        conditional, unconditional = self.model(torch.cat([x, x]), t, self.classes, self.row).chunk(2)
        guided = torch.lerp(unconditional, conditional, weight)
        if self.channels is None:
            return guided
        return torch.cat([guided[..., : self.channels], conditional[..., self.channels :]], dim=-1)
