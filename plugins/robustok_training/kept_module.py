"""The module that a training keeps: its last weights or their running average, whole or divided among processes."""

from __future__ import annotations

from torch import nn

from robustok_training.sharding import WholeCopy, is_sharded_run, shard
from robustok_training.weight_average import WeightAverage


def holds(module: nn.Module, kept: nn.Module) -> bool:
    """Whether the module to keep is a part of another one, or that itself."""
    return any(part is kept for part in module.modules())


class KeptModule:
    """What is kept in the end; made before the trained modules are prepared, which may divide their weights.

    Args:
        module: the module that is averaged. decay: of the running average; 0 for the last weights.

    Attributes:
        average: the running average, if there is one.
        sharded: whether the weights are divided among the processes.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self.sharded = is_sharded_run()
        self.average = self._average() if self.sharded else None  # divided weights cannot be copied
        self._whole = WholeCopy(module) if self.sharded else None
        self._final: nn.Module | None = None

    def is_divided(self, trained: nn.Module) -> bool:
        """Whether the weights of a trained module are divided: those of the one that holds the module to keep."""
        return self.sharded and holds(trained, self._module)

    def prepared(self) -> None:
        """Called once the trained modules are prepared: the average is stored as they are."""
        if not self.sharded:
            self.average = self._average()
        elif self.average is not None:
            shard(self.average.module)
            self.average.follow(self._module)

    def _average(self) -> WeightAverage | None:
        return None if self._decay == 0.0 else WeightAverage(self._module, self._decay)

    def now(self) -> nn.Module:
        """The module as it is now; of divided weights a whole copy, for which all processes must call it."""
        kept = self._module if self.average is None else self.average.module
        return kept if self._whole is None else self._whole.of(kept)

    def finish(self) -> None:
        """Called by all processes at the end of the training."""
        self._final = self.now()

    def final(self) -> nn.Module:
        """The module as it was at the end, or as it is now."""
        return self.now() if self._final is None else self._final
