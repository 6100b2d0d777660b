"""Arguments of the functions that programs call: what does not fit is named, with what is accepted."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.values.finite import all_finite
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.wording import described, short, short_text

_LARGEST = 2**31 - 1
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32)


def whole_number(value: Any, where: str, *, least: int | None = None) -> int:
    """The value as an int, if it is one (also of numpy or torch).

    Args:
        least: also requires at least this, and not more than fits into memory; None for a seed.

    Raises:
        RobustokError: if it is not.
    """
    wanted = "a whole number" if least is None else f"a whole number of at least {least}"
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise RobustokError(f"expected {wanted}, found {short(value)}", where=where)
    if least is not None and not least <= number <= _LARGEST:
        raise RobustokError(f"{number} is out of range", where=where, hint=f"{wanted} and at most {_LARGEST}")
    return number


def folder_or_file(value: Any, where: str, wanted: str) -> Path:
    """The value as a path, if it is one; else the message says what is wanted.

    Raises:
        RobustokError: if it is not.
    """
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise RobustokError(f"expected {wanted}, found {type(value).__name__}", where=where)
    path = Path(value)
    try:
        path.exists()
    except OSError as error:  # a name that is too long, or a folder that may not be read
        raise RobustokError(f"{short_text(str(path))}: {error.strerror}", where=where) from error
    return path


def given_latents(value: Any, space: LatentSpace) -> Latents:
    """Latents of a space, with codes as int64 whatever integers they were.

    Raises:
        RobustokError: if it is something else, or latents of another space.
    """
    _require(isinstance(value, Latents), f"expected Latents, found {described(value)}")
    _require(value.codes is not None or value.vectors is not None, "these latents hold neither vectors nor codes")
    codes = None if value.codes is None else _codes(value.codes, space)
    if value.vectors is not None:
        _check_vectors(value.vectors, space)
        same = codes is None or len(codes) == len(value.vectors)
        _require(same, "codes and vectors are of different numbers of images")
    return value.evolve(codes=codes)


def _codes(codes: Any, space: LatentSpace) -> Tensor:
    size = space.codebook_size
    if size is None:
        raise RobustokError(f"these latents have codes, but this space has none ({space.describe()})", where="latents")
    whole = isinstance(codes, Tensor) and codes.dtype in _INTEGERS
    fits = whole and codes.ndim == 2 and codes.shape[1] == space.num_tokens
    _require(fits, f"codes must be a tensor (n, {space.num_tokens}) of integers, found {described(codes)}")
    codes = codes.to(torch.int64)
    _require(bool(((codes >= 0) & (codes < size)).all()), f"codes must lie in [0, {size})")
    return codes


def _check_vectors(vectors: Any, space: LatentSpace) -> None:
    shape = (space.num_tokens, space.width)
    fits = isinstance(vectors, Tensor) and vectors.is_floating_point() and vectors.ndim == 3
    wanted = f"vectors must be a tensor (n, {shape[0]}, {shape[1]}) of floats"
    _require(fits and vectors.shape[1:] == shape, f"{wanted}, found {described(vectors)}")
    _require(all_finite(vectors), "vectors must be finite")


def _require(holds: bool, what: str) -> None:
    if not holds:
        made = "Latents(codes=...) and Latents(vectors=...) make them of tensors"
        raise RobustokError(what, where="latents", hint=f"`encode_images` and `sample_latents` return latents; {made}")
