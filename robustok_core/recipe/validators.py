"""Options that are numbers, but not infinity: TOML and the command line can write it."""

from __future__ import annotations

import math
from typing import Any


def finite(_: Any, attribute: Any, value: float) -> None:
    """An attrs validator.

    Raises:
        ValueError: the value is infinite or no number.
    """
    if not math.isfinite(value):
        raise ValueError(f"{attribute.name} must be finite")
