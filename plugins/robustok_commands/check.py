"""`robustok check`."""

from __future__ import annotations

import click


@click.command()
@click.argument("recipes", nargs=-1, required=True)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set a key, e.g. perturbation.beta=0.5.")
@click.option("--preset", "presets", multiple=True, metavar="RECIPE", help="Lay a recipe fragment over the recipe.")
@click.option("--show", is_flag=True, help="Print the recipe with every default written out.")
def check(recipes: tuple[str, ...], changes: tuple[str, ...], presets: tuple[str, ...], show: bool) -> None:
    """Check RECIPES as `run` would, data included, without running them."""
    from robustok_core.errors import ProblemsError, RobustokError
    from robustok_core.recipe.recipe import Recipe
    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.runner import check as check_recipe

    registry = load_registry()
    problems: list[RobustokError] = []
    for name in recipes:
        try:
            resolved = check_recipe(Recipe.load(name, overrides=changes, presets=presets), registry=registry)
        except ProblemsError as error:
            problems.extend(error.problems)
        except RobustokError as error:
            problems.append(error)
        else:
            click.echo(resolved.toml() if show else f"{name}: good")
    if problems:
        raise ProblemsError(problems)
