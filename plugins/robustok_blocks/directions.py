"""Which of two results is the better one."""

from __future__ import annotations

from collections.abc import Mapping


def higher_is_better(result: str, directions: Mapping[str, bool]) -> bool | None:
    """What metrics say of a result called "NAME" or "NAME_FEATURES"; None where they say nothing.

    Args:
        directions: `higher_is_better` of the metrics, by NAME.
    """
    known = [name for name in directions if result == name or result.startswith(f"{name}_")]
    return directions[max(known, key=len)] if known else None
