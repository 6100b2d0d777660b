"""What can be wrong with a study besides its recipes, found before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import attrs

from robustok_core.errors import RobustokError, did_you_mean
from robustok_core.recipe.recipe import NamedStage, ResolvedRecipe
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.values.spec import Spec
from robustok_core.values.wording import short_text
from robustok_study.spec import CorrelationClaim, Study
from robustok_study.verdicts import FEWEST_ARMS

#: Options of a stage that say how many images are measured, and which.
_IMAGES = ("num_samples", "limit", "reference", "classes")
#: Options of the data that say how many held-out images there are; whether they are the same ones is looked at, too.
_HELD_OUT = ("validation_limit", "image_size")
#: The recipe of each arm by the arm's name.
Recipes = Mapping[str, ResolvedRecipe]
#: The names of the results of each stage of an arm by its name; None where they are not known before it has run.
Given = Mapping[str, Sequence[str] | None]
_HINT = "numbers that were measured differently cannot be compared: set it in all arms alike, in [set]"


def unequal_conditions(study: Study, recipes: Recipes) -> list[RobustokError]:
    """Arms that measure otherwise than the base arm, or, where that has no such stage, than the first that has it.

    That is: other images, or another number of them, or metrics with other options.

    Stages that no metric and no claim reads may differ.
    """
    read = _stages_read(study)
    base = recipes[study.base.name]
    measured = {path: (study.base.name, value) for path, value in _measured_with(base, read)}
    problems = []
    for arm in study.arms:
        recipe = recipes[arm.name]
        unequal = []
        for path, value in _measured_with(recipe, read):
            if measured.setdefault(path, (arm.name, value))[1] != value:
                unequal.append((path, value))
        for path, value in unequal:
            first, other = measured[path]
            which = "base arm" if first == study.base.name else "arm"
            what = f"arm {arm.name!r} has {path[-1]} = {_text(value)} in {'.'.join(path[:-1])}, "
            what += f"and the {which} {first!r} has {_text(other)}"
            problems.append(RobustokError(what, where=_where(recipe, path, arm.where), hint=_HINT))
        if not any(path[0] == "data" for path, _ in unequal) and _other_images(recipe, base):
            what = f"arm {arm.name!r} measures other images than the base arm {study.base.name!r}: its [data] differs"
            problems.append(RobustokError(what, where=arm.where, hint=_HINT))
    return problems


def _stages_read(study: Study) -> set[str] | None:
    """The stages whose results the table and the claims show; None for all."""
    names = _read_by_all(study)
    return {name.partition("/")[0] for name in names} if study.metrics else None


def _read_by_all(study: Study) -> list[str]:
    """The results that the metrics and the claims of a study name."""
    expressions = [*study.metrics.values(), *(claim.expression for claim in study.claims)]
    expressions += [expression for claim in study.correlations for expression in claim.expressions]
    return list(dict.fromkeys(name for expression in expressions for name in expression.names))


def names_read(study: Study, given: Mapping[str, Given]) -> dict[str, list[str]]:
    """The results of each arm that the table and the claims show, by the arm's name.

    Those of stages that do not tell before they have run are left out, where the table shows all.
    """
    read = _read_by_all(study)
    return {
        arm: [name for name in read if _gives(stages, name)]
        if study.metrics
        else [f"{stage}/{name}" for stage, names in stages.items() for name in names or ()]
        for arm, stages in given.items()
    }


def _measured_with(recipe: ResolvedRecipe, read: set[str] | None) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The options that numbers depend on besides what is compared, by the path of their table and their name."""
    for stage in recipe.stages:
        # Samples are measured by a later stage.
        if read is None or stage.name in read or "samples" in getattr(stage.spec.factory, "makes", ()):
            yield from _options(("stage", stage.name), stage.spec, _IMAGES)
        if read is None or stage.name in read:
            yield from _metric_options(stage)
    if "data" in recipe.tables:
        yield from _options(("data",), recipe.tables["data"], _HELD_OUT)


