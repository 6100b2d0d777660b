"""The LPIPS network (Zhang et al. 2018) from the `lpips` package, for the loss and the metric."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustok_core.errors import RobustokError, RunError
from robustok_core.runs.weights import load_module
from robustok_core.values.download import Download, local_file
from robustok_toolkit.downloads import torch_file
from robustok_toolkit.weight_files import read_weights

Trunk = Literal["vgg", "alex"]
#: torchvision's weight file of each trunk.
_FILES: Mapping[Trunk, str] = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}

#: The smallest images that each trunk takes, in pixels.
SMALLEST: Mapping[Trunk, int] = {"vgg": 16, "alex": 31}


def lpips_network(trunk: Trunk, weights: str | None, *, where: str, otherwise: str) -> nn.Module:
    """LPIPS in eval mode, without weight gradients.

    It maps two sets of images, both (B, 3, H, W) in [-1, 1], to distances (B, 1, 1, 1). Building it draws from torch's
    global generator. On the meta device, no weights are read.

    Args:
        trunk: the network under the learned weights.
        weights: a file with torchvision's weights of the trunk; None downloads them once.
        where: location for error messages. otherwise: the alternative to suggest if the weights cannot be downloaded.

    Raises:
        RobustokError: the weights cannot be downloaded, or the file holds other weights.
    """
    on_meta = torch.empty(0).is_meta
    state = None if weights is None or on_meta else read_weights(Path(weights).expanduser()).weights
    for download in [] if on_meta else lpips_downloads(trunk, weights, otherwise=otherwise):
        download.get(where)
    network = _built(trunk, pretrained=not on_meta, pnet_rand=on_meta or weights is not None)
    if state is not None:
        _load_trunk(network.net, state, trunk, str(weights))
    if on_meta:
        network.to("meta")  # lpips always creates its scaling constants on the CPU
    return network.eval().requires_grad_(False)


def lpips_downloads(trunk: Trunk, weights: str | None, *, otherwise: str) -> list[Download]:
    """What `lpips_network` gets from the network; for the arguments see there.

    Raises:
        RobustokError: if `weights` names a file that does not exist.
    """
    instead = f'set weights = "FILE" to a local {_FILES[trunk]}, or {otherwise}'
    if weights is not None:
        local_file(weights, hint=instead)
        return []
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    published: Any = {"vgg": VGG16_Weights, "alex": AlexNet_Weights}[trunk].IMAGENET1K_V1
    size = int(published.meta["_file_size"] * 2**20)
    begins = _FILES[trunk].rsplit("-", 1)[1].removesuffix(".pth")
    what = f"the weights of LPIPS's {trunk}"
    return [torch_file(published.url, what=what, instead=instead, hash_begins=begins, size=size)]


def _built(trunk: Trunk, *, pretrained: bool, pnet_rand: bool) -> Any:
    import lpips

    with warnings.catch_warnings():
        # lpips uses torchvision's deprecated API
        warnings.filterwarnings("ignore", message=".*deprecated since 0.13", category=UserWarning)
        return lpips.LPIPS(net=trunk, pretrained=pretrained, pnet_rand=pnet_rand, verbose=False)


def _load_trunk(network: nn.Module, state: Mapping[str, Tensor], trunk: Trunk, where: str) -> None:
    names = {name: f"features.{name.partition('.')[2]}" for name in network.state_dict()}  # "slice1.0.weight"
    try:
        load_module(network, {name: state[key] for name, key in names.items()}, where)
    except (KeyError, RunError) as error:
        what = f"this file does not hold the weights of {trunk}: {getattr(error, 'what', f'it lacks {error}')}"
        raise RobustokError(what, where=where, hint=f"it should be {_FILES[trunk]}") from error
