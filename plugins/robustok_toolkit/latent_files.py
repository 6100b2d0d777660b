"""The artifact "latents": what a tokenizer makes of a data set, in arrays that are read from the disk by row.

latents.json                 what is in it, of which tokenizer, with the hash of every part
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
_CHECKED_AT_ONCE = 2**24  # numbers


@frozen(kw_only=True)
class SplitShards:
    """The parts of a split as a stage kept them.

    Attributes:
        name: "train" or "validation". array: "codes" or "vectors". parts: all but the last of one size.
        views: of each image. middle: the view whose statistics are measured.
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
    """Fills an artifact's folder with the parts that lie in the folder `kept`; no number is copied where links work.

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
    write_json(folder / COMPONENT_FILE, {"kind": kind})  # so that [load] takes the folder itself


def _take_parts(folder: Path, kept: Path, split: SplitShards) -> dict[str, Any]:
    labels = f"{split.name}-labels.npy"
    write_array(folder / labels, split.labels.numpy())
    files = []
    for part in split.parts:
        source = shard_file(kept, part, split.array)
        target = folder / PARTS / source.name
        try:
            os.link(source, target)  # not moved: a process killed in between loses nothing
        except OSError:
            shutil.copyfile(source, target)
        files.append({"file": target.name, "rows": len(part), "hash": content_fingerprint(target)})
    return {"views": split.views, "part_rows": len(split.parts[0]), "labels": labels, "parts": files}


def _statistics(kept: Path, split: SplitShards) -> dict[str, list[float]]:
    """Mean and standard deviation of each of the D numbers of a token, over images and tokens, in float64."""
    count, total, squares = 0, np.zeros(()), np.zeros(())
    shift = None
    for part in split.parts:
        vectors = np.load(shard_file(kept, part, split.array), mmap_mode="r")[:, split.middle].astype(np.float64)
        rows = vectors.reshape(-1, vectors.shape[-1])
        shift = rows.mean(0) if shift is None else shift  # keeps the squares small
        count, total, squares = count + len(rows), total + (rows - shift).sum(0), squares + ((rows - shift) ** 2).sum(0)
    assert shift is not None
    mean = total / count
    return {"mean": (mean + shift).tolist(), "std": np.sqrt(np.maximum(squares / count - mean**2, 0.0)).tolist()}


def read_index(folder: Path) -> dict[str, Any]:
    """What latents.json says.

    Raises:
        RobustokError: there is none, or it is of another format.
    """
    if not (folder / INDEX).is_file():
        raise RobustokError("there are no latents here", where=str(folder), hint="the stage `tokenize` makes them")
    index = read_json(folder / INDEX)
    if not isinstance(index, Mapping) or index.get("format") != FORMAT:
        raise RobustokError("this file is not of robustok's latents", where=str(folder / INDEX))
    if index.get("version") != VERSION:
        what = f"these latents have version {index.get('version')}, this robustok reads version {VERSION}"
        raise RobustokError(what, where=str(folder / INDEX), hint="make them again with the stage `tokenize`")
    return dict(index)


@frozen(kw_only=True)
class LatentsPromise(Promise):
    """Latents of a data set.

    Attributes:
        space: of the latents. class_names: of the data. num_rows: images of the training split.
        tokenizer: the latent fingerprint of the tokenizer that made them; None where they are not there yet.
        folder: where they lie; None where they are not there yet.
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
            num_rows=sum(part["rows"] for part in index["splits"]["train"]["parts"]),
            tokenizer=index["tokenizer"],
            folder=folder,
        )


def check_latents_of(folder: Path | None, recorded: str, tokenizer: str) -> None:
    """Raises RobustokError where latents that record this latent fingerprint are not of that tokenizer."""
    if recorded != tokenizer:
        what = f"these are latents of another tokenizer ({recorded}, not {tokenizer})"
        raise RobustokError(what, where=str(folder), hint="make them again with the stage `tokenize`")


