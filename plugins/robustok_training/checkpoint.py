"""Checkpoints, from which training resumes bit for bit: weights, buffers, optimiser states, counters.

A checkpoint is a folder with one safetensors file, one JSON file and a manifest of both. Where weights are divided
among processes, each process writes its rows into a file of its own beside them. Any number of processes reads either.
A checkpoint needs no random state, because every draw is a function of the step (`robustok_core.values.draws`). The
last two are kept: where the newest is damaged, training resumes from the one before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustok_core.errors import RunError
from robustok_core.runs.files import (
    aside,
    read_json,
    read_rows,
    read_tensors,
    remove_folder,
    tensor_shapes,
    write_json,
    write_tensors,
)
from robustok_core.runs.main_process import from_main
from robustok_core.runs.manifest import Damage, folder_damage, recorded_folder, set_aside
from robustok_training.channels_last import laid_out_as
from robustok_training.distributed import barrier, rank, world_size
from robustok_training.sharding import is_sharded_run, of_own_rows, own_rows, separated

_NAME = re.compile(r"step-(\d+)")
_TENSORS, _VALUES = "state.safetensors", "state.json"
#: How many checkpoints of a training are kept.
KEPT = 2


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Path:
    """Writes the checkpoint of a step into `folder` and removes older ones, except the one before.

    Every process must call it: the main one writes what all have, and each writes its rows of sharded tensors.
    """
    target = folder / f"step-{step:09d}"
    of_all, own = separated(tensors)
    if rank() == 0:
        with recorded_folder(target) as unfinished:
            write_tensors(unfinished / _TENSORS, of_all)
            write_json(unfinished / _VALUES, {"step": step, "processes": world_size(), "sharded": bool(own), **values})
            _write_shards(unfinished, own)
        for old in checkpoints(folder)[:-KEPT]:
            remove_folder(old)
    else:
        _write_shards(aside(target), own)
    barrier()  # a launcher kills the others when one process exits: wait until the checkpoint is complete
    return target


def _write_shards(folder: Path, own: Mapping[str, Tensor]) -> None:
    if own:
        barrier()  # the main process has made the folder
        write_tensors(folder / _shard_name(rank(), world_size()), own)
        barrier()


def _shard_name(number: int, count: int) -> str:
    return f"shard-{number:05d}-of-{count:05d}.safetensors"


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors and the values (with "step") of the newest checkpoint in `folder`; None if there is none.

    Every process must call it: the main one says which is the newest. Tensors that were saved sharded are sharded if
    this run divides weights, and whole otherwise.
    """
    path = from_main(lambda: next(reversed(checkpoints(folder)), None))
    if path is None:
        return None
    values = read_json(path / _VALUES)
    return {**read_tensors(path / _TENSORS), **_read_shards(_shard_files(path, values))}, values


def of_other_processes(values: Mapping[str, Any]) -> str | None:
    """What to say of a checkpoint that another number of processes wrote."""
    before = values.get("processes", world_size())
    if before == world_size():
        return None
    same = "the same images in the same order; losses equal up to rounding, and dropout draws other numbers"
    return f"saved by {before} process{'es' * (before != 1)}, goes on with {world_size()}: {same}"


def _read_shards(files: Sequence[Path]) -> dict[str, Tensor]:
    """A process that holds rows of sharded weights reads only these, whoever wrote them; any other reads all."""
    divided = is_sharded_run()
    counts = [{name: shape[0] for name, shape in tensor_shapes(file).items()} for file in files]
    totals = {name: sum(count[name] for count in counts) for name in (counts[0] if counts else ())}
    wanted = {name: own_rows(total) if divided else range(total) for name, total in totals.items()}
    before, parts = dict.fromkeys(totals, 0), []
    for file, count in zip(files, counts, strict=True):
        parts.append(read_rows(file, {name: _within(wanted[name], before[name], count[name]) for name in totals}))
        before = {name: before[name] + count[name] for name in totals}
    read = {name: torch.cat([part[name] for part in parts]) for name in totals}
    if not divided:
        return read
    return {name: of_own_rows(rows, (totals[name], *rows.shape[1:])) for name, rows in read.items()}


def _within(rows: range, first: int, count: int) -> slice:
    """Those of the rows that are among `count` rows from `first` on, numbered from there."""
    start, stop = (min(max(end - first, 0), count) for end in (rows.start, rows.stop))
    return slice(start, stop)


def _shard_files(checkpoint: Path, values: Any) -> list[Path]:
    if not isinstance(values, dict) or not values.get("sharded"):
        return []
    count = values.get("processes")
    if not isinstance(count, int) or not (checkpoint / _shard_name(count - 1, count)).is_file():
        raise RunError("it does not say how many processes wrote the checkpoint", where=str(checkpoint / _VALUES))
    return [checkpoint / _shard_name(number, count) for number in range(count)]


def set_damaged_aside(folder: Path, *, recorded: bool) -> list[str]:
    """Renames the newest checkpoints in `folder` that are damaged; returns what was wrong, a line for each.

    `recorded`: whether each was written with a manifest, see `StageContext.manifests`.
    """
    lines: list[str] = []
    while (paths := checkpoints(folder)) and (damage := _damage(paths[-1], recorded)):
        kept = set_aside(paths[-1])
        before = f"the one before, {paths[-2].name}, is used" if len(paths) > 1 else "training starts again"
        lines.append(f"{damage}; this checkpoint is set aside as {kept.name}, and {before}")
    return lines


def _damage(checkpoint: Path, recorded: bool) -> Damage | None:
    missing = [checkpoint / name for name in (_TENSORS, _VALUES) if not (checkpoint / name).is_file()]
    return Damage(missing[0], "it is missing") if missing else folder_damage(checkpoint, recorded=recorded)


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """An optimiser's state by parameter name: "exp_avg/decoder.weight"."""
    state = optimizer.state_dict()["state"]
    return {
        f"{key}/{names[index]}": torch.as_tensor(value)
        for index, entries in state.items()
        for key, value in entries.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Loads what `optimizer_tensors` returned, for the same parameters in the same order.

    Raises:
        RunError: if the state is for an unknown parameter.
    """
    state: dict[int, dict[str, Tensor]] = {}
    index_of = {name: index for index, name in enumerate(names)}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in tensors.items():
        state_key, _, name = key.partition("/")
        if name not in index_of:
            raise RunError(f"the checkpoint holds optimiser state for an unknown parameter {name!r}")
        index = index_of[name]
        state.setdefault(index, {})[state_key] = _copy(value, parameters[index])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _copy(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy of an optimiser state, whose memory torch would share; sharded ones lie in memory as they should."""
    per_number = type(value) is Tensor and value.shape == parameter.shape
    return laid_out_as(parameter, value) if per_number else value.clone()
