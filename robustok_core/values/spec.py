"""Components that are named and configured but not built yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import field, frozen


@frozen(kw_only=True)
class Spec:
    """A component that was named and configured but not built yet.

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
        """The component itself; what its kind needs beyond the configuration is passed on."""
        return self.factory(self.config, *args, **kwargs)

    def table(self) -> dict[str, Any]:
        """The recipe table that gives this component, every default written out."""
        return {"use": self.name, **plain(self.config)}


def wrong_name(name: str) -> str | None:
    """Why a name cannot be that of a folder inside another one, None where it can: the rule of all names that are."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        return None
    return "a name begins with a letter or digit and has at most 100 letters, digits, dots, - and _"


def component(kind: str, *, doc: str, default: Mapping[str, Any] | None = None, optional: bool = False) -> Any:
    """A configuration field that holds another component, as a `Spec` (or None where optional)."""
    metadata = {"doc": doc, "kind": kind, "table": default, "optional": optional}
    return field(default=None, metadata=metadata) if optional else field(metadata=metadata)


def components(kind: str, *, doc: str, default: Mapping[str, Mapping[str, Any]] | None = None) -> Any:
    """A configuration field that holds components by name: dict[str, Spec]."""
    return field(metadata={"doc": doc, "kind": kind, "table": default, "named": True})


def sampler_options(*, doc: str) -> Any:
    """A configuration field that holds options of a generator's sampler.

    In a recipe it is a table. When the recipe is planned it becomes an instance of the generator's `Sampling`.
    """
    return field(factory=dict, metadata={"doc": doc, "sampler": True})


def is_sampler_options(option: Any) -> bool:
    """Whether `sampler_options` made this attrs field."""
    return bool(option.metadata.get("sampler"))


def plain(value: Any) -> Any:
    """A configuration as TOML can hold it; None is left out."""
    if isinstance(value, Spec):
        return value.table()
    if attrs.has(type(value)):
        pairs = ((a.name, getattr(value, a.name)) for a in attrs.fields(type(value)))
        return {name: plain(held) for name, held in pairs if held is not None}
    if isinstance(value, Mapping):
        return {str(name): plain(held) for name, held in value.items() if held is not None}
    if isinstance(value, (list, tuple)):
        return [plain(held) for held in value]
    return value
