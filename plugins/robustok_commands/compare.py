"""`robustok compare`."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from robustok_core.values.terminal import echo, echo_json, make_console, print_table

if TYPE_CHECKING:
    from robustok_core.values.result import Result

    #: One result of each run, None where a run did not measure it.
    Row = Sequence[Result | None]


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--skip-unequal", is_flag=True, help="Leave out results measured with unequal numbers of images.")
@click.option("--group", is_flag=True, help="Take runs that are called alike but for -seed0, -seed1, ... as one.")
@click.option("--csv", "as_csv", is_flag=True, help="With --group: print CSV, a line for each result and group.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all details of each result.")
def compare(runs: tuple[Path, ...], skip_unequal: bool, group: bool, as_csv: bool, as_json: bool) -> None:
    """Show the results of RUNS side by side: folders of runs, or files that `evaluate --out` wrote.

    A star marks the best value of a row. Distances measured with unequal numbers of images cannot be compared and are
    refused. Rows measured on other data, picture sizes, references, feature networks or with other options of their
    metrics have no star but a note. A result of `evaluate` joins the row of the only stage that measured the same. A
    second table has the settings that differ between the recipes of the runs.

    With --group, the table has means over seeds with their standard errors, and differences from the first group,
    paired by seed. There, a star marks the best value if the 95 % intervals of its differences from all others exclude
    0, and rows that cannot be compared have no differences.
    """
    from robustok_core.errors import RobustokError
    from robustok_core.runs.conditions import COUNTS, differences, forbidding, numbers_of, read_conditions
    from robustok_core.runs.results import read_results

    if len(runs) < 2:
        raise RobustokError("there is nothing to compare", hint="name at least two runs")
    if as_csv and (as_json or not group):
        raise RobustokError("--csv prints groups, as a table", hint="use it with --group, and without --json")
    if group:
        from robustok_commands.compare_groups import compare_groups

        compare_groups(runs, skip_unequal=skip_unequal, form="json" if as_json else "csv" if as_csv else "table")
        return
    results = _aligned([read_results(run) for run in runs])
    names = dict.fromkeys(name for found in results for name in found)
    rows: dict[str, Row] = {name: [found.get(name) for found in results] for name in names}
    conditions = [read_conditions(run) for run in runs]
    differing = {name: differences(numbers_of(conditions, name, results)) for name in rows}
    unequal = {name: found for name, found in differing.items() if found.keys() & set(COUNTS)}
    if unequal and not skip_unequal:
        raise RobustokError(_refusal(unequal), hint="use equal numbers, or leave such rows out: --skip-unequal")
    rows = {name: row for name, row in rows.items() if name not in unequal}
    if as_json:
        _print_json(runs, rows)
    else:
        _print_table(runs, rows, starred={name for name in rows if not forbidding(differing[name])})
    if unequal:
        echo(f"left out, measured with unequal numbers of images: {', '.join(sorted(unequal))}", err=as_json)
    for note in _notes(runs, {name: differing[name] for name, row in rows.items() if _direction(row) is not None}):
        echo(f"note: {note}", err=as_json)


def _notes(runs: tuple[Path, ...], differing: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    """What differs between runs besides their results, and which rows it concerns.

    How samples were drawn is among the settings that differ.
    """
    from robustok_core.runs.conditions import TRAINING_IMAGES, forbidding

    concerned: dict[tuple[str, ...], list[str]] = {}
    for name, by_key in differing.items():
        for key, found in by_key.items():
            if key == TRAINING_IMAGES or key in forbidding(by_key):
                concerned.setdefault((key, *found), []).append(name)
    for (key, *values), names in concerned.items():
        each = ", ".join(f"{run}: {value}" for run, value in zip(runs, values, strict=True))
        yield f"{', '.join(names)}: different {key} ({each})"


def _aligned(runs: list[dict[str, Result]]) -> list[dict[str, Result]]:
    """The results by the names of their rows.

    A result without a stage ("gfid") joins the row of the only stage that has it ("evaluate_generator/gfid"). If
    several stages have it, it gets a row of its own.
    """
    stages: dict[str, set[str]] = {}
    for name in (name for results in runs for name in results if "/" in name):
        stages.setdefault(name.partition("/")[2], set()).add(name)
    full = {result: next(iter(names)) for result, names in stages.items() if len(names) == 1}
    return [{full.get(name, name): result for name, result in results.items()} for results in runs]


def _refusal(unequal: dict[str, dict[str, list[str]]]) -> str:
    """Two numbers of images of the first row with unequal ones."""
    from robustok_core.runs.conditions import COUNTS

    name, found = next(iter(unequal.items()))
    key = next(key for key in COUNTS if key in found)
    one, other, *_ = dict.fromkeys(value for value in found[key] if value != "-")
    others = f" (and {len(unequal) - 1} more)" if len(unequal) > 1 else ""
    what = key.removeprefix("numbers of ")
    return f"{name} was measured with {one} {what} and with {other}, and depends on their number{others}"


def _print_json(runs: tuple[Path, ...], rows: dict[str, Row]) -> None:
    """Prints {"stage/metric": {run: the result as in results.json}}."""
    tables = {
        name: {str(run): result.table() for run, result in zip(runs, row, strict=True) if result is not None}
        for name, row in rows.items()
    }
    echo_json(tables)


def _print_table(runs: tuple[Path, ...], rows: dict[str, Row], *, starred: Container[str]) -> None:
    from robustok_core.runs.history import different_settings

    cells = [[name, *_cells(row, name in starred)] for name, row in rows.items()]
    made_with = [[f"made with {name}", *texts] for name, texts in _unequal_code(runs).items()]
    settings = [[key, *values] for key, values in different_settings(runs).items()]
    console, titles = make_console(), list(map(str, runs))
    names = max(len(row[0]) for row in [["result"], *cells, *settings])
    if names + sum(len(title) + 1 for title in titles) > console.width:  # names of runs are not broken
        titles = [f"({number})" for number in range(1, len(runs) + 1)]
        for title, run in zip(titles, runs, strict=True):
            echo(f"{title} {run}")
    print_table(console, ["result", *titles], [*cells, *made_with])
    if settings:
        echo("")
        print_table(console, ["different setting", *titles], settings)


def _unequal_code(runs: tuple[Path, ...]) -> dict[str, list[str]]:
    """The packages whose version or source differs between those runs that record it."""
    from robustok_core.runs.code import code_of_run

    codes = [code_of_run(run) for run in runs]
    known = [code for code in codes if code]
    names = dict.fromkeys(name for code in known for name in code)
    unequal = [name for name in names if len({code.get(name) for code in known}) > 1]
    return {name: [code.get(name, "not used" if code else "-") for code in codes] for name in unequal}


def _direction(row: Row) -> bool | None:
    """Whether higher is better; None if that is not known, or there are no two results that agree on it."""
    results = [result for result in row if result is not None]
    directions = {result.higher_is_better for result in results} - {None}
    return directions.pop() if len(directions) == 1 and len(results) > 1 else None


def _cells(row: Row, starred: bool) -> list[str]:
    """The values of a row as text, with a star at the best, unless all are equal or it is not known which is better."""
    from robustok_core.values.numbers import number_text

    values = [result.value for result in row if result is not None and not math.isnan(result.value)]
    direction, best = _direction(row), None
    if starred and direction is not None and len(set(values)) > 1:
        best = max(values) if direction else min(values)
    return ["-" if r is None else f"{number_text(r.value, 6)}{' *' if r.value == best else ''}" for r in row]
