"""The state that training changes: a module's state dict without its frozen networks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from robustok_core.kinds.features import Features
from robustok_core.runs.weights import check_weights
from robustok_training.sharding import own_part


def learned_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's state dict without its frozen feature networks, which load their own weights."""
    frozen_parts = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, Features))
    return {name: value for name, value in module.state_dict().items() if not name.startswith(frozen_parts or ("\0",))}


def load_learned(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Loads what `learned_state` returned.

    Raises:
        RunError: located at `where`, naming a few keys that are missing, unexpected or have a wrong shape.
    """
    learned = learned_state(module)
    state = module.state_dict()
    all_tensors = {**{name: value for name, value in state.items() if name not in learned}, **tensors}
    check_weights(module, all_tensors, where)
    module.load_state_dict({name: own_part(tensor, state[name]) for name, tensor in all_tensors.items()})
