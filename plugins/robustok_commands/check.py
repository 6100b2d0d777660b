"""`robustok check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from robustok_core.values.printable import printable
from robustok_core.values.terminal import echo, echo_lines

if TYPE_CHECKING:
    from robustok_core.runs.plan import Plan


@click.command()
@click.argument("recipes", nargs=-1, required=True)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set a key, e.g. perturbation.beta=0.5.")
@click.option("--preset", "presets", multiple=True, metavar="RECIPE", help="Lay a recipe fragment over the recipe.")
@click.option("--every-image", is_flag=True, help="Decode all images instead of up to 2,048 of each split.")
@click.option("--show", is_flag=True, help="Print what each stage will make, and the recipe with every default.")
def check(
    recipes: tuple[str, ...], changes: tuple[str, ...], presets: tuple[str, ...], every_image: bool, show: bool
) -> None:
    """Check RECIPES, or the recipes of run folders, as `run` would, data included, without running them.

    Images of the data set are decoded, and those that cannot be read are counted and named.

    It names the files that a run would download, and fails if they cannot be had; `robustok fetch` gets them now.
    """
    from robustok_core.errors import ProblemsError, RobustokError
    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.checking import SOME_IMAGES
    from robustok_core.runs.checking import check as check_recipe
    from robustok_core.runs.opening import open_recipe

    registry, images = load_registry(), None if every_image else SOME_IMAGES

    def announce(line: str) -> None:
        echo(f"{'# ' if show else ''}{line}")

    problems: list[RobustokError] = []
    for name in recipes:
        try:
            recipe, out = open_recipe(name, overrides=changes, presets=presets)
            plan = check_recipe(recipe, registry=registry, out=out, announce=announce, images=images)
        except ProblemsError as error:
            problems.extend(error.problems)
        except RobustokError as error:
            problems.append(error)
        else:
            if show:
                echo_lines(_described(plan))
            else:
                echo(f"{name}: good")
    if problems:
        raise ProblemsError(problems)


def _described(plan: Plan) -> str:
    """The plan as comments, above the recipe: together they are a valid recipe."""
    comments = "\n".join(f"# {printable(line)}" for line in plan.describe().split("\n"))
    return f"{comments}\n\n{plan.recipe.toml()}"
