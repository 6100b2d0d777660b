"""A cache, in the user's cache folder, of facts that data sets find out about their files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from robustok_core.errors import RobustokError
from robustok_core.runs.files import write_text
from robustok_core.runs.locks import lock_of

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`$ROBUSTOK_CACHE`, or robustok in the user's cache folder (`$XDG_CACHE_HOME`, `~/.cache`).

    Raises:
        RuntimeError: the user has no home folder.
    """
    if "ROBUSTOK_CACHE" in os.environ:
        return Path(os.environ["ROBUSTOK_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robustok"


def remembered(name: str, find_out: Callable[[], Any]) -> Any:
    """The result of `find_out` (JSON data), cached under this name."""
    return _updated(name, lambda cached: find_out() if cached is None else cached)


def remembered_each(name: str, keys: Sequence[str], find_out: Callable[[list[int]], Sequence[Any]]) -> list[Any]:
    """A fact (JSON data) for each of `keys`; only those that the cache lacks are found out.

    Args:
        name: of the collection that the keys are from; its facts share a file.
        keys: must change whenever the fact may have changed.
        find_out: returns the facts for the keys at some places; None is not cached.
    """
    facts: list[Any] = []

    def complete(cached: Any) -> Any:
        known = cached or {}
        facts.extend(known.get(key) for key in keys)
        missing = [place for place, fact in enumerate(facts) if fact is None]
        for place, fact in zip(missing, find_out(missing) if missing else (), strict=True):
            facts[place] = fact
        current = {key: fact for key, fact in zip(keys, facts, strict=True) if fact is not None}
        return known if current == known else current

    _updated(name, complete)
    return facts


def _updated(name: str, update: Callable[[Any], Any]) -> Any:
    """`update` of what is cached under a name (None if nothing is, or it is damaged), which is cached in its place.

    If several processes ask at once, one updates and the others wait (where the file system has locks; elsewhere each
    finds out). A cache that cannot be written only costs time.
    """
    with ExitStack() as stack:
        try:
            path = cache_folder() / "data" / f"{name}.facts"
            path.parent.mkdir(parents=True, exist_ok=True)
            if (lock := lock_of(path.with_name(f"{path.name}.lock"))) is not None:
                stack.enter_context(lock)
        except (OSError, RuntimeError) as error:  # not writable, no home folder
            _log.warning("cannot cache facts about the data (%s)", error)
            return update(None)
        cached = _read(path)
        value = update(cached)
        if value is not cached:
            _write(path, value)
        return value


def _read(path: Path) -> Any:
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
        return json.loads(content) if digest == _digest(content) else None
    except (OSError, ValueError):  # not cached yet, or damaged
        return None


def _write(path: Path, value: Any) -> None:
    content = json.dumps(value)
    try:
        write_text(path, f"{_digest(content.encode()).decode()}\n{content}")
    except RobustokError as error:
        _log.warning("cannot cache facts about the data (%s)", error)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).hexdigest().encode()
