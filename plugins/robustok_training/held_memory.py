"""The bytes that a process holds all through a training, whether weights are whole on each process or divided."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from robustok_core.kinds.stage import StageContext
from robustok_core.runs.environment import frees_gathered_weights
from robustok_training.kept_module import holds
from robustok_training.learned_state import learned_state
from robustok_training.sharding import divided_parameters, most_rows
from robustok_training.task import Task

#: With FSDP, of the largest block at once, in the backward pass: its weights, the buffer in which the next one arrives
#: and that one's weights, gradients, and the buffer from which these are sent.
_AT_ONCE = 5
#: Of these, where gathered weights are kept until the backward pass: the buffer, gradients and their buffer.
_BESIDE_KEPT = 3


def held_memory(task: Task, context: StageContext, *, averages: bool) -> dict[str, int]:
    """Bytes by what they are for, of the process that holds most.

    Args:
        task: on the meta device. context: says how many processes share it, and how.
        averages: whether a running average of the weights is kept.
    """
    divides = context.divides_weights
    modules = [turn.module for turn in task.trained_modules]
    divided = [module for module in modules if divides and holds(module, task.averaged)]
    blocks = [block for module in divided for block in divided_parameters(module).values()]
    held = sum(map(trained_bytes, modules)) - _elsewhere(blocks, context.processes)
    sent = sum(trained_bytes(module) for module in modules if module not in divided)
    average = 0
    if averages:
        of_average = list(divided_parameters(task.averaged).values()) if divides else []
        average = nbytes(task.averaged) - _elsewhere(of_average, context.processes)
    return {
        "weights": held,
        "gradients": held,
        "gradients in DDP's buckets": sent if context.processes > 1 else 0,
        "gathered blocks": _gathered([sum(parameter.nbytes for parameter in block) for block in blocks]),
        "optimiser": 2 * held,
        "average of the weights": average,
    }


def _gathered(blocks: Sequence[int]) -> int:
    """Of divided blocks with so many bytes, what is whole for a while."""
    largest = max(blocks, default=0)
    kept = sum(blocks) + _BESIDE_KEPT * largest
    return min(_AT_ONCE * largest, kept) if frees_gathered_weights() else kept


def _elsewhere(blocks: Sequence[Sequence[nn.Parameter]], processes: int) -> int:
    """Bytes of the rows of divided blocks that a process does not hold."""
    return sum(
        (len(parameter) - most_rows(len(parameter), processes)) * (parameter.nbytes // len(parameter))
        for block in blocks
        for parameter in block
    )


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module that take gradients."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def trained_bytes(module: nn.Module) -> int:
    """The bytes of the parameters of a module that take gradients."""
    return sum(parameter.nbytes for parameter in trained_parameters(module))


def nbytes(module: nn.Module) -> int:
    """The bytes of what a checkpoint holds of a module."""
    return sum(tensor.nbytes for tensor in learned_state(module).values())
