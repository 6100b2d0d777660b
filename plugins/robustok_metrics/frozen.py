"""Freezing, hashing and resizing for all frozen feature networks."""

from __future__ import annotations

import hashlib
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustok_core.kinds.features import Features


class FrozenFeatures(Features):
    """Features whose fingerprint is a hash of all weights and of `preparation`."""

    @property
    def preparation(self) -> str:
        """A description of how images become the network's input; part of the fingerprint."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """The name and a hash of the weights and `preparation`."""
        return f"{self.name}-{hash_of_weights(self, self.preparation)}"

    def freeze(self) -> None:
        """Disables weight gradients and sets eval mode; call it at the end of a constructor."""
        self.requires_grad_(False)
        self.eval()


def hash_of_weights(module: nn.Module, *parts: str) -> str:
    """16 hexadecimal digits: a hash of a module's state (names, types, shapes, values) and the strings `parts`."""
    digest = hashlib.sha256(repr(parts).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def resize_between(images: Tensor, at_least: int, at_most: int) -> Tensor:
    """Resizes images (B, C, H, W) so that the shorter side lies in [at_least, at_most]; others are not changed.

    Bilinear, with antialiasing when it shrinks.
    """
    shorter = min(images.shape[-2:])
    target = min(max(shorter, at_least), at_most)
    if target == shorter:
        return images
    size = [round(side * target / shorter) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=target < shorter)


def rounded(pixels: Tensor) -> Tensor:
    """Grey levels rounded half up; the gradient is that of levels that are not rounded."""
    return pixels + ((pixels + 0.5).floor() - pixels).detach()


def is_meta(module: nn.Module) -> bool:
    """Whether a module is on the meta device, where it has shapes but no weights."""
    return any(tensor.is_meta for tensor in module.state_dict().values())
