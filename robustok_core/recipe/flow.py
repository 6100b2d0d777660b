"""What flows from stage to stage: the tables and artifacts that they read, and that must be there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from robustok_core.errors import misspelt
from robustok_core.kinds.stage import Stage, tables_of
from robustok_core.recipe.registry import Registry
from robustok_core.recipe.source import Source
from robustok_core.recipe.structurer import Problem
from robustok_core.values.wording import some_names


def flow_problems(
    stages: Mapping[str, type[Stage]], tables: Collection[str], load: Collection[str], registry: Registry
) -> list[Problem]:
    """Reports stages without a table or artifact that they need, and entries of [load] that no stage reads.

    Args:
        stages: the classes of the stages by their names, in order. tables: those of the recipe. load: its entries.
    """
    available, unread = set(load), set(load)
    problems = []
    makers = {artifact: entry.name for entry in registry.entries("stage") for artifact in entry.factory.makes}
    for index, (name, kind) in enumerate(stages.items()):
        for table in kind.uses:
            if table not in tables:
                problems.append(Problem(("stage", index), f"stage {name!r} needs a table [{table}]"))
        for artifact in kind.needs:
            if artifact not in available:
                what = f"stage {name!r} needs the artifact {artifact!r}, which no stage before it makes"
                problems.append(Problem(("stage", index), what, _where_from(artifact, makers)))
        unread -= set(kind.needs)
        for artifact in sorted(unread & set(kind.makes)):
            what = f"no stage reads it: stage {name!r} makes a new {artifact} first"
            problems.append(Problem(("load", artifact), what, "remove that stage, or this entry of [load]"))
            unread.discard(artifact)
        available |= set(kind.makes)
    needed = sorted({artifact for kind in stages.values() for artifact in kind.needs} - set(load))
    for artifact in sorted(unread):
        close = misspelt(artifact, needed)
        hint = f"{close} Else remove this entry of [load]" if close else "remove this entry of [load]"
        problems.append(Problem(("load", artifact), "no stage reads it", hint))
    return problems


def set_in_vain(source: Source, unread: Sequence[str], load: Collection[str], registry: Registry) -> list[Problem]:
    """Reports what `--set` sets in tables that no stage reads."""
    found = {
        location: path
        for path, location in source.locations.items()
        if path and path[0] in unread and location.startswith("--set ")
    }
    return [
        Problem(path, f"no stage of this recipe reads [{path[0]}]", why_unread(str(path[0]), load, registry))
        for path in found.values()
    ]


def why_unread(table: str, load: Collection[str], registry: Registry) -> str | None:
    """The hint for a table that no stage reads: the artifact is loaded, or which stages would read it."""
    if table in load:
        return f"the {table} is that of [load]"
    readers = [entry.name for entry in registry.entries("stage") if table in tables_of(entry.factory)]
    return f"what reads it: {some_names(readers)}" if readers else None


def _where_from(artifact: str, makers: Mapping[str, str]) -> str:
    """The hint for an artifact that is not there: a stage or another run makes it, or a stage's class misspells it."""
    load = f'or [load] {artifact} = "runs/NAME"'
    if artifact in makers:
        return f"put stage {makers[artifact]!r} before it, {load}"
    if close := misspelt(artifact, list(makers)):
        return f"no known stage makes it; {close} Then mend `needs` of the stage's class"
    return f"no known stage makes it, {load}"
