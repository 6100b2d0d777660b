"""Entropy of shares, and that of a codebook's usage, which keeps codes in use (Yu et al. 2023, arXiv 2310.05737)."""

from __future__ import annotations

import torch
from torch import Tensor

from robustok_training.distributed import all_mean

_TINY = torch.finfo(torch.float32).tiny


def entropy(shares: Tensor) -> Tensor:
    """(...) entropy in nats of shares (..., K), which sum to 1."""
    return -(shares * shares.clamp(min=_TINY).log()).sum(dim=-1)  # entr's slope at 0 is infinite


def usage_entropy(usage: Tensor) -> Tensor:
    """(...) entropy in nats of the mean over all processes of the shares of the codes (..., K), which sum to 1."""
    # The gradient of the average over processes is the average of their gradients, which training takes anyway.
    return entropy(usage + (all_mean(usage.detach()) - usage.detach()))
