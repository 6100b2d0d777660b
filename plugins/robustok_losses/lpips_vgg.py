"""LPIPS with VGG-16 (Zhang et al. 2018) as a loss."""

from __future__ import annotations

from torch import Tensor, nn

from robustok_losses.frozen import Frozen
from robustok_toolkit.lpips_network import lpips_network

OTHERWISE = 'use network = "features"'


class LpipsVgg(nn.Module):
    """LPIPS, always in eval mode: its dropout would add noise to the loss.

    Args:
        weights: a file with torchvision's VGG-16 weights (.pth or .safetensors); None downloads them once.

    Raises:
        RobustokError: the weights cannot be downloaded, or the file does not hold VGG-16.
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.network = Frozen(lpips_network("vgg", weights, where="loss perceptual", otherwise=OTHERWISE))

    def forward(self, images: Tensor, real: Tensor) -> Tensor:
        """(B,) distances between images and real images, both (B, 3, H, W) in [-1, 1]."""
        return self.network(images, real).flatten().float()  # real images need no gradient: no graph is stored for them
