"""Checks that take a while, before a run begins, such as those of files that options name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

from attrs import field, frozen


@frozen(kw_only=True)
class _Check:
    """A check, which counts as another one once a file is written anew."""

    what: Hashable
    states: tuple[tuple[Path, int, int], ...]
    make: Callable[[], Any] = field(eq=False)


def check_once(what: Hashable, files: Iterable[Path], make: Callable[[], Any]) -> None:
    """Makes a check, unless it passed before in this process and no file that it reads has changed since.

    A program that looks at many recipes, such as a study, reads large weights once.

    Args:
        what: says which check it is. files: those that it reads; all exist. make: the check itself.
    """
    states = [(file, file.stat()) for file in files]
    _passed(_Check(what=what, states=tuple((file, at.st_size, at.st_mtime_ns) for file, at in states), make=make))


@functools.lru_cache(maxsize=4096)
def _passed(check: _Check) -> None:
    check.make()
