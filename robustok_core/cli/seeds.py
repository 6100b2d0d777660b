"""`robustok run --seeds`: the same recipe with several seeds, each in a run of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from robustok_core.cli.said_once import num_processes
from robustok_core.errors import EXIT_FAILED, RobustokError, raise_all
from robustok_core.recipe.recipe import Recipe
from robustok_core.recipe.source import override
from robustok_core.runs import runner
from robustok_core.values.numbers import number_text
from robustok_core.values.result import Result
from robustok_core.values.spec import run_name
from robustok_core.values.terminal import print_table, say

_WHERE = "--seeds"


def numbers_of(text: str) -> list[int]:
    """The seeds in a list such as "0,1,2".

    Raises:
        RobustokError: if one is not a number, or stands there twice.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdecimal() and len(part) < 20):
            raise RobustokError(f"{part!r} is not a seed", where=_WHERE, hint="for example --seeds 0,1,2")
    numbers = [int(part) for part in parts]
    if (largest := max(numbers)) >= 2**63:
        raise RobustokError(f"the seed {largest} is too large", where=_WHERE, hint="the largest is 2**63 - 1")
    if twice := [number for number in numbers if numbers.count(number) > 1]:
        raise RobustokError(f"the seed {twice[0]} stands there twice", where=_WHERE)
    return numbers


def run_seeds(recipe: Recipe, seeds: Sequence[int], options: Mapping[str, Any]) -> None:
    """Runs a recipe once for each seed, as NAME-seed0, NAME-seed1, ..., and prints the results side by side.

    A seed whose run fails does not end the others, unless several processes work together: they would lose each other.

    Args:
        options: of `robustok_core.run`.

    Raises:
        RobustokError: what is wrong with the recipe, or why seeds failed.
    """
    if recipe.source.locations.get(("run", "seed"), "").startswith("--set"):
        raise RobustokError("run.seed is set, but --seeds sets it too", where=_WHERE, hint="leave one of them out")
    name = recipe.resolve(options["registry"]).run.name
    recipes = {seed: _with_seed(recipe, name, seed) for seed in seeds}
    for one in recipes.values():
        one.resolve(options["registry"])  # what is wrong with a name is known before the first run
    found: dict[int, Mapping[str, Result]] = {}
    failed: list[RobustokError] = []
    for seed, one in recipes.items():
        say(options["console"], f"seed {seed}: {run_name(name, seed)}")
        try:
            found[seed] = runner.run(one, **options)
        except RobustokError as error:
            if error.exit_code != EXIT_FAILED or num_processes() > 1:
                raise
            failed.append(error)
            say(options["console"], f"seed {seed} failed: {error}")
    _print(options["console"], found)
    raise_all(failed)


def _with_seed(recipe: Recipe, name: str, seed: int) -> Recipe:
    changes = {"run.name": run_name(name, seed), "run.seed": seed}
    return attrs.evolve(recipe, source=override(recipe.source, changes))


def _print(console: Any, found: Mapping[int, Mapping[str, Result]]) -> None:
    names = dict.fromkeys(name for results in found.values() for name in results)
    rows = [
        [name, *(number_text(results[name].value, 6) if name in results else "-" for results in found.values())]
        for name in names
    ]
    print_table(console, ["result", *(f"seed {seed}" for seed in found)], rows)
    if len(found) > 1:
        say(console, "`robustok compare --group RUNS` shows means and errors, and compares them with other runs'")
