"""What any value of a recipe may be, whichever component reads it: checked before a component sees the value.

Python and TOML hold numbers, lists and texts that no machine can use: `inf`, an integer of 5,000 digits, a file name
with a NUL. The limits are far above anything that a recipe needs. A component's own validators are narrower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from robustok_core.values.wording import short_text

#: Of integers: what 32 bits hold. An option may have a limit of its own: `metadata={"largest": 2**63 - 1}`.
LARGEST_INTEGER = 2**31 - 1
#: Of other numbers: what float32 holds, in which they are used.
LARGEST_FLOAT = 3.4e38
#: Of a list, and of the tables and lists inside each other.
LONGEST_LIST, DEEPEST_NESTING = 100_000, 30
LONGEST_TEXT = 10_000


def nesting_problem(value: Any) -> str | None:
    """Why the tables and lists of a value are nested too deeply, or None. Must come first: the others recurse."""
    level = [value]
    for _ in range(DEEPEST_NESTING):
        level = [item for parent in level for item in _items(parent)]
        if not level:
            return None
    return f"tables and lists are nested more than {DEEPEST_NESTING} levels deep"


def value_problem(value: Any, largest: int = LARGEST_INTEGER) -> str | None:
    """Why no component can use a value, or None.

    Args:
        value: from a recipe, with nested lists and tables.
        largest: the largest absolute value of an integer.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if abs(value) <= largest else f"the number is too large: at most {largest:,} is possible"
    if isinstance(value, float):
        return _float_problem(value)
    if isinstance(value, str):
        return text_problem(value)
    if isinstance(value, (list, tuple)) and len(value) > LONGEST_LIST:
        return f"a list of {len(value):,} values is too long: at most {LONGEST_LIST:,} are possible"
    return next((problem for item in _items(value) if (problem := value_problem(item, largest))), None)


def text_problem(text: str) -> str | None:
    """Why a text cannot be used, in a recipe or as part of a path, or None."""
    if len(text) > LONGEST_TEXT:
        return f"a text of {len(text):,} characters is too long: at most {LONGEST_TEXT:,} are possible"
    if "\0" in text:
        return f"{short_text(text)} holds a NUL character"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return f"{short_text(text)} is not valid UTF-8"
    return None


def _float_problem(value: float) -> str | None:
    if not math.isfinite(value):
        return f"{value} is out of range: numbers must be finite"
    if abs(value) > LARGEST_FLOAT:
        return f"the number {value} is too large: at most {LARGEST_FLOAT} is possible"
    return None


def _items(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else []
