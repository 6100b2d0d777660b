"""A recipe as a flat list of its values, each beside its default."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import frozen

from robustok_core.recipe.recipe import ResolvedRecipe, RunConfig
from robustok_core.values.spec import Spec, plain

#: The default of an option that has none.
REQUIRED = "required"
_NONE = object()


@frozen
class Value:
    """A value of a recipe: its key, itself and its default as text, and what the option means."""

    key: str
    text: str
    default: str
    doc: str

    @property
    def differs(self) -> bool:
        """Whether the recipe's author chose it: it is not the default, or there is none."""
        return self.text != self.default


def values_of(recipe: ResolvedRecipe) -> list[Value]:
    """All values of a recipe, in its order."""
    values = list(_options(recipe.run, "run", {}, RunConfig))
    for name, load in recipe.load.items():
        values.append(Value(f"load.{name}", load.path, REQUIRED, "where this artifact comes from"))
    for name, spec in recipe.tables.items():
        values += _component(spec, name, _NONE)
    for stage in recipe.stages:
        values += _component(stage.spec, f"stage.{stage.name}", _NONE)
    return values


def value_text(value: Any) -> str:
    """A value as it stands in a recipe, without the quotation marks of a text."""
    return value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)


def _component(spec: Spec, path: str, default: Any) -> Iterator[Value]:
    """Its name and its options. `default` is the table that is used where a recipe has none."""
    table = default if isinstance(default, Mapping) else {}
    doc = (spec.factory.__doc__ or "").strip().partition("\n")[0]
    yield Value(f"{path}.use", spec.name, str(table.get("use", REQUIRED)), doc)
    same = table if table.get("use") == spec.name else {}
    yield from _options(spec.config, path, same, type(spec.config))


def _options(config: Any, path: str, table: Mapping[str, Any], kind: type) -> Iterator[Value]:
    for option in attrs.fields(kind):
        value, key = getattr(config, option.name), f"{path}.{option.name}"
        default = table.get(option.name, _default(option))
        doc = str(option.metadata.get("doc", ""))
        if isinstance(value, Spec):
            yield from _component(value, key, default)
        elif isinstance(value, Mapping) and any(isinstance(item, Spec) for item in value.values()):
            named = default if isinstance(default, Mapping) else {}
            for name, spec in value.items():
                yield from _component(spec, f"{key}.{name}", named.get(name, _NONE))
        elif attrs.has(type(value)):
            held = plain(default)
            yield from _options(value, key, held if isinstance(held, Mapping) else {}, type(value))
        elif value is not None or default not in (None, _NONE):
            yield Value(key, _text(value), REQUIRED if default is _NONE else _text(default), doc)


def _text(value: Any) -> str:
    return "none" if value is None else value_text(value)


def _default(option: Any) -> Any:
    if (table := option.metadata.get("table")) is not None:
        return table
    if option.default is attrs.NOTHING:
        return _NONE
    if isinstance(option.default, attrs.Factory):  # type: ignore[arg-type]  # a class, which attrs types as a function
        return _NONE if option.default.takes_self else option.default.factory()
    return option.default
