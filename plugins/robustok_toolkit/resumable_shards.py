"""Work over many images, cut into shards that processes share and that survive a killed run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray

from robustok_core.errors import Interrupted
from robustok_core.kinds.stage import StageContext
from robustok_core.runs.files import new_file
from robustok_core.runs.interrupt import StopRequest
from robustok_core.runs.manifest import damage_of, set_aside, write_manifest
from robustok_training.distributed import all_sum, barrier, communication_device, rank, world_size
from robustok_training.interrupt import asked_anywhere, stop_requests
from robustok_training.progress import StepProgress


@frozen
class Shard:
    """The rows `first` ... `stop` - 1 of a set named `of`; its file names are `stem` plus a suffix."""

    of: str
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first

    @property
    def stem(self) -> str:
        """A name that includes the rows, so shards of different sizes have different files."""
        return f"{self.of}-{self.first:09d}-{self.stop:09d}"


def cut(of: str, count: int, size: int) -> list[Shard]:
    """Cuts `count` rows into shards of `size` rows; the last may be smaller."""
    return [Shard(of, first, min(first + size, count)) for first in range(0, count, size)]


def whole_batches(part_size: int, batch_size: int) -> int:
    """`part_size`, rounded up to a multiple of `batch_size`, so that no batch spans two shards."""
    return math.ceil(part_size / batch_size) * batch_size


_GO_ON = "run the same command to go on"

#: Yields the arrays of each shard by name, in order, and reports how many images it has processed.
Make = Callable[[Sequence[Shard], Callable[[int], None]], Iterator[Mapping[str, NDArray[Any]]]]


def make_missing(context: StageContext, parts: Sequence[Shard], names: Sequence[str], make: Make) -> None:
    """Makes the shards that are missing from `context.checkpoints`; of n processes, each makes every n-th one.

    Array `name` of a shard is the file `STEM.NAME.npy`. The arrays of a shard are written in the order of `names`, and
    then the manifest `STEM.manifest.json`, with which the shard is complete; in a folder that an earlier version wrote
    to, it is once the last array exists. A shard whose arrays are not as the manifest says is made again.

    Raises:
        Interrupted: the user asked to stop. All processes stop at the end of the same round of shards, in which one
            that was asked leaves its shard after a batch. The finished shards are kept.
    """
    folder = context.checkpoints
    missing = _missing(context, parts, names)  # on all processes, before one of them writes
    if len(missing) < len(parts):
        context.say(
            f"{context.stage} ({context.fingerprint}): {len(parts) - len(missing)} of {len(parts)} shards exist already"
        )
    mine = missing[rank() :: world_size()]
    rounds = math.ceil(len(missing) / world_size())
    total = sum(map(len, parts))
    done = _Done(StepProgress(context.console, context.stage, total, total - sum(map(len, missing))), missing, total)
    with stop_requests() as stop, done.progress:
        done.stop = stop
        results = make(mine, done)
        for number in range(rounds):
            if number < len(mine):
                try:
                    arrays = next(results)
                except _ShardLeft:
                    pass  # stop.asked, which all processes learn now
                else:
                    _write(folder, mine[number], {name: arrays[name] for name in names})
            _maybe_stop(context, stop, number + 1, rounds)
    barrier()


def _write(folder: Path, shard: Shard, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        write_array(shard_file(folder, shard, name), array)
    write_manifest(_manifest(folder, shard), [shard_file(folder, shard, name) for name in arrays])


def _missing(context: StageContext, parts: Sequence[Shard], names: Sequence[str]) -> list[Shard]:
    """The shards that do not exist or are damaged; the main process looks, since only it can say what it finds."""
    absent = torch.zeros(len(parts), device=communication_device())
    for number in range(len(parts)) if rank() == 0 else ():
        absent[number] = float(_must_be_made(context, parts[number], names))
    return [shard for shard, gone in zip(parts, all_sum(absent).tolist(), strict=True) if gone]


def _must_be_made(context: StageContext, shard: Shard, names: Sequence[str]) -> bool:
    """Whether a shard does not exist or is damaged; what is damaged is set aside."""
    folder = context.checkpoints
    files, manifest = [shard_file(folder, shard, name) for name in names], _manifest(folder, shard)
    if not os.path.lexists(manifest if context.manifests else files[-1]):
        return True
    return is_damaged(files, manifest, context.say)


def is_damaged(files: Sequence[Path], manifest: Path, say: Callable[[str], None]) -> bool:
    """Whether a shard's files are not as its manifest says; if so, this is said, and they are set aside."""
    damage = damage_of(manifest)
    if damage is None:
        return not all(file.is_file() for file in files)
    say(f"{damage}; this shard is made again, and what was there is set aside")
    for file in (*files, manifest):
        if os.path.lexists(file):
            set_aside(file)
    return True


def _manifest(folder: Path, shard: Shard) -> Path:
    return folder / f"{shard.stem}.manifest.json"


class _ShardLeft(Interrupted):
    """This process was asked to stop in the middle of a shard."""


class _Done:
    """Estimates how many images all processes have done, from what this one has done."""

    def __init__(self, progress: StepProgress, missing: Sequence[Shard], total: int) -> None:
        self.progress = progress
        self._done, self._total = total - sum(map(len, missing)), total
        self.stop: StopRequest | None = None

    def __call__(self, images: int) -> None:
        if self.stop is not None and self.stop.asked:
            raise _ShardLeft("stopped; the finished shards are saved", hint=_GO_ON)
        self._done = min(self._done + images * world_size(), self._total)
        self.progress.update(self._done, {"images": self._done})


def _maybe_stop(context: StageContext, stop: StopRequest, done: int, rounds: int) -> None:
    if asked_anywhere(stop, context.device):
        barrier()
        what = f"stopped in round {done} of {rounds} of the shards; the finished shards are saved"
        raise Interrupted(what, hint=_GO_ON)


def shard_file(folder: Path, part: Shard, name: str) -> Path:
    """The file of an array of a shard."""
    return folder / f"{part.stem}.{name}.npy"


def write_array(file: Path, array: NDArray[Any]) -> None:
    """Writes a .npy file atomically."""
    with new_file(file) as aside, aside.open("wb") as opened:
        np.save(opened, array, allow_pickle=False)
