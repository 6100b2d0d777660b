"""The discriminators that a training saves with the tokenizer, for reuse in post-training.

For each loss NAME, `opponents.safetensors` holds the weights of its opponent (`module/NAME/...`) and the state of the
opponent's optimiser (`optimizer/NAME/...`). An artifact without opponents has no such file. Importers of published
tokenizers write the same, where a file holds a discriminator.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from robustok_core.errors import RunError
from robustok_core.kinds.loss import Opponent
from robustok_core.runs.components import OPPONENTS_FILE
from robustok_core.runs.files import read_tensors, write_tensors
from robustok_core.runs.weights import misfit, part, prefixed
from robustok_core.values.spec import Spec
from robustok_training import Trainer
from robustok_training.learned_state import learned_state, load_learned


def losses_with_opponent(losses: Mapping[str, Spec]) -> list[str]:
    """The names of the losses that have an opponent."""
    return [name for name, spec in losses.items() if spec.sketch().opponent is not None]


def opponent_name(loss: str) -> str:
    """The name of a loss's opponent as a trained module, in logs and checkpoints."""
    return f"{loss}_opponent"


def has_opponents(folder: Path) -> bool:
    """Whether a tokenizer's artifact has opponents."""
    return (folder / OPPONENTS_FILE).is_file()


def save_opponents(folder: Path, opponents: Mapping[str, Opponent], trainer: Trainer) -> None:
    """Writes opponents, by the name of their loss, and their optimiser states; no file if there are none."""
    tensors: dict[str, Tensor] = {}
    for loss, opponent in opponents.items():
        tensors |= prefixed(learned_state(opponent), f"module/{loss}/")
        tensors |= prefixed(trainer.optimizer_state(opponent_name(loss)), f"optimizer/{loss}/")
    if tensors:
        write_tensors(folder / OPPONENTS_FILE, tensors)


def saved_opponents(folder: Path) -> list[str]:
    """The names of the losses whose opponents `save_opponents` wrote."""
    return sorted({key.split("/")[1] for key in read_tensors(folder / OPPONENTS_FILE) if "/" in key})


def opponent_tensors(folder: Path) -> dict[str, Tensor]:
    """What `save_opponents` wrote to a tokenizer's artifact; nothing if there is no such file."""
    return read_tensors(folder / OPPONENTS_FILE) if has_opponents(folder) else {}


def opponent_misfit(loss: Spec, name: str, tensors: Mapping[str, Tensor]) -> str:
    """Names weights of a loss's opponent that do not fit those in `tensors`; "" if they fit or there are none.

    Args:
        loss: the loss. name: its name. tensors: as `save_opponents` writes them.
    """
    held, opponent = part(tensors, f"module/{name}/"), loss.sketch().opponent
    return misfit(learned_state(opponent), held) if held else ""


def adopt_opponents(folder: Path, opponents: Mapping[str, Opponent], trainer: Trainer) -> None:
    """Loads the weights and optimiser states that `save_opponents` wrote into the opponents of the same losses.

    Args:
        folder: the tokenizer's artifact.
        opponents: by the name of their loss. trainer: has their optimisers.

    Raises:
        RunError: if the artifact does not hold all these opponents, or the weights of one do not fit.
    """
    file = folder / OPPONENTS_FILE
    held = saved_opponents(folder) if has_opponents(folder) else []
    if missing := [loss for loss in opponents if loss not in held]:
        what = f"there is no discriminator for {', '.join(missing)}"
        hint = 'train it again with such a loss, or set discriminator = "fresh" in the stage that reuses it'
        raise RunError(what, where=str(folder), hint=hint)
    tensors = read_tensors(file)
    for loss, opponent in opponents.items():
        load_learned(opponent, part(tensors, f"module/{loss}/"), str(file))
        trainer.adopt_optimizer_state(opponent_name(loss), part(tensors, f"optimizer/{loss}/"))
