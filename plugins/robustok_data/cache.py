"""What a data set finds out once about its files is kept in the user's cache folder."""

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
    """What `find_out` returned (plain data, as JSON holds it), now or the last time under this name.

    Several processes may ask at once: one finds out, the others wait. Where the folder cannot be
    written, nothing is kept and the next run looks again.
    """
    path = cache_folder() / "data" / f"{name}.json"
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock"))
        except OSError as error:
            _log.warning("%s: cannot keep what was found out about the data (%s)", path, error)
            return find_out()
        kept = _read(path)
        return _written(path, find_out()) if kept is None else kept


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):  # not kept yet, or no longer readable: found out again
        return None


def _written(path: Path, value: Any) -> Any:
    content = json.dumps(value)
    write_text(path, content)
    return json.loads(content)
