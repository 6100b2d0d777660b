"""The discriminators that main training leaves beside the tokenizer, for post-training to go on with.

`opponents.safetensors` holds of the loss NAME `module/NAME/...`, the weights of its opponent, and
`optimizer/NAME/...`, the state of the opponent's optimiser. An artifact without opponents has no such file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from robustok_core.kinds.loss import Opponent
from robustok_core.runs.files import read_tensors, write_tensors
from robustok_core.runs.weights import part, prefixed
from robustok_core.values.spec import Spec
from robustok_training import Trainer
from robustok_training.learned_state import learned_state, load_learned

OPPONENTS_FILE = "opponents.safetensors"


def losses_with_opponent(losses: Mapping[str, Spec]) -> list[str]:
    """The names of the losses that something is trained against."""
    with torch.device("meta"):
        return [name for name, spec in losses.items() if spec.build().opponent is not None]


def opponent_name(loss: str) -> str:
    """What the opponent of a loss is called among the trained modules: in logs and checkpoints."""
    return f"{loss}_opponent"


def has_opponents(folder: Path) -> bool:
    """Whether a tokenizer's artifact comes with opponents."""
    return (folder / OPPONENTS_FILE).is_file()


def save_opponents(folder: Path, opponents: Mapping[str, Opponent], trainer: Trainer) -> None:
    """Writes opponents, by the name of their loss, and their optimiser states; no file where there are none."""
    tensors: dict[str, Tensor] = {}
    for loss, opponent in opponents.items():
        tensors |= prefixed(learned_state(opponent), f"module/{loss}/")
        tensors |= prefixed(trainer.optimizer_state(opponent_name(loss)), f"optimizer/{loss}/")
    if tensors:
        write_tensors(folder / OPPONENTS_FILE, tensors)


def saved_opponents(folder: Path) -> list[str]:
    """The names of the losses whose opponents `save_opponents` wrote."""
    return sorted({key.split("/")[1] for key in read_tensors(folder / OPPONENTS_FILE)})


def adopt_opponents(folder: Path, opponents: Mapping[str, Opponent], trainer: Trainer) -> None:
    """Puts what `save_opponents` wrote, of the same losses, in place of new weights and optimiser states.

    Args:
        folder: of the tokenizer's artifact, which holds them all (`saved_opponents`).
        opponents: by the name of their loss. trainer: has their optimisers.

    Raises:
        RunError: the weights of an opponent do not fit.
    """
    file = folder / OPPONENTS_FILE
    held = read_tensors(file)
    for loss, opponent in opponents.items():
        load_learned(opponent, part(held, f"module/{loss}/"), str(file))
        trainer.adopt_optimizer_state(opponent_name(loss), part(held, f"optimizer/{loss}/"))
