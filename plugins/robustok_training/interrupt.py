"""Training answers a request to stop after the current step; a second one stops it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from robustok_core.runs.interrupt import StopRequest, stop_signals
from robustok_training.distributed import all_sum, world_size


def asked_anywhere(stop: StopRequest, device: torch.device) -> bool:
    """Whether any process was asked to stop: all must stop at the same step."""
    if world_size() == 1:
        return stop.asked
    return bool(all_sum(torch.tensor(float(stop.asked), device=device)) > 0)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Notes a request to stop instead of stopping at once; the block must look at it and save what it has."""
    with stop_signals() as request, request.deferred():
        yield request
