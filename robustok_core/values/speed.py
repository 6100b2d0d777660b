"""How fast a training computes, which changes results in their last digits at most."""

from __future__ import annotations

from typing import Literal

import torch
from attrs import frozen

#: "auto" is on where it is known to be faster: on CUDA devices.
Switch = Literal["auto", "on", "off"]


def is_on(switch: Switch, device: torch.device) -> bool:
    """Whether a switch is on for this device."""
    return switch == "on" or (switch == "auto" and device.type == "cuda")


@frozen(kw_only=True)
class Speed:
    """The options of [run] by the same names."""

    compile: Switch = "auto"
    activation_checkpointing: bool = False
    channels_last: Switch = "auto"
    tf32: bool = True
