"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from robustok_core.values.numbers import number_text
from robustok_core.values.terminal import print_table

if TYPE_CHECKING:
    from rich.console import Console

    from robustok_core.values.result import Result


def print_results(console: Console, results: Mapping[str, Result]) -> None:
    """Prints each result's value and, if it depends on that, its number of images; details are in results.json."""
    rows = ([name, number_text(result.value, 6), _images(result)] for name, result in results.items())
    print_table(console, ["result", "value", "images"], rows)


def _images(result: Result) -> str:
    """ "200", or "200 against 2,000" real ones."""
    if result.num_images is None:
        return ""
    return f"{result.num_images:,}" + (f" against {result.num_reference:,}" if result.num_reference else "")
