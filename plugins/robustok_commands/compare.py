"""`robustok compare`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

#: How many images a result depends on: samples, and real ones where they are counted apart.
_NUMBERS = ("_num_images", "_num_reference_images")
#: What stands beside a result and is none itself.
_BESIDE = (*_NUMBERS, "_num_cells", "_deltas_scaled_from", "_std")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--skip-unequal", is_flag=True, help="Leave out what was measured with unequal numbers of images.")
def compare(runs: tuple[Path, ...], skip_unequal: bool) -> None:
    """Show the results of RUNS side by side: folders of runs, or files that `evaluate --out` wrote.

    The best value of a row has a star. Distances of unequal numbers of images are not comparable, and refused. A
    result of `evaluate` stands in the row of the one stage that measured the same.
    """
    from rich.console import Console
    from rich.table import Column, Table

    from robustok_core.errors import RobustokError
    from robustok_core.recipe.registry import load_registry

    if len(runs) < 2:
        raise RobustokError("there is nothing to compare with", hint="name two runs or more")
    found = _aligned([_read(run) for run in runs])
    unequal = _unequal(found)
    if unequal and not skip_unequal:
        name, one, other = unequal[0]
        what = f"{name} was measured with {one:g} images and with {other:g}: a distance depends on their number"
        others = f" (and {len(unequal) - 1} more)" if len(unequal) > 1 else ""
        raise RobustokError(what + others, hint="measure equal numbers, or leave such rows out: --skip-unequal")
    left_out = {name for name, _, _ in unequal}
    directions = _directions(load_registry())
    table = Table(*(Column(name, overflow="fold") for name in ("result", *map(str, runs))), box=None)
    for name in dict.fromkeys(name for results in found for name in results):
        if name.count("/") < 2 and not _belongs_to(name, left_out):
            table.add_row(name, *_cells([results.get(name) for results in found], _better(name, directions)))
    console = Console()
    console.print(table)
    if left_out:
        click.echo(f"left out, measured with unequal numbers of images: {', '.join(sorted(left_out))}")


def _read(run: Path) -> dict[str, float]:
    """The results of a run's folder, or of a JSON file: names and numbers."""
    from robustok_core.errors import RobustokError, RunError
    from robustok_core.runs.files import read_json

    file = run / "results.json" if run.is_dir() else run
    if not file.is_file():
        hint = "name the folder of a run that has finished, or a file of `robustok evaluate --out`"
        raise RobustokError("there are no results", where=str(run), hint=hint)
    try:
        content = read_json(file)
    except RunError as error:
        raise RobustokError(f"this is no JSON file: {error.what}", where=str(file)) from error
    results = content.get("results", content) if isinstance(content, dict) else None
    if not isinstance(results, dict) or not all(isinstance(value, (int, float)) for value in results.values()):
        hint = "`robustok evaluate --out` writes such a file"
        raise RobustokError("this holds no results by name", where=str(file), hint=hint)
    return results


def _aligned(found: list[dict[str, float]]) -> list[dict[str, float]]:
    """The results, of which those without a stage ("gfid") are called as one stage calls them ("judge/gfid").

    Where several stages of the runs measured it, nobody can say which one is meant: it keeps its name.
    """
    stages: dict[str, set[str]] = {}
    for name in (name for results in found for name in results if "/" in name):
        stages.setdefault(name.partition("/")[2], set()).add(name)
    names = {result: next(iter(full)) for result, full in stages.items() if len(full) == 1}
    return [{names.get(name, name): value for name, value in results.items()} for results in found]


def _unequal(found: list[dict[str, float]]) -> list[tuple[str, float, float]]:
    """Results that stand beside different numbers of images, with two of the numbers."""
    unequal = []
    for key in dict.fromkeys(name for results in found for name in results if name.endswith(_NUMBERS)):
        numbers = [results[key] for results in found if key in results]
        other = next((number for number in numbers if number != numbers[0]), None)
        if other is not None:
            ending = next(ending for ending in _NUMBERS if key.endswith(ending))
            unequal.append((key.removesuffix(ending), numbers[0], other))
    return unequal


def _belongs_to(name: str, results: set[str]) -> bool:
    """Whether a row is one of these results or stands beside one."""
    return any(name == result or name in {f"{result}{end}" for end in _BESIDE} for result in results)


def _directions(registry: Any) -> Mapping[str, bool]:
    """What all metrics say of their results: whether higher is better, by name."""
    entries = [*registry.entries("metric"), *registry.entries("sample_metric")]
    return {name: better for entry in entries for name, better in entry.factory.higher_is_better.items()}


def _better(name: str, directions: Mapping[str, bool]) -> bool | None:
    """Whether higher is better for "STAGE/NAME" or "STAGE/NAME_FEATURES", None where nobody says."""
    from robustok_toolkit.directions import higher_is_better

    result = name.rpartition("/")[2]
    if result.endswith(_BESIDE):
        return None
    return higher_is_better(result, directions)


def _cells(values: list[float | None], higher_is_better: bool | None) -> list[str]:
    """The values of a row as text; the best ones have a star, unless all are the same."""
    from robustok_core.values.numbers import number_text

    there = [value for value in values if value is not None and not math.isnan(value)]
    best = None
    if higher_is_better is not None and len(set(there)) > 1:
        best = max(there) if higher_is_better else min(there)
    return ["-" if value is None else f"{number_text(value, 6)}{' *' if value == best else ''}" for value in values]
