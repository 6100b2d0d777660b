"""Prints what "auto" means on one of `world` processes, if only the first computes bfloat16: `RANK WORLD FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist

import robustok_core.runs.accelerator


def main(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/{world}", rank=rank, world_size=world)
    robustok_core.runs.accelerator.computes_bf16 = lambda device: rank == 0
    (folder / f"{rank}-of-{world}").write_text(robustok_core.runs.accelerator.auto_precision())
    dist.destroy_process_group()


main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
