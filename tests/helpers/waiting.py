"""Finds where a program would wait for a device that works behind it, on a machine without such a device."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.fx.experimental import _config as meta_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from robustok_core.values import devices
from robustok_training import on_meta

_aten = torch.ops.aten
#: Operations that return a value, or a result whose size depends on values, or that copy numbers of Python's.
WAITS = {
    _aten._local_scalar_dense.default: "reads a value",
    _aten.nonzero.default: "nonzero",
    _aten.masked_select.default: "masked_select",
    _aten._unique2.default: "unique",
    _aten.unique_dim.default: "unique",
    _aten.unique_consecutive.default: "unique_consecutive",
    _aten.bincount.default: "bincount",
    _aten.repeat_interleave.Tensor: "repeat_interleave",
    _aten.equal.default: "equal",
    _aten.lift_fresh.default: "copies numbers",
}
_BY_MASK = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}


class Waits(TorchDispatchMode):
    """Notes each operation for which a program would wait, and the line of ours that asked for it.

    Attributes:
        found: "unique in robustok_perturbations/top_delta.py:109", and so on.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (why := self._why(func, args, kwargs)) is not None:
            self.found.append(f"{why} in {_line_of_ours()}")
        answer: Callable[..., Any] | None = on_meta._ANSWERS.get(func) if _meta(args) else None
        return (answer or func)(*args, **kwargs)

    def _why(self, func: Any, args: Any, kwargs: Any) -> str | None:
        on_cpu = any(isinstance(value, Tensor) and value.is_cpu for value in tree_iter(args))
        if func is _aten._to_copy.default and not kwargs.get("non_blocking", False):
            places = {args[0].device.type, torch.device(kwargs.get("device") or args[0].device).type}
            return "copies to or from the device" if len(places) > 1 else None
        if self._device == "meta" and on_cpu:
            return None
        by_mask = func in _BY_MASK and any(i is not None and i.dtype == torch.bool for i in args[1])
        return "chooses by a mask" if by_mask else WAITS.get(func)


@contextmanager
def waits_on_meta() -> Iterator[list[str]]:
    """Notes what waits for the meta device, which stands for a GPU; what is on the CPU does not count."""
    mode, before = Waits("meta"), meta_config.meta_nonzero_assume_all_nonzero
    meta_config.meta_nonzero_assume_all_nonzero = True
    try:
        with mode:
            yield mode.found
    finally:
        meta_config.meta_nonzero_assume_all_nonzero = before


@contextmanager
def waits_as_if_queued() -> Iterator[list[str]]:
    """Notes what would wait if the CPU were a device that works behind the program, as which it is treated."""
    with patch.object(devices, "is_queued", lambda device: True), Waits("cpu") as mode:
        yield mode.found


def _meta(args: Any) -> bool:
    return any(isinstance(value, Tensor) and value.is_meta for value in tree_iter(args))


def _line_of_ours() -> str:
    ours = [frame for frame in traceback.extract_stack() if "/robustok_" in frame.filename]
    place = ours[-1].filename.rsplit("/robustok_", 1)[1] if ours else "torch"
    return f"robustok_{place}:{ours[-1].lineno}" if ours else place
