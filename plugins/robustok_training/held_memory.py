"""The bytes that a process holds all through a training, whether weights are whole on each process or divided."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from robustok_core.kinds.stage import StageContext
from robustok_training.kept_module import holds
from robustok_training.learned_state import learned_state
from robustok_training.sharding import divided_parameters
from robustok_training.task import Task

#: With FSDP, a block and the one that is fetched ahead are whole for a while, and so are their gradients.
_WHOLE_AT_ONCE = 4


def held_memory(task: Task, context: StageContext, *, averages: bool) -> dict[str, int]:
    """Bytes by what they are for, where it is not nothing.

    Args:
        task: on the meta device. context: says how many processes share it, and how.
        averages: whether a running average of the weights is kept.
    """
    modules = [turn.module for turn in task.trained_modules]
    sends = [module for module in modules if not (_divides(context) and holds(module, task.averaged))]
    blocks = {module: _blocks(module) if module not in sends else [] for module in modules}
    held = sum(trained_bytes(module) - _elsewhere(blocks[module], context) for module in modules)
    of_average = _blocks(task.averaged) if _divides(context) else []
    fixed = {
        "weights": held,
        "gradients": held,
        "gradients in DDP's buckets": sum(map(trained_bytes, sends)) if context.processes > 1 else 0,
        "gathered blocks": _WHOLE_AT_ONCE * max((block for own in blocks.values() for block in own), default=0),
        "optimiser": 2 * held,
        "average of the weights": nbytes(task.averaged) - _elsewhere(of_average, context) if averages else 0,
    }
    return {name: size for name, size in fixed.items() if size}


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module that take gradients."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def trained_bytes(module: nn.Module) -> int:
    """The bytes of these."""
    return sum(parameter.nbytes for parameter in trained_parameters(module))


def nbytes(module: nn.Module) -> int:
    """The bytes of what a checkpoint holds of a module."""
    return sum(tensor.nbytes for tensor in learned_state(module).values())


def _divides(context: StageContext) -> bool:
    return context.divides_weights and context.processes > 1


def _blocks(module: nn.Module) -> list[int]:
    """The bytes of each block that is divided."""
    return [sum(parameter.nbytes for parameter in own) for own in divided_parameters(module).values()]


def _elsewhere(blocks: Sequence[int], context: StageContext) -> int:
    """What other processes hold of divided blocks, but for rows that do not divide evenly."""
    return sum(blocks) - sum(blocks) // context.processes
