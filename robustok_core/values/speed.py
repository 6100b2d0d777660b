"""How fast a training computes, which changes results in their last digits at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs
from attrs import frozen

from robustok_core.errors import RobustokError

if TYPE_CHECKING:
    import torch

#: "auto" is on where it is known to be faster: on CUDA devices.
Switch = Literal["auto", "on", "off"]


def is_on(switch: Switch, device: torch.device) -> bool:
    """Whether a switch is on for this device."""
    return switch == "on" or (switch == "auto" and device.type == "cuda")


@frozen(kw_only=True)
class Speed:
    """The options of [run] by the same names."""

    compile: Switch = "off"
    activation_checkpointing: bool = False
    channels_last: Switch = "auto"
    tf32: bool = True

    def with_divided_weights(self) -> Speed:
        """The same where weights are divided among processes (FSDP), whose blocks are left as they are written.

        Raises:
            RobustokError: if compilation or channels-last convolutions are asked for.
        """
        for name in ("compile", "channels_last"):
            if getattr(self, name) == "on":
                what = f"{name} is on, and these weights are divided among processes (FSDP), where it is not possible"
                raise RobustokError(what, hint=f'set {name} = "off", or launch with multi-GPU instead of FSDP')
        return attrs.evolve(self, compile="off", channels_last="off")
