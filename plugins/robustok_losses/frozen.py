"""Networks that a loss uses but does not train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_toolkit.eval_mode import evaluating

#: Side, in pixels, of the grey image that probes a feature network for the widths of its maps.
_PROBE_SIZE = 64


class Frozen(nn.Module):
    """Holds a network in eval mode, without weight gradients, and outside its owner's state.

    The network moves with its owner (`.to(...)`) but is in neither `parameters()` nor `state_dict()`:
    optimisers, checkpoints and gradient reductions do not see it, and `train()` does not enable its dropout.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "network", network.eval().requires_grad_(False))

    def _apply(self, fn: Any, recurse: bool = True) -> Frozen:
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The network's output."""
        return self.network(*inputs)


class FrozenMaps(Frozen):
    """Selected feature maps of a Features component.

    Args:
        features: the network.
        layers: indices of the maps to use, 0 the shallowest and -1 the deepest; None for all.

    Attributes:
        channels: C of each selected map.

    Raises:
        RobustokError: an index is out of range, or `layers` is empty.
    """

    network: Features

    def __init__(self, features: Features, layers: Sequence[int] | None = None) -> None:
        super().__init__(features)
        widths = [features_map.shape[1] for features_map in self._probe()]
        self.layers = list(range(len(widths))) if layers is None else list(layers)
        unknown = [layer for layer in self.layers if not -len(widths) <= layer < len(widths)]
        if unknown or not self.layers:
            raise RobustokError(
                f"features {features.name!r} have no map {unknown[0]}"
                if unknown
                else "layers must name at least one map",
                where="layers",
                hint=f"they have {len(widths)} maps, 0 (shallowest) to {len(widths) - 1}",
            )
        self.channels = [widths[layer] for layer in self.layers]

    @torch.no_grad()
    def _probe(self) -> list[Tensor]:
        weight = next(iter([*self.network.parameters(), *self.network.buffers()]), torch.empty(0))
        return self.network.maps(torch.zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE, device=weight.device))

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Maps (B, C, h, w) of images (B, 3, H, W) in [-1, 1], in the order of `layers`."""
        maps = self.network.maps(images)
        return [maps[layer] for layer in self.layers]


@contextmanager
def held_still(network: nn.Module) -> Iterator[None]:
    """Within the block, puts a trained network in eval mode and computes no gradients for its parameters.

    Batch norms normalise by the batch, as in the network's own training: by running averages, it would be another
    function than the one that is trained. Their averages stay as they are.

    A graph built inside the block may be differentiated after it. Safe for a module that
    DistributedDataParallel wraps elsewhere: parameters and hooks are not replaced.
    """
    batch_norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    averaging = [module.track_running_stats for module in batch_norms]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with evaluating(network):
            for module in batch_norms:
                module.training, module.track_running_stats = True, False
            yield
    finally:
        for module, tracked in zip(batch_norms, averaging, strict=True):
            module.track_running_stats = tracked
        for parameter in trained:
            parameter.requires_grad_(True)
