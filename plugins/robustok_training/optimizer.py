"""Optimisers and learning-rate schedules; the learning rate is a function of the step alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Literal

import torch
from attrs import field, frozen, validators
from torch import nn

from robustok_core.recipe.validators import unit_interval
from robustok_core.values.ignored import refuse_ignored

_positive = validators.gt(0.0)
_not_negative = validators.ge(0.0)


@frozen(kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule. Learning rates are used as given; they are not scaled by the batch size."""

    learning_rate: float = field(
        default=1e-4, validator=_positive, metadata={"doc": "peak learning rate; not scaled by the batch size"}
    )
    final_learning_rate: float = field(
        default=0.0, validator=_not_negative, metadata={"doc": "learning rate at the end of the cosine"}
    )
    schedule: Literal["cosine", "constant"] = field(default="cosine", metadata={"doc": "schedule after the warm-up"})
    warmup: float = field(default=0.0, validator=unit_interval, metadata={"doc": "share of the training that warms up"})
    warmup_learning_rate: float = field(
        default=0.0, validator=_not_negative, metadata={"doc": "learning rate at the first step of the warm-up"}
    )
    betas: tuple[float, float] = field(default=(0.9, 0.95), metadata={"doc": "AdamW's betas"})
    eps: float = field(default=1e-8, validator=_positive, metadata={"doc": "AdamW's epsilon"})
    weight_decay: float = field(
        default=0.0, validator=_not_negative, metadata={"doc": "weight decay of parameters with two or more dimensions"}
    )
    clip: float = field(
        default=0.0, validator=_not_negative, metadata={"doc": "maximum gradient norm; 0 for no clipping"}
    )

    def __attrs_post_init__(self) -> None:
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), found {self.betas}")
        decays = self.schedule == "cosine" and self.warmup < 1.0
        refuse_ignored(
            self, "final_learning_rate", unless=decays, needs='schedule = "cosine" and a warmup of less than 1'
        )
        refuse_ignored(self, "warmup_learning_rate", unless=self.warmup > 0.0, needs="a warmup above 0")

    def rate_at(self, progress: float) -> float:
        """The learning rate after a share `progress` in [0, 1] of the training.

        Step k of n, counted from 0, uses the rate at k / n: with a warm-up, the first step uses
        `warmup_learning_rate`, and no step uses the rate at 1.
        """
        if progress < self.warmup:
            return self.warmup_learning_rate + (self.learning_rate - self.warmup_learning_rate) * progress / self.warmup
        if self.schedule == "constant" or self.warmup >= 1.0:
            return self.learning_rate
        done = min((progress - self.warmup) / (1.0 - self.warmup), 1.0)
        left = 0.5 * (1.0 + math.cos(math.pi * done))
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * left

    def learns(self, steps: int) -> bool:
        """Whether any of `steps` steps has a learning rate above 0; a warm-up may start at 0."""
        return any(self.rate_at(step / steps) > 0.0 for step in range(steps))

    def build(self, parameters: Mapping[str, nn.Parameter], not_decayed: Collection[str] = ()) -> torch.optim.AdamW:
        """AdamW over named parameters; vectors, scalars (biases, norms) and those in `not_decayed` are not decayed."""
        decayed = {name for name, p in parameters.items() if p.ndim >= 2 and name not in not_decayed}
        groups = [
            {
                "params": [p for name, p in parameters.items() if (name in decayed) == decays and type(p) is kind],
                "weight_decay": self.weight_decay if decays else 0.0,
            }
            for decays in (True, False)
            for kind in dict.fromkeys(map(type, parameters.values()))  # sharded and whole ones do not mix
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.eps,
            fused=True,
        )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
