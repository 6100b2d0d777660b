"""A cache, in the user's cache folder, of facts that data sets find out about their files."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from filelock import FileLock

from robustok_core.runs.files import write_text

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """`$ROBUSTOK_CACHE`, or robustok in the user's cache folder (`$XDG_CACHE_HOME`, `~/.cache`)."""
    if "ROBUSTOK_CACHE" in os.environ:
        return Path(os.environ["ROBUSTOK_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robustok"


def remembered(name: str, find_out: Callable[[], Any]) -> Any:
    """The result of `find_out` (JSON data), cached under this name.

    If several processes ask at once, one calls `find_out` and the others wait. If the folder is not writable,
    nothing is cached.
    """
    path = cache_folder() / "data" / f"{name}.json"
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock"))
        except OSError as error:
            _log.warning("%s: cannot cache facts about the data (%s)", path, error)
            return find_out()
        cached = _read(path)
        return _written(path, find_out()) if cached is None else cached


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):  # not cached yet, or damaged
        return None


def _written(path: Path, value: Any) -> Any:
    content = json.dumps(value)
    write_text(path, content)
    return json.loads(content)
