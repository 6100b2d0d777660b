"""What is trained: modules that take turns within a step, each with an optimiser of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.values.batches import Batch
from robustok_core.values.draws import Draws
from robustok_training.optimizer import OptimizerConfig

if TYPE_CHECKING:
    from typing_extensions import Self

#: The loss of a model on a batch, a scalar: `loss(model, batch, draws)`.
ModelLoss = Callable[[Any, Any, Draws], Tensor]


@frozen(kw_only=True, eq=False)
class TrainedModule:
    """A module with an optimiser of its own, which takes its turn on every micro-batch of a step.

    It is called as `module(batch, draws, progress, earlier)` and returns `(loss, logs, left)`:

    - `batch`: the micro-batch, a `Batch` of the rows that are trained on.
    - `draws`: random numbers, one row for each of the batch's rows.
    - `progress`: the share of the training that is done, in [0, 1).
    - `earlier`: what the modules that took their turn before left of this micro-batch, by their names.
    - `loss`: a scalar. `logs`: scalars by name, of which the means are logged.
    - `left`: any value for the modules that come after, dropped at the end of the step; None for nothing.

    Attributes:
        name: for logs and checkpoints.
        module: its parameters that take a gradient are trained.
        optimizer: how.
        not_decayed: names of parameters in `module` that weight decay leaves alone, besides vectors and scalars.
        active: whether it takes its turn at a share of the training.
        start: share of the training at which it begins; its schedule runs from there.
    """

    name: str
    module: nn.Module
    optimizer: OptimizerConfig
    not_decayed: Collection[str] = ()
    active: Callable[[float], bool] = field(default=lambda progress: True)
    start: float = 0.0


class Task:
    """What is trained. A subclass says what happens besides, in `after_step` and `measure`.

    Args:
        trained_modules: take turns within a step, in this order; their names differ.
        modules: everything with a state that training changes, by name, which is what a checkpoint holds; the trained
            modules where left out.
        averaged: what is kept in the end, and what `ema_decay` averages; the first trained module where left out.
    """

    def __init__(
        self,
        trained_modules: Sequence[TrainedModule],
        *,
        modules: Mapping[str, nn.Module] | None = None,
        averaged: nn.Module | None = None,
    ) -> None:
        by_name = {trained_module.name: trained_module.module for trained_module in trained_modules}
        assert len(by_name) == len(trained_modules) > 0, "trained modules have names of their own"
        self.trained_modules = tuple(trained_modules)
        self.modules = by_name if modules is None else dict(modules)
        self.averaged = trained_modules[0].module if averaged is None else averaged

    @classmethod
    def of_model(cls, model: nn.Module, loss: ModelLoss, optimizer: OptimizerConfig, *, name: str = "model") -> Self:
        """A task that trains one model with one optimiser.

        Args:
            model: what is trained, averaged and kept. loss: called as `loss(model, batch, draws)`, gives a scalar.
            optimizer: how. name: of the model in logs and checkpoints.
        """
        trained_module = TrainedModule(name=name, module=_ModelStep(model, loss), optimizer=optimizer)
        return cls([trained_module], averaged=model)

    def after_step(self, draws: Draws) -> None:
        """Called once after the last turn of each step (codebook updates)."""

    def measure(self, kept: nn.Module) -> Mapping[str, float]:
        """What is logged every `measure_every` epochs of the module to be kept, which it leaves as it was."""
        return {}


class _ModelStep(nn.Module):
    """The turn of a model that is trained alone."""

    def __init__(self, model: nn.Module, loss: ModelLoss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(
        self, batch: Batch, draws: Draws, progress: float, earlier: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor], None]:
        """The model's loss."""
        return self._loss(self.model, batch, draws), {}, None
