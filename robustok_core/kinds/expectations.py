"""What results of components look like, for the checks at run time and for `robustok.testing`.

Each function takes an `owner`, whose `require(holds, message)` raises the error that names the component.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.result import Result


class Owner(Protocol):
    """Names the component in the error that it raises."""

    def require(self, holds: bool, message: str) -> None:
        """Raises unless `holds`."""


def tensor(owner: Owner, value: Any, shape: tuple[int, ...], dtype: torch.dtype | None, what: str) -> None:
    """Requires a tensor of a shape and dtype; None stands for any floating point dtype."""
    fits = isinstance(value, Tensor) and value.shape == shape
    if not (fits and (value.dtype == dtype if dtype is not None else value.is_floating_point())):
        wanted = "of floating point numbers" if dtype is None else f"of {dtype}"
        owner.require(False, f"{what} must be a tensor {shape} {wanted}, found {described(value)}")


def scalar(owner: Owner, value: Any, what: str) -> None:
    """Requires a floating point tensor of shape ()."""
    if not (isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()):
        owner.require(False, f"{what} must be a floating point tensor of shape (), found {described(value)}")


def finite(owner: Owner, value: Tensor, what: str) -> None:
    """Requires that no number is infinite or NaN; a tensor on the meta device has no numbers."""
    owner.require(value.is_meta or bool(value.isfinite().all()), what)


def latents(owner: Owner, value: Any, space: LatentSpace, rows: int, maker: str, *, values: bool = True) -> None:
    """Requires latents of a space: codes in a discrete space, vectors in a continuous one.

    Args:
        rows: the number of images. maker: the method that made them.
        values: whether codes must be in range and vectors finite, which waits for a device.
    """
    owner.require(isinstance(value, Latents), f"`{maker}` must return Latents, found {type(value).__name__}")
    if value.vectors is not None or space.codebook_size is None:
        tensor(owner, value.vectors, (rows, space.num_tokens, space.width), None, f"vectors of `{maker}`")
        if values:
            finite(owner, value.vectors, f"`{maker}` returns vectors that are not finite")
    if space.codebook_size is None:
        owner.require(value.codes is None, f"`{maker}` returns codes in a continuous space")
        return
    tensor(owner, value.codes, (rows, space.num_tokens), torch.int64, f"codes of `{maker}`")
    if values:
        in_range(owner, value.codes, space.codebook_size, f"`{maker}` returns codes")


def in_range(owner: Owner, numbers: Tensor, end: int, what: str) -> None:
    """Requires integers in [0, end); those on the meta device have no values."""
    inside = numbers.is_meta or bool(((numbers >= 0) & (numbers < end)).all())
    owner.require(inside, f"{what} outside [0, {end})")


def passes_gradient(owner: Owner, value: Tensor, source: Tensor, what: str, to: str) -> None:
    """Requires that a result is connected to its source, if that takes a gradient here."""
    detached = torch.is_grad_enabled() and source.requires_grad and not value.requires_grad
    owner.require(not detached, f"{what} pass no gradient to {to}: are they detached?")


def results(owner: Owner, value: Any) -> None:
    """Requires Results by name, none of which is NaN."""
    is_table = isinstance(value, Mapping) and bool(value)
    owner.require(is_table, f"`compute` must return results by name, found {described(value)}")
    for name, result in value.items():
        is_result = isinstance(name, str) and isinstance(result, Result)
        owner.require(is_result, f"the result {name!r} must be a Result, found {type(result).__name__}")
        owner.require(not math.isnan(result.value), f"the result {name!r} is not a number (NaN)")


def described(value: Any) -> str:
    """A value's shape and dtype, or its type."""
    return f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
