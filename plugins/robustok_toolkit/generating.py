"""From labels to images: sampling a generator and decoding its latents, for stages and commands.

Sample i of a set has label classes[i mod the number of classes] and row i of the draws, so it does not depend
on the batch, shard or process that makes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from robustok_core.errors import ProblemsError, RobustokError, did_you_mean
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.samplers import read_sampler_options
from robustok_core.runs.components import ComponentRecord, read_component
from robustok_core.runs.fingerprints import latent_fingerprint
from robustok_core.runs.precision import Precision, autocast
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.full_precision import without_tf32
from robustok_core.values.guidance import Guidance
from robustok_core.values.images import from_uint8, to_uint8
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_toolkit.image_features import gather_shares
from robustok_training.distributed import rank, world_size


def generate(
    generator: Generator,
    labels: Tensor,
    draws: Draws,
    *,
    guidance: Guidance,
    sampling: Any = None,
    batch_size: int,
    precision: Precision = "no",
    keep: Keep | None = None,
) -> Iterator[Latents]:
    """Samples latents batch by batch, in order, without gradients.

    Args:
        generator: in eval mode, on its device.
        labels: (n,) int64. draws: one row per sample.
        guidance, sampling: see `Generator.sample`.
        batch_size: samples per batch; does not affect the samples.
        precision: of the generator.
        keep: what to preserve of n real latents.

    Raises:
        RobustokError: the generator was not trained for guidance.
    """
    generator.check_guidance(guidance)
    device = next(generator.parameters()).device
    for start in range(0, len(labels), batch_size):
        rows = slice(start, start + batch_size)
        kept = None if keep is None else attrs.evolve(keep, latents=keep.latents[rows].to(device))
        with torch.no_grad(), without_tf32(), autocast(precision, device):
            latents = generator.sample(
                labels[rows].to(device), draws[rows].to(device), guidance=guidance, keep=kept, sampling=sampling
            )
        yield latents


@torch.no_grad()
def decode_to_uint8(tokenizer: Tokenizer, latents: Latents) -> Tensor:
    """Decodes B latents in float32 to uint8 images (B, 3, H, W)."""
    if latents.vectors is not None:
        latents = latents.evolve(vectors=latents.vectors.float())
    with without_tf32():
        return to_uint8(tokenizer.decode(latents))


class ImagesInMemory(Images):
    """Images in memory.

    Args:
        pixels: uint8 (n, 3, H, W). labels: (n,) int64.
        fingerprint: of how they were made.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, fingerprint: str = "") -> None:
        self.pixels = pixels
        self._labels, self._fingerprint = labels, fingerprint

    @property
    def labels(self) -> Tensor:
        return self._labels

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> ImageBatch:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return ImageBatch(images=from_uint8(self.pixels[rows]), labels=self._labels[rows], indices=rows)


def own_share(count: int) -> Tensor:
    """(m,) int64: the indices, among `count` samples, that this process makes; shares differ by at most one."""
    return _shares(count)[rank()]


def _shares(count: int) -> tuple[Tensor, ...]:
    return torch.arange(count).tensor_split(world_size())


def gather_own(values: Tensor, count: int) -> Tensor:
    """(count, ...) values of all samples, on all processes, from those (m, ...) of each one's `own_share(count)`."""
    return gather_shares(values, [len(share) for share in _shares(count)])


def decode_and_gather(tokenizer: Tokenizer, own: Iterable[Latents], labels: Tensor) -> ImagesInMemory:
    """Decodes n samples whose latents are spread over processes. All must call it; all get all images.

    Args:
        tokenizer: decodes in float32.
        own: the latents of `own_share(n)`, in order, in batches on the tokenizer's device, as `generate` yields them.
        labels: (n,) int64, of the samples of all processes.
    """
    size = tokenizer.image_size
    none = torch.empty(0, 3, size, size, dtype=torch.uint8)  # for a process without samples
    pixels = torch.cat([none, *(decode_to_uint8(tokenizer, latents).cpu() for latents in own)])
    return ImagesInMemory(gather_own(pixels, len(labels)), labels)


