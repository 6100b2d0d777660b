"""The gated feed-forward layer of Llama (Shazeer 2020, arXiv 2002.05202)."""

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


def swiglu_width(width: int, multiple: int = 256) -> int:
    """The usual hidden width: 8/3 of the width, rounded up to a multiple."""
    return -(-(8 * width // 3) // multiple) * multiple
