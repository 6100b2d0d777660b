"""What to say where a path should be a run's folder and is not: the run whose name is close, or how to make one."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from robustok_core.errors import RobustokError
from robustok_core.recipe.source import bundled_recipes
from robustok_core.runs.run_record import is_run
from robustok_core.values.wording import some_names

RUNS = Path("runs")


def no_run(path: Path) -> RobustokError:
    """The error for a path that should be a run's or an artifact's folder."""
    what = "this is not a run folder" if path.exists() else "there is no such run or artifact"
    return RobustokError(what, where=str(path), hint=run_hint(path))


def run_hint(path: Path) -> str:
    """The run that may be meant, or those that there are, or how to make one."""
    if (run := run_called(path)) is not None:
        return f"did you mean {run}?"
    runs = _runs_near(path)
    if close := get_close_matches(path.name, [run.name for run in runs], n=1):
        return f"did you mean {next(run for run in runs if run.name == close[0])}?"
    made = f"`robustok run {path.name}` makes {RUNS / path.name}; " if path.name in bundled_recipes() else ""
    there = f"; there are {some_names([str(run) for run in runs])}" if runs else ""
    return f"{made}name the folder of a run, which is runs/NAME, or of an artifact in it{there}"


def run_called(path: Path) -> Path | None:
    """The run of this very name in runs/ or beside the path, if there is one."""
    return next((run for run in _runs_near(path) if run.name == path.name), None)


def _runs_near(path: Path) -> list[Path]:
    """The runs in runs/, in the folder of the path and in runs/ there."""
    found: dict[Path, Path] = {}
    for parent in (RUNS, path.parent, path.parent / RUNS):
        try:
            folders = sorted(entry.name for entry in os.scandir(parent) if entry.is_dir())
        except (OSError, ValueError):
            continue
        for run in (parent / name for name in folders):
            if run != path and is_run(run):
                found.setdefault(run.resolve(), run)
    return list(found.values())
