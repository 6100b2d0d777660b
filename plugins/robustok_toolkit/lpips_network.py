"""The network of LPIPS (Zhang et al. 2018), through the `lpips` package: what the loss and the metric share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_toolkit.weight_files import read_weights

Trunk = Literal["vgg", "alex"]
#: torchvision's files of the trunks' weights.
_FILES: Mapping[Trunk, str] = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


def lpips_network(trunk: Trunk, weights: str | None, *, where: str, otherwise: str) -> nn.Module:
    """LPIPS in eval mode and without gradients of its weights.

    It returns distances (B, 1, 1, 1) of images from images, both (B, 3, H, W) in [-1, 1]. Building it takes numbers
    from torch's own generator. On the meta device no weights are read.

    Args:
        trunk: the network under the learned weights.
        weights: a file of torchvision's weights of the trunk; None downloads them once.
        where: who asks, for messages. otherwise: what a user without the weights can do instead, for messages.

    Raises:
        RobustokError: the weights cannot be downloaded, or the file holds others.
    """
    on_meta = torch.empty(0).is_meta
    state = None if weights is None or on_meta else read_weights(Path(weights).expanduser()).weights
    try:
        network = _built(trunk, pretrained=not on_meta, pnet_rand=on_meta or weights is not None)
    except OSError as error:
        raise RobustokError(
            f"the weights of LPIPS cannot be downloaded: {error}",
            where=where,
            hint=f'set weights = "FILE" to a local {_FILES[trunk]}, or {otherwise}',
        ) from error
    if state is not None:
        _load_trunk(network.net, state, trunk, str(weights))
    if on_meta:
        network.to("meta")  # lpips makes its scaling constants on the CPU wherever it is built
    return network.eval().requires_grad_(False)


def _built(trunk: Trunk, *, pretrained: bool, pnet_rand: bool) -> Any:
    import lpips

    with warnings.catch_warnings():
        # lpips calls torchvision in its older way
        warnings.filterwarnings("ignore", message=".*deprecated since 0.13", category=UserWarning)
        return lpips.LPIPS(net=trunk, pretrained=pretrained, pnet_rand=pnet_rand, verbose=False)


def _load_trunk(network: nn.Module, state: Mapping[str, Tensor], trunk: Trunk, where: str) -> None:
    names = {name: f"features.{name.partition('.')[2]}" for name in network.state_dict()}  # "slice1.0.weight"
    try:
        network.load_state_dict({name: state[key] for name, key in names.items()})
    except (KeyError, RuntimeError) as error:
        raise RobustokError(
            f"this file does not hold the weights of {trunk}", where=where, hint=f"it should be {_FILES[trunk]}"
        ) from error
