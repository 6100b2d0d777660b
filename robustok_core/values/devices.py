"""Devices: their names, sending tensors without waiting, sums in a fixed order, and the names of autocast."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def device_name(device: torch.device) -> str:
    """The name of a GPU, or of the processor and the vector instructions that torch uses: last bits depend on both.

    A device of another type, such as "mps", is named with its processor.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type} of {processor_name()}"
    return f"{processor_name()} ({torch.backends.cpu.get_cpu_capability()})"


def processor_name() -> str:
    """The processor's name, or where the system tells none, its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None) or platform.processor() or platform.machine()


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
    """On a CPU, torch adds in a fixed order inside the block, so that the same code gives the same bits each time.

    Otherwise several threads add to the gradient of an indexed table, such as `table[rows]`, in whatever order they
    arrive. Torch warns of the few operations of its own that it cannot repeat. Other devices are left as they are, and
    so is the setting of a program that has asked for deterministic algorithms itself. The setting is the process's:
    blocks in two Python threads must not overlap.
    """
    if device.type != "cpu" or torch.get_deterministic_debug_mode() != 0:
        yield
        return
    options: Any = torch.utils.deterministic
    fills = options.fill_uninitialized_memory
    try:
        torch.set_deterministic_debug_mode("warn")
        options.fill_uninitialized_memory = False  # a debugging aid that writes all new memory twice
        yield
    finally:
        torch.set_deterministic_debug_mode("default")
        options.fill_uninitialized_memory = fills
