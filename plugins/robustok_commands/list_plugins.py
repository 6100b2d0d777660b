"""`robustok plugins`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from robustok_core.values.terminal import echo, echo_lines

if TYPE_CHECKING:
    from robustok_core.recipe.options import Option


@click.command()
@click.argument("kind", required=False)
@click.argument("name", required=False)
def plugins(kind: str | None, name: str | None) -> None:
    """List plugins, the components of a KIND, or the options of one component.

    Examples: `robustok plugins`, `robustok plugins tokenizer`, `robustok plugins perturbation top_delta`.
    """
    from robustok_core.errors import RobustokError, did_you_mean
    from robustok_core.kinds import KINDS
    from robustok_core.recipe.registry import load_registry

    registry = load_registry()
    if kind is not None and kind not in KINDS:
        raise RobustokError(f"no kind is called {kind!r}", hint=did_you_mean(kind, list(KINDS)))
    if kind is None:
        _list_plugins(registry)
    elif name is None:
        _list_kind(registry, kind)
    else:
        _show(registry, kind, name)


def _list_plugins(registry: Any) -> None:
    """Lists all components by kind, then the packages that provide them, with the reason why one is not in use."""
    for kind in dict.fromkeys(entry.kind for entry in registry.entries()):
        echo(kind)
        _list_kind(registry, kind, "  ")
    echo_lines("\nfrom")
    for plugin in registry.plugins:
        problem = f", not in use: {plugin.error}" if plugin.error else ""
        echo(f"  {plugin.name:<22} {plugin.distribution}{problem}")


def _summary(cls: type) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def _list_kind(registry: Any, kind: str, indent: str = "") -> None:
    for entry in registry.entries(kind):
        echo(f"{indent}{entry.name:<22} {_summary(entry.factory)}  [{entry.plugin}]")


def _show(registry: Any, kind: str, name: str) -> None:
    import attrs

    from robustok_core.errors import RobustokError
    from robustok_core.recipe.structurer import Problem

    factory = registry.find(kind, name)
    if isinstance(factory, Problem):
        raise RobustokError(factory.what, hint=factory.hint)
    entry = next(entry for entry in registry.entries(kind) if entry.name == name)
    echo_lines(f"{kind} {name}, from {entry.plugin}\n\n{inspect.getdoc(factory)}\n\noptions:")
    _options(factory.Config, "  ")
    if hasattr(factory, "Sampling") and attrs.fields(factory.Sampling):
        echo_lines("\noptions of its sampler (`sampling` in stages):")
        _options(factory.Sampling, "  ")


def _options(config: type, indent: str) -> None:
    from robustok_core.recipe.options import options_of

    _print_options(options_of(config), indent)


def _print_options(options: Iterable[Option], indent: str) -> None:
    for option in options:
        echo(f"{indent}{option.name} ({option.wanted}, {option.default}): {option.doc}")
        _print_options(option.nested, indent + "    ")
