"""One of `world` processes that make 6 shards of 4 rows: `shards_two_processes.py RANK WORLD FOLDER`.

Process 0 alone is asked to stop, in the middle of its second shard. Writes what happened to FOLDER/RANK-of-WORLD.txt.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console

from processes import connected
from robustok_core.errors import Interrupted
from robustok_toolkit.resumable_shards import cut, make_missing


def main(rank: int, world: int, folder: Path) -> None:
    context: Any = SimpleNamespace(
        checkpoints=folder / f"shards-of-{world}",
        manifests=True,
        stage="count",
        fingerprint="0",
        device=torch.device("cpu"),
        console=Console(quiet=True),
        say=lambda text: None,
    )
    context.checkpoints.mkdir(exist_ok=True)

    def make(shards, done):
        for number, shard in enumerate(shards):
            done(2)
            if rank == 0 and number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            done(2)
            yield {"rows": np.arange(shard.first, shard.stop)}

    try:
        make_missing(context, cut("rows", 24, 4), ["rows"], make)
    except Interrupted as error:
        (folder / f"{rank}-of-{world}.txt").write_text(error.what)


if __name__ == "__main__":
    connected(main)
