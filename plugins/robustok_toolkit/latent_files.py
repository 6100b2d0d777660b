"""The artifact "latents": a data set encoded by a tokenizer, in memory-mapped arrays.

latents.json                 the content, the tokenizer, and a hash of every shard
train-labels.npy             (rows,) int64; validation-labels.npy likewise
parts/train-FIRST-STOP.codes.npy     (rows, views, N) uint16, int32 or int64; `vectors`: (rows, views, N, D) float
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from attrs import field, frozen, validators
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.kinds.dataset import Rows
from robustok_core.kinds.promise import Promise, known_elsewhere
from robustok_core.runs.components import COMPONENT_FILE
from robustok_core.runs.files import read_json, write_json
from robustok_core.runs.fingerprints import content_fingerprint, fingerprint_of
from robustok_core.runs.records import file_name, record_of
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_toolkit.array_files import read_array
from robustok_toolkit.resumable_shards import Shard, shard_file, write_array

INDEX = "latents.json"
PARTS = "parts"
FORMAT, VERSION = "robustok latents", 1
_CHECKED_AT_ONCE = 2**24  # values
_AGAIN = "make the latents again with the stage `tokenize`"


@frozen(kw_only=True)
class SplitShards:
    """The shards of a split, as a stage left them.

    Attributes:
        name: "train" or "validation". array: "codes" or "vectors".
        parts: the shards; all but the last have the same size.
        views: number of views per image. middle: index of the view that statistics are computed from.
        labels: (rows,) int64.
    """

    name: str
    array: str
    parts: Sequence[Shard]
    views: int
    middle: int
    labels: Tensor


@frozen(kw_only=True)
class ShardRecord:
    """A shard of a split: its file in `PARTS`, the number of its rows, and the hash of its content."""

    file: str = field(validator=file_name)
    rows: int = field(validator=validators.ge(1))
    hash: str


@frozen(kw_only=True)
class SplitRecord:
    """A split: the views of each image, the rows of every shard but the last, the file of the labels, the shards."""

    views: int = field(validator=validators.ge(1))
    part_rows: int = field(validator=validators.ge(1))
    labels: str = field(validator=file_name)
    parts: list[ShardRecord] = field(validator=validators.min_len(1))

    def __attrs_post_init__(self) -> None:
        if any(part.rows != self.part_rows for part in self.parts[:-1]) or self.parts[-1].rows > self.part_rows:
            raise ValueError(f"all parts but the last must have {self.part_rows} rows, and the last at most as many")

    @property
    def rows(self) -> int:
        """The number of images."""
        return sum(part.rows for part in self.parts)


@frozen(kw_only=True)
class StatisticsRecord:
    """Mean and standard deviation of each channel over the training split."""

    mean: list[float]
    std: list[float]


@frozen(kw_only=True)
class LatentsIndex:
    """The content of latents.json, of the artifact "latents" or "pairs".

    Attributes:
        tokenizer: its latent fingerprint. data: the fingerprint of each split of the data set.
        splits: "train" and "validation"; of pairs, one for each sigma.
        statistics: None in a discrete space.
        sigma, post_trainer, tokenizer_weights, generator_weights: how pairs were made; None for latents.
    """

    tokenizer: str
    space: LatentSpace
    num_classes: int = field(validator=validators.ge(1))
    class_names: list[str]
    data: dict[str, str]
    splits: dict[str, SplitRecord]
    dtype: str = field(validator=validators.in_(("uint16", "int32", "int64", "float32", "float16")))
    statistics: StatisticsRecord | None = None
    sigma: list[float] | None = field(default=None, validator=validators.optional(validators.min_len(1)))
    post_trainer: dict[str, Any] | None = None
    tokenizer_weights: str | None = None
    generator_weights: str | None = None

    def __attrs_post_init__(self) -> None:
        if len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names has {len(self.class_names)} names, but num_classes is {self.num_classes}")
        held = self.statistics and (len(self.statistics.mean), len(self.statistics.std))
        if held != (None if self.space.codebook_size is not None else (self.space.width,) * 2):
            raise ValueError(
                f"statistics must hold {self.space.width} means and deviations, if the space is continuous"
            )

    def split(self, name: str, folder: Path) -> SplitRecord:
        """A split by its name.

        Raises:
            RobustokError: if there is none of this name.
        """
        if name not in self.splits:
            there = ", ".join(self.splits)
            raise RobustokError(f"there is no split {name!r}, only {there}", where=str(folder / INDEX))
        return self.splits[name]


def write_latents(
    folder: Path,
    kept: Path,
    splits: Sequence[SplitShards],
    *,
    space: LatentSpace,
    tokenizer: str,
    class_names: Sequence[str],
    data: Mapping[str, str],
    options: Mapping[str, Any],
    kind: str = "latents",
) -> None:
    """Fills an artifact's folder with the shards in the folder `kept`, hard-linking them if possible.

    Args:
        tokenizer: its latent fingerprint. data: the fingerprint of each split.
        options: how the latents were made, for the record. kind: the artifact's name.
    """
    (folder / PARTS).mkdir()
    index: dict[str, Any] = {"format": FORMAT, "version": VERSION, "tokenizer": tokenizer, "space": attrs.asdict(space)}
    index |= {"num_classes": len(class_names), "class_names": list(class_names), "data": dict(data), **options}
    index["splits"] = {split.name: _take_parts(folder, kept, split) for split in splits}
    first = read_array(shard_file(kept, splits[0].parts[0], splits[0].array), mapped=True)
    index["dtype"] = str(first.dtype)
    if space.codebook_size is None:
        index["statistics"] = _statistics(kept, splits[0])
    write_json(folder / INDEX, index)
    write_json(folder / COMPONENT_FILE, {"kind": kind})  # so that [load] accepts the folder itself


def _take_parts(folder: Path, kept: Path, split: SplitShards) -> dict[str, Any]:
    labels = f"{split.name}-labels.npy"
    write_array(folder / labels, split.labels.numpy())
    files = []
    for shard in split.parts:
        source = shard_file(kept, shard, split.array)
        target = folder / PARTS / source.name
        try:
            os.link(source, target)  # not moved, so that a killed process loses nothing
        except OSError:
            shutil.copyfile(source, target)
        files.append({"file": target.name, "rows": len(shard), "hash": content_fingerprint(target)})
    return {"views": split.views, "part_rows": len(split.parts[0]), "labels": labels, "parts": files}


def _statistics(kept: Path, split: SplitShards) -> dict[str, list[float]]:
    """Mean and standard deviation of each of the D channels over images and tokens, in float64."""
    count, total, squares = 0, np.zeros(()), np.zeros(())
    shift = None
    for shard in split.parts:
        array = read_array(shard_file(kept, shard, split.array), mapped=True)
        vectors = array[:, split.middle].astype(np.float64)
        rows = vectors.reshape(-1, vectors.shape[-1])
        shift = rows.mean(0) if shift is None else shift  # keeps the squares small
        count, total, squares = count + len(rows), total + (rows - shift).sum(0), squares + ((rows - shift) ** 2).sum(0)
    assert shift is not None
    mean = total / count
    return {"mean": (mean + shift).tolist(), "std": np.sqrt(np.maximum(squares / count - mean**2, 0.0)).tolist()}


def read_index(folder: Path) -> LatentsIndex:
    """The content of latents.json.

    Raises:
        RobustokError: the file is missing, damaged or has another format.
    """
    if not (folder / INDEX).is_file():
        raise RobustokError("there are no latents here", where=str(folder), hint="the stage `tokenize` makes them")
    content = read_json(folder / INDEX)
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise RobustokError("this file is not an index of robustok latents", where=str(folder / INDEX))
    if content.get("version") != VERSION:
        found = str(content.get("version"))[:20]
        message = f"these latents have version {found}, but this robustok reads version {VERSION}"
        raise RobustokError(message, where=str(folder / INDEX), hint="make them again with the stage `tokenize`")
    return record_of(LatentsIndex, content, folder / INDEX)


@frozen(kw_only=True)
class LatentsPromise(Promise):
    """Latents of a data set.

    Attributes:
        space: of the latents. class_names: of the data. num_rows: number of training images.
        tokenizer: the origin of the tokenizer that makes them (see `robustok_core.kinds.promise`), with its latent
            fingerprint as the hash; None if it is not known.
        folder: their folder; None if they do not exist yet.
    """

    space: LatentSpace
    class_names: Sequence[str]
    num_rows: int
    tokenizer: str | None = None
    folder: Path | None = None

    def once_loaded(self) -> Self:
        return attrs.evolve(self, tokenizer=known_elsewhere(self.tokenizer))

    def describe(self) -> str:
        return f"{self.space.describe()}; {self.num_rows:,} training images of {len(self.class_names)} classes"

    @classmethod
    def of_artifact(cls, folder: Path, registry: Builder) -> Self:
        index = read_index(folder)
        return cls(
            space=index.space,
            class_names=index.class_names,
            num_rows=index.split("train", folder).rows,
            tokenizer=index.tokenizer,
            folder=folder,
        )


def check_latents_of(folder: Path | None, recorded: str, tokenizer: str) -> None:
    """Raises RobustokError if the latent fingerprint that latents record is not the tokenizer's."""
    if recorded != tokenizer:
        message = f"these are latents of another tokenizer ({recorded}, not {tokenizer})"
        raise RobustokError(message, where=str(folder), hint="make them again with the stage `tokenize`")


