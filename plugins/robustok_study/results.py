"""Puts the results of a study's runs together: means, paired differences and verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.runs.conditions import Conditions, numbers_of, read_conditions, why_not
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.runs.provenance import now
from robustok_core.runs.results import read_results, tables_of
from robustok_core.runs.run_record import read_run
from robustok_core.values.result import Result
from robustok_study.arms import Arm
from robustok_study.correlation_results import correlation_record
from robustok_study.expression import Expression
from robustok_study.planner import Job, State, state_of
from robustok_study.record import (
    ArmRecord,
    ClaimRecord,
    CorrelationRecord,
    MetricRecord,
    RunOfStudy,
    StudyRecord,
    Summary,
)
from robustok_study.spec import Claim, CorrelationClaim, Study
from robustok_study.statistics import estimate
from robustok_study.verdicts import difference_of, subtracted, verdict_of

#: What is kept of the surroundings in which stages ran.
_MADE_WITH = ("robustok", "git_commit", "device", "torch", "threads", "processes", "auto_precision")


@frozen
class _Done:
    """The results of a finished run, what they depend on, its time of work, and with what it was made.

    Attributes:
        taken_from: the study whose record has them.
    """

    results: Mapping[str, Result]
    conditions: Conditions
    seconds: float
    made_with: Sequence[Mapping[str, Any]]
    taken_from: str | None = None


def gather(study: Study, jobs: Sequence[Job], failed: Mapping[str, str]) -> StudyRecord:
    """The record of a study as far as its runs are finished.

    Args:
        jobs: of its plan. failed: why jobs failed, by the name of their run.
    """
    found = {job.name: _read(job) for job in jobs}
    results: dict[str, dict[int, _Done]] = {arm.name: {} for arm in study.arms}
    for job in jobs:
        if isinstance(one := found[job.name], _Done):
            results[job.arm][job.seed] = one
    made_with = [made for by_seed in results.values() for one in by_seed.values() for made in one.made_with]
    arms = [arm_record(arm) for arm in study.arms]
    record = StudyRecord(
        name=study.name,
        file=str(study.file.resolve()),
        quick=study.quick,
        recipe=study.config.recipe,
        seeds=list(study.seeds),
        base=study.base.name,
        fingerprint=fingerprint_of_study(study),
        written=now(),
        arms=arms,
        runs=[],
        metrics=[_metric(label, metric, study, results) for label, metric in _metrics(study, results).items()],
        claims=[_claim(claim, study, results) for claim in study.claims],
        correlations=[_correlation(claim, results, study.seeds) for claim in study.correlations],
        made_with=_once(made_with),
    )
    return attrs.evolve(record, runs=[_run(job, found[job.name], failed.get(job.name), record) for job in jobs])


def fingerprint_of_study(study: Study) -> str:
    """A hash of the recipes of all arms and of the seeds."""
    return fingerprint_of([[arm.name, arm_record(arm).fingerprint] for arm in study.arms] + [list(study.seeds)])


#: What is finished, by arm and seed.
Table = Mapping[str, Mapping[int, _Done]]


def _read(job: Job) -> _Done | State | RobustokError:
    """The results of a job's run; its state if it is not done, or why they cannot be read."""
    if (known := job.known) is not None:
        return _Done(known.results, known.conditions, known.seconds, known.made_with, known.study)
    if (state := state_of(job.folder, job.stages)) != "done":
        return state
    try:
        record = read_run(job.folder)["stages"]
        entries = [record[f"{stage}-{fingerprint}"] for stage, fingerprint in (job.stages or {}).items()]
        results = read_results(job.folder)
    except RobustokError as error:
        return error
    made = [
        {key: each[key] for key in _MADE_WITH if each.get(key) is not None}
        for entry in entries
        for each in entry.get("made_with", [])
    ]
    seconds = sum(entry["seconds"] for entry in entries if entry.get("taken_from") is None)
    return _Done(results, read_conditions(job.folder), seconds, _once(made))


def _run(job: Job, found: _Done | State | RobustokError, problem: str | None, study: StudyRecord) -> RunOfStudy:
    if isinstance(found, RobustokError):
        found, problem = "begun", problem or str(found)
    state: str = "done" if isinstance(found, _Done) else found
    run = RunOfStudy(
        arm=job.arm,
        seed=job.seed,
        folder=job.name,
        state="failed" if problem else state,
        stages=job.stages or {},
        problem=problem,
    )
    if not isinstance(found, _Done):
        return run
    return attrs.evolve(
        run,
        seconds=found.seconds if found.taken_from in (None, study.identity) else 0.0,
        results=tables_of(found.results),
        conditions=found.conditions,
        made_with=[dict(made) for made in found.made_with],
        taken_from=found.taken_from,
    )


