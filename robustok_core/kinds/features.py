"""Frozen networks that see images."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Component


class Features(Component, nn.Module, ABC):
    """A frozen network that sees. Built as `Features(config)`; always in eval mode, without gradients
    of its own weights but differentiable in the images.

    Attributes:
        name: short and exact, for metric keys ("inception", "efficientnet_lite0").
        width: F, length of the pooled feature vector.
        num_logits: classes of its head, or 0 where it has none.
    """

    name: str
    width: int
    num_logits: int = 0

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(B, F) pooled features of images (B, 3, H, W) in [-1, 1], any H and W: resizing is done inside."""

    @abstractmethod
    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps (B, C, h, w), shallow to deep."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the weights and of the preparation of the images."""

    def logits(self, pooled: Tensor) -> Tensor:
        """(B, num_logits) class scores of pooled features (B, F)."""
        raise RobustokError(f"features {self.name!r} have no classifier head")

    def train(self, mode: bool = True) -> Features:
        """Stays in eval mode: a frozen judge must not drift."""
        return super().train(False)
