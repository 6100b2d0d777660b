"""Looks again into the step at which a stage's training stopped because something was not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.stage import NOT_FINITE_FILE
from robustok_core.recipe.recipe import NamedStage
from robustok_core.runs.context import RunContext
from robustok_core.runs.execution import run_stage
from robustok_core.runs.folder import RunFolder


def check_replay(folder: RunFolder, due: Sequence[NamedStage], planned: Mapping[str, str]) -> None:
    """Refuses a replay if there is nothing to replay, before anything in the folder changes.

    Args:
        folder: the run. due: the stages that must run, in order. planned: the fingerprint of each by name.

    Raises:
        RobustokError: no stage is due, or the first of them has not stopped at a step that was not finite.
    """
    if not due:
        what = "every stage is done: no training stopped because of a value that was not finite"
        hint = "--replay is for the step named by such a message; there is nothing to do"
    elif not list(folder.checkpoints(due[0].name, planned[due[0].name]).rglob(NOT_FINITE_FILE)):
        what = f"the next stage, {due[0].name!r}, has not stopped because of a value that was not finite"
        hint = f"to go on with it: `robustok run {folder.path}`, without --replay"
    else:
        return
    raise RobustokError(what, where=str(folder.path), hint=hint)


def replay(stage: NamedStage, context: RunContext) -> NoReturn:
    """Runs a stage in a context whose `replay` is set; its training raises what it finds.

    Raises:
        RunError: what was found.
    """
    run_stage(stage, context)
    raise RunError(f"stage {stage.name!r} came to its end", hint="run it without --replay")
