"""`robustok verify`."""

from __future__ import annotations

from pathlib import Path

import click

from robustok_core.values.terminal import echo


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def verify(run: Path) -> None:
    """Compare every file of a RUN (a run's or an artifact's folder) with what was recorded when it was written.

    Damaged files are named, and the exit code is 1. The recipe that made a damaged artifact makes it again.
    """
    from robustok_core.errors import RunError
    from robustok_core.runs.verify import verified

    damaged = total = 0
    for checked in verified(run):
        total += 1
        damaged += checked.damaged
        echo(f"{checked.path}: {checked.what}")
    if damaged:
        hint = "run the recipe that made it: the stage of a damaged artifact runs again"
        raise RunError(f"{damaged} of {total} are damaged", where=str(run), hint=hint)