class LatentRows(Rows):
    """The latents of one split. A row is an image, whatever the number of its views.

    Args:
        folder: of the artifact.
        split: "train" or "validation".
        tokenizer: the latent fingerprint of the tokenizer that they must be of; None takes any.

    Attributes:
        space: of the latents. num_classes, class_names: of the data. views: of each image.
        mean, std: (D,) float32 over the training split, or None where the space is discrete.

    Raises:
        RobustokError: they are of another tokenizer, a part is missing, cut short or foreign, or holds
            values that are no codes (or no finite numbers).
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
        """Codes int64 or vectors float32 at `indices`; `draws` choose the view, without them it is the first."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        views = [0] * len(rows)
        if draws is not None and self.views > 1:
            views = draws.child("view").integers(self.views).tolist()
        found = torch.from_numpy(self._gather(rows.tolist(), views))
        latents = Latents(vectors=found) if self.space.codebook_size is None else Latents(codes=found)
        return LatentBatch(latents=latents, labels=self._labels[rows], indices=rows)

    def _gather(self, rows: Sequence[int], views: Sequence[int]) -> NDArray[Any]:
        shape, size, parts = self._shape, self._split["part_rows"], self._parts
        found = np.empty((len(rows), *shape), np.float32 if len(shape) == 2 else np.int64)
        for place, (row, view) in enumerate(zip(rows, views, strict=True)):
            found[place] = parts[row // size][row % size, view]
        return found

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of one view of one image."""
        tokens = self.space.num_tokens
        return (tokens,) if self.space.codebook_size is not None else (tokens, self.space.width)

    @cached_property
    def _parts(self) -> list[NDArray[Any]]:
        """The parts, on the disk."""
        return [self._open(number) for number in range(len(self._split["parts"]))]

    def _open(self, number: int) -> NDArray[Any]:
        part = self._split["parts"][number]
        file = self.folder / PARTS / part["file"]
        hint = "make the latents again with the stage `tokenize`"
        try:
            # a plain array over the same memory: indexing a memmap costs several times as much
            array = np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise RobustokError(
                f"this part of the latents cannot be read: {error}", where=str(file), hint=hint
            ) from error
        wanted = ((part["rows"], self.views, *self._shape), np.dtype(self._index["dtype"]))
        if (array.shape, array.dtype) != wanted:
            what = (
                f"this is no part of these latents: expected {wanted[1]} {wanted[0]}, found {array.dtype} {array.shape}"
            )
            raise RobustokError(what, where=str(file), hint=hint)
        return array

    def _check_values(self, number: int) -> None:
        """Reads a part once, all of it; its pages are then in the system's cache for training."""
        part, top = self._parts[number], self.space.codebook_size
        hint = "make the latents again with the stage `tokenize`"
        file = self.folder / PARTS / self._split["parts"][number]["file"]
        for start in range(0, len(part), step := max(1, _CHECKED_AT_ONCE // max(1, part[0].size))):
            values = part[start : start + step]
            if top is None and not np.isfinite(values).all():
                raise RobustokError("this part of the latents holds NaN or infinity", where=str(file), hint=hint)
            if top is not None and (values.max() >= top or values.min() < 0):
                wrong = int(values.max() if values.max() >= top else values.min())
                what = f"this part of the latents holds {wrong}, which is no code: the codebook has {top}"
                raise RobustokError(what, where=str(file), hint=hint)
        if content_fingerprint(file) != self._split["parts"][number]["hash"]:
            raise RobustokError("this part is not the one that latents.json names", where=str(file), hint=hint)

    def _read_labels(self) -> Tensor:
        file = self.folder / self._split["labels"]
        try:
            labels = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RobustokError(f"the labels of the latents cannot be read: {error}", where=str(file)) from error
        rows = sum(part["rows"] for part in self._split["parts"])
        if labels.shape != (rows,) or labels.dtype != np.int64:
            raise RobustokError(f"expected {rows} labels, found {labels.dtype} {labels.shape}", where=str(file))
        return torch.from_numpy(labels)

    def __getstate__(self) -> dict[str, Any]:
        # a data loader worker opens the files itself: a pickled memory map would carry its content
        return {name: value for name, value in vars(self).items() if name != "_parts"}
