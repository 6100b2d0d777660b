"""`robustok recipes`."""

from __future__ import annotations

from pathlib import Path

import click

from robustok_core.values.terminal import make_console, say_wrapped


@click.command()
def recipes() -> None:
    """List the bundled recipes and presets, with the first line of each: `robustok run NAME` runs one.

    Those called study/NAME are studies: `robustok study NAME` runs one.
    """
    from robustok_core.recipe.source import bundled_recipes, bundled_studies

    files = sorted((bundled_recipes() | bundled_studies()).items(), key=lambda item: (item[0].count("/"), item[0]))
    console = make_console()
    width = max(len(name) for name, _ in files)
    for name, file in files:
        say_wrapped(console, f"{name:<{width}}  {_what(file)}", hang=width + 2)


def _what(file: Path) -> str:
    """The first line of a recipe's header: a description."""
    with file.open(encoding="utf-8") as opened:
        description = opened.readline().removeprefix("#").strip().removeprefix("What:").strip()
    return description if description.endswith(".") else f"{description} ..."
