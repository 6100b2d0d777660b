"""`robustok plugins`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from robustok_core.cli.completion import KIND, component_names
from robustok_core.values.terminal import echo_json, echo_lines, make_console, say, say_wrapped

if TYPE_CHECKING:
    from rich.console import Console

    from robustok_core.recipe.options import Option
    from robustok_core.recipe.registration import Entry
    from robustok_core.recipe.registry import Registry


@click.command()
@click.argument("kind", required=False, type=KIND)
@click.argument("name", required=False, shell_complete=component_names)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all options of the components.")
def plugins(kind: str | None, name: str | None, as_json: bool) -> None:
    """List plugins, the components of a KIND, or the options of one component.

    Examples: `robustok plugins`, `robustok plugins tokenizer`, `robustok plugins perturbation top_delta`.
    """
    from robustok_core.errors import RobustokError, did_you_mean
    from robustok_core.kinds import KINDS
    from robustok_core.recipe.registry import load_registry

    registry = load_registry()
    if kind is not None and kind not in KINDS:
        hint = _commands_for(registry, kind) or did_you_mean(kind, list(KINDS))
        raise RobustokError(f"no kind is called {kind!r}", hint=hint)
    entries = [_entry(registry, kind, name)] if kind and name else registry.entries(kind)
    console = make_console()
    if as_json:
        echo_json(_as_table(registry, entries))
    elif kind is None:
        _list_plugins(console, registry)
    elif name is None:
        _list(console, entries)
    else:
        _show(console, entries[0])


def _commands_for(registry: Registry, name: str) -> str | None:
    """The hint for the name of a component or plugin where that of a kind is expected; None if it names neither."""
    found = [entry for entry in registry.entries() if entry.name == name]
    found = found or [entry for entry in registry.entries() if entry.plugin == name]
    commands = [f"`robustok plugins {entry.kind} {entry.name}`" for entry in found]
    more = f" (and {len(commands) - 3:,} more of {name})" if len(commands) > 3 else ""
    return f"did you mean {' or '.join(commands[:3])}?{more}" if commands else None


def _entry(registry: Registry, kind: str, name: str) -> Entry:
    from robustok_core.errors import RobustokError
    from robustok_core.recipe.structurer import Problem

    if isinstance(found := registry.find(kind, name), Problem):
        raise RobustokError(found.what, hint=found.hint)
    return next(entry for entry in registry.entries(kind) if entry.name == name)


def _list_plugins(console: Console, registry: Registry) -> None:
    """Lists all components by kind, then the packages that provide them, with the reason why one is not in use."""
    entries = registry.entries()
    width = max((len(entry.name) for entry in entries), default=0)
    for kind in dict.fromkeys(entry.kind for entry in entries):
        say(console, kind)
        _list(console, registry.entries(kind), indent="  ", width=width)
        say(console, "")
    say(console, "from")
    width = max((len(plugin.name) for plugin in registry.plugins), default=0)
    for plugin in registry.plugins:
        reasons = [plugin.error] if plugin.error else registry.left_out(plugin.name)
        problem = f", not in use: {'; '.join(reasons)}" if reasons else ""
        say_wrapped(console, f"  {plugin.name:<{width}}  {plugin.distribution}{problem}", hang=width + 4)


def _list(console: Console, entries: Iterable[Entry], *, indent: str = "", width: int = 0) -> None:
    """A line for each component: name, summary and plugin."""
    entries = list(entries)
    width = max([width, *(len(entry.name) for entry in entries)])
    for entry in entries:
        line = f"{indent}{entry.name:<{width}}  {_summary(entry.factory)}  [{entry.plugin}]"
        say_wrapped(console, line, hang=len(indent) + width + 2)


def _summary(cls: type) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def _show(console: Console, entry: Entry) -> None:
    from robustok_core.recipe.options import options_of

    echo_lines(f"{entry.kind} {entry.name}, from {entry.plugin}\n\n{inspect.getdoc(entry.factory)}\n\noptions:")
    _print_options(console, options_of(entry.factory.Config), "  ")
    if sampling := _sampling(entry):
        echo_lines("\noptions of its sampler (`sampling` in stages):")
        _print_options(console, sampling, "  ")


def _sampling(entry: Entry) -> list[Option]:
    """The options of a generator's sampler; none for other kinds."""
    from robustok_core.recipe.options import options_of

    return list(options_of(entry.factory.Sampling)) if hasattr(entry.factory, "Sampling") else []


def _print_options(console: Console, options: Iterable[Option], indent: str) -> None:
    for option in options:
        line = f"{indent}{option.name} ({option.wanted}, {option.default}): {option.doc}"
        say_wrapped(console, line, hang=len(indent) + 4)
        _print_options(console, option.nested, indent + "    ")


def _as_table(registry: Registry, entries: Iterable[Entry]) -> dict[str, Any]:
    """What `--json` prints."""
    import attrs

    from robustok_core.recipe.options import options_of

    def described(entry: Entry) -> Iterator[tuple[str, Any]]:
        yield from (("kind", entry.kind), ("name", entry.name), ("plugin", entry.plugin))
        yield "summary", _summary(entry.factory)
        yield "options", [attrs.asdict(option) for option in options_of(entry.factory.Config)]
        if sampling := _sampling(entry):
            yield "sampling", [attrs.asdict(option) for option in sampling]

    states = [
        {
            "name": one.name,
            "distribution": one.distribution,
            "error": one.error,
            "left_out": [] if one.error else registry.left_out(one.name),
        }
        for one in registry.plugins
    ]
    return {"components": [dict(described(entry)) for entry in entries], "plugins": states}
