"""A full disk: functions to put in place of those that write."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def full(*_: object, **__: object) -> None:
    """Writes nothing."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half(held: object, file: Path) -> None:
    """Writes a part of a file."""
    Path(file).write_bytes(b"half")
    full()


def leftovers(folder: Path) -> list[Path]:
    """Files that were being written."""
    return [path for path in folder.rglob("*") if path.name.startswith(".writing-")]
