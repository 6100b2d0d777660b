"""Claims on correlations: over the means of a study's arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from robustok_study.correlations import Correlation, correlations, lead
from robustok_study.record import CorrelationRecord
from robustok_study.spec import CorrelationClaim
from robustok_study.verdicts import FEWEST_ARMS, verdict_of_correlation

#: An arm's values of one metric by seed.
BySeed = Mapping[int, float]


def correlation_record(
    claim: CorrelationClaim, values: Mapping[str, Sequence[BySeed]], problem: str | None
) -> CorrelationRecord:
    """The verdict on a claim.

    Args:
        values: of the arms that have results, those of `claim.expressions` in order, of the same seeds.
        problem: why they may not be compared; None if they may.
    """
    config = claim.config
    points = {arm: [fmean(by_seed.values()) for by_seed in found] for arm, found in values.items()}
    found, rival, gain = None, None, None
    if len(points) >= FEWEST_ARMS and problem is None:
        across, up, *others = (list(row) for row in zip(*points.values(), strict=True))
        arms = range(len(points))
        found = correlations(across, up, arms)[config.coefficient]
        if others:
            rival = correlations(others[0], up, arms)[config.coefficient].value
            gain = lead(across, others[0], up, arms, config.coefficient)
    decisive: Correlation | None = found if config.better_than is None else gain
    what = f"{config.coefficient}'s coefficient" if config.better_than is None else "lead"
    verdict, reason = verdict_of_correlation(len(points), decisive, what)
    low, high = decisive.interval if decisive is not None and decisive.interval is not None else (None, None)
    return CorrelationRecord(
        text=config.text,
        metric=config.metric,
        predicts=config.predicts,
        better_than=config.better_than,
        coefficient=config.coefficient,
        verdict="undecided" if problem is not None else verdict,
        reason=problem or reason,
        value=None if found is None else found.value,
        rival=rival,
        low=low,
        high=high,
        points=points,
    )
