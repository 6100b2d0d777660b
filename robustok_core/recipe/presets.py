"""Presets: fragments of recipes that are laid over whole ones, and change what those have."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from robustok_core.errors import RobustokError, misspelt
from robustok_core.kinds import TABLES
from robustok_core.recipe.source import Source, merge, only_stages, stage_name
from robustok_core.recipe.structurer import Path, Problem
from robustok_core.values.wording import some_names


def lay_preset(base: Source, preset: Source) -> tuple[Source, list[Problem]]:
    """Merges a preset, which changes the components that a recipe has and adds none.

    A table of the preset without `use` is left out if the recipe has no such table, and a stage if it has no such
    stage: options of a loss mean nothing to a recipe without that loss. A table that no recipe can have stays, so that
    `Recipe.resolve` refuses it.

    Returns:
        The recipe, and what was left out, by its path in the preset.

    Raises:
        RobustokError: the stages are no tables, or nothing of the preset is for a component that the recipe has.
    """
    if not all(isinstance(stage, dict) for stage in _listed(preset.table.get("stage", []), (None,))):
        raise RobustokError("expected stages as [[stage]] tables", where=preset.location(("stage",)))
    stages = {stage_name(stage): stage for stage in _listed(base.table.get("stage")) if isinstance(stage, dict)}
    left_out = [*_tables_left_out(preset, base), *_stages_left_out(preset, stages)]
    fitting = _without(preset, [problem.path for problem in left_out])
    if not _sets_anything(fitting, stages):
        hint = f"the recipe has no {_missing(preset, left_out)}" if left_out else "it sets no key"
        raise RobustokError("nothing of this preset fits the recipe", where=preset.location(()), hint=hint)
    return merge(base, fitting), left_out


def _listed(value: Any, otherwise: Any = ()) -> Any:
    return value if isinstance(value, list) else otherwise


def _tables_left_out(preset: Source, base: Source) -> Iterator[Problem]:
    for name, value in preset.table.items():
        if name in ("load", *TABLES) and _homeless(value, base.table, name):
            yield Problem((name,), "left out, because the recipe has no such table")


def _stages_left_out(preset: Source, stages: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    for index, stage in enumerate(preset.table.get("stage", [])):
        own = stages.get(stage_name(stage))
        if own is None:
            hint = misspelt(stage_name(stage), list(stages)) or None
            yield Problem(("stage", index), "left out, because the recipe has no such stage", hint)
            continue
        for key, group in stage.items():
            there = own.get(key)
            for part, value in group.items() if isinstance(group, Mapping) else ():
                if _homeless(value, there, part):
                    hint = misspelt(part, list(there) if isinstance(there, Mapping) else []) or None
                    yield Problem(("stage", index, key, part), "left out, because the recipe has no such table", hint)


def _homeless(value: Any, base: Any, name: str) -> bool:
    return isinstance(value, Mapping) and "use" not in value and not (isinstance(base, Mapping) and name in base)


def _without(preset: Source, paths: list[Path]) -> Source:
    """A preset without these tables and stages, and without tables of its stages that are empty then."""
    table = copy.deepcopy(preset.table)
    for *above, name in (path for path in paths if path[0] != "stage" or len(path) > 2):
        held: Any = table
        for key in above:
            held = held[key]
        del held[name]
    for stage in table.get("stage", []):
        for key in [key for key, value in stage.items() if value == {}]:
            del stage[key]
    kept = [index for index in range(len(table.get("stage", []))) if ("stage", index) not in paths]
    return only_stages(Source(table, preset.locations), kept)


def _sets_anything(fitting: Source, stages: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether there is more than the names of stages that the recipe has."""
    return any(name != "stage" for name in fitting.table) or any(
        key not in ("name", "use") or (key == "use" and value != stages[stage_name(stage)].get("use"))
        for stage in fitting.table.get("stage", [])
        for key, value in stage.items()
    )


def _missing(preset: Source, left_out: list[Problem]) -> str:
    """What a recipe lacks, and what may be meant instead."""
    stages = preset.table.get("stage", [])
    paths = [[stage_name(stages[key]) if isinstance(key, int) else key for key in each.path] for each in left_out]
    names = some_names([f"[{'.'.join(keys)}]" for keys in paths])
    return "; ".join([names, *(each.hint for each in left_out if each.hint)])
