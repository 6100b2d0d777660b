"""`robustok new`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from robustok_core.values.terminal import echo


@click.group()
def new() -> None:
    """Create a plugin of your own."""


@new.command()
@click.argument("name")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Kind of component; default: perturbation.")
@click.option("--out", type=click.Path(path_type=Path), help="New folder; default: ./NAME.")
def plugin(name: str, kinds: tuple[str, ...], out: Path | None) -> None:
    """Write a working package NAME with a component of each KIND.

    Kinds: dataset, tokenizer, quantizer, perturbation, loss, features, metric, sample_metric, generator, post_trainer,
    stage, importer.

    It has small components to change, tests that check them, and a recipe that uses them.
    Example: `robustok new plugin fog --kind perturbation --kind metric`.
    """
    from robustok_commands.plugin_package import check_free, check_kinds, check_name, write_package
    from robustok_core.recipe.registry import load_registry
    from robustok_core.runs.files import new_folder
    from robustok_toolkit.new_files import new_output, require_new

    check_name(name)
    chosen = check_kinds(kinds or ("perturbation",))
    check_free(name, chosen, load_registry())
    folder = out or Path(name)
    require_new(folder)
    with new_output(folder) as unfinished, new_folder(unfinished) as aside:
        write_package(aside, name, chosen)
    echo(f"written to {folder}: {', '.join(chosen)}")
    with_tests, quoted = shlex.quote(f"{folder}[test]"), shlex.quote(str(folder))
    echo(f"next: pip install -e {with_tests} && python -m pytest {quoted}")
