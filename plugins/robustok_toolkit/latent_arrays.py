"""Latents as arrays that files hold: exact integers for codes, float32 for vectors."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustok_core.errors import RobustokError, RunError
from robustok_core.values.latents import Latents, LatentSpace

VectorType = Literal["float32", "float16"]
#: What to do where the maker of vectors gave some that are not finite.
_HINTS = {
    "encoder": 'with precision = "bf16" set "no"; else weights of this tokenizer are no finite numbers, or too large',
    "generator": 'lower guidance.scale, or with precision = "bf16" set "no"',
}


def array_name(space: LatentSpace) -> str:
    """What an array of latents is called: "codes" or "vectors"."""
    return "vectors" if space.codebook_size is None else "codes"


def code_type(codebook_size: int) -> np.dtype[Any]:
    """The smaller of uint16 and int32 that holds every code."""
    return np.dtype(np.uint16 if codebook_size <= 2**16 else np.int32)


def to_array(
    latents: Latents,
    space: LatentSpace,
    *,
    maker: str = "model",
    where: str | None = None,
    dtype: VectorType = "float32",
) -> NDArray[Any]:
    """Codes (B, N) in their `code_type`, or vectors (B, N, D) where the space is continuous.

    Args:
        maker: of the latents, for the message: "encoder" or "generator". where: it made them.
        dtype: of vectors; codes are exact integers.

    Raises:
        ValueError: whoever made the latents broke the space's promise.
        RunError: vectors are not finite, or `dtype` cannot hold them.
    """
    held = latents.vectors if space.codebook_size is None else latents.codes
    if held is None:
        raise ValueError(f"latents of a {space.kind} space must hold {array_name(space)}")
    if space.codebook_size is None:
        check_finite(held, maker, where)
        return _as(dtype, held.float().cpu().numpy(), maker, where)
    if held.numel() and (int(held.min()) < 0 or int(held.max()) >= space.codebook_size):
        raise ValueError(f"codes must lie in [0, {space.codebook_size}), found {int(held.min())} to {int(held.max())}")
    return held.cpu().numpy().astype(code_type(space.codebook_size))


def check_finite(vectors: Tensor, maker: str, where: str | None) -> None:
    """Raises RunError where vectors of any shape are not finite; a picture of them would hide it."""
    if not vectors.isfinite().all():
        raise RunError(f"the {maker} made vectors that are not finite", where=where, hint=_HINTS.get(maker))


def _as(dtype: VectorType, vectors: NDArray[np.float32], maker: str, where: str | None) -> NDArray[Any]:
    largest, limit = float(np.abs(vectors).max(initial=0.0)), float(np.finfo(dtype).max)
    if largest > limit:
        what = f"the {maker} made vectors with numbers up to {largest:.6g}, and {dtype} ends at {limit:.6g}"
        raise RunError(what, where=where, hint='set dtype = "float32"')
    return vectors.astype(dtype, copy=False)


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
