"""Meets the other process, imports more of torch, and parts: `RANK WORLD FOLDER`. Names the threads that are left."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from robustok_core.runs.accelerator import own_device


def main(rank: int, world: int, folder: Path) -> None:
    local = {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "ACCELERATE_USE_CPU": "true", **local}
    torch.distributed.all_reduce(torch.ones(1, device=own_device()))
    importlib.import_module("torch._dynamo")  # as by a plugin that is imported late
    PartialState().destroy_process_group()
    threads = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    (folder / str(rank)).write_text("\n".join(threads))


if sys.argv[2] == "2":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