def _options(path: tuple[str, ...], spec: Spec, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for option in attrs.fields(type(spec.config)):
        if option.name in names:
            yield (*path, option.name), getattr(spec.config, option.name)


def _metric_options(stage: NamedStage) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All options of the metrics of a stage, with those of their networks."""
    for option in attrs.fields(type(stage.spec.config)):
        group = getattr(stage.spec.config, option.name)
        if option.name.endswith("metrics") and isinstance(group, Mapping):
            for name, metric in group.items():
                if isinstance(metric, Spec):
                    yield from _values(("stage", stage.name, option.name, name), metric)


def _values(path: tuple[str, ...], spec: Spec) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield (*path, "use"), spec.name
    for option in attrs.fields(type(spec.config)):
        value = getattr(spec.config, option.name)
        if isinstance(value, Spec):
            yield from _values((*path, option.name), value)
        else:
            yield (*path, option.name), value


def _other_images(recipe: ResolvedRecipe, base: ResolvedRecipe) -> bool:
    """Whether the held-out images are others than the base arm's; they may lie elsewhere, and be the same."""
    if "data" not in recipe.tables or "data" not in base.tables or recipe.tables["data"] == base.tables["data"]:
        return False
    one, other = (tables["data"].build().validation.fingerprint for tables in (recipe.tables, base.tables))
    return bool(one != other)


def _where(recipe: ResolvedRecipe, path: Sequence[str], otherwise: str) -> str:
    keys: tuple[str | int, ...] = tuple(path)
    if path[0] == "stage":
        keys = ("stage", [stage.name for stage in recipe.stages].index(path[1]), *path[2:])
    return recipe.source.locations.get(keys, otherwise)


def _text(value: Any) -> str:
    return "all" if value is None else f"{value:,}" if isinstance(value, int) else short_text(value)


def unknown_metrics(study: Study, given: Mapping[str, Given]) -> list[RobustokError]:
    """Metrics of the table that no arm gives, and those of claims that their arms do not give."""
    problems = []
    nowhere: set[str] = set()  # said once, at the metric
    for label, expression in study.metrics.items():
        for name in expression.names:
            if not any(_gives(stages, name) for stages in given.values()):
                nowhere.add(name)
                problems.append(_unknown(name, None, study.metric_lines[label], list(given.values())))
    for claim in study.claims:
        for arm in claim.config.arms:
            for name in claim.expression.names:
                if name not in nowhere and not _gives(given[arm], name):
                    problems.append(_unknown(name, arm, claim.where, [given[arm]]))
    for correlation in study.correlations:
        problems += _too_few_arms(correlation, list(given.values()), nowhere)
    return problems


def _too_few_arms(claim: CorrelationClaim, given: Sequence[Given], said: Collection[str]) -> Iterator[RobustokError]:
    """Metrics of a correlation that no arm gives and that were not said, or else too few arms that give all of them."""
    names = list(dict.fromkeys(claim.names))
    unknown = [name for name in names if not any(_gives(arm, name) for arm in given)]
    for name in (name for name in unknown if name not in said):
        yield _unknown(name, None, claim.where, given)
    able = sum(all(_gives(arm, name) for name in names) for arm in given)
    if not unknown and able < FEWEST_ARMS:
        what = f"{able} arms give all that this correlation needs, and a verdict needs {FEWEST_ARMS}"
        yield RobustokError(what, where=claim.where, hint="add arms, or leave the correlation out")


def results_given(recipes: Recipes) -> dict[str, Given]:
    """What the stages of each arm give, by the arm's name. Equal stages of several arms are built once."""
    known: dict[str, Sequence[str] | None] = {}
    return {arm: _given(recipe, known) for arm, recipe in recipes.items()}


def _given(recipe: ResolvedRecipe, known: dict[str, Sequence[str] | None]) -> Given:
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
