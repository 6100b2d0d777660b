"""Devices: whether they work behind the program, repeat their sums, and what torch calls them for autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def autocast_type(device: torch.device) -> str:
    """The type of device whose autocast applies: the CPU's for the meta device, which has none of its own.

    On the meta device, where costs are planned, the CPU's autocast only says whether a computation is in bfloat16.
    """
    return "cpu" if device.type == "meta" else device.type


def is_queued(device: torch.device) -> bool:
    """Whether a device works behind the program, which must wait for it to read a value or the size of a result.

    The meta device, where costs are planned, stands for such a device.
    """
    return device.type != "cpu"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device; the program does not wait for a copy from the CPU."""
    if device.type not in ("cuda", "meta") or not tensor.is_cpu:
        return tensor.to(device)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a CPU, everything inside the block has the same bits each time, with the same number of threads.

    Several threads otherwise add to the gradient of what was indexed, such as `table[rows]`, in the order in which they
    come. Torch warns of an operation that it cannot repeat. Other devices are left as they are: it would slow them.
    """
    options: Any = torch.utils.deterministic
    mode, fills = torch.get_deterministic_debug_mode(), options.fill_uninitialized_memory
    if device.type != "cpu" or mode != 0:
        yield
        return
    torch.set_deterministic_debug_mode("warn")
    options.fill_uninitialized_memory = False  # finds mistakes, at the cost of writing twice
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        options.fill_uninitialized_memory = fills
