"""Runs one stage of a recipe and records what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from robustok_core.errors import Interrupted, RobustokError, RunError
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import NOT_FINITE_FILE
from robustok_core.recipe.recipe import NamedStage
from robustok_core.runs.context import RunContext
from robustok_core.runs.failures import named_failures
from robustok_core.runs.files import remove_folder
from robustok_core.runs.manifest import DAMAGED, MANIFEST
from robustok_core.runs.memory import MemoryRanOutError, capacity_of, with_what_fits
from robustok_core.runs.plan import Plan
from robustok_core.runs.provenance import now, peak_memory
from robustok_core.runs.results import tables_of
from robustok_core.values.devices import repeatable
from robustok_core.values.result import Result


def execute(
    stage: NamedStage,
    context: RunContext,
    entry: dict[str, Any],
    *,
    promised: Mapping[str, Promise],
    save: Callable[[], None],
    plan: Callable[[], Plan],
) -> None:
    """Runs a stage, checks what it made, and records its state and results.

    Args:
        stage: what to run. context: its context.
        entry: its entry in run.json, which is changed.
        promised: what the stage promised of each artifact, which later stages were checked against.
        save: writes run.json.
        plan: plans the recipe again, for the message of memory that ran out.

    Raises:
        Interrupted: the user asked to stop; the message says how to go on.
        RobustokError: the stage failed, or it has not made what it promised.
    """
    began, before = time.monotonic(), entry["seconds"]
    main = context.accelerator.is_main_process
    entry |= {"state": "running", "started": now()}
    save()
    try:
        if main:
            context.notify("robustok_stage_started", stage=stage.name)
        results = _results(stage, context, plan)
        _check_promised(stage, context, promised)
        entry["results"] = tables_of(results)
        entry["state"] = "done"
    except KeyboardInterrupt as error:
        entry["state"] = "interrupted"
        raise Interrupted(f"stopped in stage {stage.name!r}", hint=_go_on(context)) from error
    except Interrupted as error:
        entry["state"] = "interrupted"
        raise Interrupted(error.what, hint=_go_on(context)) from error
    except BaseException:
        entry["state"] = "failed"
        raise
    finally:
        entry |= {"finished": now(), "seconds": round(before + time.monotonic() - began, 2)}
        entry["peak_memory_gib"] = round(peak_memory(), 3)
        save()
    context.accelerator.wait_for_everyone()
    if main:
        if context.discards:
            remove_folder(context.checkpoints)
        context.notify("robustok_stage_finished", stage=stage.name, results=results)


def run_stage(stage: NamedStage, context: RunContext) -> Any:
    """Runs a stage and returns what its `run` returns; on a CPU, several threads compute the same bits each time.

    Raises:
        KeyboardInterrupt: the user asked to stop.
        RobustokError: the stage failed.
    """
    with named_failures(stage.name, context.location()), repeatable(context.device):
        return stage.spec.build().run(context)


def _results(stage: NamedStage, context: RunContext, plan: Callable[[], Plan]) -> dict[str, Result]:
    try:
        values = run_stage(stage, context)
    except MemoryRanOutError as error:
        about: dict[str, Any] = {"stage": stage.name, "config": stage.spec.config, "where": context.location()}
        cost = lambda: next(planned.cost() for planned in plan().stages if planned.name == stage.name)  # noqa: E731
        about |= {"capacity": capacity_of(context.device), "divided": context.divides_weights}
        raise with_what_fits(error, cost, **about) from error
    try:
        return {name: Result.of(value) for name, value in values.items()}
    except (AttributeError, RobustokError, TypeError, ValueError) as error:
        what = f"the `run` of stage {stage.name!r} must return numbers or Results by name, found {values!r}"
        raise RunError(what) from error


def _check_promised(stage: NamedStage, context: RunContext, promised: Mapping[str, Promise]) -> None:
    for artifact, promise in promised.items():
        folder = context.folder.artifact(artifact, context.fingerprint)
        if not folder.exists():
            hint = f"`run` of the stage's class must fill the folder of context.making({artifact!r})"
            raise RunError(f"stage {stage.name!r} has not made the {artifact}", where=context.location(), hint=hint)
        if type(promise) is Promise:
            continue
        made = type(promise).of_artifact(folder, context.registry)
        if made.describe() != promise.describe():
            what = f"stage {stage.name!r} promised {promise.describe()!r} of the {artifact} and made"
            hint = "mend the `plan` of the stage's class"
            raise RunError(f"{what} {made.describe()!r}", where=context.location(), hint=hint)


def _go_on(context: RunContext) -> str:
    effect = "resumes from the last checkpoint" if _has_checkpoint(context) else "starts this stage again"
    name, own = context.folder.path.name, context.recipe.run.name
    other = "" if name == own else f", with --set run.name={name} instead of --fresh,"
    return f"the same command{other} {effect}: {context.folder.path}"


def _has_checkpoint(context: RunContext) -> bool:
    """Whether a checkpoint, or a shard of what the stage makes, is complete; earlier versions wrote no manifest."""
    folder = context.checkpoints
    complete = folder.rglob(f"*{MANIFEST}" if context.manifests else "*")
    return any(
        path.is_file() and path.name != NOT_FINITE_FILE
        for path in complete
        if not any(part.startswith((".", DAMAGED)) for part in path.relative_to(folder).parts)
    )
