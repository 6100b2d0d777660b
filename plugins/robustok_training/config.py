"""Options of every training: its length, its batches, and how often it logs and saves."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import field, frozen, validators

from robustok_core.recipe.validators import epochs_range, workers_range
from robustok_core.values.speed import Speed, Switch

_at_least_one = validators.ge(1)


@frozen(kw_only=True)
class TrainingConfig:
    """Options that every training has."""

    epochs: float = field(
        validator=epochs_range,
        metadata={"doc": "passes over the training images"},
    )
    batch_size: int = field(validator=_at_least_one, metadata={"doc": "images per step, over all processes"})
    accumulation: int = field(
        default=1, validator=_at_least_one, metadata={"doc": "micro-batches per step on each process"}
    )
    ema_decay: float = field(
        default=0.0,
        validator=[validators.ge(0.0), validators.lt(1.0)],
        metadata={"doc": "decay of the running average of the weights, which is saved; 0 saves the last weights"},
    )
    log_every: int = field(
        default=20, validator=_at_least_one, metadata={"doc": "steps between lines of metrics.jsonl", "result": False}
    )
    checkpoint_every: int = field(
        default=0,
        validator=validators.ge(0),
        metadata={"doc": "steps between checkpoints; 0 for one per epoch", "result": False},
    )
    workers: int = field(
        default=0, validator=workers_range, metadata={"doc": "processes that load images", "result": False}
    )

    compile: Switch | None = field(
        default=None,
        metadata={"doc": "torch.compile for this stage's training; left out: run.compile", "result": False},
    )
    activation_checkpointing: bool | None = field(
        default=None,
        metadata={
            "doc": "whether blocks are computed again in the backward pass; left out: run.activation_checkpointing",
            "result": False,
        },
    )

    def steps(self, epoch_steps: int) -> int:
        """Optimiser steps of the whole training, at least 1, for `epoch_steps` steps per epoch."""
        return max(1, round(self.epochs * epoch_steps))

    def share_of_first(self, steps: int) -> float:
        """The share of the first step's weights in what a training of so many steps keeps; 0 if it is the only one."""
        return self.ema_decay ** (steps - 1) if steps > 1 else 0.0

    def speed(self, of_run: Speed) -> Speed:
        """How fast this training computes, given what [run] says."""
        own: dict[str, Any] = {"compile": self.compile, "activation_checkpointing": self.activation_checkpointing}
        return attrs.evolve(of_run, **{name: value for name, value in own.items() if value is not None})
