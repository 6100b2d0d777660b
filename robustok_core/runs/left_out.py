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

    Weights alone may not show them, so they could be wrong. An option is the component's of the same name, or whose
    name ends so after those of its tables: `l2_normalise` is that of the quantizer, `encoder_num_heads` the encoder's.

    Args:
        report: the report; options that have a line of their own are not repeated.
        config: the importer's configuration.
        table: the component's recipe table, with every default written out.
    """
    values = dict(_flat(table))
    chosen = []
    for option in attrs.fields(type(config)):
        names = [name for name in values if f"_{name}".endswith(f"_{option.name}")]
        if names and option.name not in report and getattr(config, option.name) == option.default:
            chosen.append(f"{option.name} = {json.dumps(values[min(names, key=len)])}")
    return {**report, LEFT_OUT: ", ".join(chosen)} if chosen else report


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers, texts and booleans of nested tables, named TABLE_KEY."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}_")
        elif isinstance(value, (bool, int, float, str)):
            yield before + key, value
