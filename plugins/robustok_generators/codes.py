"""The codes of latents that must have some."""

from __future__ import annotations

from torch import Tensor

from robustok_core.values.latents import Latents


def codes_of(latents: Latents) -> Tensor:
    """The codes (B, N) int64 of latents.

    Raises:
        ValueError: where they hold vectors only.
    """
    if latents.codes is None:
        raise ValueError("this reads latents with codes, and these hold vectors only")
    return latents.codes
