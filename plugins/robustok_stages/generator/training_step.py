"""A step of a generator's training, and what is measured along it."""

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
        precision: of this turn; the run's where None.
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
    """A generator's training as the trainer sees it.

    Args:
        generator: what is trained. optimizer: how.
        judge: what is logged of the generator to be kept, in eval mode and without gradients.
        precision: of the training steps; the run's where None.
    """

    def __init__(
        self,
        generator: Generator,
        optimizer: OptimizerConfig,
        judge: Callable[[Generator], Mapping[str, float]] | None = None,
        precision: Precision | None = None,
    ) -> None:
        not_decayed = [f"generator.{name}" for name in generator.not_decayed]
        step = GeneratorStep(generator, precision)
        turn = TrainedModule(name="generator", module=step, optimizer=optimizer, not_decayed=not_decayed)
        super().__init__([turn], modules={"generator": generator}, averaged=generator)
        self._judge = judge

    def measure(self, kept: nn.Module) -> Mapping[str, float]:
        """What the judge finds."""
        if self._judge is None or not isinstance(kept, Generator):
            return {}
        with torch.no_grad(), evaluating(kept):
            return self._judge(kept)


@torch.no_grad()
def validation_loss(context: StageContext, generator: Generator, rows: Rows, batch_size: int) -> float:
    """The mean loss over a split, with the same draws every time; the generator is in eval mode.

    It is the loss at the end of the training (progress 1), so that those of a curve are of one objective.
    """
    own = torch.arange(len(rows) * rank() // world_size(), len(rows) * (rank() + 1) // world_size())
    total = torch.zeros(2, device=context.device)
    for some in own.split(batch_size) if len(own) else ():
        batch = rows.load(some.tolist()).to(context.device)
        draws = Draws(seed=derive_seed(context.seed, "validation"), indices=some.to(context.device), total=len(rows))
        with context.accelerator.autocast():
            losses = generator.loss(batch.latents, batch.labels, draws=draws, progress=1.0)  # type: ignore[attr-defined]
        total += torch.stack(
            [torch.stack(list(losses.values())).sum().float() * len(some), total.new_tensor(len(some))]
        )
    summed, count = all_sum(total).tolist()
    return summed / count
