"""Plans a recipe before anything runs: each stage reads the promises of the stages before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from attrs import define, field, frozen

from robustok_core.errors import ProblemsError, RobustokError, did_you_mean
from robustok_core.kinds.cost import Cost
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.promise import Promise
from robustok_core.kinds.stage import Stage, StageContext
from robustok_core.recipe.recipe import NamedStage, ResolvedRecipe, located
from robustok_core.recipe.samplers import check_guidance, with_sampler_options, without_sampler_options
from robustok_core.recipe.structurer import Path as KeyPath
from robustok_core.recipe.structurer import Problem
from robustok_core.runs.promises import GeneratorPromise
from robustok_core.values.spec import Spec

#: Problems by the name of the stage that has them; those of a table are of the first stage that uses it.
Misfits = Mapping[str, Sequence[RobustokError]]
#: Gives the context of a stage of a recipe, with the promises of the artifacts made before it.
ContextOf = Callable[[ResolvedRecipe, NamedStage, Mapping[str, Promise], Mapping[str, str]], StageContext]


@frozen(kw_only=True)
class PlannedStage:
    """A planned stage.

    Attributes:
        name: its name. needs: the artifacts that it reads. makes: the promise of each artifact that it writes.
        cost: measures what it will take; None if that is not known.
    """

    name: str
    needs: Sequence[str]
    makes: Mapping[str, Promise]
    cost: Callable[[], Cost | None] = field(eq=False)


@frozen(kw_only=True)
class Plan:
    """What a recipe will do.

    Attributes:
        recipe: with sampler options resolved for the generators that will be sampled.
        stages: in order.
        loaded: the promises of the artifacts from [load].
    """

    recipe: ResolvedRecipe
    stages: Sequence[PlannedStage]
    loaded: Mapping[str, Promise] = field(factory=dict)

    @property
    def promises(self) -> Mapping[str, Promise]:
        """What recipes find that load from this one's run: by artifact, the last that it makes, or else loads."""
        return {**self.loaded, **{name: promise for stage in self.stages for name, promise in stage.makes.items()}}

    def describe(self) -> str:
        """One line per stage, and one per artifact that it writes."""
        lines = []
        for stage in self.stages:
            lines.append(f"{stage.name}{' reads ' if stage.needs else ''}{', '.join(stage.needs)}")
            for artifact, promise in stage.makes.items():
                description = promise.describe()
                lines.append(f"  -> {artifact}{': ' if description else ''}{description}")
        return "\n".join(lines)


def make_plan(recipe: ResolvedRecipe, loaded: Mapping[str, Promise], context_of: ContextOf) -> tuple[Plan, Misfits]:
    """Checks and plans all stages.

    Args:
        recipe: with its tables and keys already checked.
        loaded: artifacts from [load], by name; a stage whose inputs are neither loaded nor planned is skipped.

    Returns:
        The plan, and all problems by stage.
    """
    planner = _Planner(recipe, context_of, dict(loaded))
    planner.resolve_tables()
    for index in range(len(recipe.stages)):
        planner.add(index)
    return Plan(recipe=planner.recipe, stages=planner.planned, loaded=loaded), planner.problems


