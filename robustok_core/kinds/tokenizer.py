"""Tokenizers encode images to latents and decode them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robustok_core.kinds import expectations
from robustok_core.kinds.boundary import Call
from robustok_core.kinds.component import Component
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.latents import Latents, LatentSpace


def _built(call: Call) -> None:
    space, quantizer = getattr(call.component, "space", None), getattr(call.component, "quantizer", None)
    call.require(isinstance(space, LatentSpace), f"`space` must be a LatentSpace, found {type(space).__name__}")
    assert isinstance(space, LatentSpace)
    size = getattr(call.component, "image_size", None)
    call.require(isinstance(size, int), f"`image_size` must be an integer, found {size!r}")
    fits = (quantizer is None) == (space.codebook_size is None)
    call.require(fits, "`quantizer` must be set in a discrete space and None in a continuous one")
    if quantizer is not None:
        sizes = (quantizer.codebook_size, quantizer.width)
        agree = sizes == (space.codebook_size, space.width)
        call.require(agree, f"its space is {space.describe()}, but its quantizer has K, D = {sizes}")


def _encoded(call: Call, latents: Any, images: Tensor) -> None:
    values = call.looks_at_values()
    expectations.latents(call, latents, call.component.space, len(images), "encode", values=values)
    call.require(latents.vectors is not None, "`encode` must return vectors, because the decoder reads them")
    expectations.losses(call, latents.losses, "encode")


def _decoded(call: Call, images: Any, vectors: Tensor) -> None:
    size, what = call.component.image_size, "images of `decode_vectors`"
    expectations.tensor(call, images, (len(vectors), 3, size, size), None, what)
    expectations.passes_gradient(call, images, vectors, what, "the vectors")
    if torch.is_grad_enabled():
        expectations.passes_gradient(call, images, call.component.last_layer, what, "`last_layer`")
    if call.looks_at_values():
        expectations.finite(call, images, "`decode_vectors` returns images that are not finite")


class Tokenizer(Component, nn.Module, ABC):
    """Encodes images to latents and decodes them. Built as `Tokenizer(config)`. It never sees a perturbation.

    Attributes:
        space: its latent space.
        image_size: H = W of the images it encodes and decodes.
        quantizer: the `Quantizer` of a discrete tokenizer; None unless it is set.
        training_only: names of submodules used in training only, which affect neither latents nor images.
    """

    returns: ClassVar = {"encode": _encoded, "decode_vectors": _decoded}
    built: ClassVar = staticmethod(_built)
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
