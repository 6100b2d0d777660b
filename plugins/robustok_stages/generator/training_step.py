"""A training step of a generator, and its validation loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robustok_core.kinds.dataset import Rows
from robustok_core.kinds.generator import Generator
from robustok_core.kinds.stage import StageContext
from robustok_core.runs.precision import Precision, autocast
from robustok_core.values.batches import LatentBatch
from robustok_core.values.draws import Draws, derive_seed
from robustok_toolkit.eval_mode import evaluating
from robustok_training import OptimizerConfig, Task, TrainedModule
from robustok_training.distributed import all_sum, rank, world_size


class GeneratorStep(nn.Module):
    """The generator's turn.

    Args:
        generator: what is trained.
        precision: of this turn; None for the run's.
    """

    def __init__(self, generator: Generator, precision: Precision | None = None) -> None:
        super().__init__()
        self.generator = generator
        self._precision = precision

    def forward(
        self, batch: LatentBatch, draws: Draws, progress: float, earlier: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor], None]:
        """The sum of the generator's losses, and each of them."""
        with autocast(self._precision, batch.labels.device):
            losses = self.generator.loss(batch.latents, batch.labels, draws=draws, progress=progress)
        return torch.stack(list(losses.values())).sum(), {f"loss/{name}": value for name, value in losses.items()}, None


class GeneratorTask(Task):
    """The training task of a generator.

    Args:
        generator: the module to train. optimizer: options of its optimiser.
        evaluate: measures the generator that would be kept, in eval mode and without gradients; its values are logged.
        precision: of the training steps; None for the run's.
    """

    def __init__(
        self,
        generator: Generator,
        optimizer: OptimizerConfig,
        evaluate: Callable[[Generator], Mapping[str, float]] | None = None,
        precision: Precision | None = None,
    ) -> None:
        not_decayed = [f"generator.{name}" for name in generator.not_decayed]
        step = GeneratorStep(generator, precision)
        turn = TrainedModule(name="generator", module=step, optimizer=optimizer, not_decayed=not_decayed)
        super().__init__([turn], modules={"generator": generator}, averaged=generator)
        self._measurement = evaluate

    def measure(self, kept: nn.Module) -> Mapping[str, float]:
        """The values to log for the generator that would be kept."""
        if self._measurement is None or not isinstance(kept, Generator):
            return {}
        with torch.no_grad(), evaluating(kept):
            return self._measurement(kept)


@torch.no_grad()
def validation_loss(
    context: StageContext, generator: Generator, rows: Rows, batch_size: int, precision: Precision | None = None
) -> float:
    """The mean loss over a split, with the same random numbers every time; the generator must be in eval mode.

    It uses the loss at the end of training (progress 1), so that all values of a curve have the same objective.

    Args:
        precision: of the training steps; None for the run's.
    """
    own_rows = torch.arange(len(rows) * rank() // world_size(), len(rows) * (rank() + 1) // world_size())
    total = torch.zeros(2, device=context.device)
    for indices in own_rows.split(batch_size) if len(own_rows) else ():
        batch = rows.load(indices.tolist()).to(context.device)
        draws = Draws(seed=derive_seed(context.seed, "validation"), indices=indices.to(context.device), total=len(rows))
        with context.accelerator.autocast(), autocast(precision, context.device):
            losses = generator.loss(batch.latents, batch.labels, draws=draws, progress=1.0)  # type: ignore[attr-defined]
        total += torch.stack(
            [torch.stack(list(losses.values())).sum().float() * len(indices), total.new_tensor(len(indices))]
        )
    summed, count = all_sum(total).tolist()
    return summed / count
