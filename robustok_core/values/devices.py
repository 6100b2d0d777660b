"""Devices: whether they work behind the program, and what torch calls them where it is asked for autocast."""

from __future__ import annotations

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
