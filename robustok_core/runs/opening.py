"""Recipes as commands name them: a file, a bundled recipe, or the folder of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from robustok_core.errors import RobustokError
from robustok_core.recipe.recipe import Recipe, ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.runs.history import RECIPE_FILE
from robustok_core.values.wording import short


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
    file = Path(name) / RECIPE_FILE
    if not os.path.isfile(file):  # noqa: PTH113 (False, too, for a path that cannot exist)
        return Recipe.load(name, overrides=overrides, presets=presets), None
    folder = Path(name).resolve()
    return Recipe.load(file, overrides=(f"run.name={folder.name}", *overrides), presets=presets), folder.parent


def resolved_recipe(recipe: Recipe | ResolvedRecipe, registry: Registry) -> ResolvedRecipe:
    """A recipe, resolved if it is not yet.

    Raises:
        RobustokError: if a program gave something else; and as `Recipe.resolve`.
    """
    if not isinstance(recipe, (Recipe, ResolvedRecipe)):
        hint = 'Recipe.load("main_train") reads one, Recipe.from_table({...}) makes one'
        raise RobustokError(f"expected a Recipe, found {short(recipe)}", where="recipe", hint=hint)
    return recipe if isinstance(recipe, ResolvedRecipe) else recipe.resolve(registry)
