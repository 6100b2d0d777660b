"""Validators of options, beyond those of attrs."""

from __future__ import annotations

import math
from typing import Any

from attrs import validators

#: From 0 to 1, both included: a share of a whole.
unit_interval = validators.and_(validators.ge(0.0), validators.le(1.0))
#: From 0 up to, but not including, 1: for example a dropout rate.
below_one = validators.and_(validators.ge(0.0), validators.lt(1.0))


def finite(_: Any, attribute: Any, value: float) -> None:
    """An attrs validator that refuses infinity and NaN, which TOML and the command line can express.

    Raises:
        ValueError: if the value is infinite or NaN.
    """
    if not math.isfinite(value):
        raise ValueError(f"{attribute.name} must be finite")


def require_multiple(config: Any, name: str, of: str) -> None:
    """For `__attrs_post_init__`: checks that option `name` is a multiple of option `of`, both integers of at least 1.

    Raises:
        ValueError: if not; the message names both options and their values.
    """
    value, divisor = getattr(config, name), getattr(config, of)
    if value % divisor:
        raise ValueError(f"{name} {value} is not a multiple of {of} {divisor}")
