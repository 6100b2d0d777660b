"""The plan of a study: its jobs, what each shares with others, and what is done already."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import field, frozen

from robustok_core.errors import RobustokError, RunError, raise_all
from robustok_core.recipe.recipe import Recipe, ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.runs.checking import SOME_IMAGES, check
from robustok_core.runs.fingerprinting import fingerprints
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.runs.results import RESULTS_FILE, read_results
from robustok_core.runs.reuse import runs_at, runs_in
from robustok_core.runs.run_record import is_run, read_run
from robustok_core.values.spec import run_name
from robustok_study.arms import Arm
from robustok_study.checks import names_read, results_given, unequal_conditions, unknown_metrics
from robustok_study.known import NOTHING, KnownRun, Reused
from robustok_study.spec import Study

State = Literal["done", "begun", "new"]


@frozen(kw_only=True, eq=False)
class Job:
    """One arm with one seed: a run.

    Attributes:
        name: of the run. arm, seed: whose. folder: of the run. recipe: what it runs.
        stages: the fingerprint of each stage by name; None if it loads from a run that is not finished.
        state: of its run.
        finished: the stages that this run, or another one, has finished, with the folder of such a run.
        needs: the jobs whose artifacts it loads, by name.
        known: its results, where a study's record has them and nothing needs what its run would make.
    """

    name: str
    arm: str
    seed: int
    folder: Path
    recipe: Recipe
    stages: Mapping[str, str] | None
    state: State
    finished: Mapping[str, Path]
    needs: Sequence[str]
    known: KnownRun | None = None

    @property
    def is_left(self) -> bool:
        """Whether it must run."""
        return self.state != "done" and self.known is None


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


def make_plan(
    study: Study, out: Path, registry: Registry, *, check_images: bool = True, reuse: Reused = NOTHING
) -> Plan:
    """Checks all arms and plans the study, without running or writing anything.

    Args:
        out: the study's folder, which holds its runs. reuse: other runs, whose stages or results are taken where equal.
        check_images: whether some images of each data set are decoded, and what must be downloaded is looked for.

    Raises:
        RobustokError: all mistakes, also those that the checks of `robustok run` find in the arms.
    """
    recipes = {arm.name: arm.recipe.resolve(registry) for arm in study.arms}
    given = results_given(recipes)
    problems = [*unequal_conditions(study, recipes), *unknown_metrics(study, given), *_missing_seeds(study)]
    jobs: list[Job] = []
    done = _finished_stages([*runs_in(out), *runs_at(reuse.folders)])
    planner = _Planner(out, registry, done)
    for seed in study.seeds:
        for arm in study.arms:
            try:
                jobs.append(planner.job(arm, seed, check_images=check_images and seed == study.seeds[0]))
            except RobustokError as error:
                problems += getattr(error, "problems", None) or [error]
    raise_all(problems)
    jobs = _without_stale(jobs)
    if reuse.runs:
        jobs = _with_known(jobs, reuse, names_read(study, given))
    try:
        return Plan(jobs=jobs, tasks=list(_tasks(jobs, done)))
    except RobustokError as error:
        raise RobustokError(error.what, where=str(study.file), hint=error.hint) from error


def _missing_seeds(study: Study) -> list[RobustokError]:
    hint = f"seeds: {', '.join(map(str, study.seeds))}"
    what = "arm {!r} loads the {} of seed {}, which is not one of the study's"
    return [
        RobustokError(what.format(arm.name, artifact, seed), where=arm.where, hint=hint)
        for arm in study.arms
        for artifact, (_, seed) in arm.load.items()
        if seed is not None and seed not in study.seeds
    ]


def _without_stale(jobs: Sequence[Job]) -> list[Job]:
    """The jobs; what the stages of one will be is not known while a job that it loads from is left."""
    found = {job.name: job for job in jobs}
    while True:
        left = {name for name, job in found.items() if job.is_left}
        stale = [job for job in found.values() if job.stages is not None and left & set(job.needs)]
        if not stale:
            return list(found.values())
        for job in stale:
            found[job.name] = attrs.evolve(job, stages=None, state="begun", finished={})


def _with_known(jobs: Sequence[Job], reuse: Reused, names: Mapping[str, Collection[str]]) -> list[Job]:
    """The jobs, those with known results as such; not where a job that is left loads what the run would make.

    Args:
        names: the results of each arm that the study shows.
    """
    found = [
        attrs.evolve(job, known=reuse.known(job.stages, names[job.arm]))
        if job.state != "done" and job.stages is not None and len(job.finished) < len(job.stages)
        else job
        for job in jobs
    ]
    while True:
        needed = {need for job in found if job.is_left for need in job.needs}
        if not any(job.known for job in found if job.name in needed):
            return found
        found = [attrs.evolve(job, known=None) if job.name in needed else job for job in found]


class _Planner:
    """Plans jobs. A data set that several of them read is opened once, and its images are decoded once.

    Args:
        out: the study's folder. registry: builds components. done: as `_finished_stages` finds them.
    """

    def __init__(self, out: Path, registry: Registry, done: Mapping[str, Path]) -> None:
        self._out, self._registry, self._done = out, registry, done
        self._built: dict[str, dict[str, Any]] = {}
        self._decoded: set[str] = set()

    def job(self, arm: Arm, seed: int, *, check_images: bool) -> Job:
        """The job of an arm and a seed.

        Raises:
            RobustokError: all that the checks of `robustok run` find.
        """
        recipe, name = arm.at(seed, self._out), run_name(arm.name, seed)
        folder, resolved = self._out / name, recipe.resolve(self._registry)
        loaded = [run_name(other, seed if fixed is None else fixed) for other, fixed in arm.load.values()]
        needs = list(dict.fromkeys(loaded))
        stages = None
        if _is_readable(folder) and all((self._out / need / RESULTS_FILE).is_file() for need in needs):
            try:
                stages = self._stages(resolved, check_images)
            except RobustokError:
                if not needs:  # else the run that it loads from may not be finished after all
                    raise
        keys = [] if stages is None else [f"{stage}-{fingerprint}" for stage, fingerprint in stages.items()]
        finished = {_stage_of(key): self._done[key] for key in keys if key in self._done}
        return Job(
            name=name,
            arm=arm.name,
            seed=seed,
            folder=folder,
            recipe=recipe,
            stages=stages,
            state=state_of(folder, stages),
            finished=finished,
            needs=needs,
        )

    def _stages(self, recipe: ResolvedRecipe, check_images: bool) -> Mapping[str, str]:
        """The fingerprints of a recipe's stages, after its checks."""
        data = recipe.tables.get("data")
        key = "" if data is None else fingerprint_of(data.table())
        built = self._built.setdefault(key, {})
        if check_images:
            images = 0 if key in self._decoded else SOME_IMAGES
            check(recipe, registry=self._registry, out=self._out, images=images, built=built)
            self._decoded.add(key)
        return fingerprints(recipe, registry=self._registry, out=self._out, built=built)


