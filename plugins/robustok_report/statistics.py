"""Differences between runs, and correlations over runs, with what is known of their errors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
from attrs import frozen

from robustok_study.statistics import Estimate, estimate

#: Below this many runs an interval would say more than is known.
LEAST_FOR_INTERVAL = 5
_RESAMPLES = 2000


def difference(values: dict[int, float], others: dict[int, float]) -> Estimate:
    """The mean difference of two arms, from their values by seed.

    Where both have the same seeds, at least two, the differences are paired; else the errors of the two means add up.
    """
    if values.keys() == others.keys() and len(values) > 1:
        return estimate([values[seed] - others[seed] for seed in values])
    one, other = estimate(list(values.values())), estimate(list(others.values()))
    errors = [of.standard_error for of in (one, other) if of.standard_error is not None]
    error = math.hypot(*errors) if len(errors) == 2 else None
    return Estimate(count=min(one.count, other.count), mean=one.mean - other.mean, standard_error=error)


@frozen
class Correlation:
    """A correlation coefficient and its 95 % bootstrap interval, None where there are too few runs for one."""

    value: float
    interval: tuple[float, float] | None


def correlations(across: Sequence[float], up: Sequence[float]) -> dict[str, Correlation]:
    """Pearson's and Spearman's coefficients of pairs, at least three; NaN where one side never changes."""
    pairs = np.array([across, up], np.float64)
    return {name: Correlation(of(*pairs), _interval(of, pairs)) for name, of in _COEFFICIENTS.items()}


def _pearson(across: np.ndarray, up: np.ndarray) -> float:
    if np.ptp(across) == 0 or np.ptp(up) == 0:
        return math.nan
    return float(np.corrcoef(across, up)[0, 1])


def _spearman(across: np.ndarray, up: np.ndarray) -> float:
    from scipy.stats import rankdata

    return _pearson(rankdata(across), rankdata(up))


_COEFFICIENTS = {"Pearson": _pearson, "Spearman": _spearman}


def _interval(of: object, pairs: np.ndarray) -> tuple[float, float] | None:
    """The percentile interval of a coefficient over runs that are drawn again and again, always in the same way."""
    from scipy.stats import bootstrap

    if pairs.shape[1] < LEAST_FOR_INTERVAL or np.ptp(pairs, axis=1).min() == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a sample may hold one run only, which gives NaN
        found = bootstrap(
            tuple(pairs), of, paired=True, vectorized=False, n_resamples=_RESAMPLES, method="percentile", rng=0
        )
    samples = found.bootstrap_distribution
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return float(low), float(high)
