"""The spread of vectors within an image, the unit of relative noise."""

from __future__ import annotations

from torch import Tensor


def spread(vectors: Tensor) -> Tensor:
    """(B, 1, D) standard deviation of each channel over the tokens of each image of vectors (B, N, D); no gradient."""
    centred = vectors.detach() - vectors.detach().mean(dim=1, keepdim=True)
    return centred.square().mean(dim=1, keepdim=True).sqrt()
