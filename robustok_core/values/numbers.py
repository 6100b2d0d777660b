"""Formatting of numbers for display."""

from __future__ import annotations


def number_text(value: float, digits: int) -> str:
    """A number with `digits` significant digits and all digits before the point (12,000, not 1.2e+04)."""
    return f"{value:,.0f}" if 10 ** (digits - 1) <= abs(value) < 1e15 else f"{value:,.{digits}g}"
