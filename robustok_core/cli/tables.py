"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from robustok_core.values.numbers import number_text


def print_results(console: Console, results: Mapping[str, float]) -> None:
    """The results of a run; the cells behind a mean stay in results.json."""
    table = Table("result", "value", box=None)
    for name, value in results.items():
        if name.count("/") < 2:
            table.add_row(name, number_text(value, 6))
    console.print(table)
