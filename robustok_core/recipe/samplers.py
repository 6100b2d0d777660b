"""Resolves and checks sampler options and guidance anywhere in a configuration.

The valid options depend on the generator, so the raw `sampling` tables of a recipe are resolved when it is planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.recipe.structurer import Path, Problem, Structurer
from robustok_core.values.guidance import Guidance
from robustok_core.values.spec import Spec, is_sampler_options


def read_sampler_options(generator: type[Generator], table: Mapping[str, Any], path: Path = ()) -> tuple[Any, list]:
    """An instance of `generator.Sampling` from a raw table, or None and the table's problems.

    Args:
        generator: the class of the generator. path: the table's path of keys, for the problems.
    """

    def no_components(kind: str, name: str, where: Path) -> Problem:
        return Problem(where, f"sampler options cannot hold a {kind}, found {name!r}")

    structurer = Structurer(no_components)
    return structurer.config(generator.Sampling, table, path), structurer.problems


def with_sampler_options(config: Any, generator: type[Generator], path: Path) -> tuple[Any, list[Problem]]:
    """The configuration with its raw sampler options replaced by instances of `generator.Sampling`, and the problems.

    Args:
        config: an attrs instance; nested ones are changed too. path: its path of keys, for the problems.
    """
    changes: dict[str, Any] = {}
    problems: list[Problem] = []
    for option, value in _options(config):
        option_problems: list[Problem] = []
        if is_sampler_options(option) and not isinstance(value, Mapping) and type(value) is not generator.Sampling:
            what = f"it holds options for another generator's sampler, a {type(value).__name__}"
            hint = f"the generator here has a {generator.Sampling.__name__}: use a recipe for each generator"
            problems.append(Problem((*path, option.name), what, hint))
        elif is_sampler_options(option) and isinstance(value, Mapping):
            changes[option.name], option_problems = read_sampler_options(generator, value, (*path, option.name))
        elif _is_nested(value):
            changed, option_problems = with_sampler_options(value, generator, (*path, option.name))
            if changed is not value:
                changes[option.name] = changed
        problems += option_problems
    return (attrs.evolve(config, **changes) if changes and not problems else config), problems


def without_sampler_options(config: Any) -> Any:
    """A configuration with empty sampler options everywhere; `config` itself if it has none."""
    changes: dict[str, Any] = {}
    for option, value in _options(config):
        if is_sampler_options(option):
            changes[option.name] = {}
        elif _is_nested(value) and (changed := without_sampler_options(value)) is not value:
            changes[option.name] = changed
    return attrs.evolve(config, **changes) if changes else config


def check_guidance(config: Any, generator: Generator, path: Path) -> list[Problem]:
    """The problems with any guidance in a configuration; the generator may be on the meta device."""
    problems = []
    for option, value in _options(config):
        if isinstance(value, Guidance):
            try:
                generator.check_guidance(value)
            except RobustokError as error:
                problems.append(Problem((*path, option.name, "scale"), error.what, error.hint))
        elif _is_nested(value):
            problems += check_guidance(value, generator, (*path, option.name))
    return problems


def _options(config: Any) -> list[tuple[Any, Any]]:
    return [(option, getattr(config, option.name)) for option in attrs.fields(type(config))]


def _is_nested(value: Any) -> bool:
    return attrs.has(type(value)) and not isinstance(value, Spec)