@define
class _Planner:
    """Goes through the stages and collects problems."""

    recipe: ResolvedRecipe
    context_of: ContextOf
    promises: dict[str, Promise]
    makers: dict[str, str] = field(factory=dict)
    planned: list[PlannedStage] = field(factory=list)
    problems: dict[str, list[RobustokError]] = field(factory=dict)

    def resolve_tables(self) -> None:
        """Resolves sampler options in tables that stages share, before any stage reads them."""
        tables = self.recipe.tables
        users = [index for index, stage in enumerate(self.recipe.stages) if "post_trainer" in stage.spec.factory.uses]
        if "post_trainer" not in tables or not users:
            return
        self.attempt(users[0], self._resolve_post_trainer)

    def _resolve_post_trainer(self) -> None:
        tables = self.recipe.tables
        if "generator" in self.promises:
            factory = self.promises["generator"].read(GeneratorPromise).factory
        elif "generator" in tables:
            factory = tables["generator"].factory
        else:  # nothing is sampled
            return
        spec = self._with_options(tables["post_trainer"], factory, ("post_trainer",))
        self.recipe = attrs.evolve(self.recipe, tables={**tables, "post_trainer": spec})

    def add(self, index: int) -> None:
        """Plans a stage; skips it if an input could not be planned, because that problem is already recorded."""
        kind = self.recipe.stages[index].spec.factory
        if not all(name in self.promises for name in kind.needs) or not self.attempt(index, lambda: self._plan(index)):
            self.promises = {name: promise for name, promise in self.promises.items() if name not in kind.makes}

    def attempt(self, index: int, action: Callable[[], Any]) -> bool:
        """Runs `action`, records the problems that it raises as the stage's, and returns whether there were none."""
        stage = self.recipe.stages[index].name
        try:
            action()
        except RobustokError as error:
            self.problems.setdefault(stage, []).extend(error.problems)
            return False
        return True

    def _plan(self, index: int) -> None:
        kind = self.recipe.stages[index].spec.factory
        if "generator" in kind.needs:
            self.attempt(index, lambda: self._resolve_stage(index, self.promises["generator"]))
        stage = self.recipe.stages[index]
        if kind.makes.count("generator") + kind.needs.count("generator") == 0:
            self._refuse_samplers(stage)
        promises = {name: self.promises[name] for name in kind.needs}
        makers = {name: self.makers[name] for name in kind.needs if name in self.makers}
        context, built = self.context_of(self.recipe, stage, promises, makers), stage.spec.build()
        self.attempt(index, lambda: built.check(context))
        makes = self._promised(stage.name, built, context)
        self.promises = self.promises | makes
        self.makers = self.makers | dict.fromkeys(makes, stage.name)
        planned = PlannedStage(name=stage.name, needs=kind.needs, makes=makes, cost=lambda: built.cost(context))
        self.planned.append(planned)
        if "generator" in makes:
            self.attempt(index, lambda: self._resolve_stage(index, makes["generator"]))

    def _promised(self, name: str, stage: Stage, context: StageContext) -> dict[str, Promise]:
        """The promise of each artifact that a stage makes; an empty one where its `plan` gives none."""
        promised = stage.plan(context)
        if not isinstance(promised, Mapping) or not all(isinstance(promise, Promise) for promise in promised.values()):
            what = f"the `plan` of stage {name!r} must return promises by artifact, found {promised!r}"
            raise RobustokError(what, where=context.location())
        if unknown := sorted(promised.keys() - set(stage.makes)):
            what = f"stage {name!r} promises {unknown[0]!r}, which it does not make"
            raise RobustokError(what, where=context.location(), hint=did_you_mean(unknown[0], list(stage.makes)))
        return {artifact: promised.get(artifact, Promise()) for artifact in stage.makes}

    def _resolve_stage(self, index: int, promise: Promise) -> None:
        """Resolves sampler options in a stage, and checks guidance there and in the [post_trainer] that it uses."""
        generator, stage = promise.read(GeneratorPromise), self.recipe.stages[index]
        stages = list(self.recipe.stages)
        stages[index] = attrs.evolve(stage, spec=self._with_options(stage.spec, generator.factory, ("stage", index)))
        self.recipe = attrs.evolve(self.recipe, stages=stages)
        checked: dict[KeyPath, Spec] = {("stage", index): stages[index].spec}
        if "post_trainer" in stage.spec.factory.uses and "post_trainer" in self.recipe.tables:
            table = self.recipe.tables["post_trainer"]
            checked[("post_trainer",)] = self._with_options(table, generator.factory, ("post_trainer",))
        self._raise(
            [p for path, spec in checked.items() for p in check_guidance(spec.config, generator.sketch(), path)]
        )

    def _with_options(self, spec: Spec, generator: type[Generator], path: KeyPath) -> Spec:
        config, problems = with_sampler_options(spec.config, generator, path)
        self._raise(problems)
        return attrs.evolve(spec, config=config)

    def _refuse_samplers(self, stage: NamedStage) -> None:
        if without_sampler_options(stage.spec.config) is not stage.spec.config:
            what = f"stage {stage.name!r} has sampler options but does not sample a generator"
            raise RobustokError(what, hint='the stage\'s class must have "generator" in `needs`')

    def _raise(self, problems: Sequence[Problem]) -> None:
        if problems:
            raise ProblemsError([located(self.recipe.source, problem) for problem in problems])
