"""Modulation of tokens by a condition, as in DiT's adaLN (Peebles & Xie 2022, arXiv 2212.09748)."""

from __future__ import annotations

import torch
from torch import Tensor


def modulate(x: Tensor, *, shift: Tensor, scale: Tensor) -> Tensor:
    """Tokens x (B, N, D) times 1 + scale, plus shift.

    Args:
        x: normalised tokens.
        shift, scale: (B, N, D), or (B, 1, D) if all tokens share one condition; zeros change nothing.
    """
    return torch.addcmul(shift, x, 1.0 + scale)
