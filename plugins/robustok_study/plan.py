"""The plan of a study: its jobs, what each shares with others, and what is done already."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
from attrs import field, frozen

from robustok_core.errors import RobustokError, RunError, raise_all
from robustok_core.recipe.registry import Registry
from robustok_core.runs.reuse import runs_at, runs_in
from robustok_core.runs.run_record import read_run
from robustok_core.values.wording import some_names
from robustok_study.checks import names_read, results_given, unequal_conditions, unknown_metrics
from robustok_study.known import NOTHING, Reused
from robustok_study.planner import Job, Planner, loaded_first, stage_of_key
from robustok_study.record import ArmRecord
from robustok_study.results import arm_record
from robustok_study.spec import Study


@frozen(kw_only=True, eq=False)
class Task:
    """A part of a job that one process does.

    Attributes:
        job: whose. until: the stage after which it stops; None for the rest.
        after: the tasks that must be done before.
        shared: the stages that it takes from a job in `after`, with that job's name.
    """

    job: Job
    until: str | None
    after: Sequence[Task]
    shared: Mapping[str, str] = field(factory=dict)

    @property
    def title(self) -> str:
        """Its name in what is printed."""
        return self.job.name if self.until is None else f"{self.job.name} until {self.until}"


@frozen(kw_only=True)
class Plan:
    """The jobs of a study, seed by seed, and the tasks that are left."""

    jobs: Sequence[Job]
    tasks: Sequence[Task]

    @property
    def left(self) -> str:
        """How much is left, in words."""
        jobs = len({task.job.name for task in self.tasks})
        parts = f" in {len(self.tasks)} parts" if len(self.tasks) > jobs else ""
        return f"{jobs} {'job' if jobs == 1 else 'jobs'}{parts}"


def make_plan(study: Study, out: Path, registry: Registry, *, checks: bool = True, reuse: Reused = NOTHING) -> Plan:
    """Checks all arms and plans the study, without running or writing anything.

    Args:
        out: the study's folder, which holds its runs. reuse: other runs, whose stages or results are taken where equal.
        checks: whether the arms are checked as `robustok check` does, with some images of each data set.

    Raises:
        RobustokError: all mistakes that are found.
    """
    recipes = {arm.name: arm.recipe.resolve(registry) for arm in study.arms}
    given = results_given(recipes)
    problems = [*unequal_conditions(study, recipes), *unknown_metrics(study, given), *_missing_seeds(study)]
    done = _finished_stages([*runs_in(out), *runs_at(reuse.folders)])
    planner = Planner(study, out, registry, done, checks=checks)
    try:
        planner.plan_all()
    except RobustokError as error:
        problems.append(RobustokError(error.what, where=str(study.file), hint=error.hint))
    raise_all([*problems, *(_of_arms(study, *found) for found in planner.problems.values())])
    jobs = [planner.jobs[name] for name in planner.wanted]
    if reuse.runs:
        jobs = _with_known(jobs, reuse, names_read(study, given), {arm.name: arm_record(arm) for arm in study.arms})
    return Plan(jobs=jobs, tasks=list(_tasks(jobs, done)))


def _of_arms(study: Study, problem: RobustokError, arms: Sequence[str]) -> RobustokError:
    """A problem of some arms with their names; one of all arms as it is."""
    if len(arms) == len(study.arms):
        return problem
    named = f"arm{'s' if len(arms) > 1 else ''} {some_names([repr(arm) for arm in arms])}"
    what, hint = f"{named}: {problem.what}", problem.hint
    return RobustokError(what, where=problem.where, hint=hint, exit_code=problem.exit_code)


def _missing_seeds(study: Study) -> list[RobustokError]:
    hint = f"seeds: {', '.join(map(str, study.seeds))}"
    what = "arm {!r} loads the {} of seed {}, which is not one of the study's"
    return [
        RobustokError(what.format(arm.name, artifact, seed), where=arm.where, hint=hint)
        for arm in study.arms
        for artifact, (_, seed) in arm.load.items()
        if seed is not None and seed not in study.seeds
    ]


def _with_known(
    jobs: Sequence[Job], reuse: Reused, names: Mapping[str, Collection[str]], arms: Mapping[str, ArmRecord]
) -> list[Job]:
    """The jobs, those with known results as such; not where a job that is left loads what the run would make.

    A job that loads from others, whose fingerprints need what these make, is known only together with them.

    Args:
        names: the results of each arm that the study shows. arms: what a record says of each.
    """
    before = {job.name: job for job in jobs}
    found: dict[str, Job] = {}
    for job in loaded_first(jobs):
        found[job.name] = _if_known(job, [found[need] for need in job.needs], reuse, names[job.arm], arms[job.arm])
    while True:
        needed = {need for job in found.values() if job.is_left for need in job.needs}
        lost = [
            name
            for name, job in found.items()
            if job.known is not None
            and (name in needed or (before[name].stages is None and any(found[need].is_left for need in job.needs)))
        ]
        if not lost:
            return [found[job.name] for job in jobs]
        found |= {name: before[name] for name in lost}


def _if_known(job: Job, needs: Sequence[Job], reuse: Reused, names: Collection[str], arm: ArmRecord) -> Job:
    """The job, with its results if they are known; `needs`: those that it loads from."""
    if job.state == "done":
        return job
    if job.stages is not None:
        return job if len(job.finished) == len(job.stages) else attrs.evolve(job, known=reuse.known(job.stages, names))
    stages = {need.name: need.stages for need in needs if need.known is not None and need.stages is not None}
    known = reuse.loading(arm, job.name, stages, names) if len(stages) == len(needs) else None
    return job if known is None else attrs.evolve(job, stages=known[0], known=known[1])


def _finished_stages(runs: Sequence[Path]) -> dict[str, Path]:
    """The stages that these runs have finished, as NAME-FINGERPRINT, with the first run that has."""
    found: dict[str, Path] = {}
    for run in runs:
        try:
            entries = read_run(run)["stages"]
        except RunError:
            continue
        found = {name: run for name, entry in entries.items() if entry["state"] == "done"} | found
    return found


def _tasks(jobs: Sequence[Job], done: Collection[str]) -> Iterator[Task]:
    """The tasks of all jobs that are not done, each after those that it needs.

    A stage that several jobs share is made by the first of them. If that job has more to do, it is done in two tasks,
    so that the others need not wait for the rest.
    """
    left = loaded_first([job for job in jobs if job.is_left])
    makers: dict[str, Job] = {}
    shared: set[str] = set()
    for job in left:
        for key in _keys(job, done):
            if makers.setdefault(key, job) is not job:
                shared.add(key)
    making: dict[str, Task] = {}
    last: dict[str, Task] = {}
    for job in left:
        keys = _keys(job, done)
        taken = [key for key in keys if makers[key] is not job]
        after = _once([*(making[key] for key in taken), *(last[need] for need in job.needs if need in last)])
        names = {stage_of_key(key): makers[key].name for key in taken}
        for_others = [key for key in keys if key in shared and makers[key] is job]
        first = None
        if for_others and for_others[-1] != keys[-1]:
            first = Task(job=job, until=stage_of_key(for_others[-1]), after=after, shared=names)
            yield first
        last[job.name] = Task(job=job, until=None, after=after if first is None else [first], shared=names)
        yield last[job.name]
        making |= dict.fromkeys(for_others, first or last[job.name])


def _keys(job: Job, done: Collection[str]) -> list[str]:
    """The stages of a job that no run has finished, as NAME-FINGERPRINT, in order."""
    keys = [f"{stage}-{fingerprint}" for stage, fingerprint in (job.stages or {}).items()]
    return [key for key in keys if key not in done]


def _once(tasks: Sequence[Task]) -> list[Task]:
    return list({id(task): task for task in tasks}.values())
