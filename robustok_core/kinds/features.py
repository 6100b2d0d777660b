"""Frozen networks that extract image features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from robustok_core.errors import RobustokError
from robustok_core.kinds import expectations
from robustok_core.kinds.boundary import Call
from robustok_core.kinds.component import Component
from robustok_core.values.wording import described


def _built(call: Call) -> None:
    name, width = getattr(call.component, "name", None), getattr(call.component, "width", None)
    expectations.named(call, name, "it, of which results are named,")
    call.require(isinstance(width, int) and width > 0, f"`width` must be a positive integer, found {width!r}")


def _pooled(call: Call, pooled: Any, images: Tensor) -> None:
    expectations.tensor(call, pooled, (len(images), call.component.width), None, "`forward`")
    expectations.passes_gradient(call, pooled, images, "its features", "the images")
    if call.looks_at_values():
        expectations.finite(call, pooled, "`forward` returns features that are not finite")


def _maps(call: Call, maps: Any, images: Tensor) -> None:
    call.require(isinstance(maps, list) and bool(maps), "`maps` must be a list of feature maps")
    for number, value in enumerate(maps):
        fits = isinstance(value, Tensor) and value.ndim == 4 and len(value) == len(images)
        found = described(value)
        call.require(fits, f"map {number} must be (B, C, h, w) with B = {len(images)}, found {found}")


def _scores(call: Call, scores: Any, pooled: Tensor) -> None:
    expectations.tensor(call, scores, (len(pooled), call.component.num_logits), None, "`logits`")


class Features(Component, nn.Module, ABC):
    """A frozen feature network. Built as `Features(config)`.

    It is always in eval mode. Its weights take no gradient, but it is differentiable with respect to the images.

    Attributes:
        name: short and unique, used in metric names ("inception", "efficientnet_lite0").
        width: F, length of the pooled feature vector.
        num_logits: number of classes of its head, or 0 without a head.
    """

    returns: ClassVar = {"forward": _pooled, "maps": _maps, "logits": _scores}
    built: ClassVar = staticmethod(_built)
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
