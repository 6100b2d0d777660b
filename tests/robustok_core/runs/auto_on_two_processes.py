"""Prints what "auto" means on one of `world` processes, if only the first computes bfloat16: `RANK WORLD FOLDER`."""

from __future__ import annotations

from pathlib import Path

import robustok_core.runs.accelerator
from processes import connected


def main(rank: int, world: int, folder: Path) -> None:
    robustok_core.runs.accelerator.computes_bf16 = lambda device: rank == 0
    (folder / f"{rank}-of-{world}").write_text(robustok_core.runs.accelerator.auto_precision())


connected(main)
