"""Whether one number of several runs predicts another: coefficients, and their intervals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen

#: With fewer different points, an interval would say more than is known.
LEAST_FOR_INTERVAL = 5
_RESAMPLES = 2000


@frozen
class Correlation:
    """A coefficient and its 95 % bootstrap interval, None where there are too few different points for one."""

    value: float
    interval: tuple[float, float] | None


def correlations(across: Sequence[float], up: Sequence[float], arms: Sequence[int]) -> dict[str, Correlation]:
    """Pearson's and Spearman's coefficients of at least three pairs of finite numbers; NaN where one side is constant.

    Args:
        arms: whose each pair is. Seeds of one arm are no independent points: for the interval, whole arms are drawn.

    Raises:
        ValueError: if a number is not finite.
    """
    pairs = _finite(across, up)
    return {name: _measured(of, pairs, arms) for name, of in COEFFICIENTS.items()}


def correlation(across: Sequence[float], up: Sequence[float], arms: Sequence[int], coefficient: str) -> Correlation:
    """One of `correlations`: "Pearson" or "Spearman"."""
    return _measured(COEFFICIENTS[coefficient], _finite(across, up), arms)


def lead(
    across: Sequence[float], rival: Sequence[float], up: Sequence[float], arms: Sequence[int], coefficient: str
) -> Correlation:
    """By how much better one number predicts a third than a rival does: its coefficient less the size of the rival's.

    A rival that falls where the third number rises predicts it as well as one that rises. Both are drawn with the same
    arms, so what they have in common cancels.

    Args:
        coefficient: "Pearson" or "Spearman". For the others, see `correlations`.

    Raises:
        ValueError: if a number is not finite.
    """
    of = COEFFICIENTS[coefficient]
    rows = _finite(across, rival, up)
    return _measured(lambda one, other, target: of(one, target) - abs(of(other, target)), rows, arms)


def _finite(*rows: Sequence[float]) -> np.ndarray:
    found = np.array(rows, np.float64)
    if not np.isfinite(found).all():
        raise ValueError("a correlation needs finite numbers")
    return found


def _measured(of: Callable[..., float], rows: np.ndarray, arms: Sequence[int]) -> Correlation:
    return Correlation(of(*rows), _interval(of, rows, np.asarray(arms)))


def _pearson(across: np.ndarray, up: np.ndarray) -> float:
    if np.ptp(across) == 0 or np.ptp(up) == 0:
        return math.nan
    return float(np.corrcoef(across, up)[0, 1])


def _spearman(across: np.ndarray, up: np.ndarray) -> float:
    from scipy.stats import rankdata

    return _pearson(rankdata(across), rankdata(up))


COEFFICIENTS: Mapping[str, Callable[..., float]] = {"Pearson": _pearson, "Spearman": _spearman}


def _interval(of: Callable[..., float], points: np.ndarray, arms: np.ndarray) -> tuple[float, float] | None:
    """The percentile interval of a coefficient over arms that are drawn again and again, always in the same way."""
    from scipy.stats import bootstrap

    rows = [np.flatnonzero(arms == arm) for arm in np.unique(arms)]
    means = np.array([points[:, chosen].mean(axis=1) for chosen in rows])
    if min(len(np.unique(side)) for side in means.T) < LEAST_FOR_INTERVAL:
        return None

    def coefficient(drawn: np.ndarray) -> Any:
        return of(*points[:, np.concatenate([rows[int(arm)] for arm in drawn])])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a draw may hold one arm only, which gives NaN
        found = bootstrap(
            (np.arange(len(rows)),),
            coefficient,
            vectorized=False,
            n_resamples=_RESAMPLES,
            method="percentile",
            random_state=np.random.default_rng(0),
        )
    low, high = np.nanpercentile(found.bootstrap_distribution, [2.5, 97.5])
    return float(low), float(high)
