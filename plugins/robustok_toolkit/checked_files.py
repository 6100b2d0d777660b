"""Checks that take a while and are made before a run begins: once in a process, until a file changes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

from attrs import define


class NotKnownYet(Exception):
    """Raised by a check that could not be made, so that it is made again the next time."""


@define
class _Record:
    """What is remembered of a check of files with these sizes and times."""

    what: Hashable
    states: tuple[tuple[Path, int, int], ...]
    passed: bool = False


def check_once(what: Hashable, files: Iterable[Path], make: Callable[[], Any]) -> None:
    """Makes a check, unless it passed before in this process and no file that it reads has changed since.

    A program that looks at many recipes, such as a study, reads large weights once.

    Args:
        what: says which check it is. files: those that it reads; all exist.
        make: the check itself; it may raise NotKnownYet.
    """
    states = [(file, file.stat()) for file in files]
    record = _record(what, tuple((file, at.st_size, at.st_mtime_ns) for file, at in states))
    if record.passed:
        return
    try:
        make()
    except NotKnownYet:
        return
    record.passed = True


@functools.lru_cache(maxsize=4096)
def _record(what: Hashable, states: tuple[tuple[Path, int, int], ...]) -> _Record:
    return _Record(what, states)
