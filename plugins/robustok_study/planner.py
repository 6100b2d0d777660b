"""Plans the jobs of a study, each after those that it loads from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from attrs import field, frozen

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.promise import Promise
from robustok_core.recipe.recipe import Recipe, ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.runs.checking import SOME_IMAGES, check
from robustok_core.runs.fingerprinting import fingerprints
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.runs.plan import Plan as RecipePlan
from robustok_core.runs.results import read_results
from robustok_core.runs.run_record import is_run, read_run
from robustok_core.values.spec import run_name
from robustok_study.arms import Arm
from robustok_study.known import KnownRun
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


@frozen(eq=False)
class Wanted:
    """An arm with a seed, which is to be planned.

    Attributes:
        of: the arm. seed: its seed. name: of its run.
        loads: the run that makes each artifact that it loads, by the artifact's name. needs: those runs.
    """

    of: Arm
    seed: int
    name: str = field(init=False)
    loads: Mapping[str, str] = field(init=False)
    needs: Sequence[str] = field(init=False)

    @name.default
    def _name(self) -> str:
        return run_name(self.of.name, self.seed)

    @loads.default
    def _loads(self) -> Mapping[str, str]:
        return {
            artifact: run_name(arm, self.seed if fixed is None else fixed)
            for artifact, (arm, fixed) in self.of.load.items()
        }

    @needs.default
    def _needs(self) -> Sequence[str]:
        return list(dict.fromkeys(self.loads.values()))

    @property
    def arm(self) -> str:
        """The arm's name."""
        return self.of.name


class Planner:
    """Plans the jobs of a study. A data set that several read is opened once, and its images are decoded once.

    Args:
        out: the study's folder. registry: builds components.
        done: the stages that some run has finished, as NAME-FINGERPRINT, with that run.
        checks: whether recipes are checked as `robustok check` does; of the first seed, because seeds differ in nothing
            that is checked.

    Attributes:
        wanted: every arm with every seed by the name of its run, seed by seed.
        jobs: those that are planned, by name.
        problems: what is wrong, by its text, with the names of the arms that have it.
    """

    def __init__(self, study: Study, out: Path, registry: Registry, done: Mapping[str, Path], *, checks: bool) -> None:
        self._out, self._registry, self._done, self._checks = out, registry, done, checks
        self._built: dict[str, dict[str, Any]] = {}
        self._decoded: set[str] = set()
        self._plans: dict[str, RecipePlan | None] = {}
        self._first_seed = study.seeds[0]
        self.jobs: dict[str, Job] = {}
        self.problems: dict[str, tuple[RobustokError, list[str]]] = {}
        wanted = [Wanted(arm, seed) for seed in study.seeds for arm in study.arms]
        self.wanted = {one.name: one for one in wanted}

    def plan_all(self) -> None:
        """Plans every job after those that it loads from.

        Raises:
            RobustokError: if arms load from each other.
        """
        loaded_from = {need for one in self.wanted.values() for need in one.needs}
        for one in loaded_first(list(self.wanted.values())):
            if self._checks and one.seed == self._first_seed:
                self._checked(one)
            if one.name not in loaded_from:  # a plan holds the weights of published checkpoints that it loads
                self._plans.pop(one.name, None)
            if any(one.arm in arms for _, arms in self.problems.values()):
                continue  # its fingerprints would say the same again
            try:
                self.jobs[one.name] = self._job(one)
            except RobustokError as error:
                self._note(one, error)

    def _note(self, wanted: Wanted, error: RobustokError) -> None:
        for problem in error.problems:
            arms = self.problems.setdefault(str(problem), (problem, []))[1]
            if wanted.arm not in arms:
                arms.append(wanted.arm)

    def _job(self, wanted: Wanted) -> Job:
        recipe, folder = wanted.of.at(wanted.seed, self._out), self._out / wanted.name
        stages = None
        if all(need in self.jobs and self.jobs[need].state == "done" for need in wanted.needs) and _is_readable(folder):
            resolved = recipe.resolve(self._registry)
            built = self._data_of(resolved)[1]
            try:
                stages = fingerprints(resolved, registry=self._registry, out=self._out, built=built)
            except RobustokError:  # what it loads may be gone or damaged, which its run says; the others need not wait
                if not wanted.needs:
                    raise
        keys = [] if stages is None else [f"{stage}-{fingerprint}" for stage, fingerprint in stages.items()]
        return Job(
            name=wanted.name,
            arm=wanted.arm,
            seed=wanted.seed,
            folder=folder,
            recipe=recipe,
            stages=stages,
            state=state_of(folder, stages),
            finished={stage_of_key(key): self._done[key] for key in keys if key in self._done},
            needs=wanted.needs,
        )

    def _checked(self, wanted: Wanted) -> RecipePlan | None:
        """The plan of a job's recipe after its checks; None if something is wrong with it, or with what it loads.

        What it loads from other jobs is taken as their plans promise it, whether it is made or not.
        """
        if wanted.name not in self._plans:
            self._plans[wanted.name] = None
            try:
                awaited = self._awaited(wanted)
                if awaited is not None:
                    self._plans[wanted.name] = self._check(wanted, awaited)
            except RobustokError as error:
                self._note(wanted, error)
        return self._plans[wanted.name]

    def _awaited(self, wanted: Wanted) -> dict[str, Promise] | None:
        """The promises of what a job loads from others; None if one of those has no plan, or no promise of it."""
        found = {}
        for artifact, run in wanted.loads.items():
            plan = self._checked(self.wanted[run]) if run in self.wanted else None
            if plan is None:
                return None
            if artifact not in plan.promises:
                what = f"it loads the {artifact} of arm {self.wanted[run].arm!r}, which has none"
                where = wanted.of.recipe.source.location(("load", artifact))
                raise RobustokError(what, where=where, hint=f"it has: {', '.join(plan.promises)}")
            promise = plan.promises[artifact]
            if type(promise) is Promise:  # a stage need not say what it makes
                return None
            found[artifact] = promise.once_loaded()
        return found

    def _check(self, wanted: Wanted, awaited: Mapping[str, Promise]) -> RecipePlan:
        recipe = wanted.of.at(wanted.seed, self._out).resolve(self._registry)
        key, built = self._data_of(recipe)
        images = 0 if key in self._decoded else SOME_IMAGES
        plan = check(recipe, registry=self._registry, out=self._out, images=images, built=built, awaited=awaited)
        self._decoded.add(key)
        return plan

    def _data_of(self, recipe: ResolvedRecipe) -> tuple[str, dict[str, Any]]:
        """What tells the data of recipes apart, and what is built of them."""
        data = recipe.tables.get("data")
        key = "" if data is None else fingerprint_of(data.table())
        return key, self._built.setdefault(key, {})


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


def stage_of_key(key: str) -> str:
    """The stage of NAME-FINGERPRINT."""
    return key.rpartition("-")[0]


class _Loading(Protocol):
    """What loads from others, by name."""

    @property
    def name(self) -> str: ...
    @property
    def arm(self) -> str: ...
    @property
    def needs(self) -> Sequence[str]: ...


JobT = TypeVar("JobT", bound=_Loading)


def loaded_first(jobs: Sequence[JobT]) -> list[JobT]:
    """The jobs in an order in which each comes after those that it loads from.

    Raises:
        RobustokError: if arms load from each other.
    """
    ordered: list[JobT] = []
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
