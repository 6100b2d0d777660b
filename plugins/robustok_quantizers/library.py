"""What it takes to hold a module of vector-quantize-pytorch to the contract of a quantizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def held_whole(build: Callable[[], Any]) -> Any:
    """Builds a module on the default device with every buffer in its state dict.

    The library keeps tables out of the state dict and reads them while it builds: such a module cannot be built
    on the meta device, and one loaded from a checkpoint alone would compute with uninitialised memory.
    """
    with torch.device("cpu"):
        module: nn.Module = build()
    for part in module.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            part.register_buffer(name, buffer)
    # Older torch does not count a `with torch.device(...)` in torch.get_default_device().
    return module.to(torch.empty(0).device)
