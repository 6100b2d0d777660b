"""`robustok study`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from robustok_core.cli.completion import STUDY
from robustok_core.values.terminal import echo, echo_json, make_console, print_table, say

if TYPE_CHECKING:
    from rich.console import Console

    from robustok_study.plan import Plan, Task
    from robustok_study.planner import Job
    from robustok_study.record import StudyRecord


@click.command()
@click.argument("file", type=STUDY)
@click.option("--quick", is_flag=True, help="Everything small, as the table [quick] of the file says: does it work?")
@click.option("--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Holds its folder.")
@click.option("--jobs", type=click.IntRange(min=1), help="Runs at once; default: one on each GPU, or else each core.")
@click.option(
    "--reuse",
    "places",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A run, a folder of runs (another study's), or a study.json: take what is finished there and has the same "
    "fingerprint: stages, or, of a study.json alone, results.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, and print the jobs and what is done of them.")
@click.option("--show", is_flag=True, help="Print what is known so far; nothing runs.")
@click.option("--json", "as_json", is_flag=True, help="Print study.json instead of a table.")
def study(
    file: str,
    quick: bool,
    out: Path,
    jobs: int | None,
    places: tuple[Path, ...],
    dry_run: bool,
    show: bool,
    as_json: bool,
) -> None:
    """Run the study in FILE, or a bundled one: arms of a recipe with the same seeds; do their differences hold?

    Example: `robustok study claims --quick`

    Finished runs are skipped, and interrupted ones resume. The results are in OUT/NAME/study.json and study.md.
    """
    from robustok_core.recipe.registry import load_registry
    from robustok_study.conduct import check_folder, conduct, progress_of
    from robustok_study.known import reused
    from robustok_study.plan import make_plan
    from robustok_study.spec import read_study_file

    if dry_run and (show or as_json):
        raise click.UsageError(f"--dry-run prints the jobs; leave out {'--show' if show else '--json'}.")
    if jobs is not None and (dry_run or show):
        raise click.UsageError(f"{'--dry-run' if dry_run else '--show'} runs nothing; leave out --jobs.")
    registry, console = load_registry(), make_console()
    read = read_study_file(file, registry, quick=quick)
    folder = out / read.name
    check_folder(read, folder)
    reuse = reused(places, folder)
    plan = make_plan(read, folder, registry, checks=not show, reuse=reuse)
    if dry_run:
        _print_plan(console, plan)
        for note in read.notes:
            say(console, f"note: {note}")
    elif show:
        if not folder.is_dir():
            echo(f"note: there is no folder {folder}: nothing of this study has run there", err=True)
        _print(console, progress_of(read, plan, folder), as_json)
    else:
        record = conduct(
            read,
            plan,
            folder,
            jobs=jobs,
            registry=registry,
            say=lambda line: echo(line, err=as_json),
            reuse=reuse.folders,
        )
        _print(console, record, as_json)
        if not as_json:
            say(console, f"study: {folder}; `robustok report {quote(str(folder))}` shows it in one page")
        _fail_if_incomplete(record)


def _print(console: Console, record: StudyRecord, as_json: bool) -> None:
    import attrs

    from robustok_study.tables import print_study

    if as_json:
        echo_json(attrs.asdict(record))
    else:
        print_study(console, record)


def _print_plan(console: Console, plan: Plan) -> None:
    tasks = {id(task.job): task for task in plan.tasks}
    rows = []
    for job in plan.jobs:
        unknown = job.stages is None and job.state != "new"  # what it loads may be made anew
        done = "?" if unknown else str(len(job.finished))
        state = job.state if job.known is None else "known"
        takes = "; ".join(_taken(job, tasks.get(id(job))))
        rows.append([job.name, state, f"{done} of {len(job.recipe.source.table['stage'])}", takes])
    print_table(console, ["job", "state", "stages done", "takes"], rows)
    say(console, f"left: {plan.left}")


def _taken(job: Job, task: Task | None) -> list[str]:
    """What a job takes of each other run, and the jobs that it waits for."""
    if job.known is not None:
        return [f"results of study {job.known.study}"]
    stages: dict[str, list[str]] = {}
    for stage, maker in (task.shared if task is not None else {}).items():
        stages.setdefault(maker, []).append(stage)
    for stage, run in (job.finished if job.is_left else {}).items():
        if run != job.folder:
            stages.setdefault(_of(run, job), []).append(stage)
    taken = [f"{', '.join(names)} of {maker}" for maker, names in stages.items()]
    return taken + ([f"waits for {need}" for need in job.needs] if job.stages is None else [])


def _of(run: Path, job: Job) -> str:
    """A run that a job takes stages of: its name, if it is of the same study, or else its folder."""
    return run.name if run.parent == job.folder.parent else str(run)


def _fail_if_incomplete(record: StudyRecord) -> None:
    from robustok_core.errors import RunError, raise_all
    from robustok_core.values.wording import some_names

    problems = [
        RunError(f"{run.folder} failed: {run.problem}", hint="the same command tries again, and keeps what is done")
        for run in record.runs
        if run.problem is not None
    ]
    if missing := [run.folder for run in record.runs if run.state != "done" and run.problem is None]:
        hint = "the same command goes on"
        problems.append(RunError(f"not finished: {some_names(missing)}", where=record.file, hint=hint))
    problems += [
        RunError(f"the metric {metric.label} cannot be shown: {metric.problem}", where=record.file)
        for metric in record.metrics
        if not metric.has_values
    ]
    problems += [
        RunError(f"the metric {metric.label} has no value for the arm {arm}: {why}", where=record.file)
        for metric in record.metrics
        for arm, why in metric.left_out.items()
    ]
    raise_all(problems)
