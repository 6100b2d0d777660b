"""Convolutions that keep the channels of a pixel together, as tensor cores read them."""

from __future__ import annotations

import torch
from torch import Tensor, channels_last, nn


def keep_channels_last(module: nn.Module) -> None:
    """Lays out the weights of all 2D convolutions so; their results, and what comes after, follow. No value changes."""
    for part in module.modules():
        weight = part._parameters.get("weight")  # no attribute: a parametrized one would be computed
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)) and weight is not None and not _is_sharded(weight):
            weight.data = weight.data.contiguous(memory_format=channels_last)


def _is_sharded(weight: Tensor) -> bool:
    return hasattr(weight, "to_local")  # a DTensor, whose rows are divided as they lie


def laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A copy of a tensor of the same shape whose numbers lie in memory as a parameter's.

    Fused optimisers read all tensors of a parameter in the order of memory.
    """
    return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
