"""The processes, devices and precision of a run."""

from __future__ import annotations

import importlib
import os
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    GradientAccumulationPlugin,
    TorchDynamoPlugin,
    is_torch_version,
    parse_flag_from_env,
    patch_environment,
)

from robustok_core.errors import RobustokError, RunError
from robustok_core.recipe.recipe import ResolvedRecipe
from robustok_core.runs.devices import device_called
from robustok_core.runs.environment import check_arithmetic, check_launch, check_precision, shards_weights
from robustok_core.runs.peers import stop_watching, watch_peers
from robustok_core.runs.precision import computes_bf16
from robustok_core.runs.trackers import check_trackers
from robustok_core.values.wording import reason_of

#: How long processes wait for one that downloads, or compares the files of finished stages with their hashes. A process
#: that has died is noticed at once all the same, by its closed connection or by the launcher.
_LONGEST_WAIT = timedelta(hours=6)


def own_device() -> torch.device:
    """The device of this process; on the first call, the processes connect to each other.

    Raises:
        RobustokError: if the environment asks for what a run does not honour.
        RunError: if the processes cannot connect.
    """
    check_launch()
    check_arithmetic()
    if "ACCELERATE_TORCH_DEVICE" in os.environ:
        device_called(os.environ["ACCELERATE_TORCH_DEVICE"], where="ACCELERATE_TORCH_DEVICE")
    if dist.is_available():
        # Its functions have the group of all processes as a default. Imported after the processes have connected, they
        # keep that group for ever, and a thread of gloo that frees a tensor while Python ends aborts the process.
        importlib.import_module("torch.distributed.nn.functional")
    try:
        return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_LONGEST_WAIT).device
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        hint = "start several processes with `accelerate launch`; for one process, unset RANK, LOCAL_RANK, WORLD_SIZE"
        raise RunError(f"the processes of this run cannot be set up: {reason_of(error)}", hint=hint) from error


def auto_precision() -> Literal["no", "bf16"]:
    """The value of precision "auto": bf16 if every process's device computes it natively, otherwise "no"."""
    device = own_device()
    native = torch.tensor(int(computes_bf16(device)), device=device)
    if dist.is_initialized():
        dist.all_reduce(native, dist.ReduceOp.MIN)
    return "bf16" if native.item() else "no"


def make_accelerator(recipe: ResolvedRecipe, folder: Path) -> Accelerator:
    """Creates the Accelerator of this run.

    Raises:
        RobustokError: if the device does not support the precision, or a tracker is not installed.
    """
    precision, device = recipe.run.precision, own_device()
    where = recipe.source.location(("run", "precision"))
    check_precision(precision, where=where)
    if precision == "fp16" and device.type != "cuda":
        hint = 'set precision = "no", or "bf16", which CPUs can do'
        raise RobustokError('run.precision: "fp16" needs a CUDA device, and there is none', where=where, hint=hint)
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise RobustokError(
            'run.precision: this CUDA device does not support "bf16"', where=where, hint='use "fp16" or "no"'
        )
    if shards_weights() and is_torch_version("<", "2.7.0"):
        raise RobustokError("FSDP needs torch 2.7 or newer", hint="install it, or launch without FSDP")
    if shards_weights() and precision == "fp16":
        hint = 'use "bf16" or "no", or launch without FSDP'
        raise RobustokError('run.precision: "fp16" is not supported with FSDP', where=where, hint=hint)
    check_trackers(recipe)
    # accelerate fixes the precision of the first recipe that a process runs, and refuses a different one.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    try:
        with patch_environment(accelerate_use_fsdp="false"):  # `robustok_training.sharding` does it, on CPUs too
            accelerator = Accelerator(
                mixed_precision=precision,
                log_with=list(recipe.run.trackers) or None,
                project_dir=str(folder) if recipe.run.trackers else None,
                # Without these, accelerate asks the environment.
                gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
                dynamo_plugin=TorchDynamoPlugin(backend="no"),
            )
    except ValueError as error:
        raise RobustokError(f"run.precision: {precision!r} is not available here: {error}", where=where) from error
    started = dist.get_world_size() if dist.is_initialized() else 1
    if accelerator.num_processes != started:
        what = f"{started} processes were started, but accelerate uses {accelerator.num_processes}"
        raise RobustokError(what, hint="on machines without a GPU set ACCELERATE_USE_CPU=true before the command")
    watch_peers()
    return accelerator


def part_ways(accelerator: Accelerator) -> None:
    """Called by every process when it needs the others no more: from then on, each may end when it is done."""
    accelerator.wait_for_everyone()
    stop_watching()
