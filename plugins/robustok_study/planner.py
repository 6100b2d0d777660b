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


@frozen(kw_only=True, eq=False)
class Wanted:
    """An arm with a seed, which is to be planned.

    Attributes:
        name: of its run. of: the arm. seed: its seed.
        loads: the run that makes each artifact that it loads, by the artifact's name.
    """

    name: str
    of: Arm
    seed: int
    loads: Mapping[str, str]
    needs: Sequence[str] = field(init=False)

    @needs.default
    def _needs(self) -> Sequence[str]:
        return list(dict.fromkeys(self.loads.values()))

    @property
    def arm(self) -> str:
        """The arm's name."""
        return self.of.name


class Planner:
    """Plans jobs. A data set that several of them read is opened once, and its images are decoded once.

    Args:
        out: the study's folder. registry: builds components.
        done: the stages that some run has finished, as NAME-FINGERPRINT, with that run.

    Attributes:
        wanted: every arm with every seed, seed by seed. jobs: those that are planned, by name.
    """

    def __init__(self, study: Study, out: Path, registry: Registry, done: Mapping[str, Path]) -> None:
        self._out, self._registry, self._done = out, registry, done
        self._built: dict[str, dict[str, Any]] = {}
        self._decoded: set[str] = set()
        self._promises: dict[str, Mapping[str, Promise]] = {}
        self.jobs: dict[str, Job] = {}
        self.wanted = [
            Wanted(
                name=run_name(arm.name, seed),
                of=arm,
                seed=seed,
                loads={
                    artifact: run_name(other, seed if fixed is None else fixed)
                    for artifact, (other, fixed) in arm.load.items()
                },
            )
            for seed in study.seeds
            for arm in study.arms
        ]

    def plan(self, wanted: Wanted, *, check_images: bool) -> None:
        """Plans a job whose `needs` are planned, as far as they could be.

        Raises:
            RobustokError: all that the checks of `robustok run` find, where something is loaded that is not made yet,
                by what the plan of the run that makes it says of it.
        """
        recipe, folder = wanted.of.at(wanted.seed, self._out), self._out / wanted.name
        resolved = recipe.resolve(self._registry)
        if check_images and all(need in self.jobs for need in wanted.needs):
            self._promises[wanted.name] = self._checked(resolved, SOME_IMAGES, self._awaited(wanted)).promises
        stages = None
        if all(need in self.jobs and self.jobs[need].state == "done" for need in wanted.needs) and _is_readable(folder):
            built = self._data_of(resolved)[1]
            stages = fingerprints(resolved, registry=self._registry, out=self._out, built=built)
        keys = [] if stages is None else [f"{stage}-{fingerprint}" for stage, fingerprint in stages.items()]
        finished = {stage_of_key(key): self._done[key] for key in keys if key in self._done}
        self.jobs[wanted.name] = Job(
            name=wanted.name,
            arm=wanted.arm,
            seed=wanted.seed,
            folder=folder,
            recipe=recipe,
            stages=stages,
            state=state_of(folder, stages),
            finished=finished,
            needs=wanted.needs,
        )

    def _checked(self, recipe: ResolvedRecipe, images: int, awaited: Mapping[str, Promise]) -> RecipePlan:
        """The plan of a recipe, after all checks; images of a data set are decoded once."""
        key, built = self._data_of(recipe)
        images = 0 if key in self._decoded else images
        plan = check(recipe, registry=self._registry, out=self._out, images=images, built=built, awaited=awaited)
        if images:
            self._decoded.add(key)
        return plan

    def _data_of(self, recipe: ResolvedRecipe) -> tuple[str, dict[str, Any]]:
        """What tells the data of recipes apart, and what is built of them."""
        data = recipe.tables.get("data")
        key = "" if data is None else fingerprint_of(data.table())
        return key, self._built.setdefault(key, {})

    def _awaited(self, wanted: Wanted) -> dict[str, Promise]:
        """The promises of what a job loads from runs that are not done."""
        found = {}
        for artifact, run in wanted.loads.items():
            if self.jobs[run].state == "done":
                continue
            promised = self._promised(run)
            if artifact not in promised:
                what = f"arm {wanted.arm!r} loads the {artifact} of arm {self.jobs[run].arm!r}, which has none"
                raise RobustokError(what, where=wanted.of.where, hint=f"it has: {', '.join(promised)}")
            found[artifact] = promised[artifact].once_loaded(self._stage_names(run))
        return found

    def _stage_names(self, run: str) -> dict[str, str]:
        """The stages of a planned job as other recipes call them: as NAME-FINGERPRINT, which equal ones share."""
        job = self.jobs[run]
        names = [stage.name for stage in job.recipe.resolve(self._registry).stages]
        return {name: f"{name} of {run}" if job.stages is None else f"{name}-{job.stages[name]}" for name in names}

    def _promised(self, run: str) -> Mapping[str, Promise]:
        """The promises of the artifacts that a planned job will have."""
        if run not in self._promises:
            wanted = next(one for one in self.wanted if one.name == run)
            recipe = self.jobs[run].recipe.resolve(self._registry)
            self._promises[run] = self._checked(recipe, 0, self._awaited(wanted)).promises
        return self._promises[run]


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
