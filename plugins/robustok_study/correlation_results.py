"""Claims on correlations: over the means of a study's arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import fmean

import numpy as np

from robustok_study.correlations import COEFFICIENTS, Correlation, correlation, lead
from robustok_study.record import CorrelationRecord
from robustok_study.spec import CorrelationClaim
from robustok_study.verdicts import FEWEST_ARMS, verdict_of_correlation

#: An arm's values of one metric by seed.
BySeed = Mapping[int, float]


def correlation_record(
    claim: CorrelationClaim,
    values: Mapping[str, Sequence[BySeed]],
    problem: str | None,
    *,
    unfinished: Sequence[str] = (),
    idle: Sequence[str] = (),
) -> CorrelationRecord:
    """The verdict on a claim.

    Args:
        values: of the arms that have results, those of `claim.expressions` in order, of the same seeds.
        problem: why they may not be compared; None if they may.
        unfinished: arms of which runs are missing. idle: arms that were left out because some cells of their pFID
            change no token.
    """
    config = claim.config
    points = {arm: [fmean(by_seed.values()) for by_seed in found] for arm, found in values.items()}
    found, rival = None, None
    decisive: Correlation | None = None
    if len(points) >= FEWEST_ARMS and problem is None:
        across, up, *others = zip(*points.values(), strict=True)
        of = COEFFICIENTS[config.coefficient]
        found = of(np.array(across), np.array(up))
        rival = of(np.array(others[0]), np.array(up)) if others else None
        decisive = _decisive(across, up, others[0] if others else None, config.coefficient)
    what = f"{config.coefficient}'s coefficient" if config.better_than is None else "lead"
    verdict, reason = verdict_of_correlation(len(points), decisive, what, unfinished)
    if idle:
        reason += f"; without {', '.join(idle)}, where some cells of pFD change no token"
    low, high = decisive.interval if decisive is not None and decisive.interval is not None else (None, None)
    return CorrelationRecord(
        text=config.text,
        metric=config.metric,
        predicts=config.predicts,
        better_than=config.better_than,
        coefficient=config.coefficient,
        verdict="undecided" if problem is not None else verdict,
        reason=problem or reason,
        value=_number(found),
        rival=_number(rival),
        low=low,
        high=high,
        points=points,
    )


@cache  # a study asks again after each job
def _decisive(
    across: tuple[float, ...], up: tuple[float, ...], rival: tuple[float, ...] | None, coefficient: str
) -> Correlation:
    """What decides: a coefficient, or its lead over a rival's."""
    arms = range(len(up))
    if rival is None:
        return correlation(across, up, arms, coefficient)
    return lead(across, rival, up, arms, coefficient)


def _number(value: float | None) -> float | None:
    """A coefficient; None where one side is constant, which has none."""
    return None if value is None or math.isnan(value) else value
