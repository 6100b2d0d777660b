"""The artifact "decoders": one post-trained decoder for each sigma.

decoders.json    the tokenizer they come from, their post-trainer, and the sigma and folder of each decoder
sigma0.9/        the whole tokenizer with this decoder; one folder per sigma
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen, validators
from typing_extensions import Self

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.kinds.promise import Promise, once_made_elsewhere
from robustok_core.runs.components import COMPONENT_FILE, read_component
from robustok_core.runs.files import write_json
from robustok_core.runs.records import file_name, read_record
from robustok_toolkit.pair_files import label_of

INDEX = "decoders.json"
#: The sigma of the control: it keeps all of the real latents.
CONTROL = 1.0


@frozen(kw_only=True)
class DecoderRecord:
    """A decoder in decoders.json."""

    sigma: float
    folder: str = field(validator=file_name)


@frozen(kw_only=True)
class DecodersIndex:
    """The content of decoders.json; `post_trainer` is None in those of earlier versions."""

    seed: int
    made_of: dict[str, str]
    decoders: list[DecoderRecord] = field(validator=validators.min_len(1))
    post_trainer: dict[str, Any] | None = None

    def __attrs_post_init__(self) -> None:
        if len({entry.sigma for entry in self.decoders}) != len(self.decoders):
            raise ValueError("two decoders have the same sigma")


@frozen(kw_only=True)
class DecodersPromise(Promise):
    """Post-trained decoders, one for each of `sigmas`.

    Attributes:
        post_trainer: the recipe table of the post-trainer that they were trained with; empty if it is not recorded.
        made_of: as in `PairsPromise`, of their pairs.
        opponents: losses whose discriminators are stored with each of them; None if that is not known yet.
    """

    sigmas: Sequence[float]
    post_trainer: Mapping[str, Any] = field(factory=dict)
    made_of: Mapping[str, str] = field(factory=dict)
    opponents: Sequence[str] | None = None

    def once_loaded(self) -> Self:
        return attrs.evolve(self, made_of=once_made_elsewhere(self.made_of))

    def describe(self) -> str:
        return f"one for each sigma of {', '.join(f'{sigma:g}' for sigma in self.sigmas)}"

    @classmethod
    def of_artifact(cls, folder: Path, registry: Builder) -> Self:
        decoders = Decoders.read(folder)
        return cls(
            sigmas=list(decoders.folders),
            post_trainer=decoders.post_trainer,
            made_of=decoders.made_of,
            opponents=_in_every([read_component(folder).opponents for folder in decoders.folders.values()]),
        )


def _in_every(opponents: Sequence[Sequence[str] | None]) -> list[str] | None:
    """The losses that all decoders have a discriminator of; None if one does not say which it has."""
    known = [names for names in opponents if names is not None]
    if len(known) < len(opponents):
        return None
    return [name for name in known[0] if all(name in others for others in known)]


@frozen(kw_only=True)
class Decoders:
    """The content of the artifact.

    Attributes:
        folders: the folder of each decoder's tokenizer, by sigma, in training order.
        seed: of their training; comparisons of them use it too.
        post_trainer: the recipe table of the post-trainer that they were trained with; empty if it is not recorded.
        made_of: content hashes of the weights they come from: "tokenizer" and "generator".
    """

    folders: Mapping[float, Path]
    seed: int
    post_trainer: Mapping[str, Any]
    made_of: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the index.

        Raises:
            RobustokError: the index is missing or damaged.
        """
        if not (folder / INDEX).is_file():
            raise RobustokError("there are no decoders here", where=str(folder), hint="`post_train` makes them")
        index = read_record(DecodersIndex, folder / INDEX)
        folders = {entry.sigma: folder / entry.folder for entry in index.decoders}
        return cls(folders=folders, seed=index.seed, post_trainer=index.post_trainer or {}, made_of=index.made_of)


def write_decoders(
    folder: Path,
    trained: Mapping[float, Path],
    *,
    seed: int,
    post_trainer: Mapping[str, Any],
    made_of: Mapping[str, str],
) -> None:
    """Fills an artifact's folder with the tokenizers in the folders `trained`, by sigma; the rest as in `Decoders`."""
    entries: list[dict[str, Any]] = []
    for sigma, source in trained.items():
        copy_component(source, folder / label_of(sigma))
        entries.append({"sigma": sigma, "folder": label_of(sigma)})
    index = {"seed": seed, "post_trainer": dict(post_trainer), "made_of": dict(made_of), "decoders": entries}
    write_json(folder / INDEX, index)
    write_json(folder / COMPONENT_FILE, {"kind": "decoders"})  # so that [load] accepts the folder itself


def copy_component(source: Path, target: Path) -> None:
    """Copies the files of a component to another folder, as hard links if possible."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        try:
            os.link(file, target / file.name)
        except OSError:
            shutil.copyfile(file, target / file.name)
