"""Options as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import tomli
from attrs import field, frozen

from robustok_core.recipe.options import Option, options_of


@frozen(kw_only=True)
class Inner:
    rate: float = field(default=0.5, metadata={"doc": "how much"})


@frozen(kw_only=True)
class Outer:
    size: int = field(metadata={"doc": "how many"})
    inner: Inner | None = field(default=None, metadata={"doc": "a table"})


def all_of(options: Iterable[Option]) -> Iterator[Option]:
    for option in options:
        yield option
        yield from all_of(option.nested)


def test_options_are_in_the_order_of_the_class_with_those_of_their_tables():
    size, inner = options_of(Outer)
    assert (size.name, size.wanted, size.default, size.doc, size.nested) == ("size", "int", "required", "how many", ())
    assert (inner.wanted, inner.default) == ("table or none", "default none")
    assert [(option.name, option.default) for option in inner.nested] == [("rate", "default 0.5")]


def test_every_default_is_shown_as_a_recipe_could_say_it(registry):
    shown = {
        option.default.removeprefix("default ")
        for entry in registry.entries()
        for option in all_of(options_of(entry.factory.Config))
    } - {"required", "none"}
    assert {"true", "0.1"} <= shown
    for default in shown:
        tomli.loads(f"key = {default}")
