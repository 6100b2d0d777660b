"""What ran, on what, for how long, and how to run it again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robustok_core.errors import RobustokError
from robustok_core.runs.precision import COMPUTED
from robustok_core.values.numbers import duration_text
from robustok_report.defaults import Value, value_text, values_of
from robustok_toolkit.report_parts import Cell, Part, Section, Table, Text
from robustok_toolkit.reported_run import ReportedRun, ReportedStage

#: Characters; a longer command gets a line for each option.
_LONG_COMMAND = 80


def what_ran(run: ReportedRun) -> Section:
    """The run's origin, the cost of its stages, and its recipe."""
    return Section("What ran", [_origin(run), _costs(run), *_recipe(run)])


def _origin(run: ReportedRun) -> Table:
    own = [stage for stage in run.stages if not stage.taken_from]
    made_with = [made for stage in run.stages for made in _made_with(stage)]
    started = [str(stage.entry["started"]) for stage in own if stage.entry.get("started")]
    taken: dict[str, list[str]] = {}
    for stage in run.stages:
        if stage.taken_from:
            taken.setdefault(stage.taken_from, []).append(stage.name)
    rows: list[list[str | Cell]] = [
        ["Command", Cell(command([made for stage in own for made in _made_with(stage)]), code=True)],
        ["Or from its folder", Cell(shlex.join(["robustok", "run", str(run.folder)]), code=True)],
        ["Seed", str(run.record.get("seed", run.table.get("run", {}).get("seed", "not recorded")))],
        ["Started", min(started).replace("T", " ") if started else "never"],
        ["Taken", "; ".join(f"{', '.join(names)}, from {folder}" for folder, names in taken.items())],
        ["Versions", _each(_versions, made_with)],
        ["Code", _each(_code, made_with)],
        ["Machine", _each(_machine, made_with)],
        ['Precision "auto"', _each(_auto_precision, made_with)],
    ]
    return Table("Origin", ["", ""], [row for row in rows if row[1] != ""])


def command(made_with: list[Mapping[str, Any]]) -> str:
    """The command that made a run; that of its last stage, as it may have been changed since its first."""
    arguments = next((made["command"] for made in reversed(made_with) if made.get("command")), None)
    if arguments is None:
        return "not recorded: another program than robustok may have made it"
    words = ["robustok", *map(str, arguments)]
    if len(text := shlex.join(words)) <= _LONG_COMMAND:
        return text
    return " ".join(f"\\\n  {shlex.quote(word)}" if word.startswith("--") else shlex.quote(word) for word in words)


def _made_with(stage: ReportedStage) -> list[Mapping[str, Any]]:
    return stage.entry.get("made_with") or [stage.entry]


def _each(text_of: Callable[[Mapping[str, Any]], str], made_with: Sequence[Mapping[str, Any]]) -> str:
    """A text for all surroundings in which stages ran, each different one once, in their order."""
    return "; ".join(dict.fromkeys(filter(None, map(text_of, made_with))))


def _versions(made: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {made[name]}" for name in ("robustok", "python", "torch") if name in made)


def _code(made: Mapping[str, Any]) -> str:
    commit = f"commit {made['git_commit']}" if made.get("git_commit") else ""
    others = [
        f"{name} {about.get('version', '')}".strip()
        for name, about in (made.get("plugins") or {}).items()
        if name != "robustok" and isinstance(about, Mapping)
    ]
    return ", ".join(filter(None, [commit, *others]))


def _machine(made: Mapping[str, Any]) -> str:
    parts = [str(made.get("device", ""))]
    for name, one, several in (("processes", "process", "processes"), ("threads", "thread", "threads")):
        if isinstance(count := made.get(name), int):
            parts.append(f"{count} {one if count == 1 else several}")
    if isinstance(cpus := made.get("cpus"), int):
        parts.append(f"{cpus} CPUs")
    return ", ".join(filter(None, parts))


def _auto_precision(made: Mapping[str, Any]) -> str:
    return COMPUTED.get(str(made.get("auto_precision")), "")


def _costs(run: ReportedRun) -> Table:
    rows: list[list[str | Cell]] = []
    for stage in run.stages:
        memory = stage.entry.get("peak_memory_gib")
        state = str(stage.entry.get("state", "not begun"))
        rows.append(
            [
                stage.name,
                Cell(state, marked=not stage.done, hint=f"in {stage.taken_from}" if stage.taken_from else ""),
                duration_text(float(stage.entry["seconds"])) if "seconds" in stage.entry else "–",
                f"{memory:.2f} GiB" if isinstance(memory, (int, float)) else "–",
            ]
        )
    total = sum(stage.seconds for stage in run.stages)
    return Table(
        "Cost of each stage",
        ["stage", "state", "time", "peak memory so far"],
        [*rows, ["all", "", duration_text(total), ""]],
    )


def _recipe(run: ReportedRun) -> list[Part]:
    try:
        values = values_of(run.recipe)
    except RobustokError as error:
        note = f"Its defaults are not marked, because this version cannot read the recipe: {error}"
        rows = [[key, text] for key, text in flat(run.table)]
        return [Text(note, muted=True), Table("Recipe", ["key", "value"], rows, folded=True, code=True)]
    chosen = [value for value in values if value.differs]
    title = f"Recipe: the {len(chosen)} values that differ from their defaults"
    columns = ["key", "value", "default", "meaning"]
    return [
        Table(title, columns, [_row(value) for value in chosen], folded=True, code=True),
        Table(f"Recipe: all {len(values)} values", columns, [_row(value) for value in values], folded=True, code=True),
    ]


def _row(value: Value) -> list[str | Cell]:
    return [value.key, Cell(value.text, marked=value.differs), value.default, value.doc]


def flat(table: Any, path: str = "") -> list[tuple[str, str]]:
    """The values of a recipe's table by dotted path, its stages by their names."""
    if isinstance(table, Mapping):
        return [pair for key, item in table.items() for pair in flat(item, f"{path}.{key}" if path else str(key))]
    if isinstance(table, list) and table and all(isinstance(item, Mapping) for item in table):
        named = {str(item.get("name", item.get("use", number))): item for number, item in enumerate(table)}
        return flat(named, path)
    return [(path, value_text(table))]
