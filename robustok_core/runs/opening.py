"""Recipes as commands name them: a file, a bundled recipe, or the folder of a run."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import attrs

from robustok_core.errors import RobustokError
from robustok_core.recipe.recipe import Recipe, ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.recipe.source import read_source
from robustok_core.runs.history import RECIPE_COPY, RECIPE_FILE
from robustok_core.runs.near_runs import RUNS, run_called, run_hint
from robustok_core.runs.run_record import is_run, read_run
from robustok_core.values.wording import short

_log = logging.getLogger(__name__)


def open_recipe(name: str, *, overrides: Sequence[str] = (), presets: Sequence[str] = ()) -> tuple[Recipe, Path | None]:
    """Reads a recipe; from a run's folder, the one that the folder holds, which also goes on after it is renamed.

    Args:
        name: a path, the name of a bundled recipe, or a run's folder.
        overrides, presets: as in `Recipe.load`.

    Returns:
        The recipe, and the folder that holds the run's folder; None if `name` is not a run's folder.

    Raises:
        RobustokError: as `Recipe.load`.
    """
    path = Path(name)
    if not _is_run(path):
        return _loaded(name, overrides, presets), None
    folder = path if path.name not in ("", "..") else path.resolve()  # paths are printed as they were given
    file = readable_recipe(folder)
    recipe = Recipe.load(file, overrides=(f"run.name={json.dumps(folder.name)}", *overrides), presets=presets)
    return attrs.evolve(recipe, is_of_run=not overrides and not presets), folder.parent


def _loaded(name: str, overrides: Sequence[str], presets: Sequence[str]) -> Recipe:
    """A recipe by file or bundled name; where that is no recipe, says if it is the name of a run."""
    try:
        return Recipe.load(name, overrides=overrides, presets=presets)
    except RobustokError as error:
        path = Path(name)
        if error.where is None and (run := run_called(path)) is not None:
            raise RobustokError(error.what, hint=f"did you mean the run {run}?") from error
        if error.where is None and path.parent == RUNS:
            raise RobustokError(f"{error.what}, and no run", hint=run_hint(path)) from error
        raise


def readable_recipe(run: Path) -> Path:
    """The recipe of a run's folder: recipe.toml, or its copy where that is damaged or gone.

    Raises:
        RobustokError: both are; the hint says which command writes it again.
    """
    file, copy = run / RECIPE_FILE, run / RECIPE_COPY
    try:
        _check_recipe(file)
    except RobustokError as error:
        try:
            _check_recipe(copy)
        except RobustokError:
            raise RobustokError(error.what, where=error.where, hint=_way_out(run)) from error
        _log.warning("%s is damaged (%s); its copy is used", file, error.what)
        return copy
    return file


def _check_recipe(file: Path) -> None:
    if "stage" not in read_source(file).table:
        raise RobustokError("this is no recipe of a run: it has no stages", where=str(file))


def _is_run(path: Path) -> bool:
    try:
        return os.path.isfile(path / RECIPE_FILE) or is_run(path)  # noqa: PTH113 (False, too, for an impossible path)
    except ValueError:
        return False


def _way_out(run: Path) -> str:
    """How a recipe.toml without a copy is had again: by the command that made the run."""
    try:
        entries = read_run(run)["stages"].values()
    except RobustokError:
        entries = ()
    commands = [made.get("command") for entry in entries for made in entry.get("made_with", [])]
    for command in commands:
        if isinstance(command, list) and command[:1] == ["run"] and not _names(command, run):
            return f"the run was made by `robustok {shlex.join(map(str, command))}`, which writes it again"
    return f"run the recipe that made it with --set run.name={run.name} --out {run.parent}, which writes it again"


def _names(command: Sequence[object], run: Path) -> bool:
    """Whether a command names the run's folder instead of a recipe."""
    return any(Path(str(word)).name == run.name and "=" not in str(word) for word in command[1:2])


def resolved_recipe(recipe: Recipe | ResolvedRecipe, registry: Registry) -> ResolvedRecipe:
    """A recipe, resolved if it is not yet.

    Raises:
        RobustokError: if a program gave something else; and as `Recipe.resolve`.
    """
    if not isinstance(recipe, (Recipe, ResolvedRecipe)):
        hint = 'Recipe.load("main_train") reads one, Recipe.from_table({...}) makes one'
        raise RobustokError(f"expected a Recipe, found {short(recipe)}", where="recipe", hint=hint)
    return recipe if isinstance(recipe, ResolvedRecipe) else recipe.resolve(registry)
