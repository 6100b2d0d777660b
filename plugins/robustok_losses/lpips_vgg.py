"""LPIPS with VGG-16 (Zhang et al. 2018), through the `lpips` package."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_losses.frozen import Frozen


class LpipsVgg(nn.Module):
    """LPIPS in eval mode for good: its dropout would make the loss noisy while training.

    Args:
        weights: a file with torchvision's VGG-16 weights (.pth or .safetensors); None downloads them once.

    Raises:
        RobustokError: the weights cannot be downloaded, or the file is none of VGG-16.
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        state = None if weights is None or _on_meta() else _read(Path(weights))
        network = _lpips(download=weights is None)
        if state is not None:
            _load_trunk(network.net, state, str(weights))
        if _on_meta():
            network.to("meta")  # lpips makes its scaling constants on the CPU wherever it is built
        self.network = Frozen(network)

    def forward(self, images: Tensor, real: Tensor) -> Tensor:
        """(B,) distances of images (B, 3, H, W) from real images, both in [-1, 1]."""
        return self.network(images, real).flatten().float()  # real images need no gradient: no graph is kept for them


def _on_meta() -> bool:
    return torch.empty(0).is_meta


def _lpips(download: bool) -> Any:
    import lpips

    trained = not _on_meta()
    with warnings.catch_warnings():
        # lpips calls torchvision in its older way
        warnings.filterwarnings("ignore", message=".*deprecated since 0.13", category=UserWarning)
        try:
            return lpips.LPIPS(net="vgg", pretrained=trained, pnet_rand=not (trained and download), verbose=False)
        except OSError as error:
            raise RobustokError(
                f"the VGG-16 weights of LPIPS could not be downloaded: {error}",
                where="loss perceptual",
                hint='use network = "features", or weights = "FILE" with torchvision\'s vgg16-397923af.pth',
            ) from error


def _load_trunk(trunk: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    names = {name: f"features.{name.partition('.')[2]}" for name in trunk.state_dict()}  # "slice1.0.weight"
    try:
        trunk.load_state_dict({name: state[key] for name, key in names.items()})
    except (KeyError, RuntimeError) as error:
        raise _not_vgg(where) from error


def _read(path: Path) -> dict[str, Tensor]:
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RobustokError(f"cannot be read: {reason}", where=str(path), hint="see `weights`") from error
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise _not_vgg(str(path)) from error


def _not_vgg(where: str) -> RobustokError:
    return RobustokError(
        "holds no VGG-16 weights", where=where, hint="torchvision's vgg16-397923af.pth is the file for LPIPS"
    )
