"""Means of the values logged between two lines of the log, computed without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robustok_training.distributed import all_gather_rows, all_mean, rank, world_size


class IntervalMeans:
    """Sums values by name until `take` is called.

    Args:
        device: the device of the sums.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}  # (2,) the weighted sum and the weight

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, values: Mapping[str, Any], weight: float) -> None:
        """Adds numbers or scalar tensors; reading a number from the device would wait for it."""
        for name, value in values.items():
            number = self._on_device(value)
            total = self._sums.setdefault(name, torch.zeros(2, device=number.device))
            total += torch.stack([number * weight, torch.full_like(number, weight)])

    def _on_device(self, value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value.detach().to(self._device, torch.float32)
        return torch.full((), value, dtype=torch.float32, device=self._device)  # without a copy, which would wait

    def take(self) -> dict[str, float]:
        """Returns the means of everything that all processes added, sorted by name, and resets the sums."""
        names = sorted(self._sums)
        if not names:
            return {}
        sums = all_mean(torch.stack([self._sums[name] for name in names]))
        self._sums.clear()
        return dict(zip(names, (sums[:, 0] / sums[:, 1]).tolist(), strict=True))

    def sums(self) -> dict[str, Tensor]:
        """(P, 2) by name: what each of P processes added since the last `take`, for a checkpoint."""
        names = sorted(self._sums)
        if not names:
            return {}
        of_all = all_gather_rows(torch.stack([self._sums[name] for name in names])[None])
        return {name: of_all[:, number] for number, name in enumerate(names)}

    def go_on(self, sums: Mapping[str, Tensor]) -> None:
        """Goes on from what `sums` returned; each of another number of processes gets the mean."""
        for name, of_all in sums.items():
            own = of_all[rank()] if len(of_all) == world_size() else of_all.mean(0)
            self._sums[name] = own.to(self._device, copy=True)


def means_of(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """The means of what all processes added, from `IntervalMeans.sums`."""
    totals = {name: of_all.sum(0).tolist() for name, of_all in sums.items()}
    return {name: value / weight for name, (value, weight) in totals.items()}
