"""Searches the classifier-free guidance with which a generator samples best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from robustok_core.values.guidance import Guidance
from robustok_core.values.result import Result

#: Scales that are tried in turn where none are named, until two in a row are worse than the best.
SCALES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)
#: Parts of the sampling that are guided alone.
INTERVALS = ((0.0, 0.5), (0.25, 0.75), (0.25, 1.0), (0.5, 1.0))


@frozen(kw_only=True)
class Trial:
    """What samples with some guidance measure; `what` says which part of the search tried it."""

    what: str
    guidance: Guidance
    result: Result


def best_of(results: Mapping[Guidance, Result]) -> Guidance:
    """The guidance with the best result, the first one of equals."""
    return min(results, key=lambda guidance: _cost(results[guidance]))


def _cost(result: Result) -> float:
    return -result.value if result.higher_is_better is True else result.value


class GuidanceSearch:
    """First the scale, with constant guidance; then schedules that grow; then parts of the sampling.

    Every trial of a search must use the same random numbers, so that differences between trials are not noise.

    Args:
        measure: what samples with a guidance give.

    Attributes:
        trials: all of them, in order.
    """

    def __init__(self, measure: Callable[[Guidance], Result]) -> None:
        self._measure = measure
        self.trials: list[Trial] = []

    @property
    def best(self) -> Trial:
        """The best trial, the first one of equals."""
        return min(self.trials, key=lambda trial: _cost(trial.result))

    def run(self, scales: Sequence[float] = ()) -> Iterator[Trial]:
        """Yields the trials, one by one: of all scales that are named, or of `SCALES`."""
        yield from self._named(scales) if scales else self._usual()
        yield from self._between()
        if self.best.guidance.active:
            yield from self._schedules()
            yield from self._intervals()

    def _try(self, what: str, guidance: Guidance) -> Iterator[Trial]:
        if guidance not in [trial.guidance for trial in self.trials]:
            self.trials.append(Trial(what=what, guidance=guidance, result=self._measure(guidance)))
            yield self.trials[-1]

    def _named(self, scales: Sequence[float]) -> Iterator[Trial]:
        for scale in sorted(set(scales)):
            yield from self._try("scale", Guidance(scale=scale))

    def _usual(self) -> Iterator[Trial]:
        worse = 0
        for scale in SCALES:
            yield from self._try("scale", Guidance(scale=scale))
            worse = 0 if self.trials[-1] is self.best else worse + 1
            if worse == 2:
                return

    def _between(self) -> Iterator[Trial]:
        """The scales half-way from the best one to its neighbours."""
        tried = sorted(trial.guidance.scale for trial in self.trials)
        best = self.best.guidance.scale
        place = tried.index(best)
        for neighbour in tried[max(0, place - 1) : place] + tried[place + 1 : place + 2]:
            yield from self._try("scale", Guidance(scale=(best + neighbour) / 2))

    def _schedules(self) -> Iterator[Trial]:
        """They reach the scale only at the end, so larger ones are tried too."""
        above = self.best.guidance.scale - 1.0
        for schedule in ("linear", "cosine"):
            for factor in (1.0, 1.5, 2.0):
                scale = max(0.0, 1.0 + factor * above)
                yield from self._try("schedule", Guidance(scale=scale, schedule=schedule))

    def _intervals(self) -> Iterator[Trial]:
        best = self.best.guidance
        for start, stop in INTERVALS:
            yield from self._try("interval", attrs.evolve(best, start=start, stop=stop))


def recipe_line(guidance: Guidance) -> str:
    """The guidance as a recipe writes it, without defaults: `guidance = { scale = 1.5, schedule = "linear" }`."""
    default = Guidance()
    options: Mapping[str, Any] = attrs.asdict(guidance)
    changed = {name: value for name, value in options.items() if value != getattr(default, name)}
    shown = {"scale": guidance.scale, **changed}
    return f"guidance = {{ {', '.join(f'{name} = {_toml(value)}' for name, value in shown.items())} }}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    assert math.isfinite(value)
    return repr(float(value))
