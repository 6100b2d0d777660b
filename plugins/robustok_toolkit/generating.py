"""From labels to pictures: what the stages and the command that sample a generator share.

Sample i of a set has label classes[i mod the number of classes] and row i of the draws, so it is the same
sample in every batch, part and process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from robustok_core.errors import ProblemsError, RobustokError, did_you_mean
from robustok_core.kinds.dataset import Images
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.tokenizer import Tokenizer
from robustok_core.recipe.structurer import Path as KeyPath
from robustok_core.recipe.structurer import Problem, Structurer
from robustok_core.runs.components import COMPONENT_FILE
from robustok_core.runs.files import read_json
from robustok_core.runs.precision import Precision, autocast
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.guidance import Guidance
from robustok_core.values.images import from_uint8, to_uint8
from robustok_core.values.latents import Keep, Latents, LatentSpace
from robustok_toolkit.latent_fingerprint import latent_fingerprint


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
    """Draws latents batch by batch, in order; a generator in eval mode, without gradients.

    Args:
        generator: on the device where it computes.
        labels: (n,) int64. draws: one row a sample.
        guidance, sampling: as of `Generator.sample`.
        batch_size: samples at once; changes no sample.
        precision: of the generator.
        keep: what to preserve of n real latents.

    Raises:
        RobustokError: the generator was not trained for guidance.
    """
    generator.check_guidance(guidance)
    device = next(generator.parameters()).device
    for start in range(0, len(labels), batch_size):
        some = slice(start, start + batch_size)
        kept = None if keep is None else attrs.evolve(keep, latents=keep.latents[some].to(device))
        with torch.no_grad(), autocast(precision, device):
            found = generator.sample(
                labels[some].to(device), draws[some].to(device), guidance=guidance, keep=kept, sampling=sampling
            )
        yield found


@torch.no_grad()
def draw(tokenizer: Tokenizer, latents: Latents) -> Tensor:
    """uint8 (B, 3, H, W) pictures of latents, decoded in float32."""
    if latents.vectors is not None:
        latents = latents.evolve(vectors=latents.vectors.float())
    return to_uint8(tokenizer.decode(latents))


class ImagesInMemory(Images):
    """Pictures in memory.

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


def labels_of(classes: Sequence[int], indices: Tensor) -> Tensor:
    """(n,) int64: classes[i mod their number] for each index i (n,) int64."""
    return torch.tensor(classes, dtype=torch.int64)[indices % len(classes)]


def class_numbers(wanted: Sequence[int | str], class_names: Sequence[str], num_classes: int) -> list[int]:
    """The numbers of classes that were given by number or by name; all of them where none was given.

    A name wins where the classes are called by numbers.

    Raises:
        RobustokError: a class that does not exist, or one that is named twice.
    """
    if not wanted:
        return list(range(num_classes))
    numbers = [_class_number(one, class_names, num_classes) for one in wanted]
    twice = next((one for one in numbers if numbers.count(one) > 1), None)
    if twice is not None:
        raise RobustokError(f"the class {twice} is named twice", hint="name each class once")
    return numbers


def _class_number(wanted: int | str, class_names: Sequence[str], num_classes: int) -> int:
    if isinstance(wanted, str) and wanted in class_names:
        return list(class_names).index(wanted)
    text = str(wanted)
    if not text.lstrip("-").isdigit():
        raise RobustokError(f"no class is called {text!r}", hint=did_you_mean(text, list(class_names)[:50]))
    if not 0 <= int(text) < num_classes:
        raise RobustokError(f"there is no class {text}", hint=f"classes are 0 to {num_classes - 1}")
    return int(text)


def sampling_options(
    factory: type[Generator], table: Mapping[str, Any], say: Callable[[KeyPath, str, str | None], RobustokError]
) -> Any:
    """An instance of `factory.Sampling` from a raw table.

    Args:
        factory: the generator's class.
        table: keys and values as a recipe has them.
        say: makes the error of a problem: its path of keys in the table, what is wrong, a hint.

    Raises:
        ProblemsError: naming every mistake.
    """

    def no_components(kind: str, name: str, path: KeyPath) -> Problem:
        return Problem(path, f"options of a sampler hold no {kind}, found {name!r}")

    structurer = Structurer(no_components)
    options = structurer.config(factory.Sampling, table, ())
    if structurer.problems:
        raise ProblemsError([say(problem.path, problem.what, problem.hint) for problem in structurer.problems])
    return options


def check_fits(generator: Generator, folder: Path, tokenizer: Tokenizer) -> None:
    """Whether the tokenizer decodes what the generator draws.

    Args:
        generator: as it was loaded from `folder`.
        folder: its artifact, which may record the tokenizer whose latents it was trained on.
        tokenizer: may be post-trained: that changes no latents.

    Raises:
        RobustokError: the latent spaces differ, or it was trained on the latents of another tokenizer.
    """
    check_recorded(generator, read_json(folder / COMPONENT_FILE), str(folder), tokenizer)


def check_recorded(generator: Generator, about: Mapping[str, Any], where: str, tokenizer: Tokenizer) -> None:
    """As `check_fits`, of a generator of which `about` is recorded; `where` it came from, for the message."""
    _check_space(generator.space, about, where, tokenizer.space)
    _check_origin(about, where, latent_fingerprint(tokenizer))


def check_space(drawn: LatentSpace, folder: Path, decoded: LatentSpace) -> None:
    """Raises RobustokError where a generator's artifact in `folder` draws latents of another space than is decoded."""
    _check_space(drawn, read_json(folder / COMPONENT_FILE), str(folder), decoded)


def check_origin(folder: Path, found: str) -> None:
    """Raises RobustokError where a generator's artifact in `folder` records another latent fingerprint than `found`."""
    _check_origin(read_json(folder / COMPONENT_FILE), str(folder), found)


def _check_space(drawn: LatentSpace, about: Mapping[str, Any], where: str, decoded: LatentSpace) -> None:
    if drawn != decoded:
        spaces = [drawn.describe(), decoded.describe()]
        if spaces[0] == spaces[1]:
            spaces = [
                "no grid" if grid is None else "a grid of {} x {}".format(*grid) for grid in (drawn.grid, decoded.grid)
            ]
        name = about["table"]["use"]
        what = f"the generator {name!r} draws latents of another space ({spaces[0]}) than the tokenizer decodes"
        raise RobustokError(f"{what} ({spaces[1]})", where=where)


def _check_origin(about: Mapping[str, Any], where: str, found: str) -> None:
    name, recorded = about["table"]["use"], about.get("tokenizer")
    if recorded not in (None, found):
        raise RobustokError(
            f"the generator {name!r} was trained on the latents of another tokenizer ({recorded}, not {found})",
            where=where,
            hint="use the tokenizer of its run, or one that was post-trained from it",
        )