def _is_readable(run: Path) -> bool:
    """Whether a run's record, if it has one, is whole. If it is not, the run repairs it, or says why it cannot."""
    if not is_run(run):
        return True
    try:
        read_run(run)
    except RunError:
        return False
    return True


def state_of(run: Path, stages: Mapping[str, str] | None) -> State:
    """How far a run of these stages is; its folder may hold another recipe."""
    if not is_run(run):
        return "new"
    try:
        record = read_run(run)
        read_results(run)
    except RobustokError:  # the run repairs it, or says why it cannot
        return "begun"
    entries = [record["stages"].get(f"{stage}-{fingerprint}", {}) for stage, fingerprint in (stages or {}).items()]
    whole = stages is not None and record.get("current") == stages
    return "done" if whole and all(entry.get("state") == "done" for entry in entries) else "begun"


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
    left = _loaded_first([job for job in jobs if job.is_left])
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
        names = {_stage_of(key): makers[key].name for key in taken}
        for_others = [key for key in keys if key in shared and makers[key] is job]
        first = None
        if for_others and for_others[-1] != keys[-1]:
            first = Task(job=job, until=_stage_of(for_others[-1]), after=after, shared=names)
            yield first
        last[job.name] = Task(job=job, until=None, after=after if first is None else [first], shared=names)
        yield last[job.name]
        making |= dict.fromkeys(for_others, first or last[job.name])


def _keys(job: Job, done: Collection[str]) -> list[str]:
    """The stages of a job that no run has finished, as NAME-FINGERPRINT, in order."""
    keys = [f"{stage}-{fingerprint}" for stage, fingerprint in (job.stages or {}).items()]
    return [key for key in keys if key not in done]


def _stage_of(key: str) -> str:
    return key.rpartition("-")[0]


def _once(tasks: Sequence[Task]) -> list[Task]:
    return list({id(task): task for task in tasks}.values())


def _loaded_first(jobs: Sequence[Job]) -> list[Job]:
    """The jobs in an order in which each comes after those that it loads from.

    Raises:
        RobustokError: if arms load from each other.
    """
    ordered: list[Job] = []
    waiting = list(jobs)
    names = {job.name for job in jobs}
    while waiting:
        placed = {job.name for job in ordered}
        ready = [job for job in waiting if all(need in placed or need not in names for need in job.needs)]
        if not ready:
            what = f"arms load from each other: {', '.join(dict.fromkeys(job.arm for job in waiting))}"
            raise RobustokError(what, hint="break the circle of `load`")
        ordered += ready
        waiting = [job for job in waiting if job not in ready]
    return ordered
