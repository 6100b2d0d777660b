"""Carries a study out: its jobs, and its record after each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import attrs
from filelock import Timeout

from robustok_core.errors import RobustokError, RunError
from robustok_core.recipe.registry import Registry
from robustok_core.runs.files import writing
from robustok_core.runs.fingerprinting import fingerprints
from robustok_core.runs.locks import NOT_KEPT_APART, lock_of
from robustok_core.runs.manifest import DAMAGED, set_aside
from robustok_core.runs.run_record import RUN_FILE, is_run, read_run
from robustok_core.values.wording import some_names
from robustok_study.jobs import RECIPES, Failure, Jobs
from robustok_study.plan import Plan, Task
from robustok_study.planner import Job
from robustok_study.record import STUDY_FILE, StudyRecord, is_study, read_study, write_study
from robustok_study.results import arm_record, gather, without_value
from robustok_study.slots import make_slots
from robustok_study.spec import Study
from robustok_study.tables import write_markdown

_LOCK = ".lock"
_ANOTHER = "its code, data or precision is another than when the study began; the same command looks again"


def check_folder(study: Study, out: Path) -> None:
    """Refuses to take the folder of something else.

    Args:
        out: the study's folder, which need not exist.

    Raises:
        RobustokError: it is that of a run or of another study, or holds other files.
    """
    hint = "give the study another name, or choose another --out"
    if is_run(out):
        raise RobustokError("this is the folder of a run", where=str(out), hint=hint)
    names = {path.name for path in out.iterdir() if not path.name.startswith(DAMAGED)} if out.is_dir() else set()
    names -= {_LOCK}
    if names and not names & {STUDY_FILE, RECIPES}:
        raise RobustokError(f"this folder holds other files: {some_names(sorted(names))}", where=str(out), hint=hint)
    if is_study(out):
        try:
            before = read_study(out)
        except RobustokError:  # it is set aside, and written anew
            return
        other = Path(before.file)
        if before.quick != study.quick or (other.is_file() and not _is_same(other, study.file)):
            what = f"this folder holds the results of {before.file}{', run with --quick' if before.quick else ''}"
            raise RobustokError(what, where=str(out), hint=hint)


def _is_same(one: Path, other: Path) -> bool:
    return one.samefile(other) or one.read_bytes() == other.read_bytes()


def progress_of(study: Study, plan: Plan, out: Path) -> StudyRecord:
    """The record of a study as far as it is, without running anything; `out`: the study's folder."""
    return gather(study, plan.jobs, _Failures(study, out, plan.jobs).known())


def conduct(
    study: Study,
    plan: Plan,
    out: Path,
    *,
    jobs: int | None,
    registry: Registry,
    say: Callable[[str], None],
    reuse: Sequence[Path] = (),
) -> StudyRecord:
    """Runs what is left of a study, and writes study.json and study.md before the first job and after each.

    Args:
        out: the study's folder. jobs: at once, see `make_slots`. say: prints a line.
        reuse: other runs, or folders of runs, whose finished stages are taken where they are equal.

    Raises:
        RobustokError: if another command conducts it.
        Interrupted: if it was asked to stop.
    """
    slots = make_slots(jobs, study.config.threads, len(plan.jobs))
    current = {job.name: job for job in plan.jobs}
    notes = _Notes(study, say)

    def record() -> StudyRecord:
        found = gather(study, list(current.values()), failures.known())
        write_study(out, found)
        write_markdown(out, found)
        return found

    def ended(task: Task, failure: Failure | None) -> None:
        if failure is not None:
            failures.add(failure)
            record()
        elif task.until is None:
            current[task.job.name] = job = _with_stages(task.job, out, registry)
            if _is_another(job):
                say(f"{job.name}: {_ANOTHER}")
                failures.add(Failure(task=task, what=_ANOTHER, log=None))
            record()
            notes.tell(job)

    with _taken(out, say):
        failures = _Failures(study, out, plan.jobs)
        if (kept := _set_aside_if_damaged(out)) is not None:
            say(f"note: {kept}")
        if plan.tasks:
            say(f"{plan.left}, {len(slots)} at once, in {out}")
            for note in study.notes:
                say(f"note: {note}")
        record()  # so that no other study takes the folder
        try:
            Jobs(out, slots, say, ended, reuse).run(plan.tasks)
        finally:
            found = record()
        return found


