"""A trained tokenizer, from pictures to latents and back: what programs and commands do with one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL import Image
from torch import Tensor

from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.registry import Registry, load_registry
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.latents import Latents
from robustok_toolkit.cropped_images import Picture, as_pil, batches_of
from robustok_toolkit.generating import decode_to_uint8
from robustok_toolkit.trained import Trained, device_called, load_trained


def load_tokenizer(
    where: str | os.PathLike[str],
    *,
    importer: str | Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    registry: Registry | None = None,
) -> TrainedTokenizer:
    """Loads a trained tokenizer, with the decoder that was trained last.

    Args:
        where: the folder of a run or of an artifact; or a published file, where there is an importer.
        importer: its name ("robustok", "llamagen_vq"), or a table with `use` and options.
        device: where it computes; the GPU if left out and there is one.
        registry: the plugins to use; all that are installed if left out.

    Raises:
        RobustokError: there is no tokenizer.
    """
    registry = registry or load_registry()
    found = load_trained(registry, Path(where), "tokenizer", device=device_called(device), importer=importer)
    return TrainedTokenizer(found, registry)


class TrainedTokenizer:
    """A trained tokenizer, in eval mode and without gradients.

    Attributes:
        tokenizer: the module itself, a `Tokenizer`.
        device: where it computes; latents lie there.
    """

    def __init__(self, found: Trained, registry: Registry) -> None:
        self.tokenizer: Tokenizer = found.module
        self.where = found.where
        self.device = next(found.module.parameters()).device
        self._registry = registry

    def __repr__(self) -> str:
        return f"<tokenizer of {self.where}: {self.tokenizer.space.describe()}>"

    @torch.no_grad()
    def encoded(self, images: Sequence[Picture] | Tensor, *, batch_size: int = 50) -> Iterator[Latents]:
        """The latents of `encode_images`, batch by batch."""
        for batch in batches_of(images, self.tokenizer.image_size, batch_size):
            yield self.tokenizer.encode(batch.to(self.device))

    def encode_images(self, images: Sequence[Picture] | Tensor, *, batch_size: int = 50) -> Latents:
        """The latents of pictures: `codes` (n, N), or `vectors` (n, N, D) alone where the space is continuous.

        Args:
            images: paths and PIL images of any size, which are cropped as in training (ADM's centre crop), and tensors
                (3, H, W) in [-1, 1] of the tokenizer's size, in any mixture; or one tensor (n, 3, H, W).
            batch_size: images at once.

        Raises:
            RobustokError: a file cannot be read, a tensor is of another shape or range, or there is no image.
        """
        return joined(list(self.encoded(images, batch_size=batch_size)))

    def decoded(self, latents: Latents, *, batch_size: int = 50) -> Iterator[Tensor]:
        """The pictures of `decode_to_images`, uint8 (b, 3, H, W) batch by batch."""
        for start in range(0, len(latents), batch_size):
            yield decode_to_uint8(self.tokenizer, latents[start : start + batch_size].to(self.device))

    def decode_to_images(self, latents: Latents, *, batch_size: int = 50) -> list[Image.Image]:
        """The pictures that the decoder draws of latents with vectors or codes."""
        return [picture for batch in self.decoded(latents, batch_size=batch_size) for picture in as_pil(batch)]

    def reconstruct(self, images: Sequence[Picture] | Tensor, *, batch_size: int = 50) -> list[Image.Image]:
        """What the decoder draws of the latents of pictures; arguments as of `encode_images`."""
        encoded = self.encoded(images, batch_size=batch_size)
        return [picture for latents in encoded for picture in as_pil(decode_to_uint8(self.tokenizer, latents))]

    @torch.no_grad()
    def perturbed(self, latents: Latents, use: str, *, seed: int = 0, **options: Any) -> Latents:
        """The latents, perturbed as in training: `perturbed(latents, "top_delta", alpha=0.5, delta=12)`.

        Args:
            latents: with codes, or with vectors where the space is continuous.
            use: the perturbation's name.
            seed: another seed, other tokens.
            options: of the perturbation; `beta`, the share of the images, is 1 where it is left out.

        Raises:
            RobustokError: there is no such perturbation or option, or it does not fit the latent space.
        """
        spec = self._registry.spec("perturbation", {"use": use, **options})
        if "beta" in attrs.fields_dict(type(spec.config)) and "beta" not in options:
            spec = attrs.evolve(spec, config=attrs.evolve(spec.config, beta=1.0))
        perturbation = spec.build()
        perturbation.check(self.tokenizer.space, len(latents))
        latents = latents.to(self.device)
        whole = latents.evolve(vectors=self.tokenizer.vectors_of(latents))
        draws = Draws.for_rows(derive_seed(seed, "perturbed"), len(latents), self.device)
        return perturbation.perturb(whole, self.tokenizer.quantizer, draws=draws, progress=0.0)[0]


def joined(parts: Sequence[Latents]) -> Latents:
    """The latents of batches as one, in order."""

    def whole(name: str) -> Tensor | None:
        held = [getattr(part, name) for part in parts]
        return None if held[0] is None else torch.cat(held)

    return Latents(vectors=whole("vectors"), codes=whole("codes"), features=whole("features"))