def _once(made_with: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return list({fingerprint_of(made): dict(made) for made in made_with}.values())


def arm_record(arm: Arm) -> ArmRecord:
    """What the record says of an arm."""
    load = {artifact: of if seed is None else f"{of}@{seed}" for artifact, (of, seed) in arm.load.items()}
    return ArmRecord(name=arm.name, fingerprint=fingerprint_of(arm.recipe.source.table), changes=arm.changes, load=load)


def _metrics(study: Study, results: Table) -> Mapping[str, Expression]:
    """What the table shows: the study's metrics, or all results that have a better direction."""
    if study.metrics:
        return study.metrics
    found: dict[str, Expression] = {}
    for by_seed in results.values():
        for run in by_seed.values():
            better = [name for name, result in run.results.items() if result.higher_is_better is not None]
            found |= {name: Expression((name,)) for name in better}
    return found


def _values(metric: Expression, results: Mapping[int, _Done]) -> dict[int, Result]:
    """The values of an arm by seed.

    Raises:
        ValueError: if one cannot be computed, or is not finite.
    """
    found = {}
    for seed, run in results.items():
        try:
            found[seed] = _value(metric, run.results)
        except ValueError as error:
            raise ValueError(f"seed {seed}: {error}") from error
    return found


def _values_of_arm(arm: str, metric: Expression, results: Table) -> dict[int, Result]:
    """As `_values`, of one of several arms, which the error names."""
    try:
        return _values(metric, results[arm])
    except ValueError as error:
        raise ValueError(f"{arm}, {error}") from error


def _value(metric: Expression, results: Mapping[str, Result]) -> Result:
    """A metric of a run.

    Raises:
        ValueError: if it cannot be computed, or is not finite.
    """
    value = metric.value(results)
    if not math.isfinite(value.value):
        raise ValueError(f"{metric} is not finite")
    return value


def without_value(study: Study, job: Job) -> dict[str, str]:
    """What the table, claims and correlations show that a finished run cannot give although it ran the stages; why."""
    found = _read(job)
    if not isinstance(found, _Done):
        return {}
    claimed = [claim.expression for claim in study.claims if job.arm in claim.config.arms]
    claimed += [expression for claim in study.correlations for expression in claim.expressions]
    labels = {metric: label for label, metric in _metrics(study, {job.arm: {job.seed: found}}).items()}
    problems = {}
    for metric, label in ({metric: str(metric) for metric in claimed} | labels).items():
        if all(name in found.results for name in metric.names):
            try:
                _value(metric, found.results)
            except ValueError as error:
                problems[label] = str(error)
    return problems


def _metric(label: str, metric: Expression, study: Study, results: Table) -> MetricRecord:
    values: dict[str, dict[int, Result]] = {}
    left_out: dict[str, str] = {}
    for arm, by_seed in results.items():
        if not by_seed or not any(all(name in run.results for name in metric.names) for run in by_seed.values()):
            continue  # an arm may lack the stage
        try:
            values[arm] = _values(metric, by_seed)
        except ValueError as error:
            left_out[arm] = str(error)
    if not values:
        problem = "no finished run gave it" if any(results.values()) and not left_out else None
        return MetricRecord(label=label, metric=str(metric), problem=problem, left_out=left_out)
    given = {arm: results[arm] for arm in values}
    problem = _incomparable(metric, given)
    if problem is not None and _incomparable(metric, given, scaled=True) is not None:
        return MetricRecord(label=label, metric=str(metric), problem=problem, left_out=left_out)
    numbers = {arm: {seed: result.value for seed, result in by_seed.items()} for arm, by_seed in values.items()}
    base, size = study.base.name, _size(metric, given)
    differences = {
        arm: difference
        for arm, of_arm in numbers.items()
        if problem is None
        and arm != base
        and base in numbers
        and (difference := difference_of(of_arm, numbers[base], base, size=size)) is not None
    }
    one = next(iter(next(iter(values.values())).values()))
    return MetricRecord(
        label=label,
        metric=str(metric),
        higher_is_better=one.higher_is_better,
        num_images=one.num_images,
        num_reference=one.num_reference,
        arms={arm: _summary(of_arm, size) for arm, of_arm in numbers.items()},
        differences=differences,
        problem=problem,
        left_out=left_out,
    )


def _size(metric: Expression, results: Table) -> float:
    """The size of the largest numbers from whose differences a metric's values come; 0 if they come from none."""
    return max((metric.size(run.results) for by_seed in results.values() for run in by_seed.values()), default=0.0)


def _summary(values: Mapping[int, float], size: float) -> Summary:
    found = estimate(list(values.values()), size)
    by_seed = {str(seed): value for seed, value in values.items()}
    return Summary(mean=found.mean, standard_error=found.standard_error, by_seed=by_seed)


def _incomparable(metric: Expression, results: Table, *, scaled: bool = False) -> str | None:
    """Why the values of these arms may not be compared; None if they may. `scaled`: see `why_not`."""
    runs = {f"{arm}, seed {seed}": run for arm, by_seed in results.items() for seed, run in by_seed.items()}
    for name in metric.names:
        numbers = numbers_of([run.conditions for run in runs.values()], name, [run.results for run in runs.values()])
        if (reason := why_not(numbers, list(runs), scaled=scaled)) is not None:
            return f"{name} was measured with {reason}"
    return None


def _claim(claim: Claim, study: Study, results: Table) -> ClaimRecord:
    config, difference = claim.config, None
    verdict: str = "undecided"
    try:
        values = {arm: _values_of_arm(arm, claim.expression, results) for arm in config.arms}
        reason = _incomparable(claim.expression, {arm: results[arm] for arm in values})
    except ValueError as error:
        reason = str(error)
    if reason is None:
        numbers = {arm: {seed: result.value for seed, result in found.items()} for arm, found in values.items()}
        sizes = [abs(value) for of_arm in numbers.values() for value in of_arm.values()]
        size = max(_size(claim.expression, {arm: results[arm] for arm in values}), *sizes, 0.0)
        arm, base = numbers[config.arm], None if config.base is None else numbers[config.base]
        if base is not None and config.beyond is not None:
            arm = subtracted(arm, base)
            base = subtracted(numbers[config.beyond.arm], numbers[config.beyond.base])
        difference = difference_of(arm, base, config.base, config.than, size)
        verdict, reason = verdict_of(difference, config.direction, study.seeds)
    return ClaimRecord(
        text=config.text,
        metric=config.metric,
        expression=str(claim.expression),
        arm=config.arm,
        base=config.base,
        beyond=None if config.beyond is None else {"arm": config.beyond.arm, "base": config.beyond.base},
        direction=config.direction,
        than=config.than,
        verdict=verdict,
        reason=reason,
        difference=difference,
    )


def _correlation(claim: CorrelationClaim, results: Table, seeds: Sequence[int]) -> CorrelationRecord:
    """The verdict over the arms that give all of its metrics, over the seeds of which all are known."""
    given = {arm: by_seed for arm, by_seed in results.items() if by_seed and _gives_all(claim, by_seed)}
    idle = [arm for arm, by_seed in given.items() if _has_idle_cells(claim, by_seed)]
    given = {arm: by_seed for arm, by_seed in given.items() if arm not in idle}
    unfinished = [arm for arm, by_seed in results.items() if len(by_seed) < len(seeds)]
    try:
        values = {
            arm: [
                {seed: result.value for seed, result in _values_of_arm(arm, expression, given).items()}
                for expression in claim.expressions
            ]
            for arm in given
        }
        # A metric that is scaled to the codebook is one metric: over codebooks of several sizes this is the question.
        problems = [_incomparable(expression, given, scaled=True) for expression in claim.expressions]
    except ValueError as error:
        values, problems = {}, [str(error)]
    problem = next((problem for problem in problems if problem is not None), None)
    return correlation_record(claim, values, problem, unfinished=unfinished, idle=idle)


def _gives_all(claim: CorrelationClaim, by_seed: Mapping[int, _Done]) -> bool:
    return all(name in run.results for run in by_seed.values() for name in claim.names)


def _has_idle_cells(claim: CorrelationClaim, by_seed: Mapping[int, _Done]) -> bool:
    """Whether pFID's rule came down to delta = 1 in some cells, as in small codebooks: they measure reconstructions."""
    details = [run.results[name].details for run in by_seed.values() for name in claim.names]
    cells = [cell for each in details if "deltas_scaled_from" in each for cell in each.get("cells", {})]
    return any(cell.endswith("_delta1") for cell in cells)
