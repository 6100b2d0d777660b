"""Where the time of a training goes."""

from __future__ import annotations

import time

PHASES = ("data", "forward", "backward", "optimizer", "other")


class PhaseClock:
    """Adds up the seconds of each phase.

    Attributes:
        seconds: spent so far, by phase.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._last = time.perf_counter()

    def start(self) -> None:
        """Leaves out the time until now."""
        self._last = time.perf_counter()

    def tick(self, phase: str) -> None:
        """Counts the time since the last tick for a phase that ends now."""
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now
