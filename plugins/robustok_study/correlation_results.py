"""Claims on correlations: over the means of a study's arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        across, up, *others = (list(row) for row in zip(*points.values(), strict=True))
        arms = range(len(points))
        found = COEFFICIENTS[config.coefficient](np.array(across), np.array(up))
        if others:
            rival = COEFFICIENTS[config.coefficient](np.array(others[0]), np.array(up))
            decisive = lead(across, others[0], up, arms, config.coefficient)
        else:
            decisive = correlation(across, up, arms, config.coefficient)
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
        value=found,
        rival=rival,
        low=low,
        high=high,
        points=points,
    )
