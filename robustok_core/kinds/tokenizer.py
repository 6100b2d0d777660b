"""Images to latents and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from robustok_core.kinds.component import Component
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.latents import Latents, LatentSpace


class Tokenizer(Component, nn.Module, ABC):
    """Images to latents and back. Built as `Tokenizer(config)`. It never sees a perturbation.

    Attributes:
        space: its latent space.
        image_size: H = W of the images it reads and draws.
        quantizer: the `Quantizer` of a discrete tokenizer; None unless it is set.
        training_only: attributes that change neither latents nor images: what hangs on latents in training alone.
    """

    training_only: ClassVar[tuple[str, ...]] = ()
    space: LatentSpace
    image_size: int
    quantizer: Quantizer | None

    def __init__(self) -> None:
        super().__init__()
        self.quantizer = None  # on the instance: a class attribute would hide the submodule of that name

    @abstractmethod
    def encode(self, images: Tensor) -> Latents:
        """The latents of images (B, 3, H, W) in [-1, 1], differentiable (straight-through)."""

    @abstractmethod
    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Images (B, 3, H, W), about [-1, 1] but not clamped, from vectors (B, N, D)."""

    @property
    @abstractmethod
    def decoder(self) -> nn.ModuleList:
        """All modules behind the quantizer: what post-training trains; the rest it freezes."""

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The decoder's last weight, at which adaptive loss weights compare gradients."""

    def decode(self, latents: Latents) -> Tensor:
        """Images (B, 3, H, W), about [-1, 1] but not clamped, from latents with vectors or codes."""
        return self.decode_vectors(self.vectors_of(latents))

    def vectors_of(self, latents: Latents) -> Tensor:
        """(B, N, D): the latents' vectors, looked up where only codes are known."""
        if latents.vectors is not None:
            return latents.vectors
        if self.quantizer is None or latents.codes is None:
            raise ValueError("a continuous tokenizer decodes vectors only")
        return self.quantizer.lookup(latents.codes)
