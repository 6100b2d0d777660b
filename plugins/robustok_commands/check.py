"""`robustok check`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from robustok_core.cli.completion import RECIPE
from robustok_core.values.printable import printable
from robustok_core.values.terminal import echo, echo_json, echo_lines

if TYPE_CHECKING:
    from robustok_core.errors import RobustokError
    from robustok_core.runs.plan import Plan


@click.command()
@click.argument("recipes", nargs=-1, required=True, type=RECIPE)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set a key, e.g. perturbation.beta=0.5.")
@click.option("--preset", "presets", multiple=True, metavar="RECIPE", help="Lay a recipe fragment over the recipe.")
@click.option("--every-image", is_flag=True, help="Decode all images instead of up to 2,048 of each split.")
@click.option(
    "--without-data", is_flag=True, help="Check the rest where data and files of [load] are not here; say what was not."
)
@click.option("--gpus", type=click.IntRange(min=1), help="Check for a run on that many GPUs; default: as launched now.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: what each recipe's stages make, or its mistakes.")
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.option("--show", is_flag=True, help="Print what each stage will make, and the recipe with every default.")
def check(
    recipes: tuple[str, ...],
    changes: tuple[str, ...],
    presets: tuple[str, ...],
    every_image: bool,
    without_data: bool,
    gpus: int | None,
    as_json: bool,
    quiet: bool,
    show: bool,
) -> None:
    """Check RECIPES, or the recipes of run folders, as `run` would, data included, without running them.

    Images of the data set are decoded, and those that cannot be read are counted and named.

    It names the files that a run would download, and fails if they cannot be had; `robustok fetch` gets them now.
    """
    from robustok_core.errors import ProblemsError, RobustokError
    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.assumed import Launch
    from robustok_core.runs.checking import SOME_IMAGES
    from robustok_core.runs.checking import check as check_recipe
    from robustok_core.runs.opening import open_recipe

    if show and (quiet or as_json):
        raise click.UsageError(f"--show prints the recipe; leave out {'--quiet' if quiet else '--json'}.")
    launch = None if gpus is None else Launch(processes=gpus)
    registry, images = load_registry(), None if every_image else SOME_IMAGES
    needs: list[str] = []

    def announce(line: str) -> None:
        needs.append(line)
        if not (quiet or as_json):
            echo(f"{'# ' if show else ''}{line}")

    check_one = partial(
        check_recipe, registry=registry, announce=announce, images=images, without_data=without_data, launch=launch
    )
    problems: list[RobustokError] = []
    tables: list[dict[str, Any]] = []
    for name in recipes:
        before, plan = len(problems), None
        try:
            recipe, out = open_recipe(name, overrides=changes, presets=presets)
            plan = check_one(recipe, out=out)
        except RobustokError as error:
            problems.extend(error.problems)
        tables.append(_as_table(name, plan, problems[before:], needs))
        needs.clear()
        if plan is not None and not (as_json or quiet):
            echo_lines(_described(plan) if show else f"{printable(name)}: good")
    if as_json:
        echo_json(tables, default=str)
    if problems:  # what several recipes extend has its mistakes once
        raise ProblemsError(problems)


def _as_table(name: str, plan: Plan | None, problems: Sequence[RobustokError], needs: Sequence[str]) -> dict[str, Any]:
    """What `--json` prints of a recipe; `stages` and `recipe` are None if it has mistakes."""
    return {
        "name": name,
        "good": plan is not None,
        "problems": [{"where": one.where, "what": one.what, "hint": one.hint} for one in problems],
        "needs": list(needs),
        "stages": plan
        and [
            {
                "name": stage.name,
                "reads": list(stage.needs),
                "makes": {artifact: promise.describe() for artifact, promise in stage.makes.items()},
            }
            for stage in plan.stages
        ],
        "recipe": plan and plan.recipe.table(),
    }


def _described(plan: Plan) -> str:
    """The plan as comments, above the recipe: together they are a valid recipe."""
    comments = "\n".join(f"# {printable(line)}" for line in plan.describe().split("\n"))
    return f"{comments}\n\n{plan.recipe.toml()}"
