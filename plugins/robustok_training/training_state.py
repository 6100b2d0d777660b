"""What checkpoints of a training hold: weights, their running average, optimisers' states, an unfinished log line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from torch import Tensor, nn

from robustok_core.runs.weights import part, prefixed
from robustok_training.checkpoint import load_checkpoint, save_checkpoint
from robustok_training.interval_means import IntervalMeans
from robustok_training.learned_state import learned_state, load_learned
from robustok_training.prepared_module import PreparedModule


@frozen(kw_only=True, eq=False)
class TrainingState:
    """The state that a training changes.

    Attributes:
        folder: of the checkpoints. modules: whose weights and buffers are saved, by name.
        prepared: the trained ones, by name. means: since the last line of the log.
        scaler: of gradients in fp16, or None.
    """

    folder: Path
    modules: Mapping[str, nn.Module]
    prepared: Mapping[str, PreparedModule]
    means: IntervalMeans
    scaler: Any

    def save(self, done: int, sums: Mapping[str, Tensor]) -> None:
        """Writes the checkpoint after `done` steps; every process must call it.

        Args:
            sums: from `IntervalMeans.sums`.
        """
        tensors = prefixed(sums, "means/")
        for name, module in self.modules.items():
            tensors |= prefixed(learned_state(module), f"module/{name}/")
        for name, prepared in self.prepared.items():
            tensors |= prefixed(prepared.optimizer_state(), f"optimizer/{name}/")
        values = {"scaler": self.scaler.state_dict() if self.scaler is not None else None}
        save_checkpoint(self.folder, done, tensors, values)

    def load(self) -> dict[str, Any] | None:
        """Loads the newest checkpoint; returns its values, with "step", or None if there is none."""
        checkpoint = load_checkpoint(self.folder)
        if checkpoint is None:
            return None
        tensors, values = checkpoint
        for name, module in self.modules.items():
            load_learned(module, part(tensors, f"module/{name}/"), str(self.folder))
        for name, prepared in self.prepared.items():
            prepared.load_optimizer_state(part(tensors, f"optimizer/{name}/"))
        if self.scaler is not None and values["scaler"] is not None:
            self.scaler.load_state_dict(values["scaler"])
        self.means.go_on(part(tensors, "means/"))
        return values
