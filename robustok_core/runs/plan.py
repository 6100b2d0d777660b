"""Plans a recipe before anything runs: each stage reads the promises of the stages before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from attrs import define, field, frozen

from robustok_core.errors import ProblemsError, RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.recipe.recipe import NamedStage, ResolvedRecipe, located
from robustok_core.recipe.sampler_options import check_guidance, with_sampler_options
from robustok_core.recipe.structurer import Path as KeyPath
from robustok_core.runs.promises import GeneratorPromise, Loaded
from robustok_core.values.spec import Spec

#: Gives the context of a stage of a recipe, with the promises of the artifacts made before it.
ContextOf = Callable[[ResolvedRecipe, NamedStage, Mapping[str, Promise]], StageContext]


@frozen(kw_only=True)
class PlannedStage:
    """A planned stage.

    Attributes:
        name: its name. needs: the artifacts that it reads. makes: the promise of each artifact that it writes.
    """

    name: str
    needs: Sequence[str]
    makes: Mapping[str, Promise]


@frozen(kw_only=True)
class Plan:
    """What a recipe will do.

    Attributes:
        recipe: with sampler options resolved for the generators that will be sampled.
        stages: in order.
    """

    recipe: ResolvedRecipe
    stages: Sequence[PlannedStage]

    def describe(self) -> str:
        """One line per stage, and one per artifact that it writes."""
        lines = []
        for stage in self.stages:
            lines.append(f"{stage.name}{' reads ' if stage.needs else ''}{', '.join(stage.needs)}")
            for artifact, promise in stage.makes.items():
                description = promise.describe()
                lines.append(f"  -> {artifact}{': ' if description else ''}{description}")
        return "\n".join(lines)


def make_plan(
    recipe: ResolvedRecipe, loaded: Mapping[str, Loaded], context_of: ContextOf
) -> tuple[Plan, list[RobustokError]]:
    """Checks and plans all stages.

    Args:
        recipe: whose tables and keys are checked already.
        loaded: what [load] gives, by artifact; a stage that needs another is left out.

    Returns:
        The plan, and everything that does not fit.
    """
    planner = _Planner(recipe, context_of, dict(loaded))
    for index in range(len(recipe.stages)):
        planner.add(index)
    return Plan(recipe=planner.recipe, stages=planner.planned), planner.problems


@define
class _Planner:
    """Plans the stages in order and collects problems."""

    recipe: ResolvedRecipe
    context_of: ContextOf
    promises: dict[str, Promise]
    planned: list[PlannedStage] = field(factory=list)
    problems: list[RobustokError] = field(factory=list)

    def add(self, index: int) -> None:
        """Plans a stage; skips it if an input could not be planned, because that problem is already recorded."""
        kind = self.recipe.stages[index].spec.factory
        if not all(name in self.promises for name in kind.needs):
            self._forget(kind.makes)
            return
        if "generator" in kind.needs:
            self._try(lambda: self._resolve_samplers(index, self.promises["generator"]))
        stage = self.recipe.stages[index]
        context, built = self.context_of(self.recipe, stage, self.promises), stage.spec.build()
        self._try(lambda: built.check(context))
        makes: dict[str, Promise] = {}
        if not self._try(lambda: makes.update(_promised(built, context))):
            self._forget(kind.makes)
            return
        self.promises = self.promises | makes
        self.planned.append(PlannedStage(name=stage.name, needs=kind.needs, makes=makes))
        if "generator" in kind.makes:
            self._try(lambda: self._resolve_samplers(index, makes["generator"]))

    def _forget(self, artifacts: Sequence[str]) -> None:
        """What was promised of these artifacts before is not what later stages will find."""
        self.promises = {name: promise for name, promise in self.promises.items() if name not in artifacts}

    def _try(self, action: Callable[[], Any]) -> bool:
        """Whether it raised no problem; those that it raised are kept."""
        try:
            action()
        except ProblemsError as error:
            self.problems.extend(error.problems)
            return False
        except RobustokError as error:
            self.problems.append(error)
            return False
        return True

    def _resolve_samplers(self, index: int, promise: Promise) -> None:
        """Resolves sampler options and checks guidance in a stage and in the [post_trainer] that it uses."""
        if isinstance(promise, Loaded):
            promise = promise.read(GeneratorPromise)
        if not isinstance(promise, GeneratorPromise):
            return
        stage, tables = self.recipe.stages[index], dict(self.recipe.tables)
        stages = list(self.recipe.stages)
        stages[index] = attrs.evolve(stage, spec=self._resolved(stage.spec, promise, ("stage", index)))
        for name in {*stage.spec.factory.uses, *stage.spec.factory.may_use} & {"post_trainer"} & tables.keys():
            tables[name] = self._resolved(tables[name], promise, (name,))
        self.recipe = attrs.evolve(self.recipe, stages=stages, tables=tables)

    def _resolved(self, spec: Spec, promise: GeneratorPromise, path: KeyPath) -> Spec:
        config, problems = with_sampler_options(spec.config, promise.factory, path)
        if not problems:
            generator: Generator = promise.sketch()
            problems = check_guidance(config, generator, path)
        if problems:
            raise ProblemsError([located(self.recipe.source, problem) for problem in problems])
        return attrs.evolve(spec, config=config)


def _promised(stage: Stage, context: StageContext) -> dict[str, Promise]:
    """A promise of every artifact that a stage makes; an empty one where it says nothing."""
    promised = stage.plan(context)
    return {name: promised.get(name, Promise()) for name in stage.makes}
