"""Two processes look for a decoder that only the first sees yet: `RANK WORLD FOLDER`.

Each writes whether it takes the decoder for trained to FOLDER/RANK-of-WORLD.pt.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from processes import connected
from robustok_core.runs.components import COMPONENT_FILE
from robustok_stages.post_training.post_train import PostTrain, PostTrainConfig


def main(rank: int, world: int, folder: Path) -> None:
    done = folder / "sigma-trained"
    if rank == 0:
        done.mkdir(exist_ok=True)
        (done / COMPONENT_FILE).write_text("{}")
    else:
        real = Path.is_file
        Path.is_file = lambda path: path.parent != done and real(path)
    context = SimpleNamespace(manifests=False)
    stage = PostTrain(PostTrainConfig(epochs=1, batch_size=2, losses={"l2": None}))
    torch.save(stage._is_trained(context, done), folder / f"{rank}-of-{world}.pt")


connected(main)
