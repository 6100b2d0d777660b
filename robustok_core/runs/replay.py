"""Looks again into the step at which a stage's training stopped because something was not finite."""

from __future__ import annotations

from typing import NoReturn

from robustok_core.errors import RobustokError, RunError
from robustok_core.kinds.stage import NOT_FINITE_FILE
from robustok_core.recipe.recipe import NamedStage
from robustok_core.runs.context import RunContext
from robustok_core.runs.failures import named_failures


def replay(stage: NamedStage, context: RunContext) -> NoReturn:
    """Runs a stage in a context whose `replay` is set; its training raises what it finds.

    Raises:
        RunError: what was found.
        RobustokError: the stage has not stopped at such a step.
    """
    if not list(context.checkpoints.rglob(NOT_FINITE_FILE)):
        what = f"stage {stage.name!r} has not stopped at a step that was not finite"
        raise RobustokError(what, where=str(context.folder.path), hint="run it without --replay")
    with named_failures(stage.name, context.location()):
        stage.spec.build().run(context)
    raise RunError(f"stage {stage.name!r} came to its end", hint="run it without --replay")
