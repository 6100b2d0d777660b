"""`robustok history`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from robustok_core.values.terminal import echo

if TYPE_CHECKING:
    from robustok_core.runs.history import PastRecipe


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def history(run: Path) -> None:
    """List the earlier recipes of a RUN's folder: what was different, and where their results and artifacts lie."""
    from robustok_core.runs.history import past_recipes
    from robustok_core.runs.near_runs import no_run
    from robustok_core.runs.run_record import is_run

    if not is_run(run):
        raise no_run(run)
    recipes = past_recipes(run)
    for recipe in recipes:
        for line in _described(recipe):
            echo(line)
    if not recipes:
        echo("this folder has held one recipe only")


def _described(past: PastRecipe) -> list[str]:
    lines = [f"{past.number}  replaced {past.replaced}", "  now different:", *(f"    {line}" for line in past.changes)]
    lines.append(f"  recipe: {past.recipe or 'as it is now'}")
    lines.append(f"  results: {past.results or 'none'}")
    lines += [f"  loaded: {name} of {place}" for name, place in past.loaded.items()]
    if past.artifacts is None:
        lines.append("  artifacts: not recorded (an earlier version of robustok ran it)")
    else:
        lines += [f"  artifact: {folder} ({_size(folder)})" for folder in past.artifacts] or ["  artifacts: none"]
    return lines


def _size(folder: Path) -> str:
    size = float(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
