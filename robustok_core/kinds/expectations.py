"""What results of components look like, for the checks at run time and for `robustok.testing`.

Each function takes an `owner`, whose `require(holds, message)` raises the error that names the component.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, Protocol

import torch
from torch import Tensor

from robustok_core.values.finite import all_finite
from robustok_core.values.latents import Latents, LatentSpace
from robustok_core.values.result import Result
from robustok_core.values.wording import described


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


def named(owner: Owner, name: Any, what: str) -> None:
    """Requires a name for results and logs, which join names by slashes: text without a slash or a line break."""
    fits = isinstance(name, str) and bool(name.strip()) and name.isprintable() and "/" not in name
    owner.require(fits, f"{what} has the name {name!r}; a name is text that is not empty and has no slash")


def losses(owner: Owner, values: Any, maker: str) -> None:
    """Requires floating point tensors of shape () by name; `maker` is the method that they come from."""
    is_table = isinstance(values, Mapping)
    owner.require(is_table, f"losses of `{maker}` must be a dict of scalars by name, found {described(values)}")
    for name, value in values.items():
        named(owner, name, f"a loss of `{maker}`")
        scalar(owner, value, f"the loss {name!r} of `{maker}`")


def numbers(owner: Owner, values: Any, what: str) -> None:
    """Requires what `logs` returns: numbers or tensors of one element, by name."""
    owner.require(isinstance(values, Mapping), f"{what} must be numbers by name, found {described(values)}")
    for name, value in values.items():
        named(owner, name, what)
        is_number = isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)
        owner.require(is_number, f"{what} must be numbers by name, but {name!r} is {described(value)}")


def finite(owner: Owner, value: Tensor, what: str) -> None:
    """Requires that no number is infinite or NaN; a tensor on the meta device has no numbers."""
    owner.require(value.is_meta or all_finite(value), what)


def latents(owner: Owner, value: Any, space: LatentSpace, rows: int, maker: str, *, values: bool = True) -> None:
    """Requires latents of a space: codes in a discrete space, vectors in a continuous one.

    Args:
        rows: the number of images. maker: the method that made them.
        values: whether codes must be in range and, in training, vectors finite, which waits for a device. Stages check
            the vectors that they store, and know more of the cause (guidance, precision).
    """
    owner.require(isinstance(value, Latents), f"`{maker}` must return Latents, found {type(value).__name__}")
    if value.vectors is not None or space.codebook_size is None:
        tensor(owner, value.vectors, (rows, space.num_tokens, space.width), None, f"vectors of `{maker}`")
        if values and torch.is_grad_enabled():
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
    if not inside:
        owner.require(False, f"{what} outside [0, {end}), found {int(numbers.min())} to {int(numbers.max())}")


def passes_gradient(owner: Owner, value: Tensor, source: Tensor, what: str, to: str, *, graph: bool = False) -> None:
    """Requires that a result takes a gradient, if its source does.

    Args:
        graph: whether it must lead to the source; a walk through the graph of the computation, without its values.
    """
    if torch.is_grad_enabled() and source.requires_grad:
        leads = value.requires_grad and (not graph or _derived(value, source))
        owner.require(leads, f"{what} pass no gradient to {to}: are they detached?")


def _derived(value: Tensor, source: Tensor) -> bool:
    """Whether a gradient of `value` reaches `source`."""
    if value is source:
        return True
    target, seen, ahead = source.grad_fn, set(), [value.grad_fn]
    while ahead:
        step: Any = ahead.pop()
        if step is None or step in seen:
            continue
        if step is target or getattr(step, "variable", None) is source:
            return True
        seen.add(step)
        ahead += [before for before, _ in step.next_functions]
    return False


def embedded(owner: Owner, vectors: Tensor, codewords: Tensor, clean: Tensor, what: str) -> None:
    """Requires vectors to be codewords; waits for a device.

    Args:
        vectors, codewords: (M, D). clean: the vectors that they replace. Straight-through arithmetic rounds at the
            scale of both: the tolerance, 2% of the largest number, leaves room for bf16.
    """
    if vectors.numel() == 0 or vectors.is_meta:
        return
    gap = (vectors.detach().float() - codewords.detach().float()).abs().amax()
    largest = max(codewords.detach().abs().amax(), clean.detach().abs().amax())
    owner.require(bool(gap <= 0.02 * largest.float()), what)


def results(owner: Owner, value: Any) -> None:
    """Requires Results by name, none of which is NaN."""
    is_table = isinstance(value, Mapping) and bool(value)
    owner.require(is_table, f"`compute` must return results by name, found {described(value)}")
    for name, result in value.items():
        named(owner, name, "a result of `compute`")
        owner.require(
            isinstance(result, Result), f"the result {name!r} must be a Result, found {type(result).__name__}"
        )
        owner.require(not math.isnan(result.value), f"the result {name!r} is not a number (NaN)")
