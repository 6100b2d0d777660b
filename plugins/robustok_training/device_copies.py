"""Copies of batches to the device, made while it computes the step before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor

from robustok_core.values.batches import Batch


class DeviceCopies:
    """Copies batches to a device. On CUDA, from pinned memory on a stream of their own, and nothing waits for them.

    Args:
        device: where the batches are used.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Batch:
        """The batch on the device; what is computed there from now on finds it complete."""
        if self._stream is None:
            return batch.to(self._device)
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            copy = batch.to(self._device, non_blocking=True)
        computing.wait_stream(self._stream)
        for tensor in tensors_in(copy):
            tensor.record_stream(computing)  # its memory is not used again before the step is computed
        return copy


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors that an attrs object and the attrs objects in it hold."""
    if isinstance(value, Tensor):
        yield value
    elif attrs.has(type(value)):
        for part in attrs.asdict(value, recurse=False).values():
            yield from tensors_in(part)
