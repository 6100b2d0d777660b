"""What tests of trainings share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from torch.utils._python_dispatch import TorchDispatchMode


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _counted() -> Iterator[list[str]]:
    with _Recorder() as recorder:
        yield recorder.names


@pytest.fixture
def counted_operations() -> Callable[[], contextlib.AbstractContextManager[list[str]]]:
    """Gives a context that lists the operations of torch inside it."""
    return _counted
