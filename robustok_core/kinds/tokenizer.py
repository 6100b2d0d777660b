"""Tokenizers encode images to latents and decode them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from robustok_core.kinds.component import Component
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.latents import Latents, LatentSpace


class Tokenizer(Component, nn.Module, ABC):
    """Encodes images to latents and decodes them. Built as `Tokenizer(config)`. It never sees a perturbation.

    Attributes:
        space: its latent space.
        image_size: H = W of the images it encodes and decodes.
        quantizer: the `Quantizer` of a discrete tokenizer; None unless it is set.
        training_only: names of submodules used in training only, which affect neither latents nor images.
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
        """Encodes images (B, 3, H, W) in [-1, 1]; differentiable (straight-through)."""

    @abstractmethod
    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Decodes vectors (B, N, D) to images (B, 3, H, W), roughly in [-1, 1] but not clamped."""

    @property
    @abstractmethod
    def decoder(self) -> nn.ModuleList:
        """All modules after the quantizer. Post-training trains these and freezes the rest."""

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The decoder's last weight, with respect to which adaptive loss weights compare gradients."""

    def decode(self, latents: Latents) -> Tensor:
        """Decodes latents with vectors or codes to images (B, 3, H, W), roughly in [-1, 1] but not clamped."""
        return self.decode_vectors(self.vectors_of(latents))

    def vectors_of(self, latents: Latents) -> Tensor:
        """(B, N, D) the latents' vectors, looked up in the codebook if there are only codes."""
        if latents.vectors is not None:
            return latents.vectors
        if self.quantizer is None or latents.codes is None:
            raise ValueError("a continuous tokenizer decodes vectors only")
        return self.quantizer.lookup(latents.codes)
