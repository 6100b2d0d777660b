"""Warns of trainings that go wrong without becoming infinite: loss spikes, discriminators that win, unused codes.

The thresholds are measured; docs/training_alarms.md has the runs. Each alarm speaks once in a stage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median

#: A loss that is this many times the median of the lines before it.
SPIKE = 4.0
#: A hinge loss below which a discriminator tells nearly all images apart.
SATURATED = 0.1
#: Codes that a step uses, as a share of those it could.
COLLAPSED = 0.25
#: Lines that must agree.
PATIENCE = 5
_HISTORY = 20


class Alarm(ABC):
    """Looks at the lines of metrics.jsonl as they are logged."""

    @abstractmethod
    def see(self, values: Mapping[str, float], progress: float) -> str | None:
        """What is wrong and what to change, or None; not called again after it has warned.

        Args:
            values: of one line, by name. progress: completed share of the training.
        """


class LossSpike(Alarm):
    """A loss far above those of the last lines.

    Args:
        name: of the loss.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._last: deque[float] = deque(maxlen=_HISTORY)

    def see(self, values: Mapping[str, float], progress: float) -> str | None:
        if self.name not in values:
            return None
        value, usual = values[self.name], median(self._last) if len(self._last) >= PATIENCE else 0.0
        self._last.append(value)
        if usual <= 0.0 or value < SPIKE * usual:
            return None
        return (
            f"{self.name} rose to {value:.3g}, {value / usual:.0f} times the median of the lines before: lower "
            "optimizer.learning_rate, raise optimizer.warmup, or set optimizer.clip"
        )


class Agreeing(Alarm):
    """A number below a threshold in several lines in a row.

    Args:
        name: of the number. below: the threshold. advice: the message, with {value}.
        since: share of the training from which it looks.
    """

    def __init__(self, name: str, below: float, advice: str, *, since: float = 0.0) -> None:
        self.name, self.below, self.advice, self.since = name, below, advice, since
        self._agreeing = 0

    def see(self, values: Mapping[str, float], progress: float) -> str | None:
        if self.name not in values or progress < self.since:
            return None
        self._agreeing = self._agreeing + 1 if values[self.name] < self.below else 0
        return self.advice.format(value=f"{values[self.name]:.2g}") if self._agreeing == PATIENCE else None


class Alarms:
    """Several alarms, each of which warns once."""

    def __init__(self, alarms: Sequence[Alarm]) -> None:
        self._silent = list(alarms)

    def see(self, values: Mapping[str, float], progress: float) -> list[str]:
        """The warnings that a line gives cause for; arguments as of `Alarm.see`."""
        warnings = {alarm: alarm.see(values, progress) for alarm in self._silent}
        self._silent = [alarm for alarm, warning in warnings.items() if warning is None]
        return [warning for warning in warnings.values() if warning is not None]
