"""Sums over all processes; on a single process each is the identity."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many processes take part."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def all_sum(values: Tensor) -> Tensor:
    """The sum over all processes (no gradient); the argument is left as it was."""
    if world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def all_mean(values: Tensor) -> Tensor:
    """The mean over all processes (no gradient)."""
    return all_sum(values) / world_size()


def all_gather_rows(rows: Tensor) -> Tensor:
    """(P*B, ...) the rows of all processes, in order.

    The gradient reaches this process's own rows, times P: data parallelism averages gradients over
    processes, where the gradient of a loss over all rows is their sum.
    """
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    own = rows.detach()
    parts[rank()] = own + (rows - own) * world_size()
    return torch.cat(parts)


def barrier() -> None:
    """Waits until every process is here."""
    if world_size() > 1:
        dist.barrier()
