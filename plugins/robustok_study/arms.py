"""The arms of a study: each is a recipe with some keys changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field, frozen

from robustok_core.errors import RobustokError, did_you_mean, raise_all
from robustok_core.recipe.recipe import Recipe
from robustok_core.recipe.source import Source, only_stages, override, read_source, stage_name
from robustok_core.recipe.structurer import Path as KeyPath
from robustok_core.values.spec import run_name
from robustok_core.values.wording import short_text


@frozen(kw_only=True)
class ArmConfig:
    """One [[arm]]."""

    name: str = field(metadata={"doc": "name of the arm; its runs are called NAME-seed0, ..."})
    recipe: str | None = field(default=None, metadata={"doc": "the recipe that it changes; default: the study's"})
    set: dict[str, Any] = field(
        factory=dict, metadata={"doc": "keys of the recipe that it sets: set.perturbation.beta = 0.5"}
    )
    load: dict[str, str] = field(
        factory=dict,
        metadata={"doc": 'artifacts of other arms: tokenizer = "ARM", of the same seed, or "ARM@0", of seed 0'},
    )
    stages: list[str] | None = field(default=None, metadata={"doc": "the only stages of the recipe that it runs"})


@frozen(kw_only=True)
class Arm:
    """An arm, read.

    Attributes:
        name: of the arm. recipe: with its changes, but for its seed. where: its file and line.
        changes: what the study sets in it, by dotted path.
        load: the arm and seed (None: the same) of each artifact it loads.
        left_out: the keys of [set] that the component which it chose does not have.
    """

    name: str
    recipe: Recipe
    where: str
    changes: Mapping[str, Any]
    load: Mapping[str, tuple[str, int | None]]
    left_out: Sequence[str] = ()

    def at(self, seed: int, out: Path) -> Recipe:
        """The recipe of a run with this seed, whose folder and those of other runs lie in `out`."""
        changes: dict[str, Any] = {"run.name": run_name(self.name, seed), "run.seed": seed}
        for artifact, (arm, other) in self.load.items():
            changes[f"load.{artifact}"] = str(out / run_name(arm, seed if other is None else other))
        source = override(self.recipe.source, changes, locations=dict.fromkeys(changes, self.where))
        return attrs.evolve(self.recipe, source=source)


@frozen(kw_only=True)
class Shared:
    """What a study sets in all arms: [set] before an arm's own changes, and [quick.set], if it is quick, after them."""

    set: Mapping[str, Any]
    quick: Mapping[str, Any] = field(factory=dict)


def read_arm(
    config: ArmConfig, file: Path, study: Source, shared: Shared, path: KeyPath, fits: Callable[[Source], bool]
) -> Arm:
    """Lays changes over an arm's recipe; a later one wins.

    Args:
        config: the arm. file: of its recipe. study: the study file. path: of the arm in it.
        shared: the changes for all arms. What is for a table or stage that this arm does not have is left out, and what
            is for an option that the arm's own choice of a component does not have.
        fits: whether the components have all options that a recipe sets.

    Raises:
        RobustokError: all changes that cannot be made.
    """
    source = read_source(file)
    if config.stages is not None:
        source = _only(source, config.stages, study.location((*path, "stages")))
    laid = _Laid(source=source, study=study)
    everywhere, own = dict(flattened(shared.set)), dict(flattened(config.set))
    early = laid.fitting(everywhere)
    laid.lay(early, ("set",))
    laid.lay(own, (*path, "set"))
    late = {keys: value for keys, value in everywhere.items() if keys not in early and keys not in own}
    laid.lay(laid.fitting(late), ("set",))  # for a table that the arm itself adds
    left_out = laid.lay_again(early, own, fits)
    laid.lay(laid.fitting(dict(flattened(shared.quick))), ("quick", "set"))
    load = laid.load(config.load, path)
    raise_all(laid.problems)
    recipe = Recipe(source=laid.source, default_name=config.name)
    changes = {key: value for key, value in laid.made.items() if _holds(laid.source.table, key, value)}
    where = study.location(path)
    return Arm(name=config.name, recipe=recipe, where=where, changes=changes, load=load, left_out=left_out)


