"""Networks that a loss looks through and does not train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_toolkit.eval_mode import evaluating

#: Side of the picture that is sent once through a feature network to learn how wide its maps are.
_PROBE_SIZE = 64


class Frozen(nn.Module):
    """Holds a network in eval mode, without gradients of its weights, and out of reach of its owner's state.

    The network moves with its owner (`.to(...)`) but is in neither `parameters()` nor `state_dict()`:
    no optimiser, checkpoint or gradient reduction meets it, and `train()` does not reach its dropout.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "network", network.eval().requires_grad_(False))

    def _apply(self, fn: Any, recurse: bool = True) -> Frozen:
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Whatever the network makes of the inputs."""
        return self.network(*inputs)


class FrozenMaps(Frozen):
    """Chosen feature maps of a Features component.

    Args:
        features: the network.
        layers: places of the maps to use, 0 the shallowest and -1 the deepest; None for all.

    Attributes:
        channels: C of each chosen map.

    Raises:
        RobustokError: a place that the network does not have.
    """

    network: Features

    def __init__(self, features: Features, layers: Sequence[int] | None = None) -> None:
        super().__init__(features)
        widths = [found.shape[1] for found in self._probe()]
        self.layers = list(range(len(widths))) if layers is None else list(layers)
        wrong = [layer for layer in self.layers if not -len(widths) <= layer < len(widths)]
        if wrong or not self.layers:
            raise RobustokError(
                f"features {features.name!r} have no map {wrong[0]}" if wrong else "layers must name at least one map",
                where="layers",
                hint=f"they have {len(widths)} maps, 0 (shallowest) to {len(widths) - 1}",
            )
        self.channels = [widths[layer] for layer in self.layers]

    @torch.no_grad()
    def _probe(self) -> list[Tensor]:
        held = next(iter([*self.network.parameters(), *self.network.buffers()]), torch.empty(0))
        return self.network.maps(torch.zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE, device=held.device))

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Maps (B, C, h, w) of images (B, 3, H, W) in [-1, 1], in the order of `layers`."""
        maps = self.network.maps(images)
        return [maps[layer] for layer in self.layers]


@contextmanager
def held_still(network: nn.Module) -> Iterator[None]:
    """Within the block a trained network is in eval mode and its parameters take no gradient.

    A graph that is made inside stays that way when its gradient is computed afterwards. Safe for a
    module that DistributedDataParallel wraps elsewhere: neither parameters nor hooks are replaced.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with evaluating(network):
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
