"""A trained tokenizer for programs and commands: encodes images, decodes and perturbs latents."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL import Image
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.registry import Registry, given_registry, load_registry
from robustok_core.runs.devices import device_called
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.full_precision import without_tf32
from robustok_core.values.latents import Latents
from robustok_toolkit.arguments import folder_or_file, given_latents, whole_number
from robustok_toolkit.cropped_images import Picture, as_pil, batches_of
from robustok_toolkit.generating import decode_to_uint8
from robustok_toolkit.trained import RUN_OR_ARTIFACT, Trained, load_trained, refuse_other


def load_tokenizer(
    where: str | os.PathLike[str],
    *,
    importer: str | Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    registry: Registry | None = None,
) -> TrainedTokenizer:
    """Loads a trained tokenizer, with the decoder that was trained last.

    Args:
        where: the folder of a run or an artifact, or, with an importer, a published file; also the address of one on
            the hub, hf://OWNER/REPOSITORY/FILE or ...FILE@REVISION, whose importer may be left out.
        importer: of the published file: its name ("robustok", "llamagen_vq"), or a table with `use` and options.
        device: the device that it runs on; default: the GPU if there is one.
        registry: the plugins to use; default: all installed ones.

    Raises:
        RobustokError: if there is no tokenizer.
    """
    registry = given_registry(registry)
    place = folder_or_file(where, "where", RUN_OR_ARTIFACT)
    if importer is None:
        refuse_other(place, "tokenizer")
    trained = load_trained(registry, place, "tokenizer", device=device_called(device), importer=importer)
    return TrainedTokenizer(trained, registry)


def tokenizer_of(run: Path, *, device: torch.device) -> TrainedTokenizer:
    """The newest tokenizer of a run, which the folder of any of its artifacts may name: what commands take."""
    registry = load_registry()
    return TrainedTokenizer(load_trained(registry, run, "tokenizer", device=device, importer=None), registry)


class TrainedTokenizer:
    """A trained tokenizer, in eval mode and without gradients.

    Attributes:
        tokenizer: the module itself, a `Tokenizer`.
        device: the device that it runs on and that holds its latents.
    """

    def __init__(self, trained: Trained, registry: Registry) -> None:
        self.tokenizer: Tokenizer = trained.module
        self.where = trained.where
        self.device = next(trained.module.parameters()).device
        self._registry = registry

    def __repr__(self) -> str:
        return f"<tokenizer of {self.where}: {self.tokenizer.space.describe()}>"

    @torch.no_grad()
    def encoded(
        self, images: Picture | Sequence[Picture], *, batch_size: int = 50, exif: bool = True
    ) -> Iterator[Latents]:
        """Like `encode_images`, but yields the latents batch by batch."""
        for batch in batches_of(images, self.tokenizer.image_size, batch_size, exif=exif):
            with without_tf32():
                latents = self.tokenizer.encode(batch.to(self.device))
            yield latents

    def encode_images(self, images: Picture | Sequence[Picture], *, batch_size: int = 50, exif: bool = True) -> Latents:
        """Encodes images to latents: `vectors` (n, N, D), and in a discrete space `codes` (n, N).

        Args:
            images: any mixture of paths and PIL images of any size, which are cropped as in training (ADM's centre
                crop), and float tensors (3, H, W) in [-1, 1] of the tokenizer's size; or one tensor (n, 3, H, W). One
                image needs no list.
            batch_size: images per batch.
            exif: turn paths and PIL images upright as their EXIF data say.

        Raises:
            RobustokError: if a file cannot be read, a tensor has the wrong shape or range, something is not an image,
                or there are no images.
        """
        return joined(list(self.encoded(images, batch_size=batch_size, exif=exif)))

    def decoded(self, latents: Latents, *, batch_size: int = 50) -> Iterator[Tensor]:
        """Like `decode_to_images`, but yields uint8 tensors (b, 3, H, W) batch by batch."""
        latents = given_latents(latents, self.tokenizer.space)
        batch_size = whole_number(batch_size, "batch_size", least=1)
        for start in range(0, len(latents), batch_size):
            yield decode_to_uint8(self.tokenizer, latents[start : start + batch_size].to(self.device))

    def decode_to_images(self, latents: Latents, *, batch_size: int = 50) -> list[Image.Image]:
        """Decodes latents (vectors, or codes alone) to images.

        Raises:
            RobustokError: if these are not latents of the tokenizer's space, or the images are not finite.
        """
        return [image for batch in self.decoded(latents, batch_size=batch_size) for image in as_pil(batch)]

    def reconstruct(
        self, images: Picture | Sequence[Picture], *, batch_size: int = 50, exif: bool = True
    ) -> list[Image.Image]:
        """Encodes images and decodes their latents; for the arguments see `encode_images`."""
        encoded = self.encoded(images, batch_size=batch_size, exif=exif)
        return [image for latents in encoded for image in as_pil(decode_to_uint8(self.tokenizer, latents))]

    @torch.no_grad()
    def perturbed(self, latents: Latents, use: str, *, seed: int = 0, **options: Any) -> Latents:
        """Perturbs latents as in training: `perturbed(latents, "top_delta", alpha=0.5, delta=12)`.

        Args:
            latents: with codes, or in a continuous space with vectors.
            use: the perturbation's name.
            seed: determines which tokens change, and how.
            options: of the perturbation; `beta`, the share of perturbed images, is 1 by default.

        Raises:
            RobustokError: if there is no such perturbation or option, it does not fit the latent space, or these are
                not latents of that space.
        """
        latents, seed = given_latents(latents, self.tokenizer.space), whole_number(seed, "seed")
        if len(latents) == 0:
            raise RobustokError("there are no latents to perturb", where="latents")
        if latents.codes is None and self.tokenizer.space.codebook_size is not None:
            hint = "`encode_images` returns both"
            raise RobustokError("in this space latents need codes to be perturbed", where="latents", hint=hint)
        spec = self._registry.spec("perturbation", {"use": use, **options})
        if "beta" in attrs.fields_dict(type(spec.config)) and "beta" not in options:
            spec = attrs.evolve(spec, config=attrs.evolve(spec.config, beta=1.0))
        perturbation = spec.build()
        perturbation.check(self.tokenizer.space, len(latents))
        latents = latents.to(self.device)
        latents = latents.evolve(vectors=self.tokenizer.vectors_of(latents))
        draws = Draws.for_rows(derive_seed(seed, "perturbed"), len(latents), self.device)
        return perturbation.perturb(latents, self.tokenizer.quantizer, draws=draws, progress=0.0)[0]


def joined(batches: Sequence[Latents]) -> Latents:
    """Concatenates the latents of batches, in order."""

    def concatenated(name: str) -> Tensor | None:
        tensors = [getattr(batch, name) for batch in batches]
        return None if tensors[0] is None else torch.cat(tensors)

    return Latents(vectors=concatenated("vectors"), codes=concatenated("codes"), features=concatenated("features"))
