"""What was measured: a number, and what one must know to compare it with another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators

_COUNT = validators.optional([validators.instance_of(int), validators.ge(0)])


def _fits_json(_: object, __: object, details: Mapping[str, Any]) -> None:
    json.dumps(dict(details))  # raises TypeError where it does not: here and not when the run is written


@frozen
class Result:
    """One number that a metric or a stage reports.

    Attributes:
        value: the number.
        higher_is_better: True or False; None where neither is better (a count, a cost).
        num_images: how many images the number depends on: measured with more, the same thing comes to another number.
            None where their number does not matter.
        num_reference: how many real images these were compared with; None where there is no such set or its size does
            not matter, 0 where only its statistics are known.
        details: more about it, as JSON can hold it: {"std": 0.3}, {"cells": {"alpha0.5_delta6": 41.2}}.
    """

    value: float = field(converter=float)
    higher_is_better: bool | None = field(
        default=None, kw_only=True, validator=validators.optional(validators.instance_of(bool))
    )
    num_images: int | None = field(default=None, kw_only=True, validator=_COUNT)
    num_reference: int | None = field(default=None, kw_only=True, validator=_COUNT)
    details: Mapping[str, Any] = field(factory=dict, kw_only=True, validator=_fits_json)

    @classmethod
    def of(cls, value: float | Result) -> Result:
        """The result itself, or that of a bare number."""
        return value if isinstance(value, Result) else cls(value)

    def table(self) -> dict[str, Any]:
        """As results.json holds it; what is not known is left out."""
        table: dict[str, Any] = {"value": self.value}
        for name in ("higher_is_better", "num_images", "num_reference"):
            if getattr(self, name) is not None:
                table[name] = getattr(self, name)
        return table | ({"details": dict(self.details)} if self.details else {})

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Result:
        """What `table` gave.

        Raises:
            TypeError, ValueError, KeyError: it is no such table.
        """
        known = {name: table[name] for name in ("higher_is_better", "num_images", "num_reference") if name in table}
        return cls(table["value"], **known, details=table.get("details", {}))
