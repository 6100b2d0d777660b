"""The training loop: every trained thing in robustok goes through it.

A step is a function of its number: data order, augmentation, perturbation and dropout are drawn from
(seed, stage, step). So a checkpoint holds no random state, a run that was killed goes on bit for
bit, and several processes see what one would.
"""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field, frozen, validators
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustok_core.errors import Interrupted, RunError
from robustok_core.kinds.dataset import Rows
from robustok_core.kinds.features import Features
from robustok_core.runs.weights import load_module, part, prefixed
from robustok_core.values.batches import Batch
from robustok_core.values.draws import Draws, derive_seed
from robustok_training import checkpoint
from robustok_training.batches import steps_per_epoch, training_batches
from robustok_training.distributed import all_mean, barrier, rank, world_size
from robustok_training.interrupt import StopRequest, stop_requests
from robustok_training.optimizer import OptimizerConfig, set_rate
from robustok_training.progress import StepProgress

if TYPE_CHECKING:
    from robustok_core.kinds.stage import StageContext

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


@define(kw_only=True, eq=False)
class TrainedModule:
    """Parameters with an optimiser of their own.

    Attributes:
        name: for logs and checkpoints.
        module: called as `module(batch, draws, progress)`, returns (loss, logs); its parameters with
            a gradient are trained.
        optimizer: how.
        not_decayed: names of parameters in `module` that weight decay leaves alone, besides vectors and scalars.
        active: whether it is trained at a share of the training.
        start: share of the training at which it begins; its schedule runs from there.
    """

    name: str
    module: nn.Module
    optimizer: OptimizerConfig
    not_decayed: Collection[str] = ()
    active: Callable[[float], bool] = field(default=lambda progress: True)
    start: float = 0.0


class Task(ABC):
    """What is trained.

    Attributes:
        trained_modules: take turns within a step, in this order.
        modules: everything with a state that training changes, by name: what a checkpoint holds.
        averaged: the module whose running average is kept.
    """

    trained_modules: Sequence[TrainedModule]
    modules: Mapping[str, nn.Module]
    averaged: nn.Module

    @abstractmethod
    def after_step(self, draws: Draws) -> None:
        """Called once after each step of all trained_modules (codebook updates)."""

    def measure(self, kept: nn.Module) -> Mapping[str, float]:
        """What is logged every `measure_every` epochs of the module to be kept, which it leaves as it was."""
        raise NotImplementedError


