"""What a training will take, measured on the meta device: a real step of the task, without values and memory."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from robustok_core.kinds.cost import Cost, Memory, Work
from robustok_core.kinds.stage import StageContext
from robustok_core.values.batches import Batch
from robustok_core.values.draws import Draws
from robustok_training.batches import steps_per_epoch
from robustok_training.checkpoint import KEPT
from robustok_training.config import TrainingConfig
from robustok_training.held_memory import held_memory, nbytes, trained_bytes, trained_parameters
from robustok_training.on_meta import META, Measured, measuring
from robustok_training.repeated_blocks import RepeatedBlocks
from robustok_training.task import Task

#: Images in a computation that is measured: some layers need more than one.
MEASURED = 2
#: At most so many are in a training step that is measured, which a few images would not show: memory does not only
#: hold what grows with them.
MOST_MEASURED = 64

Module = TypeVar("Module", bound=nn.Module)


def on_meta(module: Module) -> Module:
    """A copy of a module on the meta device, whatever holds the original."""
    return copy.deepcopy(module).to(META)


def training_cost(
    context: StageContext,
    task: Task,
    batch_of: Callable[[int], Batch],
    config: TrainingConfig,
    num_rows: int,
    *,
    bf16: bool,
    changes: Sequence[float] = (),
    trainings: int = 1,
) -> Cost:
    """What a stage takes that runs a `Trainer`.

    Args:
        context: the stage's. task: on the meta device, with everything it holds.
        batch_of: makes a batch of so many training rows on the meta device.
        config: options of the training. num_rows: training rows.
        bf16: whether the steps are in bfloat16.
        changes: shares of the training at which its steps come to do more or less.
        trainings: how many such trainings the stage makes, one after the other.
    """
    steps = config.steps(steps_per_epoch(range(num_rows), config.batch_size))
    spans = _spans([*changes, *(turn.start for turn in task.trained_modules)])
    at_once = max(1, config.batch_size // (context.processes * config.accumulation))
    count = min(max(at_once, MEASURED), MOST_MEASURED)
    again = config.speed(context.speed).activation_checkpointing
    measured = {share: measured_step(task, batch_of, config, share, count, bf16=bf16, again=again) for share in spans}
    flops = sum(spans[share] * one.flops for share, one in measured.items()) / count
    largest = max(measured.values(), key=lambda one: one.peak_bytes)
    modules = [turn.module for turn in task.trained_modules]
    trained = sum(parameter.numel() for module in modules for parameter in trained_parameters(module))
    of_trained = sum(map(trained_bytes, modules))
    state = sum(map(nbytes, task.modules.values())) + 2 * of_trained
    average = nbytes(task.averaged) if config.ema_decay > 0.0 else 0
    fixed = held_memory(task, context, averages=config.ema_decay > 0.0) | {
        "frozen networks": max(one.read_bytes for one in measured.values()) - 2 * of_trained,  # weights and gradients
        "weights in bf16": max(one.cast_bytes for one in measured.values()),
    }
    return Cost(
        trained=trained,
        frozen=max(max(one.read_parameters for one in measured.values()) - trained, 0),
        steps=steps * trainings,
        work=[Work(name="training", images=steps * config.batch_size * trainings, flops=flops, bf16=bf16)],
        memory=Memory(
            fixed={name: size for name, size in fixed.items() if size > 0},
            per_image=largest.peak_bytes // count,
            images=at_once,
        ),
        disk={"checkpoints": KEPT * (state + average)},
    )


def measured_step(
    task: Task,
    batch_of: Callable[[int], Batch],
    config: TrainingConfig,
    progress: float,
    count: int,
    *,
    bf16: bool,
    again: bool = False,
) -> Measured:
    """A micro-batch of `count` rows: all turns of the task, forward and backward.

    `again`: whether its repeated blocks are computed again in the backward pass.
    """
    trained = [turn.module for turn in task.trained_modules]
    for turn in task.trained_modules:
        for parameter in trained_parameters(turn.module):
            parameter.grad = torch.zeros_like(parameter)  # there from the step before, or DDP's
    with (
        measuring(bf16=bf16) as meter,
        RepeatedBlocks((), trained, compiles=False, recomputes=again, again_in=meter.casts).running(),
    ):
        batch, left = batch_of(count), dict[str, Any]()
        draws = Draws.for_part(0, range(count), max(config.batch_size, count), META)
        for turn in task.trained_modules:
            if turn.active(progress):
                turn.module.train()
                meter.turn()
                loss, _, left[turn.name] = turn.module(batch, draws, progress, left)
                loss.backward()
                del loss
        return meter.measured


def _spans(changes: Sequence[float]) -> Mapping[float, float]:
    """The middle and the length of each span of a training between its changes."""
    ends = sorted({0.0, 1.0, *(change for change in changes if 0.0 < change < 1.0)})
    return {(first + last) / 2: last - first for first, last in itertools.pairwise(ends)}
