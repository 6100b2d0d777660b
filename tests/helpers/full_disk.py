"""A full disk: functions to put in place of those that write, and limits that the system obeys."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def full(*_: object, **__: object) -> None:
    """Writes nothing."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half(held: object, file: Path) -> None:
    """Writes a part of a file."""
    Path(file).write_bytes(b"half")
    full()


@contextmanager
def no_room() -> Iterator[None]:
    """No file may become larger than a byte; the system says "File too large" then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def full_after(flushes: int, *, for_good: bool) -> Iterator[None]:
    """The disk is full after so many flushes: for good, or for that one only."""
    before, flush, seen = resource.getrlimit(resource.RLIMIT_FSIZE), os.fsync, [0]

    def fsync(handle: int) -> None:
        seen[0] += 1
        if seen[0] == flushes:
            if not for_good:
                full()
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
        flush(handle)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def leftovers(folder: Path) -> list[Path]:
    """Files that were being written."""
    return [path for path in folder.rglob("*") if path.name.startswith(".writing-")]
