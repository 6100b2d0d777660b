"""`robustok compare --group`: runs of several seeds as one, and the differences between such groups, seed by seed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs
from attrs import frozen

from robustok_core.errors import RobustokError, RunError
from robustok_core.runs.conditions import (
    COUNTS,
    Conditions,
    differences,
    forbidding,
    named,
    numbers_of,
    read_conditions,
)
from robustok_core.runs.history import RECIPE_FILE, SEED_IN_NAME, changes_between, changes_beyond_seed, described
from robustok_core.runs.results import read_results
from robustok_core.runs.run_record import read_run
from robustok_core.values.numbers import number_text
from robustok_core.values.result import Result
from robustok_core.values.terminal import echo, echo_json, echo_lines, make_console, print_table
from robustok_study.record import Difference, is_study
from robustok_study.statistics import Estimate, estimate
from robustok_study.tables import difference_text
from robustok_study.verdicts import best_of, difference_of, signed

Form = Literal["table", "csv", "json"]
#: What differs between the runs of two groups in any case.
_OF_A_RUN = ("run.name: ", "run.seed: ", "run.out: ")


@frozen(kw_only=True)
class Group:
    """Runs that differ in their seed only.

    Attributes:
        name: what the names of their folders have in common. runs: the folders by seed. results: of each.
        conditions: what the results of each depend on.
    """

    name: str
    runs: Mapping[int, Path]
    results: Mapping[int, Mapping[str, Result]]
    conditions: Mapping[int, Conditions]

    def values(self, result: str) -> dict[int, float]:
        """The values of a result by seed; empty unless all runs have it, and it is finite."""
        found = {seed: results[result].value for seed, results in self.results.items() if result in results}
        return found if len(found) == len(self.runs) and all(map(math.isfinite, found.values())) else {}


@frozen(kw_only=True)
class Row:
    """One result: the mean of each group, and its difference from the first group, by group.

    Attributes:
        why_not: why the groups may not be compared; then there are no differences, and none is the best.
    """

    name: str
    why_not: str | None
    groups: Mapping[str, Estimate]
    differences: Mapping[str, Difference]
    best: str | None


def compare_groups(runs: Sequence[Path], *, skip_unequal: bool, form: Form) -> None:
    """Prints means over seeds, their standard errors, and paired differences from the first group.

    Raises:
        RobustokError: if the runs are no groups, have unequal seeds, or measured with unequal numbers of images.
    """
    groups = read_groups(runs)
    names = list(dict.fromkeys(name for group in groups for results in group.results.values() for name in results))
    differing = {name: _differing(groups, name) for name in names}
    unequal = [
        f"{name} was measured with different {key} ({differing[name][key]})"
        for name in names
        for key in COUNTS
        if key in differing[name]
    ]
    if unequal and not skip_unequal:
        hint = "use equal numbers, or leave such rows out: --skip-unequal"
        raise RobustokError(f"{unequal[0]}, and depends on it", hint=hint)
    rows = [_row(groups, name, differing[name]) for name in names if not differing[name].keys() & set(COUNTS)]
    changes = {group.name: _changes(groups[0], group) for group in groups[1:]}
    if form == "json":
        _print_json(groups, rows, changes)
    elif form == "csv":
        _print_csv(groups, rows)
    else:
        _print_table(groups, rows)
    for text in unequal:
        echo(f"left out: {text}", err=form != "table")
    for row in rows:
        if row.why_not is not None:
            echo(f"note: {row.name} cannot be compared: {row.why_not}", err=form != "table")
    for text in (text for group in groups for text in _partial(group, [row.name for row in rows])):
        echo(f"note: {text}", err=form != "table")
    for name, lines in changes.items():
        what = described(lines) if lines else "nothing in the recipe"
        echo(f"{groups[0].name} -> {name}: {what}", err=form != "table")


def read_groups(runs: Sequence[Path]) -> list[Group]:
    """The runs by what their names have in common before "-seed0".

    Raises:
        RobustokError: if one is not a run, two of a group have one seed or differ in more than their seed, or groups
            have unequal seeds.
    """
    found: dict[str, dict[int, Path]] = {}
    for run in runs:
        if not run.is_dir():
            raise RobustokError("this is not the folder of a run", where=str(run), hint="--group compares runs only")
        if is_study(run):
            hint = f"name its runs, {run}/ARM-seed0 ...; `robustok report {run}` compares its arms"
            raise RobustokError("this is the folder of a study", where=str(run), hint=hint)
        seed = read_run(run).get("seed")
        if not isinstance(seed, int):
            raise RobustokError("its seed is not recorded", where=str(run), hint="run its recipe once more")
        by_seed = found.setdefault(SEED_IN_NAME.sub("", str(run)), {})
        if seed in by_seed:
            raise RobustokError(f"this has the seed {seed}, as {by_seed[seed]} has", where=str(run))
        by_seed[seed] = run
    groups = [_group(name, runs_of) for name, runs_of in found.items()]
    for group in groups[1:]:
        if group.runs.keys() != groups[0].runs.keys():
            one, other = (", ".join(map(str, sorted(each.runs))) for each in (groups[0], group))
            what = f"{groups[0].name} has the seeds {one}, and {group.name} {other}: differences are paired by seed"
            raise RobustokError(what, hint="name runs of the same seeds: `robustok run RECIPE --seeds 0,1,2`")
    return groups


def _group(name: str, runs: Mapping[int, Path]) -> Group:
    ordered = dict(sorted(runs.items()))
    first, *others = ordered.values()
    for run in others:
        changes = changes_beyond_seed(_recipe(first), _recipe(run))
        if changes:
            what = f"differs from {first} in more than its seed: {described(changes)}"
            raise RobustokError(what, where=str(run), hint="only seeds make a group; give other runs another name")
    return Group(
        name=name,
        runs=ordered,
        results={seed: read_results(run) for seed, run in ordered.items()},
        conditions={seed: read_conditions(run) for seed, run in ordered.items()},
    )


def _recipe(run: Path) -> str:
    try:
        return (run / RECIPE_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RunError("its recipe cannot be read", where=str(run / RECIPE_FILE)) from error


def _changes(one: Group, other: Group) -> list[str]:
    """What differs between the recipes of two groups."""
    before, after = (_recipe(next(iter(group.runs.values()))) for group in (one, other))
    return [line for line in changes_between(before, after) if not line.startswith(_OF_A_RUN)]


def _differing(groups: Sequence[Group], name: str) -> dict[str, str]:
    """What forbids to compare the results of a row: what differs, and in which runs."""
    conditions = [each for group in groups for each in group.conditions.values()]
    results = [each for group in groups for each in group.results.values()]
    runs = [str(run) for group in groups for run in group.runs.values()]
    found = forbidding(differences(numbers_of(conditions, name, results)))
    return {key: named(values, runs) for key, values in found.items()}


def _partial(group: Group, names: Sequence[str]) -> Iterator[str]:
    """The results that a group lacks because only some of its runs have them, or one is not finite."""
    for name in names:
        have = [seed for seed, results in group.results.items() if name in results]
        if have and len(have) < len(group.runs):
            runs = ", ".join(str(run) for seed, run in group.runs.items() if seed not in have)
            yield f"{name} of {group.name} is left out: {runs} did not measure it"
        elif have and not group.values(name):
            runs = ", ".join(
                str(run) for seed, run in group.runs.items() if not math.isfinite(group.results[seed][name].value)
            )
            yield f"{name} of {group.name} is left out: it is not finite in {runs}"


def _row(groups: Sequence[Group], name: str, differing: Mapping[str, str]) -> Row:
    values = {group.name: found for group in groups if (found := group.values(name))}
    means = {group: estimate(list(found.values())) for group, found in values.items()}
    if differing:
        text = "; ".join(f"different {key} ({where})" for key, where in differing.items())
        return Row(name=name, groups=means, differences={}, best=None, why_not=text)
    directions = {results[name].higher_is_better for g in groups for results in g.results.values() if name in results}
    base = groups[0].name
    changes = {
        group: difference
        for group, of_group in values.items()
        if group != base and base in values and (difference := difference_of(of_group, values[base], base)) is not None
    }
    best = best_of(values, directions.pop()) if len(directions) == 1 else None
    return Row(name=name, groups=means, differences=changes, best=best, why_not=None)


def _print_table(groups: Sequence[Group], rows: Sequence[Row]) -> None:
    base, *others = [group.name for group in groups]
    headers = ["result", base, *(text for name in others for text in (name, "difference", "95 % interval"))]
    cells = []
    for row in rows:
        line = [row.name, _cell(row, base)]
        for name in others:
            difference = row.differences.get(name)
            line += [_cell(row, name), *_difference_cells(difference)]
        cells.append(line)
    print_table(make_console(), headers, cells)
    seeds = "one seed" if len(groups[0].runs) == 1 else f"{len(groups[0].runs)} seeds"
    echo(f"mean ± standard error over {seeds}; differences from {base}, paired by seed")


def _cell(row: Row, group: str) -> str:
    if group not in row.groups:
        return "-"
    found = row.groups[group]
    error = "" if found.standard_error is None else f" ± {number_text(found.standard_error, 2)}"
    return f"{number_text(found.mean, 4)}{error}{' *' if row.best == group else ''}"


def _difference_cells(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["-", "-"]
    if difference.low is None or difference.high is None:
        return [difference_text(difference), "-"]
    text = difference_text(difference).removesuffix(" *")  # a star marks the best of a row
    return [text, f"{signed(difference.low)} to {signed(difference.high)}"]


def _print_json(groups: Sequence[Group], rows: Sequence[Row], changes: Mapping[str, Sequence[str]]) -> None:
    table = {
        "groups": {group.name: {str(seed): str(run) for seed, run in group.runs.items()} for group in groups},
        "changes": {name: list(lines) for name, lines in changes.items()},
        "results": {
            row.name: {
                "groups": {
                    group.name: {**attrs.asdict(row.groups[group.name]), "by_seed": _texts(group.values(row.name))}
                    for group in groups
                    if group.name in row.groups
                },
                "differences": {name: attrs.asdict(difference) for name, difference in row.differences.items()},
                "best": row.best,
                "why_not": row.why_not,
            }
            for row in rows
        },
    }
    echo_json(table)


def _texts(values: Mapping[int, float]) -> dict[str, float]:
    return {str(seed): value for seed, value in values.items()}


def _print_csv(groups: Sequence[Group], rows: Sequence[Row]) -> None:
    """One line for each result and group."""
    written = io.StringIO()
    seeds = [f"seed{seed}" for seed in groups[0].runs]
    columns = ["mean", "standard_error", "difference", "difference_standard_error", "low", "high", "best", "why_not"]
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["result", "group", *columns, *seeds])
    for row in rows:
        for group in groups:
            if group.name not in row.groups:
                continue
            found, difference = row.groups[group.name], row.differences.get(group.name)
            numbers = (
                [None] * 4
                if difference is None
                else [
                    difference.mean,
                    difference.standard_error,
                    difference.low,
                    difference.high,
                ]
            )
            values = [found.mean, found.standard_error, *numbers, int(row.best == group.name), row.why_not]
            writer.writerow([row.name, group.name, *values, *group.values(row.name).values()])
    echo_lines(written.getvalue().rstrip("\n"))
