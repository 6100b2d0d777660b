"""Which perturbations the page offers, and from where to where their strengths go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.registry import Registry
from robustok_explorer.opened_run import OpenedRun
from robustok_explorer.views import STRENGTHS

#: delta goes no further on the page; `--set` takes any.
_MOST_NEIGHBOURS = 4096


@frozen(kw_only=True)
class Strength:
    """An option that a slider sets."""

    value: float
    most: float
    step: float


def own_perturbation(run: OpenedRun) -> dict[str, Any]:
    """The run's perturbation as a table that perturbs every image, without annealing; else the first that fits."""
    of_run, offered = run.recipe.get("perturbation", {}), fitting(run)
    if of_run.get("use") in offered:
        table = {name: value for name, value in of_run.items() if name not in ("beta", "anneal")}
    else:
        table = {"use": next(iter(offered), "none")}
        table |= {option: strength.value for option, strength in offered.get(table["use"], {}).items()}
    config = run.registry.classes("perturbation")[table["use"]].Config
    return table | ({"beta": 1.0} if "beta" in attrs.fields_dict(config) else {})


def fitting(run: OpenedRun) -> dict[str, dict[str, Strength]]:
    """The strengths of every perturbation that changes latents of the run's space, by its name."""
    tokenizer = run.tokenizer.tokenizer
    found = {name: _strengths(run.registry, name, tokenizer, run.recipe) for name in run.registry.names("perturbation")}
    return {name: strengths for name, strengths in found.items() if strengths and _fits(run, name, strengths)}


def _fits(run: OpenedRun, name: str, strengths: Mapping[str, Strength]) -> bool:
    try:
        table = {"use": name, **{option: strength.value for option, strength in strengths.items()}}
        run.registry.build("perturbation", table).check(run.tokenizer.tokenizer.space, 1)
    except RobustokError:
        return False
    return True


def _strengths(registry: Registry, name: str, tokenizer: Tokenizer, recipe: Mapping[str, Any]) -> dict[str, Strength]:
    config = registry.classes("perturbation")[name].Config
    of_run = recipe.get("perturbation", {})
    given = of_run if of_run.get("use") == name else {}
    size = tokenizer.space.codebook_size or 1
    found = {}
    for option in attrs.fields(config):
        if option.name not in STRENGTHS or not isinstance(option.default, (int, float)):
            continue
        value = 1.0 if option.name == "beta" else given.get(option.name, option.default)
        whole = isinstance(option.default, int) and not isinstance(option.default, bool)
        most = min(size, _MOST_NEIGHBOURS) if whole else 2.0 if _accepts(config, option.name, 2.0) else 1.0
        found[option.name] = Strength(value=min(value, most), most=most, step=1 if whole else 0.05)
    return found


def _accepts(config: type, option: str, value: float) -> bool:
    try:
        config(**{option: value})
    except (ValueError, TypeError):
        return False
    return True
