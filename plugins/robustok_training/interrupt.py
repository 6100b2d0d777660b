"""Ctrl-C or a scheduler's SIGTERM stops training after the current step; a second Ctrl-C stops it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from robustok_training.distributed import all_sum, world_size


class StopRequest:
    """Whether a stop was requested."""

    def __init__(self) -> None:
        self.asked = False

    def anywhere(self, device: torch.device) -> bool:
        """Whether any process was asked to stop: all must stop at the same step."""
        if world_size() == 1:
            return self.asked
        return bool(all_sum(torch.tensor(float(self.asked), device=device)) > 0)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catches SIGINT and SIGTERM inside the block; only in the main thread."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, _: FrameType | None) -> None:
        if request.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.asked = True

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
