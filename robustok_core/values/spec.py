"""Components that are named and configured, but not built yet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import field, frozen


@frozen(kw_only=True)
class Spec:
    """A component that is named and configured, but not built yet.

    Attributes:
        kind: its kind ("tokenizer").
        name: its name in the registry ("conv_vq").
        factory: the class.
        config: an instance of `factory.Config`.
    """

    kind: str
    name: str
    factory: Any
    config: Any

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Builds the component; the arguments are what its kind needs besides the configuration."""
        return self.factory(self.config, *args, **kwargs)

    def table(self) -> dict[str, Any]:
        """The recipe table of this component, with every default written out."""
        return {"use": self.name, **plain(self.config)}


def wrong_name(name: str) -> str | None:
    """Why a name cannot be used as a folder name (of a run, stage or artifact), or None if it can."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        return None
    return "a name starts with a letter or digit and has at most 100 letters, digits, dots, - and _"


def component(kind: str, *, doc: str, default: Mapping[str, Any] | None = None, optional: bool = False) -> Any:
    """A configuration field for another component, held as a `Spec` (or None if optional)."""
    metadata = {"doc": doc, "kind": kind, "table": default, "optional": optional}
    return field(default=None, metadata=metadata) if optional else field(metadata=metadata)


def components(kind: str, *, doc: str, default: Mapping[str, Mapping[str, Any]] | None = None) -> Any:
    """A configuration field for components by name: dict[str, Spec]."""
    return field(metadata={"doc": doc, "kind": kind, "table": default, "named": True})


def sampler_options(*, doc: str) -> Any:
    """A configuration field for the options of a generator's sampler.

    In a recipe it is a table; planning the recipe replaces it by an instance of the generator's `Sampling`.
    """
    return field(factory=dict, metadata={"doc": doc, "sampler": True})


def is_sampler_options(option: Any) -> bool:
    """Whether `sampler_options` made this attrs field."""
    return bool(option.metadata.get("sampler"))


def plain(value: Any) -> Any:
    """Converts a configuration to values that TOML can hold; None is omitted."""
    if isinstance(value, Spec):
        return value.table()
    if attrs.has(type(value)):
        pairs = ((a.name, getattr(value, a.name)) for a in attrs.fields(type(value)))
        return {name: plain(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def specs_in(value: Any) -> Iterator[Spec]:
    """All components in a configuration, a `Spec`, or a container of them, each before those in its configuration."""
    if isinstance(value, Spec):
        yield value
        yield from specs_in(value.config)
    elif attrs.has(type(value)):
        for attribute in attrs.fields(type(value)):
            yield from specs_in(getattr(value, attribute.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from specs_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from specs_in(item)
