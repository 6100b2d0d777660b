"""What was measured: a number, and what one must know to compare it with another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen


@frozen
class Result:
    """One number that a metric or a stage reports.

    Attributes:
        value: the number.
        higher_is_better: True or False; None where neither is better (a count, a cost).
        num_images: how many images it was measured with; None where it depends on none.
        num_reference: how many real images these were compared with; None where there is no such set, 0 where only
            its statistics are known.
        details: more about it, as JSON can hold it: {"std": 0.3}, {"cells": {"alpha0.5_delta6": 41.2}}.
    """

    value: float = field(converter=float)
    higher_is_better: bool | None = field(default=None, kw_only=True)
    num_images: int | None = field(default=None, kw_only=True)
    num_reference: int | None = field(default=None, kw_only=True)
    details: Mapping[str, Any] = field(factory=dict, kw_only=True)

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
