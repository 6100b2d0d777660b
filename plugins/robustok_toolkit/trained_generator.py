"""A trained generator for programs and commands: samples latents, which its tokenizer decodes to images."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.recipe.registry import Registry, given_registry, load_registry
from robustok_core.runs.devices import device_called
from robustok_core.runs.hub import hub_file_of
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Keep, Latents
from robustok_core.values.wording import short_text
from robustok_toolkit.arguments import folder_or_file, given_latents, whole_number
from robustok_toolkit.generating import check_recorded, class_numbers, generate, labels_of, named_sampler_options
from robustok_toolkit.trained import RUN_OR_ARTIFACT, Trained, artifact_of, load_trained, refuse_other
from robustok_toolkit.trained_tokenizer import TrainedTokenizer, joined, load_tokenizer, tokenizer_of

#: One class by number or name, several, or None for all.
Classes = int | str | Sequence[int | str] | None


def load_generator(
    where: str | os.PathLike[str],
    *,
    importer: str | Mapping[str, Any] | None = None,
    tokenizer: str | os.PathLike[str] | TrainedTokenizer | None = None,
    device: str | torch.device | None = None,
    registry: Registry | None = None,
) -> TrainedGenerator:
    """Loads a trained generator and the tokenizer that decodes its latents.

    Args:
        where: the folder of a run or an artifact, or, with an importer, a published file; also the address of one on
            the hub, hf://OWNER/REPOSITORY/FILE or ...FILE@REVISION, whose importer may be left out.
        importer: of the published file: its name ("rar", "sit"), or a table with `use` and options.
        tokenizer: a loaded tokenizer or the folder of one; default: the newest of the run. Required for a published
            file.
        device: the device that both run on; default: the loaded tokenizer's, else the GPU if there is one.
        registry: the plugins to use; default: all installed ones.

    Raises:
        RobustokError: if there is no generator, or the tokenizer cannot decode what it samples.
    """
    registry = given_registry(registry)
    if device is None and isinstance(tokenizer, TrainedTokenizer):
        device = tokenizer.device
    torch_device = device_called(device)
    place = folder_or_file(where, "where", RUN_OR_ARTIFACT)
    if importer is None:
        refuse_other(place, "generator")
    trained = load_trained(registry, place, "generator", device=torch_device, importer=importer)
    if tokenizer is None:
        if importer is not None or hub_file_of(str(place)) is not None:
            hint = 'load_generator(..., tokenizer=load_tokenizer("FILE", importer="NAME"))'
            raise RobustokError("a published generator has no tokenizer of its own", where=str(where), hint=hint)
        tokenizer = artifact_of(place, "tokenizer")
    if not isinstance(tokenizer, TrainedTokenizer):
        tokenizer = folder_or_file(tokenizer, "tokenizer", f"what load_tokenizer returns, or {RUN_OR_ARTIFACT}")
        tokenizer = load_tokenizer(tokenizer, device=torch_device, registry=registry)
    return TrainedGenerator(trained, tokenizer)


def generator_of(run: Path, *, device: torch.device) -> TrainedGenerator:
    """The newest generator and tokenizer of a run, which the folder of any of its artifacts may name."""
    trained = load_trained(load_registry(), run, "generator", device=device, importer=None)
    return TrainedGenerator(trained, tokenizer_of(run, device=device))


class TrainedGenerator:
    """A trained generator, in eval mode and without gradients.

    Attributes:
        generator: the module itself, a `Generator`.
        tokenizer: the `TrainedTokenizer` that decodes its latents.
        class_names: by number; the numbers as text if the names are not known.
    """

    def __init__(self, trained: Trained, tokenizer: TrainedTokenizer) -> None:
        check_recorded(trained.module, trained.record, str(trained.where), tokenizer.tokenizer)
        self.generator: Generator = trained.module
        self.tokenizer = tokenizer
        self.where = trained.where
        self.class_names: Sequence[str] = trained.record.classes

    def __repr__(self) -> str:
        return f"<generator of {self.where}: {self.generator.num_classes} classes>"

    def sample_images(
        self,
        class_: Classes = None,
        n: int = 16,
        guidance: float | Guidance = 1.0,
        seed: int = 0,
        *,
        batch_size: int = 50,
        **sampling: Any,
    ) -> list[Image.Image]:
        """Samples images: `sample_images("bag", n=8, guidance=2.0, temperature=0.9)`.

        Sample i is the same for any n and batch size (up to the rounding of an 8-bit value), and the same as that of
        `robustok sample`.

        Args:
            class_: a number or a name, or several, which take turns; default: all classes in turn.
            n: number of samples, over all classes.
            guidance: its scale (1 is no guidance), or a `Guidance` with a schedule.
            seed: of the samples' random numbers.
            batch_size: samples per batch.
            sampling: options of the sampler; `robustok plugins generator NAME` lists them.

        Raises:
            RobustokError: if there is no such class or option, or the generator was not trained for guidance.
        """
        latents = self.sample_latents(class_, n, guidance, seed, batch_size=batch_size, **sampling)
        return self.tokenizer.decode_to_images(latents, batch_size=batch_size)

    def sample_latents(
        self,
        class_: Classes = None,
        n: int = 16,
        guidance: float | Guidance = 1.0,
        seed: int = 0,
        *,
        batch_size: int = 50,
        **sampling: Any,
    ) -> Latents:
        """Samples latents, codes (n, N) or vectors (n, N, D); for the arguments see `sample_images`."""
        labels = self.labels(class_, n)
        options = named_sampler_options(type(self.generator), sampling, "sampling.")
        batches = self.sampled(labels, guidance=guidance, seed=seed, sampling=options, batch_size=batch_size)
        return joined(list(batches))

    def sample_keeping(
        self,
        latents: Latents,
        class_: Classes,
        sigma: float,
        guidance: float | Guidance = 1.0,
        seed: int = 0,
        *,
        batch_size: int = 50,
        **sampling: Any,
    ) -> Latents:
        """Samples latents that keep a share sigma of real images', as post-training does.

        Args:
            latents: of the real images, as `encode_images` returns them.
            class_: of the images; several classes take turns.
            sigma: in [0, 1]; 1 keeps everything, 0 nothing.
            guidance, seed, batch_size, sampling: see `sample_images`.

        Raises:
            RobustokError: as `sample_images`, or if these are not latents of the tokenizer's space.
        """
        latents = given_latents(latents, self.generator.space).without_features()
        if not isinstance(sigma, (int, float)) or not 0.0 <= sigma <= 1.0:
            raise RobustokError(f"{sigma!r} is not a share", where="sigma", hint="a number from 0 to 1")
        options = named_sampler_options(type(self.generator), sampling, "sampling.")
        kept = Keep(latents=latents, sigma=float(sigma))
        labels = self.labels(class_, len(latents))
        batches = self._generated(labels, guidance, "keep", seed, sampling=options, batch_size=batch_size, keep=kept)
        return joined(list(batches))

    def labels(self, classes: Classes, count: int) -> Tensor:
        """(count,) int64: the classes in turn; see `class_` of `sample_images`."""
        count = whole_number(count, "n", least=1)
        wanted = _listed(classes)
        return labels_of(class_numbers(wanted, self.class_names, self.generator.num_classes), torch.arange(count))

    def sampled(
        self, labels: Tensor, *, guidance: float | Guidance, seed: int, sampling: Any, batch_size: int
    ) -> Iterator[Latents]:
        """Yields the latents of samples 0 to n - 1, batch by batch.

        Args:
            labels: (n,) int64. guidance, seed, batch_size: see `sample_images`.
            sampling: an instance of the generator's `Sampling`.
        """
        return self._generated(labels, guidance, "sample", seed, sampling=sampling, batch_size=batch_size)

    def _generated(
        self, labels: Tensor, guidance: float | Guidance, stream: str, seed: int, *, batch_size: int, **options: Any
    ) -> Iterator[Latents]:
        rows, seed = torch.arange(len(labels)), whole_number(seed, "seed")
        return generate(
            self.generator,
            labels,
            Draws(seed=derive_seed(seed, stream), indices=rows, total=len(rows)),
            guidance=_guidance(guidance),
            batch_size=whole_number(batch_size, "batch_size", least=1),
            **options,
        )


def _listed(classes: Any) -> list[int | str]:
    """The classes that were asked for, none for all; whole numbers of numpy and torch are numbers, too."""
    alone = isinstance(classes, (str, bytes)) or not isinstance(classes, Iterable) or getattr(classes, "ndim", 1) == 0
    given = () if classes is None else (classes,) if alone else classes
    listed = [operator.index(one) if _is_whole(one) else str(one) for one in given]
    if classes is not None and not listed:
        raise RobustokError("no class is named", where="class_", hint="None is all classes in turn")
    return listed


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool) and getattr(value, "ndim", 0) == 0


def _guidance(scale: float | Guidance) -> Guidance:
    try:
        if isinstance(scale, bool):
            raise TypeError("a truth value is no number")
        return scale if isinstance(scale, Guidance) else Guidance(scale=scale)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's, for a tensor of several numbers
        what = f"{short_text(scale)} is not a guidance scale"
        raise RobustokError(what, where="guidance", hint="a finite number, at least 0; 1 is no guidance") from error
