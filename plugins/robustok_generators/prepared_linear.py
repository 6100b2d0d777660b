"""Linear layers whose weights are prepared once for many products with a few rows each, as samplers make them.

On a CPU in float32 they are packed: torch's own product reorders a weight at each call; oneDNN reads one that was
packed once, in 2/3 of the time (16 rows, float32, AMD EPYC). torch.compile uses the same operators. Under autocast they
are cast, since autocast casts some weights at each call: those that take no gradient, and those in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustok_core.values.devices import autocast_type


@contextmanager
def prepared_linear(module: nn.Module, packed_for: int | None = None) -> Iterator[None]:
    """Inside the block, linear layers use packed or cast copies of their float32 weights, with the same results.

    Args:
        module: the model; it cannot be trained inside the block, and its weights must not change.
        packed_for: the typical number of input rows, for which weights are packed; None leaves those as they are that
            are not cast, as torch.compile needs it.
    """
    layers = [layer for layer in module.modules() if type(layer) is nn.Linear and _whole_float32(layer.weight)]
    cast = [layer for layer in layers if torch.is_autocast_enabled(autocast_type(layer.weight.device))]
    own = [dict(layer._parameters) for layer in cast]
    pack = [layer for layer in layers if _packable(layer)] if packed_for is not None and not cast else []
    try:
        for layer in cast:
            layer._parameters.update(_cast(layer))
        for layer in pack:
            layer.__dict__["forward"] = _packed(layer, packed_for)
        yield
    finally:
        for layer, parameters in zip(cast, own, strict=True):
            layer._parameters.update(parameters)
        for layer in pack:
            layer.__dict__.pop("forward", None)


def _whole_float32(weight: Tensor) -> bool:
    """Not, for example, a shard of FSDP's."""
    return type(weight) is nn.Parameter and weight.dtype == torch.float32


def _cast(layer: nn.Module) -> dict[str, nn.Parameter | None]:
    """A layer's parameters as autocast would cast them."""
    casts: dict[str, nn.Parameter | None] = {}
    for name, parameter in layer._parameters.items():
        if parameter is not None:
            dtype = torch.get_autocast_dtype(autocast_type(parameter.device))
            casts[name] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
    return casts


def _packable(layer: nn.Module) -> bool:
    assert isinstance(layer, nn.Linear)
    operators = all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
    return layer.weight.device.type == "cpu" and torch.backends.mkldnn.is_available() and operators


def _packed(layer: nn.Module, rows: int | None) -> Callable[[Tensor], Tensor]:
    assert isinstance(layer, nn.Linear)
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
    bias = None if layer.bias is None else layer.bias.detach()

    def forward(x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    return forward
