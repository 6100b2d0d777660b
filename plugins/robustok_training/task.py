"""What is trained: modules that take turns within a step, each with its own optimiser."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from torch import Tensor, nn

from robustok_core.values.batches import Batch
from robustok_core.values.draws import Draws
from robustok_training.alarms import Alarm, LossSpike
from robustok_training.optimizer import OptimizerConfig

if TYPE_CHECKING:
    from typing_extensions import Self

#: A model's loss on a batch, a scalar: `loss(model, batch, draws)`.
ModelLoss = Callable[[Any, Any, Draws], Tensor]


@frozen(kw_only=True, eq=False)
class TrainedModule:
    """A module with its own optimiser, which takes its turn on every micro-batch of a step.

    It is called as `module(batch, draws, progress, earlier)` and returns `(loss, logs, left)`:

    - `batch`: the micro-batch, a `Batch` of training rows.
    - `draws`: random numbers, one row per row of the batch.
    - `progress`: completed share of the training, in [0, 1).
    - `earlier`: what the modules before it left for this micro-batch, by module name.
    - `loss`: a scalar. `logs`: scalars by name; their means are logged.
    - `left`: any value for the modules after it, or None; dropped at the end of the step.

    Attributes:
        name: used in logs and checkpoints.
        module: its parameters that take a gradient are trained.
        optimizer: options of its optimiser.
        not_decayed: names of parameters in `module` without weight decay, besides vectors and scalars.
        active: given the completed share of the training, whether the module takes its turn.
        start: share of the training at which it starts; its schedule runs from there.
    """

    name: str
    module: nn.Module
    optimizer: OptimizerConfig
    not_decayed: Collection[str] = ()
    active: Callable[[float], bool] = field(default=lambda progress: True)
    start: float = 0.0


class Task:
    """What is trained. Subclasses may override `after_step`, `alarms` and `measure`.

    Args:
        trained_modules: take turns within a step, in this order; their names must differ.
        modules: everything whose state training changes, by name; a checkpoint holds these. Default: the trained
            modules.
        averaged: the module to keep in the end, which `ema_decay` averages. Default: the first trained module.
    """

    def __init__(
        self,
        trained_modules: Sequence[TrainedModule],
        *,
        modules: Mapping[str, nn.Module] | None = None,
        averaged: nn.Module | None = None,
    ) -> None:
        by_name = {trained_module.name: trained_module.module for trained_module in trained_modules}
        assert len(by_name) == len(trained_modules) > 0, "the names of trained modules must differ"
        self.trained_modules = tuple(trained_modules)
        self.modules = by_name if modules is None else dict(modules)
        self.averaged = trained_modules[0].module if averaged is None else averaged

    @classmethod
    def of_model(cls, model: nn.Module, loss: ModelLoss, optimizer: OptimizerConfig, *, name: str = "model") -> Self:
        """A task that trains one model with one optimiser.

        Args:
            model: the module to train, average and keep. loss: called as `loss(model, batch, draws)`; a scalar.
            optimizer: options of its optimiser. name: the model's name in logs and checkpoints.
        """
        trained_module = TrainedModule(name=name, module=_ModelStep(model, loss), optimizer=optimizer)
        return cls([trained_module], averaged=model)

    def after_step(self, draws: Draws) -> None:
        """Called once at the end of each step, for example for codebook updates."""

    def alarms(self) -> Sequence[Alarm]:
        """What warns of a training that goes wrong: by default, a spike of the first trained module's loss."""
        return [LossSpike(f"{self.trained_modules[0].name}/loss")]

    def measure(self, kept: nn.Module) -> Mapping[str, float]:
        """Measures the module to keep, without changing it; the values are logged every `measure_every` epochs."""
        return {}


class _ModelStep(nn.Module):
    """The turn of a single trained model."""

    def __init__(self, model: nn.Module, loss: ModelLoss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(
        self, batch: Batch, draws: Draws, progress: float, earlier: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor], None]:
        """The model's loss."""
        return self._loss(self.model, batch, draws), {}, None
