"""How long a training runs, in what portions, and what is kept of it."""

from __future__ import annotations

from attrs import field, frozen, validators

_at_least_one = validators.ge(1)


@frozen(kw_only=True)
class TrainingConfig:
    """How long, in what portions, and what is kept."""

    epochs: float = field(validator=validators.gt(0), metadata={"doc": "passes over the training images"})
    batch_size: int = field(validator=_at_least_one, metadata={"doc": "images a step, over all processes"})
    accumulation: int = field(
        default=1, validator=_at_least_one, metadata={"doc": "micro-batches that a process takes one after another"}
    )
    ema_decay: float = field(
        default=0.0,
        validator=[validators.ge(0.0), validators.lt(1.0)],
        metadata={"doc": "decay of the running average of the weights, which is what is kept; 0 keeps the last ones"},
    )
    log_every: int = field(
        default=20, validator=_at_least_one, metadata={"doc": "steps between lines of metrics.jsonl", "result": False}
    )
    checkpoint_every: int = field(
        default=0,
        validator=validators.ge(0),
        metadata={"doc": "steps between checkpoints, 0 for one each epoch", "result": False},
    )
    workers: int = field(
        default=0, validator=validators.ge(0), metadata={"doc": "processes that load images", "result": False}
    )

    def steps(self, epoch_steps: int) -> int:
        """Optimiser steps of the whole training, at least 1, where an epoch has `epoch_steps`."""
        return max(1, round(self.epochs * epoch_steps))
