"""Gated feed-forward layers (Shazeer 2020, arXiv 2002.05202): Llama's, and one with biases."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SwiGLU(nn.Module):
    """w2(SiLU(w1 x) * w3 x), without biases. Attribute names are Llama's, so its weights load."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to the same shape."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class GatedMlp(nn.Module):
    """SwiGLU with biases, gate and values in one layer."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to the same shape."""
        gate, values = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * values)


def swiglu_width(width: int, multiple: int = 256) -> int:
    """The usual hidden width: 8/3 of the width, rounded up to a multiple."""
    return -(-(8 * width // 3) // multiple) * multiple
