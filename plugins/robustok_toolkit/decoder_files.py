"""The artifact "decoders": a tokenizer's decoder as post-training left it, once for each share sigma.

decoders.json    which tokenizer they are of, and for each its sigma, its folder and a hash of it
sigma0.9/        the whole tokenizer with this decoder; a folder for each
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from typing_extensions import Self

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.kinds.promise import Promise
from robustok_core.runs.components import COMPONENT_FILE
from robustok_core.runs.files import read_json, write_json
from robustok_core.runs.fingerprints import content_fingerprint

INDEX = "decoders.json"
#: The share at which nothing generated is left in the latents: the control.
CONTROL = 1.0


@frozen(kw_only=True)
class DecodersPromise(Promise):
    """Post-trained decoders; `sigmas` of which there is one each."""

    sigmas: Sequence[float]

    def describe(self) -> str:
        return f"one for each sigma of {', '.join(f'{sigma:g}' for sigma in self.sigmas)}"

    @classmethod
    def of_artifact(cls, folder: Path, registry: Builder) -> Self:
        return cls(sigmas=list(Decoders.read(folder).folders))


def label_of(sigma: float) -> str:
    """How a decoder is called in pictures and results: "sigma0.9"."""
    return f"sigma{sigma:g}"


@frozen(kw_only=True)
class Decoders:
    """What the artifact holds.

    Attributes:
        folders: of each decoder's tokenizer, by sigma, in the order in which they were trained.
        seed: of their training; comparisons of them draw their random numbers from it.
        made_of: content hashes of the weights that they come from: "tokenizer" and "generator".
    """

    folders: Mapping[float, Path]
    seed: int
    made_of: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the index.

        Raises:
            RobustokError: there is none.
        """
        if not (folder / INDEX).is_file():
            raise RobustokError("there are no decoders here", where=str(folder), hint="`post_train` makes them")
        index = read_json(folder / INDEX)
        folders = {float(entry["sigma"]): folder / entry["folder"] for entry in index["decoders"]}
        return cls(folders=folders, seed=index["seed"], made_of=index["made_of"])


def write_decoders(folder: Path, trained: Mapping[float, Path], *, seed: int, made_of: Mapping[str, str]) -> None:
    """Fills an artifact's folder with tokenizers that lie in the folders `trained`, by sigma."""
    entries: list[dict[str, Any]] = []
    for sigma, source in trained.items():
        copy_component(source, folder / label_of(sigma))
        entries.append({"sigma": sigma, "folder": label_of(sigma), "hash": content_fingerprint(source)})
    write_json(folder / INDEX, {"seed": seed, "made_of": dict(made_of), "decoders": entries})
    write_json(folder / COMPONENT_FILE, {"kind": "decoders"})  # so that [load] takes the folder itself


def copy_component(source: Path, target: Path) -> None:
    """The files of a component in another folder; no byte is written twice where links work."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        try:
            os.link(file, target / file.name)
        except OSError:
            shutil.copyfile(file, target / file.name)
