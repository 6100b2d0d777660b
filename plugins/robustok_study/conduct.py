"""Carries a study out: its jobs, and its record after each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
from filelock import FileLock, Timeout

from robustok_core.errors import RobustokError, RunError
from robustok_core.recipe.registry import Registry
from robustok_core.runs.files import writing
from robustok_core.runs.runner import fingerprints
from robustok_study.jobs import Jobs
from robustok_study.plan import Job, Plan, Task
from robustok_study.record import StudyRecord, write_study
from robustok_study.results import gather
from robustok_study.slots import make_slots
from robustok_study.spec import Study
from robustok_study.tables import write_markdown

_LOCK = ".lock"


def progress_of(study: Study, plan: Plan) -> StudyRecord:
    """The record of a study as far as it is, without running anything."""
    return gather(study, plan.jobs, {})


def conduct(
    study: Study,
    plan: Plan,
    out: Path,
    *,
    jobs: int | None,
    registry: Registry,
    say: Callable[[str], None],
) -> StudyRecord:
    """Runs what is left of a study, and writes study.json and study.md after each task.

    Args:
        out: the study's folder. jobs: at once, see `make_slots`. say: prints a line.

    Raises:
        RobustokError: if another command conducts it.
        Interrupted: if it was asked to stop.
    """
    slots = make_slots(jobs, study.config.threads, len(plan.jobs))
    current = {job.name: job for job in plan.jobs}

    def record(failed: dict[str, str]) -> StudyRecord:
        found = gather(study, list(current.values()), failed)
        write_study(out, found)
        write_markdown(out, found)
        return found

    def finished(task: Task) -> None:
        if task.until is None:
            current[task.job.name] = _with_stages(task.job, out, registry)
            record({})

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / _LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        hint = "wait for it; `robustok study FILE --show` prints what is done"
        raise RobustokError("another command conducts this study", where=str(out), hint=hint) from error
    try:
        if plan.tasks:
            say(f"{len(plan.tasks)} tasks, {len(slots)} at once, in {out}")
        failures = Jobs(out, slots, say, finished).run(plan.tasks)
        return record({failure.task.job.name: failure.what for failure in failures})
    finally:
        lock.release()


def _with_stages(job: Job, out: Path, registry: Registry) -> Job:
    """A job whose fingerprints are known, now that what it loads exists."""
    if job.stages is not None:
        return job
    try:
        return attrs.evolve(job, stages=fingerprints(job.recipe.resolve(registry), registry=registry, out=out))
    except RunError:
        return job
