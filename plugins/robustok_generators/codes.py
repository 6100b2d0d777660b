"""Access to the codes of latents."""

from __future__ import annotations

from torch import Tensor

from robustok_core.values.latents import Latents


def codes_of(latents: Latents) -> Tensor:
    """The codes (B, N) int64 of latents.

    Raises:
        ValueError: the latents have only vectors.
    """
    if latents.codes is None:
        raise ValueError("expected latents with codes, found only vectors")
    return latents.codes
