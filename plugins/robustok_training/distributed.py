"""What processes tell each other: sums, rows and names; the identity on a single process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def all_sum(values: Tensor) -> Tensor:
    """The sum over all processes (no gradient); the argument is not changed."""
    if world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def all_mean(values: Tensor) -> Tensor:
    """The mean over all processes (no gradient)."""
    return all_sum(values) / world_size()


def all_gather_rows(rows: Tensor) -> Tensor:
    """(P*B, ...) the rows (B, ...) of all P processes, in order.

    Only this process's rows get a gradient, multiplied by P: data parallelism averages gradients over processes,
    whereas the gradient of a loss over all rows is their sum.
    """
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    own = rows.detach()
    parts[rank()] = own + (rows - own) * world_size()
    return torch.cat(parts)


def all_known(names: Sequence[str]) -> list[str]:
    """The names that all processes give, in their order."""
    if world_size() == 1:
        return list(names)
    of_all: list[Any] = [None] * world_size()
    dist.all_gather_object(of_all, list(names))
    return [name for of_one in of_all for name in of_one]


def barrier() -> None:
    """Waits until every process reaches this call."""
    if world_size() > 1:
        dist.barrier()


def communication_device() -> torch.device:
    """The device on which tensors must be for processes to exchange them."""
    nccl = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.device("cuda" if nccl and torch.distributed.get_backend() == "nccl" else "cpu")
