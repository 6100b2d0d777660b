"""What all frozen feature networks share: freezing, hashing, resizing."""

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
        """How images become the network's input, in words; part of the fingerprint."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights and of the preparation of the images."""
        return f"{self.name}-{hash_of_weights(self, self.preparation)}"

    def freeze(self) -> None:
        """To be called at the end of a constructor: no gradient to the weights, eval mode for good."""
        self.requires_grad_(False)
        self.eval()


def hash_of_weights(module: nn.Module, *parts: str) -> str:
    """16 hexadecimal digits over a module's state (names, types, shapes, values) and further words."""
    digest = hashlib.sha256(repr(parts).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def resize_between(images: Tensor, at_least: int, at_most: int) -> Tensor:
    """Images (B, C, H, W) whose shorter side was brought into [at_least, at_most], others as they are.

    Bilinear; antialiased where it shrinks.
    """
    shorter = min(images.shape[-2:])
    wanted = min(max(shorter, at_least), at_most)
    if wanted == shorter:
        return images
    size = [round(side * wanted / shorter) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=wanted < shorter)


def is_meta(module: nn.Module) -> bool:
    """Whether a module was built on the meta device, where there are shapes but no weights to load."""
    return any(tensor.is_meta for tensor in module.state_dict().values())
