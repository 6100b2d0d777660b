"""Makes modules of vector-quantize-pytorch usable as quantizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

#: The library fills its tables while it is built, in memory, also for a sketch. These take at most 256 MiB.
_MOST_NUMBERS = 2**26


def check_fits(count: int) -> None:
    """Checks the size of the tables of a module, before it is built.

    Args:
        count: the numbers in them.

    Raises:
        ValueError: if there are too many.
    """
    if count > _MOST_NUMBERS:
        raise ValueError(f"the codebook would have {count:,} numbers; at most {_MOST_NUMBERS:,} are possible")


def with_all_buffers_saved(build: Callable[[], Any]) -> Any:
    """Builds a module on the default device and puts all its buffers into the state dict.

    The library keeps some tables out of the state dict and reads them during construction: such a module cannot be
    built on the meta device, and after loading a checkpoint it would compute with uninitialised memory.
    """
    with torch.device("cpu"):
        module: nn.Module = build()
    for submodule in module.modules():
        for name, buffer in list(submodule.named_buffers(recurse=False)):
            submodule.register_buffer(name, buffer)
    # Older torch does not count a `with torch.device(...)` in torch.get_default_device().
    return module.to(torch.empty(0).device)
