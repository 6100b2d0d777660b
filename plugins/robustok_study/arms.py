"""The arms of a study: each is a recipe with some keys changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from robustok_core.errors import RobustokError, did_you_mean, raise_all
from robustok_core.recipe.recipe import Recipe
from robustok_core.recipe.source import Source, override, read_source, stage_name
from robustok_core.recipe.structurer import Path as KeyPath


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
        changes: what it sets, by dotted path. load: the arm and seed (None: the same) of each artifact it loads.
    """

    name: str
    recipe: Recipe
    where: str
    changes: Mapping[str, Any]
    load: Mapping[str, tuple[str, int | None]]

    def at(self, seed: int, out: Path) -> Recipe:
        """The recipe of a run with this seed, whose folder and those of other runs lie in `out`."""
        changes: dict[str, Any] = {"run.name": run_name(self.name, seed), "run.seed": seed}
        for artifact, (arm, other) in self.load.items():
            changes[f"load.{artifact}"] = str(out / run_name(arm, seed if other is None else other))
        source = override(self.recipe.source, changes, locations=dict.fromkeys(changes, self.where))
        return attrs.evolve(self.recipe, source=source)


def run_name(arm: str, seed: int) -> str:
    """The name of the run of an arm and a seed."""
    return f"{arm}-seed{seed}"


def read_arm(
    config: ArmConfig, file: Path, study: Source, changes: Sequence[tuple[Mapping[str, Any], KeyPath]], path: KeyPath
) -> Arm:
    """Lays an arm's changes over its recipe.

    Args:
        config: the arm. file: of its recipe. study: the study file. path: of the arm in it.
        changes: tables of changes and their paths in the study file; a later one wins. Those that are for all arms
            leave out what an arm's recipe does not have.

    Raises:
        RobustokError: all changes that cannot be made.
    """
    problems: list[RobustokError] = []
    source = read_source(file)
    made: dict[str, Any] = {}
    if config.stages is not None:
        source = _only(source, config.stages, study.location((*path, "stages")))
    for table, place in changes:
        flat = dict(_flat(table))
        if place[0] != "arm":
            flat = {keys: value for keys, value in flat.items() if _has(source.table, keys)}
        locations = {".".join(keys): study.location((*place, *keys)) for keys in flat}
        values = {".".join(keys): value for keys, value in flat.items()}
        try:
            source = override(source, values, locations=locations)
        except RobustokError as error:
            problems += getattr(error, "problems", None) or [error]
        made |= values
    if fixed := [key for key in made if key in ("run.seed", "run.name", "run.out")]:
        what = f"{fixed[0]}: a study sets it itself"
        problems.append(RobustokError(what, where=study.location(path), hint="`seeds` and `name` are keys of a study"))
    load = {}
    for artifact, place_text in config.load.items():
        where = study.location((*path, "load", artifact))
        arm, at, seed = place_text.partition("@")
        if at and not (seed.isascii() and seed.isdecimal()):
            problems.append(RobustokError(f"{seed!r} is not a seed", where=where, hint='for example "ARM@0"'))
        else:
            load[artifact] = (arm, int(seed) if at else None)
            source = override(source, {f"load.{artifact}": place_text}, locations={f"load.{artifact}": where})
    raise_all(problems)
    recipe = Recipe(source=source, default_name=config.name)
    return Arm(name=config.name, recipe=recipe, where=study.location(path), changes=made, load=load)


def _flat(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values in nested tables with their keys; an empty table is a value."""
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, (*above, key))
        else:
            yield (*above, key), value


def _has(recipe: Mapping[str, Any], keys: Sequence[str]) -> bool:
    """Whether a recipe has the table or stage that a change for all arms is for."""
    names = ".".join(keys).split(".")
    if names[0] == "run" or names[-1] == "use":
        return True
    if names[0] == "stage":
        return len(names) > 1 and names[1] in [stage_name(stage) for stage in recipe.get("stage", [])]
    return names[0] in recipe


def _only(source: Source, stages: Sequence[str], where: str) -> Source:
    """A recipe with these of its stages only."""
    tables = source.table.get("stage", [])
    names = [stage_name(table) for table in tables]
    for name in stages:
        if name not in names:
            raise RobustokError(f"the recipe has no stage {name!r}", where=where, hint=did_you_mean(name, names))
    kept = [index for index, name in enumerate(names) if name in stages]
    locations = {
        ("stage", kept.index(int(path[1])), *path[2:]) if len(path) > 1 and path[0] == "stage" else path: location
        for path, location in source.locations.items()
        if len(path) < 2 or path[0] != "stage" or path[1] in kept
    }
    return Source({**source.table, "stage": [tables[index] for index in kept]}, locations)
