"""Means over seeds, their errors, and intervals of paired differences (Student's t)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np
from attrs import frozen

#: The confidence of every interval.
CONFIDENCE = 0.95
#: A verdict needs at least so many seeds; two always lie on one side of their mean each.
FEWEST_SEEDS = 3
#: More seeds than this are not proposed.
MOST_SEEDS = 1000
#: What may be rounding, as a share of the numbers: some hundred times the last bit of a float.
_ROUNDING = 1e-13
#: How often as many seeds as are proposed would decide.
POWER = 0.8


@frozen(kw_only=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        count: the number of seeds. mean: of them.
        standard_error: of the mean; None for one seed. low, high: the ends of the 95 % interval of the mean.
    """

    count: int
    mean: float
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None

    def excludes(self, value: float) -> bool:
        """Whether the interval excludes a value. Equal numbers from all seeds are no repetitions, and exclude none."""
        if self.low is None or self.high is None or not self.standard_error:
            return False
        return value < self.low or value > self.high


def estimate(values: Sequence[float], size: float = 0.0) -> Estimate:
    """The mean of one or more numbers, its standard error, and the interval of Student's t.

    Numbers that are not all finite have neither error nor interval. Those that differ by rounding are equal.

    Args:
        size: of the largest numbers from whose differences the values come, if they do.
    """
    count = len(values)
    if not all(map(math.isfinite, values)):
        return Estimate(count=count, mean=sum(values) / count)
    mean = fmean(values)
    if count < 2:
        return Estimate(count=count, mean=mean)
    rounding = _ROUNDING * max(size, *map(abs, values))
    error = stdev(values) / math.sqrt(count) if max(values) - min(values) > rounding else 0.0
    half = _quantile(count) * error
    return Estimate(count=count, mean=mean, standard_error=error, low=mean - half, high=mean + half)


def seeds_needed(values: Sequence[float], value: float = 0.0) -> int | None:
    """With how many seeds an interval would exclude `value` in four of five studies, if mean and spread are these.

    Returns:
        The smallest number from 3 on, by the power of the t-test; None if it would be more than 1,000, or the spread is
        not known.
    """
    from scipy.stats import nct, t

    if len(set(values)) < 2 or not all(map(math.isfinite, values)):
        return None
    counts = np.arange(FEWEST_SEEDS, MOST_SEEDS + 1)
    effect = abs(fmean(values) - value) / stdev(values)
    enough = nct.sf(t.ppf((1 + CONFIDENCE) / 2, counts - 1), counts - 1, effect * np.sqrt(counts)) >= POWER
    return int(counts[enough][0]) if enough.any() else None


def _quantile(count: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1))
