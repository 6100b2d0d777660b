"""How many inputs the tests with random damage try, and which of them were lost. `tox -e soak` has them try more."""

from __future__ import annotations

import collections
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import settings

#: How many times as many inputs as in CI; `tests/soak/soak.py` sets it.
TIMES = int(os.environ.get("ROBUSTOK_SOAK_TIMES", "1"))

#: Hashes of the inputs of this process, by fault: all, and those that ended in neither a result nor a message.
TRIED: dict[str, set[bytes]] = collections.defaultdict(set)
LOST: dict[str, set[bytes]] = collections.defaultdict(set)


def inputs(count: int) -> settings:
    """Settings of a test that tries this many inputs in CI."""
    return settings(max_examples=count * TIMES)


@contextmanager
def trying(fault: str, content: bytes) -> Iterator[None]:
    """Counts an input, once however often it is tried; an exception loses it."""
    digest = hashlib.blake2b(content, digest_size=8).digest()
    TRIED[fault].add(digest)
    try:
        yield
    except Exception:
        LOST[fault].add(digest)
        raise
