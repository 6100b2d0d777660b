"""The first step whose loss was not finite: found without waiting for the device, and kept for a replay."""

from __future__ import annotations

from pathlib import Path

import attrs
import torch
import torch.distributed as dist
from attrs import frozen
from torch import Tensor

from robustok_core.errors import RobustokError
from robustok_core.kinds.stage import NOT_FINITE_FILE
from robustok_core.runs.files import write_json
from robustok_core.runs.records import read_record
from robustok_training.distributed import rank, world_size

_NEVER = torch.iinfo(torch.int64).max


@frozen(kw_only=True)
class NotFinite:
    """A step that became not finite.

    Attributes:
        what: the message of the run that stopped.
        step: its number, from 1. If only a gradient or weight was not finite, the step at which that was noticed.
        process, micro_batch: where the loss was not finite first, from 0; None if no loss was.
        images: the indices of that micro-batch's images in the training split, or of the images of the whole step.
        stage_seed, step_seed, torch_seed: the seeds of the stage, of the step's draws, and of torch's generator.
    """

    what: str
    step: int
    process: int | None
    micro_batch: int | None
    images: list[int]
    stage_seed: int
    step_seed: int
    torch_seed: int

    def write(self, folder: Path) -> Path:
        """Writes it into the folder of the stage's checkpoints; returns the file."""
        write_json(folder / NOT_FINITE_FILE, attrs.asdict(self))
        return folder / NOT_FINITE_FILE


def recorded(folder: Path) -> NotFinite | None:
    """What `NotFinite.write` wrote into a folder, if anything."""
    return read_record(NotFinite, folder / NOT_FINITE_FILE) if (folder / NOT_FINITE_FILE).is_file() else None


def forget(folder: Path, done: int) -> None:
    """Removes the record, or what is left of a damaged one, once the training has completed that step."""
    try:
        record = recorded(folder)
    except RobustokError:
        record = None
    if record is None or record.step <= done:
        (folder / NOT_FINITE_FILE).unlink(missing_ok=True)


class FirstNotFinite:
    """Sees the loss of each micro-batch; remembers the first that is not finite.

    Args:
        device: of the losses. micro_batches: per step on each process.
    """

    def __init__(self, device: torch.device, micro_batches: int) -> None:
        self._micro_batches = micro_batches
        self._first = torch.full((), _NEVER, dtype=torch.int64, device=device)

    def see(self, loss: Tensor, step: int, micro_batch: int) -> None:
        """Looks at a loss (scalar) of this process."""
        place = (step * world_size() + rank()) * self._micro_batches + micro_batch
        earlier = self._first.clamp(max=place)
        self._first = torch.where(loss.detach().isfinite(), self._first, earlier)

    def found(self) -> tuple[int, int, int] | None:
        """(step, process, micro-batch) over all processes, which must all call it; None if every loss was finite."""
        first = self._first.clone()
        if world_size() > 1:
            dist.all_reduce(first, dist.ReduceOp.MIN)
        if int(first) == _NEVER:
            return None
        place, micro_batch = divmod(int(first), self._micro_batches)
        return (*divmod(place, world_size()), micro_batch)
