"""Checks a component when its plugin registers it, before anything uses it."""

from __future__ import annotations

import inspect
import sys
import typing
from types import SimpleNamespace
from typing import Any

import attrs
from attrs import frozen

from robustok_core.errors import RobustokError, did_you_mean
from robustok_core.kinds import KINDS, TABLES
from robustok_core.recipe.signatures import constructor_problem, signature_problem
from robustok_core.recipe.structurer import nested_config
from robustok_core.values.spec import wrong_name
from robustok_core.values.wording import failure_of, short, short_text

_LONGEST_NAME = 100


@frozen(kw_only=True)
class Entry:
    """One registered component and the plugin that brought it."""

    kind: str
    name: str
    factory: Any
    plugin: str


def require_kind(kind: Any) -> None:
    """Raises RobustokError unless there is such a kind of component."""
    if not isinstance(kind, str):
        raise RobustokError(f"expected the name of a kind, found {short(kind)}", hint=", ".join(KINDS))
    if kind not in KINDS:
        raise RobustokError(f"no kind is called {short_text(kind)}", hint=did_you_mean(kind, list(KINDS)))


def checked_entry(kind: str, name: str, factory: type, plugin: str) -> Entry:
    """The entry of what a plugin registers.

    Raises:
        RobustokError: it could not be used.
    """
    require_kind(kind)
    if not (isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST_NAME):
        what = f"the name of a {kind} must be a text of 1 to {_LONGEST_NAME} printable characters, found {short(name)}"
        raise RobustokError(what)
    _check_class(kind, name, factory)
    if kind == "stage":
        _check_declared(name, factory)
    artifacts = getattr(factory, "makes", ()) or ()  # folders are named after them; an importer makes at most one
    for artifact in (artifacts,) if isinstance(artifacts, str) else artifacts:
        if wrong := wrong_name(artifact):
            raise RobustokError(f"{kind} {name!r} makes an artifact called {artifact!r}: {wrong}")
    if wrong := constructor_problem(kind, factory):
        raise RobustokError(f"{kind} {name!r}: {wrong}")
    return Entry(kind=kind, name=name, factory=factory, plugin=plugin)


def _check_class(kind: str, name: str, factory: Any) -> None:
    """Raises RobustokError unless it is a class of the kind, whose methods can be called and whose options be read."""
    if not (inspect.isclass(factory) and issubclass(factory, KINDS[kind])):
        raise RobustokError(f"{kind} {name!r} must be a subclass of {KINDS[kind].__name__}")
    if not attrs.has(getattr(factory, "Config", type(None))):
        raise RobustokError(f"{kind} {name!r} needs a `Config`, an attrs class")
    if missing := getattr(factory, "__abstractmethods__", None):
        raise RobustokError(f"{kind} {name!r} does not implement {', '.join(sorted(missing))}")
    wrong = signature_problem(KINDS[kind], factory)
    for name_of_options in ("Config", "Sampling"):
        options: Any = getattr(factory, name_of_options, type(None))
        wrong = wrong or (_types_problem(options) if attrs.has(options) else None)
    if wrong:
        raise RobustokError(f"{kind} {name!r}: {wrong}")


def _types_problem(config: Any, above: frozenset[Any] = frozenset()) -> str | None:
    """What is wrong with the first type of a configuration's options, or of tables within it, that names nothing.

    Args:
        above: the configurations that it is within, which are looked at already.
    """
    try:
        options = attrs.fields(attrs.resolve_types(config))
    except Exception as error:  # an annotation is any expression
        named = next((each for each in attrs.fields(config) if not _has_a_type(config, each)), None)
        where = "an option" if named is None else f"the option `{named.name}`"
        shown = "" if named is None else f" {named.type!r}"
        return f"the type{shown} of {where} of {config.__qualname__} is not known ({failure_of(error)})"
    seen = above | {config}
    nested = [table for each in options if (table := nested_config(each.type)) is not None and table not in seen]
    return next((wrong for table in nested if (wrong := _types_problem(table, seen))), None)


def _has_a_type(config: Any, option: Any) -> bool:
    """Whether an option's annotation can be read in the module of its class."""
    owner = next((base for base in config.__mro__ if option.name in vars(base).get("__annotations__", ())), config)
    try:
        typing.get_type_hints(
            SimpleNamespace(__annotations__={option.name: option.type}), vars(sys.modules[owner.__module__])
        )
    except Exception:
        return False
    return True


def _check_declared(stage: str, factory: Any) -> None:
    """Raises RobustokError if a stage's class declares something else than names, or tables that no recipe has."""
    for attribute in ("uses", "may_use", "needs", "makes"):
        names = getattr(factory, attribute)
        if isinstance(names, str):
            raise RobustokError(f"stage {stage!r}: `{attribute}` must be a tuple of names, ({names!r},)")
        if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) for name in names):
            raise RobustokError(f"stage {stage!r}: `{attribute}` must be a tuple of names, found {names!r}")
    for table in (*factory.uses, *factory.may_use):
        if table not in TABLES:
            what = f"stage {stage!r} declares the table {table!r}, which no recipe has"
            raise RobustokError(what, hint=did_you_mean(table, list(TABLES)))
