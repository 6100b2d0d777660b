"""Computation in float32: regardless of autocast and without TF32, or with TF32 where training asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from robustok_core.values.devices import autocast_type


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Disables autocast and TF32 inside the block and restores both afterwards.

    On GPUs since Ampere, convolutions round their inputs to TF32's 10 bits by default.
    """
    with without_tf32(), torch.autocast(autocast_type(device), enabled=False):
        yield


@contextmanager
def without_tf32() -> Iterator[None]:
    """Disables TF32 inside the block and restores it afterwards: float32 is float32 there, on a GPU, too."""
    with _restored():
        for switch, name, off in _switches():
            setattr(switch, name, off)
        yield


@contextmanager
def tf32(device: torch.device, *, on: bool) -> Iterator[None]:
    """On CUDA, lets float32 matrix products and convolutions inside the block use TF32, or forbids it to both."""
    if device.type != "cuda":
        yield
        return
    with _restored():
        for switch, name, off in _switches():
            setattr(switch, name, ("tf32" if off == "ieee" else True) if on else off)
        yield


@contextmanager
def _restored() -> Iterator[None]:
    saved = [(switch, name, getattr(switch, name)) for switch, name, _ in _switches()]
    try:
        yield
    finally:
        for switch, name, value in saved:
            setattr(switch, name, value)


def sums_device(device: torch.device) -> torch.device:
    """The device that holds float64 sums: the CPU for Apple's MPS, which has no float64, else `device`."""
    return torch.device("cpu") if device.type == "mps" else device


def _switches() -> list[tuple[Any, str, Any]]:
    """Torch's TF32 switches: the object, its attribute, and the value that disables TF32."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    if not hasattr(matmul, "fp32_precision"):  # before torch 2.9
        return [(matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]
    return [(switch, "fp32_precision", "ieee") for switch in (matmul, cudnn.conv, cudnn.rnn)]
