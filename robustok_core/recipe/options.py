"""The options of a configuration class as text, for `robustok plugins` and the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import frozen

from robustok_core.recipe.structurer import nested_config, type_name
from robustok_core.values.spec import plain


@frozen(kw_only=True)
class Option:
    """A key of a recipe's table.

    Attributes:
        name: the key. wanted: the type or kind of its value. default: "required", or "default VALUE".
        doc: what it does. nested: the keys of the table that it holds, if its type says which.
    """

    name: str
    wanted: str
    default: str
    doc: str
    nested: tuple[Option, ...] = ()


def options_of(config: type) -> Iterator[Option]:
    """The options of an attrs class, in its order."""
    for option in attrs.fields(attrs.resolve_types(config)):
        kind = option.metadata.get("kind")
        nested = None if kind else nested_config(option.type)
        yield Option(
            name=option.name,
            wanted=f"a {kind}" if kind else type_name(option.type),
            default=_default(option),
            doc=option.metadata.get("doc", ""),
            nested=() if nested is None else tuple(options_of(nested)),
        )


def _default(option: Any) -> str:
    if option.metadata.get("table") is not None:
        return f"default {as_toml(option.metadata['table'])}"
    if option.default is attrs.NOTHING:
        return "required"
    value = option.default.factory() if isinstance(option.default, attrs.Factory) else option.default  # type: ignore[arg-type]
    return f"default {as_toml(plain(value))}"


def as_toml(value: Any) -> str:
    """A value as a recipe writes it on one line; None, which TOML lacks, as none."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {as_toml(held)}' for key, held in value.items())} }}" if value else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(as_toml, value))}]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
