"""Whether tensors hold numbers only."""

from __future__ import annotations

from torch import Tensor


def all_finite(*tensors: Tensor) -> bool:
    """Whether no number in these tensors is infinite or NaN; waits for their device."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
