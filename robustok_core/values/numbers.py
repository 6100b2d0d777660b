"""Formatting of numbers and times for display."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: A unit and its seconds, the unit of the rest and its seconds, and the seconds from which the next one is used.
_UNITS = (("min", 60, "s", 1, 3600), ("h", 3600, "min", 60, 86400), ("d", 86400, "h", 3600, math.inf))


def number_text(value: float, digits: int) -> str:
    """A number with `digits` significant digits and all digits before the point (12,000, not 1.2e+04)."""
    return f"{value:,.0f}" if 10 ** (digits - 1) <= abs(value) < 1e15 else f"{value:,.{digits}g}"


def finite_only(value: Any) -> Any:
    """JSON's values, with None for each number that JSON does not have: NaN and the infinite ones."""
    if isinstance(value, Mapping):
        return {key: finite_only(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_only(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def duration_text(seconds: float) -> str:
    """A time that people read at a glance, in at most two units: "2 d 4 h", "3 min 20 s"."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{round(seconds, 1):g} s"
    name, size, part, small = next(unit[:4] for unit in _UNITS if round(seconds / unit[3]) * unit[3] < unit[4])
    whole, rest = divmod(round(seconds / small), size // small)
    return f"{whole:,} {name}" + (f" {rest} {part}" if rest else "")