@contextmanager
def _taken(out: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keeps other commands from conducting the study of this folder, which is made if it is missing."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = lock_of(out / _LOCK)
    if lock is None:
        say(f"note: {out}: {NOT_KEPT_APART}")
    try:
        held = nullcontext() if lock is None else lock.acquire(blocking=False)
    except Timeout as error:
        hint = "wait for it; `robustok study FILE --show` prints what is done"
        raise RobustokError("another command conducts this study", where=str(out), hint=hint) from error
    with held:
        yield


def _set_aside_if_damaged(out: Path) -> str | None:
    """Renames a study.json that cannot be read; returns what there is to say of it."""
    if not is_study(out):
        return None
    try:
        read_study(out)
    except RobustokError as error:
        kept = set_aside(out / STUDY_FILE)
        return f"{out / STUDY_FILE} cannot be read ({error.what}); it is written anew, and the old one is now {kept}"
    return None


class _Notes:
    """Says which metrics have no value for an arm, when its first run shows it; not when all have run.

    Args:
        say: prints a line.
    """

    def __init__(self, study: Study, say: Callable[[str], None]) -> None:
        self._study, self._say, self._told = study, say, set[tuple[str, str]]()

    def tell(self, job: Job) -> None:
        """Looks at a job that has ended."""
        for label, why in without_value(self._study, job).items():
            if (job.arm, label) not in self._told:
                self._told.add((job.arm, label))
                self._say(f"note: {label}: the arm {job.arm} has no value: {why}")


class _Failures:
    """Why jobs failed, by the name of their run: what study.json says, until a run goes on, and what is added.

    Args:
        study: as its file is now. out: its folder. jobs: of it.
    """

    def __init__(self, study: Study, out: Path, jobs: Sequence[Job]) -> None:
        self._out, self._added = out, dict[str, str]()
        self._before, self._since = _recorded(study, out, jobs)

    def add(self, failure: Failure) -> None:
        """Notes a failure; a job that was not started for another one's failure has its own reason, if it has one."""
        name = failure.task.job.name
        if failure.log is not None or name not in self._added:
            self._added[name] = failure.what

    def known(self) -> dict[str, str]:
        """All that still holds."""
        return {name: what for name, what in self._before.items() if not self._went_on(name)} | self._added

    def _went_on(self, name: str) -> bool:
        try:
            return (self._out / name / RUN_FILE).stat().st_mtime_ns > self._since
        except OSError:
            return False


def _recorded(study: Study, out: Path, jobs: Sequence[Job]) -> tuple[dict[str, str], int]:
    """Why jobs that are not done failed, as study.json says, and when it was written."""
    try:
        record, since = read_study(out), (out / STUDY_FILE).stat().st_mtime_ns
    except (RobustokError, OSError):  # it is written anew
        return {}, 0
    left, now = {job.name: job.stages for job in jobs if job.is_left}, [arm_record(arm) for arm in study.arms]
    arms = {arm.name: arm for arm in record.arms}
    same = [
        run
        for run in record.runs
        if run.folder in left
        # A job that loads from others has no fingerprints until these are done: none were recorded when it failed.
        and (dict(run.stages) == dict(left[run.folder] or {}) or (not run.stages and arms.get(run.arm) in now))
    ]
    return {run.folder: run.problem for run in same if run.problem is not None}, since


def _with_stages(job: Job, out: Path, registry: Registry) -> Job:
    """A job whose fingerprints are known, now that what it loads exists."""
    if job.stages is not None:
        return job
    try:
        return attrs.evolve(job, stages=fingerprints(job.recipe.resolve(registry), registry=registry, out=out))
    except RunError:
        return job


def _is_another(job: Job) -> bool:
    """Whether the run of a job that ended well has other fingerprints than were planned."""
    try:
        return job.stages is not None and read_run(job.folder).get("current") != job.stages
    except RunError:
        return False
