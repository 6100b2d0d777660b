"""A trained module and its optimiser, prepared by accelerate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from robustok_core.errors import RunError
from robustok_training.checkpoint import load_optimizer_tensors, optimizer_tensors
from robustok_training.data_parallel import DataParallel
from robustok_training.distributed import world_size
from robustok_training.optimizer import set_rate
from robustok_training.sharding import ShardedGradients, own_part, shard
from robustok_training.task import TrainedModule

if TYPE_CHECKING:
    from accelerate import Accelerator


class PreparedModule:
    """A trained module as the trainer uses it.

    Args:
        trained_module: the module. accelerator: wraps it for several processes and mixed precision.
        say: prints a line. sharded: whether its weights are divided among the processes.

    Attributes:
        forward: the wrapped module. optimizer: the wrapped optimiser.
        parameters: the trained parameters by name, in the optimiser's order.

    Raises:
        RunError: if none of its parameters takes a gradient.
    """

    def __init__(
        self,
        trained_module: TrainedModule,
        accelerator: Accelerator,
        say: Callable[[str], None] = lambda line: None,
        *,
        sharded: bool = False,
    ) -> None:
        self.trained_module = trained_module
        self._accelerator = accelerator
        if sharded:
            shard(trained_module.module)
        named = {name: p for name, p in trained_module.module.named_parameters() if p.requires_grad}
        if not named:
            raise RunError(f"{trained_module.name!r} has no parameter to train")
        optimizer = trained_module.optimizer.build(named, trained_module.not_decayed)
        name_of = {id(p): name for name, p in named.items()}
        # The optimiser numbers parameters group by group; states are stored by name, in that order.
        self.parameters: dict[str, nn.Parameter] = {
            name_of[id(p)]: p for group in optimizer.param_groups for p in group["params"]
        }
        self.forward: Any
        self.optimizer: Any
        self._sharded = ShardedGradients(list(named.values())) if sharded else None
        self._parallel: DataParallel | None = None
        if sharded:
            self.forward, self.optimizer = self._sharded_forward, accelerator.prepare_optimizer(optimizer)
        elif world_size() > 1:
            self._parallel = DataParallel(trained_module.name, trained_module.module, named, accelerator, say)
            self.forward, self.optimizer = self._parallel_forward, accelerator.prepare_optimizer(optimizer)
        else:
            self.forward, self.optimizer = accelerator.prepare(trained_module.module, optimizer)
        self._averages = True

    @property
    def name(self) -> str:
        """Its name in logs and checkpoints."""
        return self.trained_module.name

    @property
    def learning_rate(self) -> float:
        """The learning rate of its last step."""
        return self.optimizer.param_groups[0]["lr"]

    def _sharded_forward(self, *args: Any) -> Any:
        """In the run's precision, as accelerate calls other modules."""
        from accelerate.utils import convert_to_fp32

        with self._accelerator.autocast():
            returned = self.trained_module.module(*args)
        return convert_to_fp32(returned)

    def _parallel_forward(self, *args: Any) -> Any:
        assert self._parallel is not None
        return self._parallel(*args, averages=self._averages)

    @contextlib.contextmanager
    def averaging_gradients(self, *, last: bool) -> Iterator[None]:
        """Averages gradients over the processes only after the last micro-batch of a step."""
        self._averages = last
        with contextlib.nullcontext() if self._sharded is None else self._sharded.averaging(last=last):
            yield
        if last and self._parallel is not None:
            self._parallel.check()

    def clip(self) -> Tensor | None:
        """Clips the gradient and returns its norm before clipping; None if clipping is off."""
        largest = self.trained_module.optimizer.clip
        if largest <= 0.0:
            return None
        if self._sharded is not None:
            return self._sharded.clip(largest)
        return self._accelerator.clip_grad_norm_(self.parameters.values(), largest)

    def step(self, progress: float) -> None:
        """Updates the weights with the learning rate at `progress`, then clears the gradients."""
        start = self.trained_module.start
        since = (progress - start) / (1.0 - start) if start < 1.0 else 1.0
        set_rate(self.optimizer, self.trained_module.optimizer.rate_at(max(since, 0.0)))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def release(self) -> None:
        """Lets accelerate, which holds what it prepared until the run ends, let go of this; its states can be read on.

        `Accelerator.free_memory` would take other trainings with it.
        """
        own = {id(self.optimizer), id(self.forward if self._parallel is None else self._parallel.turn)}
        for held in (self._accelerator._models, self._accelerator._optimizers):
            held[:] = [prepared for prepared in held if id(prepared) not in own]

    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimiser's state by parameter name."""
        return optimizer_tensors(self.optimizer, list(self.parameters))

    def load_optimizer_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Loads what `optimizer_state` returned."""
        load_optimizer_tensors(self.optimizer, list(self.parameters), self._own(tensors))

    def _own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """States of the optimiser, sharded or whole as their parameters are."""
        own = {}
        for key, tensor in tensors.items():
            parameter = self.parameters.get(key.partition("/")[2], tensor)
            own[key] = own_part(tensor, parameter) if tensor.shape == parameter.shape else tensor
        return own