class LatentRows(Rows):
    """The latents of one split. A row is an image, whatever its number of views.

    Args:
        folder: the artifact.
        split: "train" or "validation".
        tokenizer: the latent fingerprint that they must have; None accepts any.

    Attributes:
        space: of the latents. num_classes, class_names: of the data. views: number of views per image.
        mean, std: (D,) float32 over the training split, or None if the space is discrete.

    Raises:
        RobustokError: the latents are of another tokenizer, or a shard is missing, damaged or not of this artifact,
            or holds invalid codes or vectors that are not finite.
    """

    def __init__(self, folder: Path, split: str, *, tokenizer: str | None = None) -> None:
        self.folder = folder
        self._index = read_index(folder)
        self.space = self._index.space
        self.num_classes, self.class_names = self._index.num_classes, tuple(self._index.class_names)
        if tokenizer is not None:
            check_latents_of(folder, self._index.tokenizer, tokenizer)
        self._name, self._split = split, self._index.split(split, folder)
        self.views = self._split.views
        statistics = self._index.statistics
        self.mean = None if statistics is None else torch.tensor(statistics.mean)
        self.std = None if statistics is None else torch.tensor(statistics.std)
        self._labels = self._read_labels()
        for number in range(len(self._split.parts)):
            self._check_values(number)

    @property
    def labels(self) -> Tensor:
        return self._labels

    @cached_property
    def fingerprint(self) -> str:
        content = read_json(self.folder / INDEX)
        labels = content_fingerprint(self.folder / self._split.labels)
        return fingerprint_of([content, content["splits"][self._name], labels])

    def load(self, indices: Sequence[int], draws: Draws | None = None) -> LatentBatch:
        """Codes (int64) or vectors (float32) at `indices`, of a view chosen by `draws`, or of the first view."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        views = [0] * len(rows)
        if draws is not None and self.views > 1:
            views = draws.child("view").integers(self.views).tolist()
        values = torch.from_numpy(self._gather(rows.tolist(), views))
        latents = Latents(vectors=values) if self.space.codebook_size is None else Latents(codes=values)
        return LatentBatch(latents=latents, labels=self._labels[rows], indices=rows)

    def _gather(self, rows: Sequence[int], views: Sequence[int]) -> NDArray[Any]:
        shape, size, parts = self._shape, self._split.part_rows, self._parts
        values = np.empty((len(rows), *shape), np.float32 if len(shape) == 2 else np.int64)
        for position, (row, view) in enumerate(zip(rows, views, strict=True)):
            values[position] = parts[row // size][row % size, view]
        return values

    @property
    def _shape(self) -> tuple[int, ...]:
        """The shape of one view of one image."""
        tokens = self.space.num_tokens
        return (tokens,) if self.space.codebook_size is not None else (tokens, self.space.width)

    @cached_property
    def _parts(self) -> list[NDArray[Any]]:
        """The shards, memory-mapped."""
        return [self._open(number) for number in range(len(self._split.parts))]

    def _open(self, number: int) -> NDArray[Any]:
        part = self._split.parts[number]
        shape = (part.rows, self.views, *self._shape)
        return read_array(self._file(number), shape=shape, dtype=self._index.dtype, mapped=True, hint=_AGAIN)

    def _file(self, number: int) -> Path:
        return self.folder / PARTS / self._split.parts[number].file

    def _check_values(self, number: int) -> None:
        """Checks all values of a shard; reading it also fills the page cache for training."""
        part, top = self._parts[number], self.space.codebook_size
        file = self._file(number)
        for start in range(0, len(part), step := max(1, _CHECKED_AT_ONCE // max(1, part[0].size))):
            values = part[start : start + step]
            if top is None and not np.isfinite(values).all():
                raise RobustokError("this shard of the latents holds NaN or infinity", where=str(file), hint=_AGAIN)
            if top is not None and (values.max() >= top or values.min() < 0):
                invalid = int(values.max() if values.max() >= top else values.min())
                message = f"this shard of the latents holds {invalid}, but codes are 0 to {top - 1}"
                raise RobustokError(message, where=str(file), hint=_AGAIN)
        if content_fingerprint(file) != self._split.parts[number].hash:
            raise RobustokError("this shard does not have the hash in latents.json", where=str(file), hint=_AGAIN)

    def _read_labels(self) -> Tensor:
        file = self.folder / self._split.labels
        labels = read_array(file, shape=(self._split.rows,), dtype=np.int64, hint=_AGAIN)
        if labels.min() < 0 or labels.max() >= self.num_classes:
            wrong = int(labels.min() if labels.min() < 0 else labels.max())
            message = f"the labels of the latents hold {wrong}, but classes are 0 to {self.num_classes - 1}"
            raise RobustokError(message, where=str(file), hint=_AGAIN)
        return torch.from_numpy(labels)

    def __getstate__(self) -> dict[str, Any]:
        # a data loader worker opens the files itself: pickling a memory map would copy its content
        return {name: value for name, value in vars(self).items() if name != "_parts"}
