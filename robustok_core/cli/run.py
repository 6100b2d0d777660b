"""`robustok run`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("recipe")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set a key, e.g. perturbation.beta=0.5.")
@click.option("--preset", "presets", multiple=True, metavar="RECIPE", help="Lay a recipe fragment over the recipe.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder that holds the runs' folders.")
@click.option("--fresh", is_flag=True, help="Start over, in a new folder.")
def run(recipe: str, changes: tuple[str, ...], presets: tuple[str, ...], out: Path | None, fresh: bool) -> None:
    """Run a RECIPE: a file, or the name of a bundled recipe (main_train).

    Finished stages whose configuration and inputs are unchanged are skipped; an interrupted one goes on.
    """
    from rich.console import Console

    from robustok_core.cli.options import load_recipe
    from robustok_core.registry import load_registry
    from robustok_core.runner import run as run_recipe

    console = Console()
    resolved = load_recipe(recipe, changes, presets).resolve(registry := load_registry())
    results = run_recipe(resolved, registry=registry, out=out, fresh=fresh, console=console)
    from robustok_core.cli.tables import print_results

    print_results(console, results)
