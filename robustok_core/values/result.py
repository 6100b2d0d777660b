"""A measured number, with what is needed to compare it with another."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from typing import Any

from attrs import field, frozen, validators

from robustok_core.errors import RobustokError
from robustok_core.values.wording import described, short

_COUNT = validators.optional([validators.instance_of(int), validators.ge(0)])


def _fits_json(_: object, __: object, details: Mapping[str, Any]) -> None:
    json.dumps(dict(details))  # raises TypeError here rather than when the run is written


def _one_number(value: Any) -> float:
    try:
        return float(value)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        OverflowError,
    ) as error:  # RuntimeError: on the meta device
        found = described(value) if hasattr(value, "shape") else short(value)
        raise RobustokError(f"a Result is one number, found {found}") from error


@frozen
class Result:
    """One number that a metric or a stage reports.

    Attributes:
        value: the number.
        higher_is_better: True or False; None if neither is better (a count, a cost).
        num_images: the number of images measured, if the value depends on it; otherwise None.
        num_reference: the number of real images they were compared with; None if there is no such set or its size
            does not matter, 0 if only its statistics are known.
        details: further JSON values: {"std": 0.3}, {"cells": {"alpha0.5_delta6": 41.2}}.
    """

    value: float = field(converter=_one_number)
    higher_is_better: bool | None = field(
        default=None, kw_only=True, validator=validators.optional(validators.instance_of(bool))
    )
    num_images: int | None = field(default=None, kw_only=True, validator=_COUNT)
    num_reference: int | None = field(default=None, kw_only=True, validator=_COUNT)
    details: Mapping[str, Any] = field(factory=dict, kw_only=True, validator=_fits_json)

    @classmethod
    def of(cls, value: float | Result) -> Result:
        """Wraps a bare number in a Result; returns a Result unchanged."""
        return value if isinstance(value, Result) else cls(value)

    def table(self) -> dict[str, Any]:
        """The entry of results.json; unknown attributes are omitted."""
        table: dict[str, Any] = {"value": self.value}
        for name in ("higher_is_better", "num_images", "num_reference"):
            if getattr(self, name) is not None:
                table[name] = getattr(self, name)
        return table | ({"details": dict(self.details)} if self.details else {})


def add_results(results: dict[str, Result], metric: str, found: Mapping[str, Result]) -> None:
    """Adds what a metric of a recipe measured. A result whose name is taken gets the metric's name before it."""
    for name, result in found.items():
        results[free_name(name, metric, results)] = result


def free_name(name: str, metric: str, taken: Container[str]) -> str:
    """The name under which a result is added to those whose names are taken."""
    while name in taken:
        name = f"{metric}_{name}"
    return name
