"""`robustok run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from robustok_core.cli.completion import RECIPE


class _Run(click.Command):
    """Names the command that does what `--dry-run` would."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the arguments of the command."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name != "--dry-run":
                raise
            what = f"No such option '{error.option_name}'. `robustok check RECIPE --show` checks without running."
            raise click.NoSuchOption(error.option_name, what, ctx=ctx) from error


@click.command(cls=_Run)
@click.argument("recipe", type=RECIPE)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set a key, e.g. perturbation.beta=0.5.")
@click.option("--preset", "presets", multiple=True, metavar="RECIPE", help="Lay a recipe fragment over the recipe.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder that holds the runs' folders.")
@click.option("--fresh", is_flag=True, help="Start over, in a new folder.")
@click.option("--accept-old-code", is_flag=True, help="Keep what stages made before the code of a plugin changed.")
@click.option(
    "--reuse",
    multiple=True,
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Take stages that are finished there with the same fingerprint: a run, or a folder of runs.",
)
@click.option("--seeds", metavar="LIST", help="Run once for each seed, as NAME-seed0, ...: --seeds 0,1,2.")
@click.option(
    "--until",
    metavar="STAGE",
    help="Stop after this stage; the same command without it goes on, and is refused if later stages have mistakes.",
)
@click.option("--replay", is_flag=True, help="Repeat the step whose loss or gradient was not finite, to find where.")
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
def run(
    recipe: str,
    changes: tuple[str, ...],
    presets: tuple[str, ...],
    out: Path | None,
    fresh: bool,
    accept_old_code: bool,
    reuse: tuple[Path, ...],
    seeds: str | None,
    until: str | None,
    replay: bool,
    quiet: bool,
) -> None:
    """Run a RECIPE: a file, the name of a bundled recipe, or a run folder, to continue that run.

    Example: `robustok run main_train --set perturbation.beta=0.5 --set run.name=more_beta`

    Finished stages whose configuration and inputs are unchanged are skipped; an interrupted stage resumes.
    """
    from robustok_core.cli.seeds import numbers_of, run_seeds
    from robustok_core.errors import RobustokError
    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.opening import open_recipe
    from robustok_core.runs.runner import run as run_recipe
    from robustok_core.values.terminal import make_console

    if fresh and replay:
        raise RobustokError("--replay looks into a run that has stopped, and --fresh starts a new one")
    console = make_console(quiet=quiet)
    registry = load_registry()
    numbers = None if seeds is None else numbers_of(seeds)
    opened, place = open_recipe(recipe, overrides=changes, presets=presets)
    options: dict[str, Any] = {
        "registry": registry,
        "out": out or place,
        "fresh": fresh,
        "accept_old_code": accept_old_code,
        "until": until,
        "console": console,
        "replay": replay,
        "reuse": reuse,
    }
    if numbers is not None:
        run_seeds(opened, numbers, options)
        return
    run_recipe(opened, **options)
