"""What an importer chose where its options were left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

#: The key of a report that says it.
LEFT_OUT = "options left out"


def with_options_left_out(report: Mapping[str, str], config: Any, table: Mapping[str, Any]) -> Mapping[str, str]:
    """An importer's report with the values that its component has for options that were left out.

    Weights alone may not show them, so they could be wrong; see `values_of_options`.

    Args:
        report: the report; options that have a line of their own are not repeated.
        config: the importer's configuration.
        table: the component's recipe table, with every default written out.
    """
    values = values_of_options(type(config), table)
    chosen = [
        f"{option.name} = {json.dumps(values[option.name])}"
        for option in attrs.fields(type(config))
        if option.name in values and option.name not in report and getattr(config, option.name) == option.default
    ]
    return {**report, LEFT_OUT: ", ".join(chosen)} if chosen else report


def values_of_options(config: type, table: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a component has for options of an importer, as far as their names are those of its own.

    An option is the component's of the same name, or whose name ends so after those of its tables: `l2_normalise` is
    that of the quantizer, `encoder_num_heads` the encoder's.

    Args:
        config: the importer's `Config`. table: the component's recipe table, with every default written out.
    """
    values = dict(_flat(table))
    found = {}
    for option in attrs.fields(config):
        names = [name for name in values if f"_{name}".endswith(f"_{option.name}")]
        if names:
            found[option.name] = values[min(names, key=len)]
    return found


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers, texts and booleans of nested tables, named TABLE_KEY."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}_")
        elif isinstance(value, (bool, int, float, str)):
            yield before + key, value
