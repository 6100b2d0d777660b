"""Computation in float32 whatever the autocast around it, and without TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Switches autocast and TF32 off inside the block; afterwards both are as they were.

    On GPUs since Ampere, convolutions round their inputs to TF32's 10 bits unless they are told not to. The meta
    device, which plans costs, has no autocast to switch off.
    """
    held = [(switch, name, getattr(switch, name)) for switch, name, _ in _switches()]
    try:
        for switch, name, off in _switches():
            setattr(switch, name, off)
        with torch.autocast("cpu" if device.type == "meta" else device.type, enabled=False):
            yield
    finally:
        for switch, name, before in held:
            setattr(switch, name, before)


def sums_device(device: torch.device) -> torch.device:
    """Where float64 sums are held: on the device, but for Apple's, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def _switches() -> list[tuple[Any, str, Any]]:
    """Where torch holds whether TF32 is allowed: the object, its attribute, and what means no."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    if not hasattr(matmul, "fp32_precision"):  # before torch 2.9
        return [(matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]
    return [(switch, "fp32_precision", "ieee") for switch in (matmul, cudnn.conv, cudnn.rnn)]
