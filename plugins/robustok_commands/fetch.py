"""`robustok fetch`."""

from __future__ import annotations

import click

from robustok_core.cli.completion import RECIPE
from robustok_core.values.terminal import echo


@click.command()
@click.argument("recipes", nargs=-1, required=True, type=RECIPE)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set a key, e.g. perturbation.beta=0.5.")
@click.option("--preset", "presets", multiple=True, metavar="RECIPE", help="Lay a recipe fragment over the recipe.")
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
def fetch(recipes: tuple[str, ...], changes: tuple[str, ...], presets: tuple[str, ...], quiet: bool) -> None:
    """Download what RECIPES, or those of run folders, need: weights of frozen networks, data sets.

    What is here already is left alone. A file that cannot be had, or a recipe with a mistake, does not keep the others
    from being fetched.

    Example: `robustok fetch imagenet256/robustok_tokenizer` before a run on machines without a network.
    """
    from robustok_core.errors import EXIT_FAILED, ProblemsError, RobustokError
    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.downloads import needs_of_recipe
    from robustok_core.runs.opening import open_recipe

    def say_unless_quiet(line: str) -> None:
        if not quiet:
            echo(line)

    registry = load_registry()
    mistakes: list[RobustokError] = []
    problems: list[RobustokError] = []
    for name in recipes:
        try:
            recipe = open_recipe(name, overrides=changes, presets=presets)[0].resolve(registry)
        except RobustokError as error:
            mistakes += error.problems
            continue
        needs = needs_of_recipe(recipe, recipe.stages)
        failed = [*needs.problems, *needs.fetch(say_unless_quiet)]
        problems += failed
        if not failed:
            say_unless_quiet(f"{name}: everything is here")
    if found := [*mistakes, *problems]:
        failure = ProblemsError(found)
        if problems:
            failure.exit_code = EXIT_FAILED
        raise failure
