"""Latents as arrays that files hold: exact integers for codes, float32 for vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robustok_core.errors import RobustokError
from robustok_core.latents import Latents, LatentSpace


def array_name(space: LatentSpace) -> str:
    """What an array of latents is called: "codes" or "vectors"."""
    return "vectors" if space.codebook_size is None else "codes"


def code_type(codebook_size: int) -> np.dtype[Any]:
    """The smaller of uint16 and int32 that holds every code."""
    return np.dtype(np.uint16 if codebook_size <= 2**16 else np.int32)


def to_array(latents: Latents, space: LatentSpace) -> NDArray[Any]:
    """Codes (B, N) in their `code_type`, or vectors (B, N, D) float32 where the space is continuous.

    Raises:
        ValueError: whoever made the latents broke the space's promise.
    """
    held = latents.vectors if space.codebook_size is None else latents.codes
    if held is None:
        raise ValueError(f"latents of a {space.kind} space must hold {array_name(space)}")
    if space.codebook_size is None:
        return held.float().cpu().numpy()
    if held.numel() and (int(held.min()) < 0 or int(held.max()) >= space.codebook_size):
        raise ValueError(f"codes must lie in [0, {space.codebook_size}), found {int(held.min())} to {int(held.max())}")
    return held.cpu().numpy().astype(code_type(space.codebook_size))


def no_latents(space: LatentSpace) -> NDArray[Any]:
    """What `to_array` gives of no image: (0, N) or (0, N, D)."""
    if space.codebook_size is None:
        return np.empty((0, space.num_tokens, space.width), np.float32)
    return np.empty((0, space.num_tokens), code_type(space.codebook_size))


def from_array(array: NDArray[Any], space: LatentSpace, where: str) -> Latents:
    """Latents of an array from a file: codes (B, N) of any integer type, or vectors (B, N, D).

    Raises:
        RobustokError: it has another number of tokens, another width, or holds what is no code of this space.
    """
    shape = (space.num_tokens,) if space.codebook_size is not None else (space.num_tokens, space.width)
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        wanted = ", ".join(map(str, shape))
        hint = f"this tokenizer's latents are {space.describe()}"
        raise RobustokError(f"expected {array_name(space)} (n, {wanted}), found {array.shape}", where=where, hint=hint)
    if space.codebook_size is None:
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise RobustokError("vectors must be finite numbers", where=where)
        return Latents(vectors=torch.from_numpy(array.astype(np.float32)))
    if not np.issubdtype(array.dtype, np.integer):
        raise RobustokError(f"codes must be whole numbers, found {array.dtype}", where=where)
    if array.size and (array.min() < 0 or array.max() >= space.codebook_size):
        wrong = array.max() if array.max() >= space.codebook_size else array.min()
        what = f"{wrong} is no code: this tokenizer's codebook has {space.codebook_size}, counted from 0"
        raise RobustokError(what, where=where, hint="are these the codes of another tokenizer?")
    return Latents(codes=torch.from_numpy(array.astype(np.int64)))