def labels_of(classes: Sequence[int], indices: Tensor) -> Tensor:
    """(n,) int64: classes[i mod their number] for each index i of `indices` (n,) int64."""
    return torch.tensor(classes, dtype=torch.int64)[indices % len(classes)]


def class_numbers(wanted: Sequence[int | str], class_names: Sequence[str], num_classes: int) -> list[int]:
    """The numbers of classes given by number or name; all classes if none is given.

    If class names are numbers, the name takes precedence.

    Raises:
        RobustokError: a class does not exist or is named twice.
    """
    if not wanted:
        return list(range(num_classes))
    numbers = [_class_number(class_, class_names, num_classes) for class_ in wanted]
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if twice is not None:
        raise RobustokError(f"the class {twice} is named twice", hint="name each class once")
    return numbers


def _class_number(wanted: int | str, class_names: Sequence[str], num_classes: int) -> int:
    if isinstance(wanted, str) and wanted in class_names:
        return list(class_names).index(wanted)
    text = str(wanted)
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise RobustokError(f"no class is called {text!r}", hint=did_you_mean(text, list(class_names)[:50]))
    if not 0 <= int(text) < num_classes:
        raise RobustokError(f"there is no class {text}", hint=f"classes are 0 to {num_classes - 1}")
    return int(text)


def named_sampler_options(generator: type[Generator], table: Mapping[str, Any], prefix: str) -> Any:
    """Options of a generator's sampler from a user's table.

    Args:
        generator: its class. table: options by name. prefix: precedes an option's name in messages.

    Raises:
        ProblemsError: if options are wrong; it lists all mistakes.
    """
    options, problems = read_sampler_options(generator, table)
    if problems:
        raise ProblemsError(
            [RobustokError(p.what, where=prefix + ".".join(map(str, p.path)), hint=p.hint) for p in problems]
        )
    return options


def check_fits(generator: Generator, folder: Path, tokenizer: Tokenizer) -> None:
    """Checks that a tokenizer can decode what a generator samples.

    Args:
        generator: as loaded from `folder`.
        folder: its artifact, which may record the tokenizer whose latents it was trained on.
        tokenizer: may be post-trained, which does not change latents.

    Raises:
        RobustokError: the latent spaces differ, or the generator was trained on the latents of another tokenizer.
    """
    check_recorded(generator, read_component(folder), str(folder), tokenizer)


def check_recorded(generator: Generator, record: ComponentRecord, where: str, tokenizer: Tokenizer) -> None:
    """Like `check_fits`, for a generator with this record; `where` is its location, for messages."""
    check_space(record.use, generator.space, tokenizer.space, where)
    if record.tokenizer is not None:
        check_origin(record.use, record.tokenizer, latent_fingerprint(tokenizer), where)


def check_space(generator: str, sampled: LatentSpace, decoded: LatentSpace, where: str | None) -> None:
    """Raises RobustokError if the space that the named generator samples is not the one that is decoded."""
    if sampled != decoded:
        spaces = [sampled.describe(), decoded.describe()]
        if spaces[0] == spaces[1]:
            spaces = ["no grid" if s.grid is None else "a grid of {} x {}".format(*s.grid) for s in (sampled, decoded)]
        what = f"the generator {generator!r} samples latents of a different space ({spaces[0]})"
        raise RobustokError(f"{what} from what the tokenizer decodes ({spaces[1]})", where=where)


def check_origin(generator: str, recorded: str, found: str, where: str | None) -> None:
    """Raises RobustokError if the latent fingerprint that the generator was trained with is not the tokenizer's."""
    if recorded != found:
        raise RobustokError(
            f"the generator {generator!r} was trained on the latents of another tokenizer ({recorded}, not {found})",
            where=where,
            hint="use the tokenizer of its run, or one that was post-trained from it",
        )
