"""What each stage of a recipe will take, before it runs and wherever it will run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from robustok_core.kinds.cost import Cost
from robustok_core.recipe.recipe import Recipe, ResolvedRecipe
from robustok_core.recipe.registry import Registry, given_registry
from robustok_core.runs.assumed import Assumed, Launch
from robustok_core.runs.opening import resolved_recipe
from robustok_core.runs.precision import as_on_gpus
from robustok_core.runs.runner import RecipeRun


@frozen(kw_only=True)
class StageCost:
    """A stage by its name, its options, and what it will take; None if that is not known."""

    name: str
    config: Any
    cost: Cost | None


def plan_costs(
    recipe: Recipe | ResolvedRecipe,
    *,
    launch: Launch | None = None,
    without_data: bool = False,
    registry: Registry | None = None,
    announce: Callable[[str], None] | None = None,
) -> Sequence[StageCost]:
    """What each stage will take, in order. Nothing is downloaded, trained or written, and no weights are read.

    Args:
        recipe: what to plan. Precisions that are "auto" are taken as bf16.
        launch: on how many GPUs, and how; by default on one.
        without_data: do not open the data set where its options say what it holds.
        registry: the components; by default those of all installed plugins.
        announce: called with a line for all that is taken as the recipe says because it is not here.

    Raises:
        RobustokError: the recipe has mistakes, or does not say what something holds that is not here.
    """
    registry, say = given_registry(registry), announce or (lambda _: None)
    resolved = as_on_gpus(resolved_recipe(recipe, registry), say)
    # This machine may have no device for fp16, which takes as much as bf16; trackers are not needed.
    run = attrs.evolve(resolved.run, trackers=[], precision="no" if resolved.run.precision == "no" else "bf16")
    one = RecipeRun(attrs.evolve(resolved, run=run), registry, Path(resolved.run.out), False, None)
    one.auto = "bf16"
    one.assumed = Assumed(registry=registry, opens_data=not without_data)
    one.launch = launch or Launch(processes=1)
    plan = one.plan()
    for what in one.assumed.not_checked:
        say(what)
    configs = {stage.name: stage.spec.config for stage in plan.recipe.stages}
    return [StageCost(name=stage.name, config=configs[stage.name], cost=stage.cost()) for stage in plan.stages]
