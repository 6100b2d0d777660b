"""Devices by name."""

from __future__ import annotations

import torch

from robustok_core.errors import RobustokError
from robustok_core.runs.environment import check_arithmetic


def device_called(name: str | torch.device | None, *, where: str = "device") -> torch.device:
    """The device with a name; without a name, the GPU if there is one, else the CPU.

    Args:
        name: as in torch ("cuda:1"). where: the option that named it, for the message.

    Raises:
        RobustokError: if there is no such device, or it cannot compute (torch's "meta").
    """
    check_arithmetic()
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name is None else name)
        computes = (torch.ones(1, device=device) + 1).item() == 2
    except Exception as error:  # each of torch's backends refuses in its own way
        raise _refusal(name, where) from error
    if not computes:
        raise _refusal(name, where)
    return device


def _refusal(name: object, where: str) -> RobustokError:
    return RobustokError(f"there is no device {str(name)!r} here", where=where, hint="`cpu` always works")
