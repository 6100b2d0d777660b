"""What torch calls a device where it is asked for autocast."""

from __future__ import annotations

import torch


def autocast_type(device: torch.device) -> str:
    """The type of device whose autocast applies: the CPU's for the meta device, which has none of its own.

    On the meta device, where costs are planned, the CPU's autocast only says whether a computation is in bfloat16.
    """
    return "cpu" if device.type == "meta" else device.type
