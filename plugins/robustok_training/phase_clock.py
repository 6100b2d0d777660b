"""The time that a training spends in each phase."""

from __future__ import annotations

import time

PHASES = ("data", "forward", "backward", "optimizer", "other")


class PhaseClock:
    """Adds up the seconds spent in each phase.

    Attributes:
        seconds: the seconds so far, by phase.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._last = time.perf_counter()

    def start(self) -> None:
        """Starts counting; the time until now is ignored."""
        self._last = time.perf_counter()

    def tick(self, phase: str) -> None:
        """Adds the time since the last tick to a phase."""
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now
