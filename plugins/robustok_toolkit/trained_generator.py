"""A trained generator with the tokenizer that draws its latents: what programs and commands do with one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.generator import Generator
from robustok_core.recipe.registry import Registry, load_registry
from robustok_core.values.draws import Draws, derive_seed
from robustok_core.values.guidance import Guidance
from robustok_core.values.latents import Latents
from robustok_toolkit.generating import check_recorded, class_numbers, generate, labels_of, named_sampler_options
from robustok_toolkit.trained import Trained, artifact_of, device_called, load_trained
from robustok_toolkit.trained_tokenizer import TrainedTokenizer, joined, load_tokenizer

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
    """Loads a trained generator and the tokenizer that draws its latents.

    Args:
        where: the folder of a run or of an artifact; or a published file, where there is an importer.
        importer: its name ("rar", "sit"), or a table with `use` and options.
        tokenizer: a loaded one or the folder of one; the run's own, post-trained if it was, if left out. A published
            file has none, so there it is needed.
        device: where both compute; the tokenizer's, or else the GPU if there is one.
        registry: the plugins to use; all that are installed if left out.

    Raises:
        RobustokError: there is no generator, or the tokenizer does not draw what it generates.
    """
    registry = registry or load_registry()
    if device is None and isinstance(tokenizer, TrainedTokenizer):
        device = tokenizer.device
    torch_device = device_called(device)
    found = load_trained(registry, Path(where), "generator", device=torch_device, importer=importer)
    if tokenizer is None:
        if importer is not None:
            hint = 'load_generator(..., tokenizer=load_tokenizer("FILE", importer="NAME"))'
            raise RobustokError("a published generator comes without a tokenizer", where=str(where), hint=hint)
        tokenizer = artifact_of(Path(where), "tokenizer")
    if not isinstance(tokenizer, TrainedTokenizer):
        tokenizer = load_tokenizer(tokenizer, device=torch_device, registry=registry)
    return TrainedGenerator(found, tokenizer)


class TrainedGenerator:
    """A trained generator, in eval mode and without gradients.

    Attributes:
        generator: the module itself, a `Generator`.
        tokenizer: the `TrainedTokenizer` that draws its latents.
        class_names: by number; the numbers themselves where no names are known.
    """

    def __init__(self, found: Trained, tokenizer: TrainedTokenizer) -> None:
        check_recorded(found.module, found.about, str(found.where), tokenizer.tokenizer)
        self.generator: Generator = found.module
        self.tokenizer = tokenizer
        self.where = found.where
        numbers = [str(number) for number in range(self.generator.num_classes)]
        self.class_names: Sequence[str] = found.about.get("class_names") or numbers

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
        """Pictures of samples: `sample_images("bag", n=8, guidance=2.0, temperature=0.9)`.

        Sample i is the same for any n and batch size (to the rounding of an 8-bit value), and is that of
        `robustok sample`.

        Args:
            class_: a number or a name, or several that take turns; all classes in turn if left out.
            n: samples, over all classes.
            guidance: its scale, 1 is none; or a `Guidance` with a schedule.
            seed: another seed, other samples.
            batch_size: samples at once.
            sampling: options of the sampler; `robustok plugins generator NAME` lists them.

        Raises:
            RobustokError: there is no such class or option, or the generator was not trained for guidance.
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
        """The latents of samples, codes (n, N) or vectors (n, N, D); arguments as of `sample_images`."""
        labels = self.labels(class_, n)
        options = named_sampler_options(type(self.generator), sampling, "sampling.")
        parts = self.sampled(labels, guidance=guidance, seed=seed, sampling=options, batch_size=batch_size)
        return joined(list(parts))

    def labels(self, classes: Classes, count: int) -> Tensor:
        """(count,) int64: the classes in turn; arguments as of `sample_images`."""
        if count < 1:
            raise RobustokError(f"there are no {count} samples to draw", where="n", hint="ask for at least 1")
        wanted = [classes] if isinstance(classes, (int, str)) else list(classes or ())
        return labels_of(class_numbers(wanted, self.class_names, self.generator.num_classes), torch.arange(count))

    def sampled(
        self, labels: Tensor, *, guidance: float | Guidance, seed: int, sampling: Any, batch_size: int
    ) -> Iterator[Latents]:
        """The latents of samples 0 to n - 1, batch by batch.

        Args:
            labels: (n,) int64. guidance, seed, batch_size: as of `sample_images`.
            sampling: an instance of the generator's `Sampling`.
        """
        rows = torch.arange(len(labels))
        return generate(
            self.generator,
            labels,
            Draws(seed=derive_seed(seed, "sample"), indices=rows, total=len(rows)),
            guidance=_guidance(guidance),
            sampling=sampling,
            batch_size=batch_size,
        )


def _guidance(scale: float | Guidance) -> Guidance:
    try:
        return scale if isinstance(scale, Guidance) else Guidance(scale=scale)
    except (TypeError, ValueError) as error:
        what = f"{scale!r} is no scale of guidance"
        raise RobustokError(what, where="guidance", hint="a finite number from 0 on; 1 is none") from error
