"""Two processes resume, of which only the first sees the newest checkpoint yet: `RANK WORLD FOLDER`.

Each writes the step that it goes on from to FOLDER/RANK-of-WORLD.pt.
"""

from __future__ import annotations

from pathlib import Path

import torch

from processes import connected
from robustok_training.checkpoint import load_checkpoint, save_checkpoint


def main(rank: int, world: int, folder: Path) -> None:
    own, real = folder / f"of-{world}", Path.iterdir
    for step in (4, 8):
        save_checkpoint(own, step, {"step": torch.tensor(step)}, {})
    if rank > 0:
        Path.iterdir = lambda path: (found for found in real(path) if found.name != "step-000000008")
    tensors, values = load_checkpoint(own)
    torch.save([int(tensors["step"]), values["step"]], folder / f"{rank}-of-{world}.pt")


connected(main)