#: Values by their keys in nested tables; a key may be a dotted path itself.
Changes = Mapping[tuple[str, ...], Any]


@define(kw_only=True)
class _Laid:
    """A recipe over which changes are laid: what was changed so far, and what could not be."""

    source: Source
    study: Source
    made: dict[str, Any] = field(factory=dict)
    problems: list[RobustokError] = field(factory=list)

    def fitting(self, changes: Changes) -> Changes:
        """Those that are for a table or stage that the recipe has, or that they add."""
        there = places_in(self.source.table) | places_added(changes)
        return {keys: value for keys, value in changes.items() if place_of(keys) in there}

    def lay(self, changes: Changes, place: KeyPath) -> None:
        """Makes changes that stand at this place of the study."""
        locations = {".".join(keys): self.study.location((*place, *keys)) for keys in changes}
        values = {".".join(keys): value for keys, value in changes.items()}
        try:
            self.source = override(self.source, values, locations=locations)
        except RobustokError as error:
            self.problems += error.problems
        self.made |= values

    def lay_again(self, changes: Changes, own: Changes, fits: Callable[[Source], bool]) -> list[str]:
        """Makes those changes again that were lost when the arm chose another component, if that has the option.

        Returns:
            The keys of those that it does not have.
        """
        left_out = []
        for keys, value in changes.items():
            key = ".".join(keys)
            if keys in own or _holds(self.source.table, key, value) or not fits(before := self.source):
                continue
            self.lay({keys: value}, ("set",))
            if not fits(self.source):
                self.source = before
                left_out.append(key)
        return left_out

    def load(self, artifacts: Mapping[str, str], path: KeyPath) -> dict[str, tuple[str, int | None]]:
        """Lets the recipe load artifacts of other arms; returns the arm and seed of each."""
        load = {}
        for artifact, text in artifacts.items():
            where = self.study.location((*path, "load", artifact))
            arm, at, seed = text.partition("@")
            if at and not (seed.isascii() and seed.isdecimal() and len(seed) < 20):
                hint = 'for example "ARM@0"'
                self.problems.append(RobustokError(f"{short_text(seed)} is not a seed", where=where, hint=hint))
                continue
            load[artifact] = (arm, int(seed) if at else None)
            key = f"load.{artifact}"
            self.source = override(self.source, {key: text}, locations={key: where})
        return load


def flattened(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values in nested tables with their keys; an empty table is a value."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, (*above, key))
        else:
            yield (*above, key), value


def place_of(keys: Sequence[str]) -> str:
    """The table or stage of a recipe that a change is for: "tokenizer", or "stage.sample"."""
    names = ".".join(keys).split(".")
    return ".".join(names[: 2 if names[0] == "stage" else 1])


def places_in(recipe: Mapping[str, Any]) -> set[str]:
    """The tables and stages of a recipe, as `place_of` names them."""
    stages = recipe.get("stage")
    named = {f"stage.{stage_name(stage)}" for stage in stages} if isinstance(stages, list) else set()
    return {"run", *recipe} - {"stage"} | named


def places_added(changes: Changes) -> set[str]:
    """The tables and stages in which changes name a component, and which they so give to a recipe without them."""
    return {place_of(keys) for keys in changes if ".".join(keys).rpartition(".")[2] == "use"}


def _holds(recipe: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether a change is in a recipe in the end: another component in its table removes it."""
    at: Any = recipe
    for name in key.split("."):
        if isinstance(at, list):
            at = {stage_name(stage): stage for stage in at}
        if not isinstance(at, Mapping) or name not in at:
            return False
        at = at[name]
    return bool(at == value)


def _only(source: Source, stages: Sequence[str], where: str) -> Source:
    """A recipe with these of its stages only."""
    if not stages:
        raise RobustokError("an arm runs at least one stage", where=where, hint="leave `stages` out to run all")
    names = [stage_name(table) for table in source.table.get("stage", [])]
    for place, name in enumerate(stages):
        if name not in names:
            raise RobustokError(f"the recipe has no stage {name!r}", where=where, hint=did_you_mean(name, names))
        if name in stages[:place]:
            raise RobustokError(f"the stage {name!r} is named twice", where=where, hint="name it once")
    return only_stages(source, [index for index, name in enumerate(names) if name in stages])
