"""The straight-through estimator (Bengio et al. 2013, arXiv 1308.3432)."""

from __future__ import annotations

from torch import Tensor


def straight_through(z: Tensor, vectors: Tensor) -> Tensor:
    """The exact values of `vectors`, with the gradient going to `z` (same shape).

    `z - z.detach()` is zero, so `vectors` is unchanged to the bit; `z + (vectors - z)` would round.
    """
    return vectors.detach() + (z - z.detach())
