"""Conversion between latents and arrays in files: integers for codes, floats for vectors."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustok_core.errors import RobustokError, RunError
from robustok_core.values.finite import all_finite
from robustok_core.values.latents import Latents, LatentSpace

VectorType = Literal["float32", "float16"]
#: What to do if an encoder or a generator returns vectors that are not finite.
_HINTS = {
    "encoder": 'if precision = "bf16", set it to "no"; otherwise the tokenizer\'s weights are not finite, or too large',
    "generator": 'lower guidance.scale, or if precision = "bf16", set it to "no"',
}


def array_name(space: LatentSpace) -> str:
    """The name of an array of latents: "codes" or "vectors"."""
    return "vectors" if space.codebook_size is None else "codes"


def code_type(codebook_size: int) -> np.dtype[Any]:
    """The smallest of uint16, int32 and int64 that holds every code."""
    if codebook_size <= 2**16:
        return np.dtype(np.uint16)
    return np.dtype(np.int32 if codebook_size <= 2**31 else np.int64)


def to_array(
    latents: Latents,
    space: LatentSpace,
    *,
    maker: str = "model",
    where: str | None = None,
    dtype: VectorType = "float32",
) -> NDArray[Any]:
    """Codes (B, N) in their `code_type`, or vectors (B, N, D) if the space is continuous.

    Args:
        maker: "encoder" or "generator", for messages. where: location for messages.
        dtype: of vectors; codes are integers.

    Raises:
        ValueError: the latents do not fit the space.
        RunError: vectors are not finite, or exceed the range of `dtype`.
    """
    values = latents.vectors if space.codebook_size is None else latents.codes
    if values is None:
        raise ValueError(f"latents of a {space.kind} space must hold {array_name(space)}")
    if space.codebook_size is None:
        check_finite(values, maker, where)
        return _as(dtype, values.float().cpu().numpy(), maker, where)
    if values.numel() and (int(values.min()) < 0 or int(values.max()) >= space.codebook_size):
        found = f"{int(values.min())} to {int(values.max())}"
        raise ValueError(f"codes must lie in [0, {space.codebook_size}), found {found}")
    return values.cpu().numpy().astype(code_type(space.codebook_size))


def check_finite(vectors: Tensor, maker: str, where: str | None) -> None:
    """Raises RunError if vectors, of any shape, are not finite: the decoded images would hide it."""
    if not all_finite(vectors):
        raise RunError(f"the {maker} returned vectors that are not finite", where=where, hint=_HINTS.get(maker))


def _as(dtype: VectorType, vectors: NDArray[np.float32], maker: str, where: str | None) -> NDArray[Any]:
    largest, limit = float(np.abs(vectors).max(initial=0.0)), float(np.finfo(dtype).max)
    if largest > limit:
        message = f"the {maker} returned vectors with values up to {largest:.6g}, but {dtype} ends at {limit:.6g}"
        raise RunError(message, where=where, hint='set dtype = "float32"')
    return vectors.astype(dtype, copy=False)


def no_latents(space: LatentSpace) -> NDArray[Any]:
    """The array of zero images: (0, N) or (0, N, D)."""
    if space.codebook_size is None:
        return np.empty((0, space.num_tokens, space.width), np.float32)
    return np.empty((0, space.num_tokens), code_type(space.codebook_size))


def from_array(array: NDArray[Any], space: LatentSpace, where: str) -> Latents:
    """Latents from an array in a file: codes (B, N) of any integer type, or vectors (B, N, D).

    Raises:
        RobustokError: the shape or a value does not fit the space.
    """
    shape = (space.num_tokens,) if space.codebook_size is not None else (space.num_tokens, space.width)
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        hint = f"this tokenizer's latents are {space.describe()}"
        message = f"expected {array_name(space)} (n, {expected}), found {array.shape}"
        raise RobustokError(message, where=where, hint=hint)
    if space.codebook_size is None:
        with np.errstate(over="ignore"):  # a number that is too large for float32 becomes infinite
            vectors = array.astype(np.float32) if array.dtype.kind == "f" else np.full(1, np.nan, np.float32)
        if not np.isfinite(vectors).all():
            raise RobustokError("vectors must be finite numbers", where=where)
        return Latents(vectors=torch.from_numpy(vectors))
    if array.dtype.kind not in "iu":
        raise RobustokError(f"codes must be integers, found {array.dtype}", where=where)
    if array.size and (array.min() < 0 or array.max() >= space.codebook_size):
        invalid = array.max() if array.max() >= space.codebook_size else array.min()
        message = f"{invalid} is not a code: this tokenizer's codes are 0 to {space.codebook_size - 1}"
        raise RobustokError(message, where=where, hint="are these the codes of another tokenizer?")
    return Latents(codes=torch.from_numpy(array.astype(np.int64)))
