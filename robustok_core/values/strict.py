"""Values from files, taken as they are: no text becomes a number, and no number becomes text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cattrs

from robustok_core.values.wording import short


def strict_converter(*, detailed_validation: bool) -> cattrs.Converter:
    """A converter that accepts for int, float, str and bool only values of that type, and an int for a float.

    Args:
        detailed_validation: as in cattrs: whether its errors hold the keys that lead to each problem.
    """
    converter = cattrs.Converter(detailed_validation=detailed_validation)
    for kind, accepted in ((int, int), (float, (int, float)), (str, str), (bool, bool)):
        converter.register_structure_hook(kind, _strict(kind, accepted))
    return converter


def _strict(kind: type, accepted: Any) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            values = " (true or false)" if kind is bool else ""
            raise TypeError(f"expected {kind.__name__}{values}, found {short(value)}")
        try:
            return kind(value)
        except OverflowError as error:
            raise TypeError(f"expected {kind.__name__}, found a number that is too large") from error

    return structure
