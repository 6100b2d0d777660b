"""What the main process finds, told to all processes of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


def from_main(find: Callable[[], T]) -> T:
    """What the main process finds, on all processes; only that one looks, and every process must call this.

    On a network file system, each process may see another state of a folder.
    """
    if not dist.is_available() or not dist.is_initialized():
        return find()
    found: list[Any] = [find() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found)
    value: T = found[0]
    return value
