"""What can be wrong with a study besides its recipes, found before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from robustok_core.errors import RobustokError, did_you_mean
from robustok_core.recipe.recipe import ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.values.spec import Spec
from robustok_core.values.wording import short_text
from robustok_study.spec import Study

#: Options that say how many images are measured, or which.
_COUNTS = ("num_samples", "limit", "reference", "validation_limit")


def unequal_counts(study: Study, registry: Registry) -> list[RobustokError]:
    """Arms that measure with another number of images, or other real images, than the base arm."""
    found = {arm.name: arm.recipe.resolve(registry) for arm in study.arms}
    base = dict(_counts(found[study.base.name]))
    problems = []
    for arm in study.arms:
        recipe = found[arm.name]
        for path, value in _counts(recipe):
            if path in base and base[path] != value:
                what = f"arm {arm.name!r} has {path[-1]} = {_text(value)} in {'.'.join(path[:-1])}, "
                what += f"and the base arm {study.base.name!r} has {_text(base[path])}"
                hint = "distances of unequal numbers of images cannot be compared: set it in all arms alike, in [set]"
                problems.append(RobustokError(what, where=_where(recipe, path, arm.where), hint=hint))
    return problems


def _counts(recipe: ResolvedRecipe) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The options that say how many images are measured, by the path of their table and their name."""
    tables: list[tuple[tuple[str, ...], Spec]] = [(("stage", stage.name), stage.spec) for stage in recipe.stages]
    if "data" in recipe.tables:
        tables.append((("data",), recipe.tables["data"]))
    for path, spec in tables:
        for option in attrs.fields(type(spec.config)):
            if option.name in _COUNTS:
                yield (*path, option.name), getattr(spec.config, option.name)


def _where(recipe: ResolvedRecipe, path: Sequence[str], otherwise: str) -> str:
    keys: tuple[str | int, ...] = tuple(path)
    if path[0] == "stage":
        keys = ("stage", [stage.name for stage in recipe.stages].index(path[1]), *path[2:])
    return recipe.source.locations.get(keys, otherwise)


def _text(value: Any) -> str:
    return "all" if value is None else f"{value:,}" if isinstance(value, int) else short_text(value)


def unknown_metrics(study: Study, registry: Registry) -> list[RobustokError]:
    """Metrics of the table that no arm gives, and those of claims that their arms do not give."""
    known: dict[str, Sequence[str] | None] = {}
    given = {arm.name: _given(arm.recipe.resolve(registry), known) for arm in study.arms}
    problems = []
    for label, expression in study.metrics.items():
        for name in expression.names:
            if not any(_gives(stages, name) for stages in given.values()):
                problems.append(_unknown(name, None, study.metric_lines[label], list(given.values())))
    for claim in study.claims:
        for arm in [claim.config.arm] + ([claim.config.base] if claim.config.base else []):
            for name in claim.expression.names:
                if not _gives(given[arm], name):
                    problems.append(_unknown(name, arm, claim.where, [given[arm]]))
    return problems


#: The names of the results of each stage by its name; None where they are not known before it has run.
Given = Mapping[str, Sequence[str] | None]


def _given(recipe: ResolvedRecipe, known: dict[str, Sequence[str] | None]) -> Given:
    """What the stages of a recipe give; `known` holds what equal stages of other arms give."""
    found: dict[str, Sequence[str] | None] = {}
    for stage in recipe.stages:
        key = fingerprint_of(stage.spec.table())
        if key not in known:
            known[key] = stage.spec.build().result_names()
        found[stage.name] = known[key]
    return found


def _gives(stages: Given, name: str) -> bool:
    stage, _, result = name.partition("/")
    if stage not in stages:
        return False
    known = stages[stage]
    return known is None or result in known


def _unknown(name: str, arm: str | None, where: str, given: Sequence[Given]) -> RobustokError:
    """A result that an arm does not give, or without one, no arm."""
    stage = name.partition("/")[0]
    stages = list(dict.fromkeys(each for one in given for each in one))
    if stage not in stages:
        who = "no arm has a" if arm is None else f"arm {arm!r} has no"
        return RobustokError(f"{name}: {who} stage {stage!r}", where=where, hint=did_you_mean(stage, stages))
    known = dict.fromkeys(f"{stage}/{each}" for one in given for each in one.get(stage) or ())
    who = "no arm measures it" if arm is None else f"arm {arm!r} does not measure it"
    return RobustokError(f"{name}: {who}", where=where, hint=did_you_mean(name, list(known)))