class Trainer:
    """Runs a task over a split's rows from the newest checkpoint to the end.

    Args:
        context: of the stage. task: what is trained. rows: what it is trained on. config: for how long.
        measure_every: epochs between calls of `task.measure`; 0 for none.

    Attributes:
        seconds: time spent by phase since the start: "data", "forward", "backward", "optimizer", "other".
    """

    def __init__(
        self, context: StageContext, task: Task, rows: Rows, config: TrainingConfig, *, measure_every: float = 0.0
    ) -> None:
        self.context, self.task, self.rows, self.config = context, task, rows, config
        self.accelerator = context.accelerator
        self.epoch_steps = steps_per_epoch(rows, config.batch_size)
        self.total = config.steps(self.epoch_steps)
        self.measure_steps = round(measure_every * self.epoch_steps)
        self.seconds = dict.fromkeys(("data", "forward", "backward", "optimizer", "other"), 0.0)
        self._forward: dict[str, Any] = {}
        self._optimizers: dict[str, Any] = {}
        self._parameters: dict[str, dict[str, nn.Parameter]] = {}
        for module in task.modules.values():
            module.to(self.accelerator.device)
        for trained in task.trained_modules:
            self._prepare(trained)
        self._average = self._make_average()
        self._logs: dict[str, Tensor] = {}

    def _prepare(self, trained: TrainedModule) -> None:
        named = {name: p for name, p in trained.module.named_parameters() if p.requires_grad}
        if not named:
            raise RunError(f"nothing to train in {trained.name!r}")
        optimizer = trained.optimizer.build(named, trained.not_decayed)
        order = {id(p): name for name, p in named.items()}
        # The optimiser numbers parameters group by group; states are stored by name in that order.
        self._parameters[trained.name] = {order[id(p)]: p for group in optimizer.param_groups for p in group["params"]}
        self._forward[trained.name], self._optimizers[trained.name] = self.accelerator.prepare(
            trained.module, optimizer
        )

    def _make_average(self) -> AveragedModel | None:
        if self.config.ema_decay == 0.0:
            return None
        return AveragedModel(self.task.averaged, multi_avg_fn=get_ema_multi_avg_fn(self.config.ema_decay))

    def kept(self) -> nn.Module:
        """The module to keep: the running average of the weights where there is one."""
        return self.task.averaged if self._average is None else self._average.module

    def optimizer_state(self, trained: str) -> dict[str, Tensor]:
        """The optimiser state of a trained module by parameter name."""
        return checkpoint.optimizer_tensors(self._optimizers[trained], list(self._parameters[trained]))

    def adopt_optimizer_state(self, trained: str, tensors: Mapping[str, Tensor]) -> None:
        """Begins with the optimiser state that a trained module had in another training (`optimizer_state`)."""
        checkpoint.load_optimizer_tensors(self._optimizers[trained], list(self._parameters[trained]), tensors)

    def run(self) -> None:
        """Trains to the end.

        Raises:
            RunError: where a loss is no finite number; nothing of that step is kept.
            Interrupted: after a checkpoint, where the user asked to stop.
        """
        start = self._resume()
        if start:
            self.context.say(f"{self.context.stage} ({self.context.fingerprint}): step {start} of {self.total}")
        progress = StepProgress(self.context.console, self.context.stage, self.total, start)
        with stop_requests() as stop, progress:
            for step, micros in self._steps(start):
                self._step(step, micros)
                done = step + 1
                if done % self.config.log_every == 0 or done == self.total:
                    progress.update(done, self._log(done))
                else:
                    progress.update(done)
                self._maybe_measure(done)
                self._maybe_checkpoint(done, stop)
        self._guard_weights(self.total)

    def _steps(self, start: int) -> Iterator[tuple[int, list[Batch]]]:
        batches = training_batches(
            self.rows,
            seed=derive_seed(self.context.seed, "data"),
            global_batch=self.config.batch_size,
            accumulation=self.config.accumulation,
            rank=rank(),
            world=world_size(),
            start_step=start,
            total_steps=self.total,
            workers=self.config.workers,
        )
        self._clock = time.perf_counter()
        self._logged_at = (start, self._clock)
        for step, micros in enumerate(batches, start=start):
            moved = [batch.to(self.accelerator.device) for batch in micros]
            self._tick("data")
            yield step, moved
            self._tick("other")

    def _tick(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] += now - self._clock
        self._clock = now

    def _draws(self, step: int, micro: int, size: int) -> Draws:
        first = (micro * world_size() + rank()) * size
        indices = torch.arange(first, first + size, device=self.accelerator.device)
        return Draws(seed=derive_seed(self.context.seed, "step", step), indices=indices, total=self.config.batch_size)

    def _step(self, step: int, micros: list[Batch]) -> None:
        progress = step / self.total
        # Dropout and drop-path draw from torch's own generator; processes must differ there.
        torch.manual_seed(derive_seed(self.context.seed, "torch", step, rank()))
        draws = [self._draws(step, number, len(batch)) for number, batch in enumerate(micros)]
        for trained in self.task.trained_modules:
            if trained.active(progress):
                self._turn(trained, micros, draws, progress)
        self.task.after_step(draws[0].child("after_step"))
        if self._average is not None:
            self._average.update_parameters(self.task.averaged)
        self._tick("optimizer")

    def _turn(self, trained: TrainedModule, micros: list[Batch], draws: list[Draws], progress: float) -> None:
        forward, optimizer = self._forward[trained.name], self._optimizers[trained.name]
        share = 1.0 / len(micros)
        trained.module.train()
        for number, batch in enumerate(micros):
            last = number + 1 == len(micros)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(forward):
                self._tick("other")
                loss, logs = forward(batch, draws[number], progress)
                self._tick("forward")
                self.accelerator.backward(loss * share)
                self._tick("backward")
            self._note({f"{trained.name}/loss": loss, **logs}, share)
        if trained.optimizer.clip > 0.0:
            norm = self.accelerator.clip_grad_norm_(self._parameters[trained.name].values(), trained.optimizer.clip)
            self._note({f"{trained.name}/gradient_norm": norm}, 1.0)
        since = (progress - trained.start) / (1.0 - trained.start) if trained.start < 1.0 else 1.0
        set_rate(optimizer, trained.optimizer.rate_at(max(since, 0.0)))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self._tick("optimizer")

    def _note(self, values: Mapping[str, Any], share: float) -> None:
        """Adds to the sums of this logging interval, on the device: no waiting for it."""
        for name, value in values.items():
            number = torch.as_tensor(value, dtype=torch.float32, device=self.accelerator.device).detach()
            total = self._logs.setdefault(name, torch.zeros(2, device=number.device))
            total += torch.stack([number * share, torch.full_like(number, share)])

    def _log(self, done: int) -> dict[str, float]:
        names = sorted(self._logs)
        means: list[float] = []
        if names:
            sums = all_mean(torch.stack([self._logs[name] for name in names]))
            means = (sums[:, 0] / sums[:, 1]).tolist()
        self._logs.clear()
        values = dict(zip(names, means, strict=True))
        for trained in self.task.trained_modules:
            values[f"{trained.name}/learning_rate"] = self._optimizers[trained.name].param_groups[0]["lr"]
        first, began = self._logged_at
        now = time.perf_counter()
        values["images_per_second"] = (done - first) * self.config.batch_size / (now - began)
        self._logged_at = (done, now)
        self._guard(done, values)
        self.context.log(done, {"epoch": done / self.epoch_steps, **values})
        return {"images/s": values["images_per_second"]} | {n: v for n, v in values.items() if n.endswith("/loss")}

    def _guard(self, done: int, values: Mapping[str, float]) -> None:
        # A gradient scaler skips the steps whose gradients overflow; elsewhere such a gradient spoils the weights.
        scaled = self.accelerator.scaler is not None
        found = [name for name, value in values.items() if not math.isfinite(value)]
        broken = [name for name in found if not (scaled and name.endswith("gradient_norm"))]
        if broken:
            raise RunError(
                f"{', '.join(broken)} became no finite number before step {done}",
                where=f"stage {self.context.stage}",
                hint='lower the learning rate, or use precision = "no"; earlier checkpoints are kept',
            )

    def _maybe_measure(self, done: int) -> None:
        """The last step is left to the stage that evaluates what was kept."""
        if self.measure_steps and done % self.measure_steps == 0 and done < self.total:
            values = self.task.measure(self.kept())
            self.context.log(done, {"epoch": done / self.epoch_steps, **values})
            self._tick("other")

    def _maybe_checkpoint(self, done: int, stop: StopRequest) -> None:
        every = self.config.checkpoint_every or self.epoch_steps
        stopping = stop.anywhere(self.accelerator.device) and done < self.total
        if stopping or (done % every == 0 and done < self.total):
            self._save(done)
        if stopping:
            what = f"stopped at step {done} of {self.total}; a checkpoint is written"
            raise Interrupted(what, hint="run the same command to go on")

    def _modules(self) -> dict[str, nn.Module]:
        modules = dict(self.task.modules)
        return modules if self._average is None else {**modules, "average": self._average}

    def _save(self, done: int) -> None:
        if self._logs:
            self._log(done)
        self._guard_weights(done)
        if self.accelerator.is_main_process:
            self._write(done)
        barrier()  # a launcher ends the others once one process stops: not before the checkpoint is whole

    def _guard_weights(self, done: int) -> None:
        """A gradient that is no number shows in the weights even where the loss before it was finite."""
        for name, module in self._modules().items():
            for key, value in learned_state(module).items():
                if value.is_floating_point() and not bool(value.isfinite().all()):
                    raise RunError(
                        f"{name}: {key} is no finite number after step {done}",
                        where=f"stage {self.context.stage}",
                        hint='lower the learning rate, or use precision = "no"; earlier checkpoints are kept',
                    )

    def _write(self, done: int) -> None:
        tensors: dict[str, Tensor] = {}
        for name, module in self._modules().items():
            tensors |= prefixed(learned_state(module), f"module/{name}/")
        for name in self._optimizers:
            tensors |= prefixed(self.optimizer_state(name), f"optimizer/{name}/")
        scaler = self.accelerator.scaler
        values = {"scaler": scaler.state_dict() if scaler is not None else None}
        checkpoint.save_checkpoint(self.context.checkpoints, done, tensors, values)

    def _resume(self) -> int:
        found = checkpoint.load_checkpoint(self.context.checkpoints)
        if found is None:
            self.context.forget_log_after(0)
            return 0
        tensors, values = found
        where = str(self.context.checkpoints)
        for name, module in self._modules().items():
            load_learned(module, part(tensors, f"module/{name}/"), where)
        for name in self._optimizers:
            self.adopt_optimizer_state(name, part(tensors, f"optimizer/{name}/"))
        if self.accelerator.scaler is not None and values["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(values["scaler"])
        self.context.forget_log_after(values["step"])
        return int(values["step"])


def learned_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's state dict without the frozen feature networks in it, which come with their own weights."""
    frozen_parts = tuple(f"{name}." for name, part in module.named_modules() if isinstance(part, Features))
    return {name: value for name, value in module.state_dict().items() if not name.startswith(frozen_parts or ("\0",))}


def load_learned(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Loads what `learned_state` gave."""
    learned = learned_state(module)
    rest = {name: value for name, value in module.state_dict().items() if name not in learned}
    load_module(module, {**rest, **tensors}, where)
