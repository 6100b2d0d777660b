"""Frozen networks that extract image features."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Component


class Features(Component, nn.Module, ABC):
    """A frozen feature network. Built as `Features(config)`.

    It is always in eval mode. Its weights take no gradient, but it is differentiable with respect to the images.

    Attributes:
        name: short and unique, used in metric names ("inception", "efficientnet_lite0").
        width: F, length of the pooled feature vector.
        num_logits: number of classes of its head, or 0 without a head.
    """

    name: str
    width: int
    num_logits: int = 0

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(B, F) pooled features of images (B, 3, H, W) in [-1, 1] of any size: the network resizes them."""

    @abstractmethod
    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps (B, C, h, w), shallow to deep."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the weights and of the image preprocessing."""

    def logits(self, pooled: Tensor) -> Tensor:
        """(B, num_logits) class scores of pooled features (B, F)."""
        raise RobustokError(f"features {self.name!r} have no classifier head")

    def train(self, mode: bool = True) -> Features:
        """Stays in eval mode whatever the argument: a frozen network must not change."""
        return super().train(False)
