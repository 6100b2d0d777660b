"""The artifact "latents": a data set encoded by a tokenizer, in memory-mapped arrays.

latents.json                 the content, the tokenizer, and a hash of every shard
train-labels.npy             (rows,) int64; validation-labels.npy likewise
parts/train-FIRST-STOP.codes.npy     (rows, views, N) uint16 or int32; `vectors`: (rows, views, N, D) float
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
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from robustok_core.errors import RobustokError
from robustok_core.kinds.component import Builder
from robustok_core.kinds.dataset import Rows
from robustok_core.kinds.promise import Promise
from robustok_core.runs.components import COMPONENT_FILE
from robustok_core.runs.files import read_json, write_json
from robustok_core.runs.fingerprints import content_fingerprint, fingerprint_of
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import Draws
from robustok_core.values.latents import Latents, LatentSpace
from robustok_toolkit.resumable_shards import Shard, shard_file, write_array

INDEX = "latents.json"
PARTS = "parts"
FORMAT, VERSION = "robustok latents", 1
_CHECKED_AT_ONCE = 2**24  # values


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
    first = np.load(shard_file(kept, splits[0].parts[0], splits[0].array), mmap_mode="r")
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
        vectors = np.load(shard_file(kept, shard, split.array), mmap_mode="r")[:, split.middle].astype(np.float64)
        rows = vectors.reshape(-1, vectors.shape[-1])
        shift = rows.mean(0) if shift is None else shift  # keeps the squares small
        count, total, squares = count + len(rows), total + (rows - shift).sum(0), squares + ((rows - shift) ** 2).sum(0)
    assert shift is not None
    mean = total / count
    return {"mean": (mean + shift).tolist(), "std": np.sqrt(np.maximum(squares / count - mean**2, 0.0)).tolist()}


def read_index(folder: Path) -> dict[str, Any]:
    """The content of latents.json.

    Raises:
        RobustokError: the file is missing or has another format.
    """
    if not (folder / INDEX).is_file():
        raise RobustokError("there are no latents here", where=str(folder), hint="the stage `tokenize` makes them")
    index = read_json(folder / INDEX)
    if not isinstance(index, Mapping) or index.get("format") != FORMAT:
        raise RobustokError("this file is not an index of robustok latents", where=str(folder / INDEX))
    if index.get("version") != VERSION:
        message = f"these latents have version {index.get('version')}, but this robustok reads version {VERSION}"
        raise RobustokError(message, where=str(folder / INDEX), hint="make them again with the stage `tokenize`")
    return dict(index)


@frozen(kw_only=True)
class LatentsPromise(Promise):
    """Latents of a data set.

    Attributes:
        space: of the latents. class_names: of the data. num_rows: number of training images.
        tokenizer: the latent fingerprint of the tokenizer that made them; None if they do not exist yet.
        folder: their folder; None if they do not exist yet.
    """

    space: LatentSpace
    class_names: Sequence[str]
    num_rows: int
    tokenizer: str | None = None
    folder: Path | None = None

    def describe(self) -> str:
        return f"{self.space.describe()}; {self.num_rows:,} training images of {len(self.class_names)} classes"

    @classmethod
    def of_artifact(cls, folder: Path, registry: Builder) -> Self:
        index = read_index(folder)
        return cls(
            space=LatentSpace(**index["space"]),
            class_names=index["class_names"],
            num_rows=sum(shard["rows"] for shard in index["splits"]["train"]["parts"]),
            tokenizer=index["tokenizer"],
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
        self.space = LatentSpace(**self._index["space"])
        self.num_classes, self.class_names = self._index["num_classes"], tuple(self._index["class_names"])
        if tokenizer is not None:
            check_latents_of(folder, self._index["tokenizer"], tokenizer)
        self._split = self._index["splits"][split]
        self.views: int = self._split["views"]
        statistics = self._index.get("statistics") or {"mean": None, "std": None}
        self.mean, self.std = (None if v is None else torch.tensor(v) for v in (statistics["mean"], statistics["std"]))
        self._labels = self._read_labels()
        for number in range(len(self._split["parts"])):
            self._check_values(number)

    @property
    def labels(self) -> Tensor:
        return self._labels

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of([self._index, self._split, content_fingerprint(self.folder / self._split["labels"])])

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
        shape, size, parts = self._shape, self._split["part_rows"], self._parts
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
        return [self._open(number) for number in range(len(self._split["parts"]))]

    def _open(self, number: int) -> NDArray[Any]:
        shard = self._split["parts"][number]
        file = self.folder / PARTS / shard["file"]
        hint = "make the latents again with the stage `tokenize`"
        try:
            # a plain array over the same memory: indexing a memmap is several times slower
            array = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise RobustokError(
                f"this shard of the latents cannot be read: {error}", where=str(file), hint=hint
            ) from error
        shape, dtype = (shard["rows"], self.views, *self._shape), np.dtype(self._index["dtype"])
        if (array.shape, array.dtype) != (shape, dtype):
            expected = f"expected {dtype} {shape}, found {array.dtype} {array.shape}"
            raise RobustokError(f"this is not a shard of these latents: {expected}", where=str(file), hint=hint)
        return array

    def _check_values(self, number: int) -> None:
        """Checks all values of a shard; reading it also fills the page cache for training."""
        part, top = self._parts[number], self.space.codebook_size
        hint = "make the latents again with the stage `tokenize`"
        file = self.folder / PARTS / self._split["parts"][number]["file"]
        for start in range(0, len(part), step := max(1, _CHECKED_AT_ONCE // max(1, part[0].size))):
            values = part[start : start + step]
            if top is None and not np.isfinite(values).all():
                raise RobustokError("this shard of the latents holds NaN or infinity", where=str(file), hint=hint)
            if top is not None and (values.max() >= top or values.min() < 0):
                invalid = int(values.max() if values.max() >= top else values.min())
                message = f"this shard of the latents holds {invalid}, but codes are 0 to {top - 1}"
                raise RobustokError(message, where=str(file), hint=hint)
        if content_fingerprint(file) != self._split["parts"][number]["hash"]:
            raise RobustokError("this shard does not have the hash in latents.json", where=str(file), hint=hint)

    def _read_labels(self) -> Tensor:
        file = self.folder / self._split["labels"]
        try:
            labels = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RobustokError(f"the labels of the latents cannot be read: {error}", where=str(file)) from error
        rows = sum(shard["rows"] for shard in self._split["parts"])
        if labels.shape != (rows,) or labels.dtype != np.int64:
            raise RobustokError(f"expected {rows} labels, found {labels.dtype} {labels.shape}", where=str(file))
        return torch.from_numpy(labels)

    def __getstate__(self) -> dict[str, Any]:
        # a data loader worker opens the files itself: pickling a memory map would copy its content
        return {name: value for name, value in vars(self).items() if name != "_parts"}
