"""The fingerprints that the stages of a run would have, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustok_core.recipe.recipe import ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.runs.run_record import is_run, read_run
from robustok_core.runs.runner import RecipeRun


def fingerprints(
    recipe: ResolvedRecipe, *, registry: Registry, out: str | Path | None = None, built: dict[str, Any] | None = None
) -> dict[str, str]:
    """The fingerprint that each stage of a run would have, by name, in order; makes the checks of `run`.

    Args:
        built: holds the data set once it is open; calls for recipes of the same [data] may share it.

    Raises:
        RobustokError: as `run`.
    """
    one = RecipeRun(recipe, registry, Path(out or recipe.run.out), False, None)
    one.built = {} if built is None else built
    one.plan()
    if is_run(one.folder.path):
        one.folder.record = read_run(one.folder.path)
    for name, loaded in one.loaded.items():
        one.take_loaded(name, loaded)
    return one.fingerprints()
