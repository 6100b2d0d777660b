"""The command that runs, for the record of what made a result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_RUNNING: ContextVar[Sequence[str] | None] = ContextVar("running", default=None)


@contextmanager
def as_command(arguments: Sequence[str]) -> Iterator[None]:
    """Until it is left, `robustok ARGUMENTS` is what runs."""
    token = _RUNNING.set(arguments)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def running_command() -> list[str] | None:
    """The arguments of the command `robustok` that runs; None in another program, which has no such command."""
    arguments = _RUNNING.get()
    return None if arguments is None else list(arguments)
