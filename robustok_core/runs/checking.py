"""Checks a recipe as a run would, without running it: its plan, its downloads, and whether its images can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robustok_core.errors import RobustokError, raise_all
from robustok_core.kinds.promise import Promise
from robustok_core.recipe.recipe import Recipe, ResolvedRecipe
from robustok_core.recipe.registry import Registry, given_registry
from robustok_core.runs.assumed import Assumed, Launch
from robustok_core.runs.downloads import needs_of_recipe, without_repeats
from robustok_core.runs.opening import resolved_recipe
from robustok_core.runs.plan import Plan
from robustok_core.runs.precision import as_on_gpus
from robustok_core.runs.readable import SPLITS, unreadable_images
from robustok_core.runs.runner import RecipeRun
from robustok_core.runs.summary import unread_tables

#: Images of each split that are decoded unless all are asked for.
SOME_IMAGES = 2048


def check(
    recipe: Recipe | ResolvedRecipe,
    *,
    registry: Registry | None = None,
    out: str | Path | None = None,
    announce: Callable[[str], None] | None = None,
    images: int | None = SOME_IMAGES,
    without_data: bool = False,
    launch: Launch | None = None,
    built: dict[str, Any] | None = None,
    awaited: Mapping[str, Promise] | None = None,
) -> Plan:
    """Makes all checks of `run`, including those of the data, without running the recipe; returns its plan.

    Args:
        recipe: what to check. registry, out: as in `run`.
        announce: called with a line for each file that a run would download, for each table that no stage reads, and
            for each split of which only some images were decoded. A data set that is not here is downloaded by the
            check itself.
        images: how many images of each split are decoded, evenly spread; None for all.
        without_data: the images, and files that [load] and options name, need not be here; a line says what was not
            checked.
        launch: how the recipe will be launched, on GPUs, on which precisions that are "auto" are bf16; None if as this
            process was.
        built: as in `fingerprints`.
        awaited: the promises of entries of [load] that another run will make, after `Promise.once_loaded`.

    Raises:
        RobustokError: as `run`, and if images cannot be read.
    """
    registry, say = given_registry(registry), announce or (lambda _: None)
    resolved = resolved_recipe(recipe, registry)
    for line in unread_tables(resolved):
        say(line)
    missing = needs_of_recipe(resolved, resolved.stages, loaded=without_data).announced(say)
    if launch is not None:
        resolved = as_on_gpus(resolved, say)
    one = RecipeRun(resolved, registry, Path(out or resolved.run.out), False, None)
    one.assumed = Assumed(registry=registry) if without_data else None
    one.launch = launch
    one.auto = one.auto if launch is None else "bf16"
    one.awaited = awaited or {}
    one.built = {} if built is None or without_data else built
    try:
        plan = one.plan()
        if one.assumed is not None:
            for what in one.assumed.not_checked:
                say(f"not checked: {what}")
        elif "data" in resolved.tables:
            data = one.dataset()
            for name in SPLITS:
                if images is not None and images < (total := len(getattr(data, name))):
                    say(f"data: {images:,} of {total:,} images of {name} were decoded; --every-image decodes all")
            missing += unreadable_images(resolved, data, images)
    except RobustokError as error:
        raise_all([*missing, *without_repeats(error, missing)])
        raise
    raise_all(missing)
    return plan
