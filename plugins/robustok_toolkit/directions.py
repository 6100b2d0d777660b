"""Which of two results is the better one."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: What post-training puts before the results of each decoder that it measures: "before_", "sigma0.7_guided_".
_DECODER = re.compile(r"(before|sigma[0-9.e+-]+)_(guided_)?")


def higher_is_better(result: str, directions: Mapping[str, bool]) -> bool | None:
    """What metrics say of a result called "NAME" or "NAME_FEATURES"; None where they say nothing.

    The name of one of post-training's decoders may stand before it: "sigma0.7_guided_NAME".

    Args:
        directions: `higher_is_better` of the metrics, by NAME.
    """
    decoder = _DECODER.match(result)
    result = result[decoder.end() :] if decoder else result
    known = [name for name in directions if result == name or result.startswith(f"{name}_")]
    return directions[max(known, key=len)] if known else None
