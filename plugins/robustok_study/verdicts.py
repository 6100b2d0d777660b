"""Verdicts on claims, by one rule.

With at least 3 seeds, the 95 % interval (Student's t) of the mean of the paired differences, arm - base for each seed,
decides: a claim is *reproduced* if the interval lies wholly on the claimed side of `than` (0 by default),
*contradicted* if it lies wholly on the other side, and *undecided* otherwise. A verdict waits until all seeds are done:
looking again and again until it is favourable would decide too often.

A correlation over arms is decided alike, by its 95 % bootstrap interval over at least 10 arms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from robustok_core.values.numbers import number_text
from robustok_study.correlations import Correlation
from robustok_study.record import Difference
from robustok_study.statistics import FEWEST_SEEDS, estimate, seeds_needed

#: Arms that a verdict on a correlation needs.
FEWEST_ARMS = 10

Verdict = Literal["reproduced", "contradicted", "undecided"]


def difference_of(
    arm: Mapping[int, float],
    base: Mapping[int, float] | None,
    name: str | None,
    than: float = 0.0,
    size: float = 0.0,
) -> Difference | None:
    """The differences of the seeds that both have, and their mean; without a base, the values themselves.

    Args:
        arm, base: values by seed. name: of the base arm. than: what the mean is compared with.
        size: of the largest numbers from whose differences the values come, if they do.
    """
    pairs = dict(arm) if base is None else subtracted(arm, base)
    if not pairs:
        return None
    values = list(pairs.values())
    found = estimate(values, max(size, *map(abs, [*arm.values(), *(base or {}).values()])))
    significant = found.excludes(than)
    settled = significant and len(values) >= FEWEST_SEEDS
    return Difference(
        base=name,
        mean=found.mean,
        standard_error=found.standard_error,
        low=found.low,
        high=found.high,
        significant=significant,
        seeds_needed=None if settled or not found.standard_error else seeds_needed(values, than),
        by_seed={str(seed): value for seed, value in pairs.items()},
        than=than,
    )


def subtracted(arm: Mapping[int, float], base: Mapping[int, float]) -> dict[int, float]:
    """The differences of the seeds that both have."""
    return {seed: value - base[seed] for seed, value in arm.items() if seed in base}


def best_of(values: Mapping[str, Mapping[int, float]], higher_is_better: bool | None) -> str | None:
    """The arm that is better than each other one, with a 95 % interval that excludes 0; None if there is none.

    Args:
        values: of each arm, by seed.
    """
    if higher_is_better is None or len(values) < 2:
        return None
    means = {arm: estimate(list(found.values())).mean for arm, found in values.items()}
    best = (max if higher_is_better else min)(means, key=lambda arm: means[arm])
    differences = [difference_of(values[best], found, arm) for arm, found in values.items() if arm != best]
    better = [each is not None and each.significant and (each.mean > 0) == higher_is_better for each in differences]
    return best if all(better) else None


def verdict_of(difference: Difference | None, direction: str, seeds: Sequence[int]) -> tuple[Verdict, str]:
    """The verdict on a claim, and its reason.

    Args:
        difference: what was found. direction: "lower" or "higher", what is claimed. seeds: of the study.
    """
    if difference is None:
        return "undecided", "there are no results yet"
    count = len(difference.by_seed)
    missing = f"; {count} of {len(seeds)} seeds are done" if count < len(seeds) else ""
    if len(seeds) < FEWEST_SEEDS:
        return "undecided", f"{count} of the {FEWEST_SEEDS} seeds that a verdict needs at least"
    if count < FEWEST_SEEDS:
        return "undecided", missing.removeprefix("; ")
    if not difference.standard_error:
        return "undecided", "all seeds gave the same number, so they are no repetitions"
    assert difference.low is not None
    assert difference.high is not None
    interval = f"95 % interval {signed(difference.low)} to {signed(difference.high)}, {count} seeds"
    if missing:
        return "undecided", f"{interval}{missing}"
    if not difference.significant:
        needed = "more than 1,000" if difference.seeds_needed is None else f"about {difference.seeds_needed:,}"
        likely = _decided(difference.mean < difference.than, direction)
        return "undecided", f"{interval}; if mean and spread stay, {needed} seeds would make it {likely}, 4 times in 5"
    return _decided(difference.high < difference.than, direction), interval


def _decided(lower: bool, direction: str) -> Verdict:
    return "reproduced" if lower == (direction == "lower") else "contradicted"


def verdict_of_correlation(
    count: int, found: Correlation | None, what: str, unfinished: Sequence[str] = ()
) -> tuple[Verdict, str]:
    """The verdict on a claim that a correlation, or its lead over another one, is above 0, and its reason.

    Args:
        count: arms with results. found: the number; None if there are too few arms. what: it is called.
        unfinished: the arms of which runs are missing, for which a verdict waits.
    """
    if count < FEWEST_ARMS or found is None:
        return "undecided", f"{count} of the {FEWEST_ARMS} arms that a verdict needs at least"
    if found.interval is None or math.isnan(found.value):
        return "undecided", "the arms gave too few different numbers"
    low, high = found.interval
    interval = f"{what} {signed(found.value)}, 95 % interval {signed(low)} to {signed(high)}, {count} arms"
    if unfinished:
        return "undecided", f"{interval}; not finished: {', '.join(unfinished)}"
    if low > 0:
        return "reproduced", interval
    return ("contradicted" if high < 0 else "undecided"), interval


def signed(value: float) -> str:
    """A difference as text: its sign and three significant digits, or all digits before the point."""
    return f"{'-' if value < 0 else '+'}{number_text(abs(value), 3)}"
