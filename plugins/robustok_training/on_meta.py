"""Runs code on the meta device, which has shapes but no values, as far as a GPU would: to know costs beforehand.

Where a computation asks for a value (how many elements are not zero, whether a check holds), the answer is the most
expensive one: everything is chosen, everything is distinct. Attention is the fused kernel, as on GPUs. Autocast to
bfloat16 follows CUDA's rules, which decide what is kept for the backward pass and in which type.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.fx.experimental import _config as meta_config
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

META = torch.device("meta")
_aten = torch.ops.aten

#: Operations that CUDA's autocast computes in the lower precision, and in float32, by the name of their function.
#: https://docs.pytorch.org/docs/stable/amp.html#cuda-op-specific-behavior
_LOWER = {
    *("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "prelu"),
    *("matmul", "__matmul__", "__rmatmul__", "mm", "mv", "bmm", "addmm", "addmv", "addbmm", "baddbmm", "einsum"),
    *("multi_dot", "scaled_dot_product_attention", "multi_head_attention_forward"),
}
_FLOAT32 = {
    *("layer_norm", "group_norm", "instance_norm", "softmax", "log_softmax", "cross_entropy", "nll_loss", "norm"),
    *("l1_loss", "mse_loss", "smooth_l1_loss", "huber_loss", "kl_div", "binary_cross_entropy_with_logits", "softplus"),
    *(
        "cosine_similarity",
        "cdist",
        "dist",
        "vector_norm",
        "normalize",
        "exp",
        "expm1",
        "log",
        "log10",
        "log2",
        "log1p",
    ),
    *("logsumexp", "pow", "__pow__", "rsqrt", "reciprocal", "sum", "prod", "cumsum", "cumprod", "asin", "acos", "tan"),
}


@frozen(kw_only=True)
class Measured:
    """What a computation takes.

    Attributes:
        flops: of its matrix products, convolutions and attention, as torch's FLOP counter counts them.
        peak_bytes: of the tensors that it makes and that exist at the same time, without `cast_bytes`.
        cast_bytes: of the weights that autocast makes bfloat16.
        read_bytes: of the tensors that it reads and has not made, as far as they exist at the same time.
        read_parameters: numbers in the parameters among them.
    """

    flops: int
    peak_bytes: int
    cast_bytes: int
    read_bytes: int
    read_parameters: int


class Meter:
    """Measures what is computed inside a `with` block of `measuring`."""

    def __init__(self, counts_bytes: bool) -> None:
        self.counter, self.live, self.casts = FlopCounterMode(display=False), _LiveBytes(counts_bytes), _AsOnCuda()

    @property
    def measured(self) -> Measured:
        """What was measured until now."""
        return Measured(
            flops=self.counter.get_total_flops(),
            peak_bytes=self.live.made.most - self.casts.bytes,
            cast_bytes=self.casts.bytes,
            read_bytes=self.live.read.most,
            read_parameters=self.live.read_parameters.most,
        )

    def turn(self) -> None:
        """Another forward and backward pass begins: autocast casts the weights again."""
        self.casts.forget()


@contextlib.contextmanager
def measuring(*, bf16: bool = False, memory: bool = True) -> Iterator[Meter]:
    """Measures the computation inside the block.

    On the meta device, it runs as the docstring of this module says. Elsewhere it runs as it is.

    Args:
        bf16: under autocast to bfloat16. memory: whether bytes are counted, which takes longer.
    """
    meter, before = Meter(memory), meta_config.meta_nonzero_assume_all_nonzero
    meta_config.meta_nonzero_assume_all_nonzero = True
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16), meter.casts, meter.counter, meter.live:
            yield meter
    finally:
        meta_config.meta_nonzero_assume_all_nonzero = before
        meter.live.forget()


class _LiveBytes(TorchDispatchMode):
    """Answers what meta tensors cannot answer, and counts the bytes of what the computation makes while that exists.

    Attributes:
        made: bytes of what it made. read: bytes of what it read and had not made. read_parameters: numbers of those.
    """

    def __init__(self, counts: bool) -> None:
        super().__init__()
        self._counts = counts
        self.made, self.read, self.read_parameters = _Most(), _Most(), _Most()
        # By the addresses of storages that exist; torch gives them to others afterwards.
        self._exist: dict[int, weakref.finalize[..., torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for value in tree_iter((args, kwargs)) if self._counts else ():
            if isinstance(value, Tensor):
                numbers = value.numel() if isinstance(value, nn.Parameter) else 0
                self._count(value.untyped_storage(), self.read, numbers)
        answer = _ANSWERS.get(func) if _on_meta(args) else None
        result = func(*args, **kwargs) if answer is None else answer(*args, **kwargs)
        for value in tree_iter(result) if self._counts else ():
            if isinstance(value, Tensor):
                self._count(value.untyped_storage(), self.made)
        return result

    def _count(self, storage: torch.UntypedStorage, most: _Most, numbers: int = 0) -> None:
        """Counts a storage that was not seen before, for as long as it exists."""
        address, size = storage._cdata, storage.nbytes()
        if address in self._exist:
            return
        most.add(size)
        self.read_parameters.add(numbers)
        self._exist[address] = weakref.finalize(storage, self._uncount, address, most, size, numbers)
        self._exist[address].atexit = False

    def _uncount(self, address: int, most: _Most, size: int, numbers: int) -> None:
        del self._exist[address]
        most.add(-size)
        self.read_parameters.add(-numbers)

    def forget(self) -> None:
        """Lets go of the storages that outlive the computation."""
        for finalizer in self._exist.values():
            finalizer.detach()
        self._exist.clear()


class _Most:
    """A sum, and the most that it has been."""

    def __init__(self) -> None:
        self._now = self.most = 0

    def add(self, number: int) -> None:
        self._now += number
        self.most = max(self.most, self._now)


class _AsOnCuda(TorchFunctionMode):
    """Gives meta tensors the types that CUDA's autocast would give them, where the CPU's is on, and fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}  # autocast also casts each weight once
        self.bytes = 0  # of all of these, in the pass that casts most

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if (name in _LOWER or name in _FLOAT32) and torch.is_autocast_enabled("cpu") and _on_meta(args):
            cast_one = self._lowered if name in _LOWER else _in_float32
            args, kwargs = tree_map_only(Tensor, cast_one, (args, kwargs))
        if func is scaled_dot_product_attention and _on_meta(args):
            return _fused_attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _lowered(self, tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.float32:
            return tensor
        if not (tensor.is_leaf and tensor.requires_grad):
            return tensor.to(torch.bfloat16)
        if id(tensor) not in self._weights:
            self._weights[id(tensor)] = (tensor, tensor.to(torch.bfloat16))
            self.bytes = max(self.bytes, sum(low.untyped_storage().nbytes() for _, low in self._weights.values()))
        return self._weights[id(tensor)][1]

    def forget(self) -> None:
        """Lets go of the weights."""
        self._weights.clear()


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention by the kernel that a GPU would choose, which keeps no scores; on the meta device, torch would not."""
    if enable_gqa:
        key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value))
    if attn_mask is None:
        flash = _aten._scaled_dot_product_flash_attention
        return cast("Tensor", flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0])
    mask = attn_mask if attn_mask.dtype != torch.bool else torch.zeros_like(attn_mask, dtype=query.dtype)
    mask = mask.expand(*query.shape[:2], query.shape[2], key.shape[2])
    efficient, keeps = _aten._scaled_dot_product_efficient_attention, torch.is_grad_enabled()
    return cast("Tensor", efficient(query, key, value, mask, keeps, dropout_p, is_causal, scale=scale)[0])


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _on_meta(args: Any) -> bool:
    return any(isinstance(value, Tensor) and value.is_meta for value in tree_iter(args))


def _unique(values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    """All values are distinct."""
    rows = torch.empty(values.shape, dtype=torch.int64, device=META)
    return torch.empty(values.numel(), dtype=values.dtype, device=META), rows, rows.flatten()


def _scalar(value: Tensor) -> bool | float:
    """Every check holds; a number is 0."""
    return True if value.dtype == torch.bool else 0 if not value.is_floating_point() else 0.0


def _counted(_values: Tensor, _weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    return torch.empty(minlength, dtype=torch.int64, device=META)


_ANSWERS: dict[Any, Callable[..., Any]] = {
    _aten._unique2.default: _unique,
    _aten.bincount.default: _counted,
    _aten._local_scalar_dense.default: _scalar,
}
