"""The artifact "pairs": latents that a generator made from real images, and the indices of these images.

It has the layout of the artifact "latents", with a split for each sigma, plus `rows.npy`: the index of each
image in the training split. It stores latents rather than images, because a frozen encoder always gives the
same latents for an image: 256 codes take 512 bytes and MAETok's 128 vectors of 32 numbers take 16 KiB, against
about 100 kB for a PNG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from attrs import field, frozen
from typing_extensions import Self

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.kinds.dataset import Images, Rows
from robustok_core.kinds.promise import Promise, once_made_elsewhere
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.values.batches import ImageBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents
from robustok_toolkit.array_files import read_array
from robustok_toolkit.latent_files import LatentRows, read_index

ROWS = "rows.npy"
#: The sigma of the control: it keeps all of the real latents.
CONTROL = 1.0


@frozen(kw_only=True)
class PairsPromise(Promise):
    """Pairs of real images and latents.

    Attributes:
        sigmas: each has pairs. num_rows: number of pairs per sigma.
        post_trainer: the recipe table of the post-trainer that made them.
        made_of: the origins of the "tokenizer" and the "generator" that make them (see `robustok_core.kinds.promise`),
            with the content hashes of their weights; empty if they are not known.
    """

    sigmas: Sequence[float]
    num_rows: int
    post_trainer: Mapping[str, Any]
    made_of: Mapping[str, str] = field(factory=dict)

    def once_loaded(self) -> Self:
        return attrs.evolve(self, made_of=once_made_elsewhere(self.made_of))

    def describe(self) -> str:
        return f"{self.num_rows:,} for each sigma of {', '.join(f'{sigma:g}' for sigma in self.sigmas)}"

    @classmethod
    def of_artifact(cls, folder: Path, registry: Builder) -> Self:
        sigmas = sigmas_of(folder)
        index = read_index(folder)
        return cls(
            sigmas=sigmas,
            num_rows=index.split(label_of(sigmas[0]), folder).rows,
            post_trainer=index.post_trainer or {},
            made_of=made_of_pairs(folder),
        )


@frozen(kw_only=True, eq=False)
class PairBatch(ImageBatch):
    """Real images, and the `latents` that should be decoded to them."""

    latents: Latents


def label_of(sigma: float) -> str:
    """The name of a sigma in files, images and results: "sigma0.9"."""
    return f"sigma{sigma:g}"


def made_of_pairs(folder: Path) -> dict[str, str]:
    """Content hashes of the weights of the tokenizer and of the generator that made an artifact's pairs.

    Raises:
        RobustokError: the artifact does not hold pairs.
    """
    index = read_index(folder)
    if index.tokenizer_weights is None or index.generator_weights is None:
        raise _no_pairs(folder)
    return {"tokenizer": index.tokenizer_weights, "generator": index.generator_weights}


def sigmas_of(folder: Path) -> list[float]:
    """The sigmas of an artifact, in the order in which their pairs were made.

    Raises:
        RobustokError: the artifact does not hold pairs.
    """
    sigmas = read_index(folder).sigma
    if sigmas is None:
        raise _no_pairs(folder)
    return sigmas


def _no_pairs(folder: Path) -> RobustokError:
    return RobustokError("these are not pairs", where=str(folder), hint="the stage `make_pairs` makes them")


class PairRows(Rows):
    """The pairs of one sigma.

    Args:
        folder: the artifact.
        sigma: one of `sigmas_of`.
        images: the training split that the pairs were made from.
        tokenizer: the latent fingerprint of the tokenizer.

    Raises:
        RobustokError: the pairs are damaged, have no such sigma, or were made from other images or another tokenizer.
    """

    def __init__(self, folder: Path, sigma: float, images: Images, *, tokenizer: str) -> None:
        sigmas = sigmas_of(folder)
        if sigma not in sigmas:
            message = f"there are no pairs for sigma {sigma:g}, only for {', '.join(f'{known:g}' for known in sigmas)}"
            raise RobustokError(message, where=str(folder), hint="make them with the stage `make_pairs`")
        if read_index(folder).data.get("train") != images.fingerprint:
            message = "these pairs were not made from the training images of [data]"
            raise RobustokError(message, where=str(folder), hint="use the [data] of the run that made them")
        self._latents = LatentRows(folder, label_of(sigma), tokenizer=tokenizer)
        self._rows = _read_rows(folder / ROWS, len(self._latents), len(images))
        self._images = images

    @property
    def labels(self) -> torch.Tensor:
        return self._latents.labels

    @property
    def fingerprint(self) -> str:
        return fingerprint_of([self._latents.fingerprint, self._images.fingerprint])

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> PairBatch:
        """The pairs at `indices`; images are not augmented, because their latents would not match."""
        pairs = self._latents.load(indices)
        images = self._images.load(self._rows[pairs.indices].tolist())
        return PairBatch(images=images.images, labels=pairs.labels, indices=pairs.indices, latents=pairs.latents)


def _read_rows(file: Path, count: int, images: int) -> torch.Tensor:
    """(count,) int64 in [0, images)."""
    hint = "make the pairs again with the stage `make_pairs`"
    rows = read_array(file, shape=(count,), dtype=np.int64, hint=hint)
    if rows.min() < 0 or rows.max() >= images:
        wrong = int(rows.min() if rows.min() < 0 else rows.max())
        raise RobustokError(f"{wrong} is not the index of one of {images} images", where=str(file), hint=hint)
    return torch.from_numpy(rows)
