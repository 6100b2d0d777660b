"""Training answers a request to stop after the current step; a second one stops it at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from attrs import frozen
from torch import Tensor

from robustok_core.runs.interrupt import StopRequest, stop_signals
from robustok_core.values import devices
from robustok_training.distributed import all_sum, world_size


def asked_anywhere(stop: StopRequest, device: torch.device) -> bool:
    """Whether any process was asked to stop: all must stop at the same step."""
    if world_size() == 1:
        return stop.asked
    return bool(all_sum(torch.tensor(float(stop.asked), device=device)) > 0)


class StopAgreement:
    """Asks after each step whether any process was asked to stop.

    Where the device works behind the program, the answer is that of the step before: it is there when it is read, and
    the device has work meanwhile. So several processes stop one step later.

    Args:
        device: of this process.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._answers: deque[_Answer] = deque()

    def asked(self, stop: StopRequest) -> bool:
        """The answer, the same on all processes, which must all ask."""
        if world_size() == 1 or not devices.is_queued(self._device):
            return asked_anywhere(stop, self._device)
        self._answers.append(_Answer.of(all_sum(torch.full((), float(stop.asked), device=self._device))))
        return len(self._answers) == 2 and self._answers.popleft().read()


@frozen
class _Answer:
    """How many processes were asked to stop, on its way from the device."""

    count: Tensor
    arrived: torch.cuda.Event | None

    @classmethod
    def of(cls, count: Tensor) -> _Answer:
        if count.device.type != "cuda":
            return cls(count, None)
        on_cpu = torch.empty((), pin_memory=True).copy_(count, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return cls(on_cpu, arrived)

    def read(self) -> bool:
        if self.arrived is not None:
            self.arrived.synchronize()
        return bool(self.count > 0)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Notes a request to stop instead of stopping at once; the block must look at it and save what it has."""
    with stop_signals() as request, request.deferred():
        yield request
