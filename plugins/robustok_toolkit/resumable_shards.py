"""Work over many images, cut into parts that stay when a run is killed and that processes share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from robustok_core.errors import Interrupted
from robustok_core.kinds.stage import StageContext
from robustok_core.runs.files import new_file
from robustok_training.distributed import barrier, rank, world_size
from robustok_training.interrupt import StopRequest, stop_requests
from robustok_training.progress import StepProgress


@frozen
class Shard:
    """The rows `first` ... `stop` - 1 of something; its files are called `stem` and a suffix."""

    of: str
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first

    @property
    def stem(self) -> str:
        """A name that holds the rows: parts of another size are other files."""
        return f"{self.of}-{self.first:09d}-{self.stop:09d}"


def cut(of: str, count: int, size: int) -> list[Shard]:
    """Parts of `size` rows, the last one shorter, that make up `count` rows."""
    return [Shard(of, first, min(first + size, count)) for first in range(0, count, size)]


def whole_batches(part_size: int, batch_size: int) -> int:
    """`part_size`, rounded up to a multiple of `batch_size`: no batch lies across two parts."""
    return math.ceil(part_size / batch_size) * batch_size


#: What makes parts: yields for each part, in order, its arrays by name, and tells how many images it has done.
Make = Callable[[Sequence[Shard], Callable[[int], None]], Iterator[Mapping[str, NDArray[Any]]]]


def make_missing(context: StageContext, parts: Sequence[Shard], names: Sequence[str], make: Make) -> None:
    """Makes the parts that are not in `context.checkpoints` yet, each process every n-th of them.

    Array `name` of a part is the file `STEM.NAME.npy`; those of one part are written in the order of
    `names`, and the part is there when the last of them is.

    Raises:
        Interrupted: after a part, where the user asked to stop.
    """
    folder = context.checkpoints
    missing = [part for part in parts if not shard_file(folder, part, names[-1]).exists()]
    barrier()  # every process must have looked before one of them writes
    if len(missing) < len(parts):
        context.say(
            f"{context.stage} ({context.fingerprint}): {len(parts) - len(missing)} of {len(parts)} parts are there"
        )
    mine = missing[rank() :: world_size()]
    rounds = math.ceil(len(missing) / world_size())
    total = sum(map(len, parts))
    done = _Done(StepProgress(context.console, context.stage, total, total - sum(map(len, missing))), missing, total)
    made = make(mine, done)
    with stop_requests() as stop, done.progress:
        for number in range(rounds):
            if number < len(mine):
                arrays = next(made)
                for name in names:
                    write_array(shard_file(folder, mine[number], name), arrays[name])
            _maybe_stop(context, stop, number + 1, rounds)
    barrier()


class _Done:
    """Counts the images that all processes have done, as far as this one knows."""

    def __init__(self, progress: StepProgress, missing: Sequence[Shard], total: int) -> None:
        self.progress = progress
        self._done, self._total = total - sum(map(len, missing)), total

    def __call__(self, images: int) -> None:
        self._done = min(self._done + images * world_size(), self._total)
        self.progress.update(self._done, {"images": self._done})


def _maybe_stop(context: StageContext, stop: StopRequest, done: int, rounds: int) -> None:
    if stop.anywhere(context.device) and done < rounds:
        barrier()
        raise Interrupted(
            f"stopped after {done} of {rounds} rounds of parts, which are kept", hint="run the same command to go on"
        )


def shard_file(folder: Path, part: Shard, name: str) -> Path:
    """The file of a part's array."""
    return folder / f"{part.stem}.{name}.npy"


def write_array(file: Path, array: NDArray[Any]) -> None:
    """Writes a .npy file in one piece."""
    with new_file(file) as aside, aside.open("wb") as opened:
        np.save(opened, array, allow_pickle=False)
