"""Memory that ran out: how many images at once would have fitted, and what takes less."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from robustok_core.errors import RunError
from robustok_core.values.machine_memory import usable_memory

if TYPE_CHECKING:
    from robustok_core.kinds.cost import Cost, Memory

#: The share of a device's memory that a plan uses; the rest is for its context, workspaces and gaps.
USABLE = 0.9
_LESS = "activation_checkpointing = true also takes less memory, and more time"


class MemoryRanOutError(RunError):
    """A device or the machine has no memory left."""


def with_what_fits(
    error: MemoryRanOutError,
    cost: Callable[[], Cost | None],
    *,
    capacity: float,
    divided: bool,
    stage: str,
    config: Any,
    where: str,
) -> RunError:
    """The error of a stage, with the micro-batch that fits by what `robustok plan` counts.

    Args:
        error: memory ran out. cost: plans the stage. capacity: bytes of the device.
        divided: whether weights are divided among processes already.
        stage: its name. config: its options. where: its place in the recipe.
    """
    try:
        planned = cost()
    except Exception:  # planning must not hide what has happened
        planned = None
    memory = None if planned is None else planned.memory
    if memory is None:
        return RunError(error.what, where=where, hint=error.hint)
    gib = f"{capacity / 2**30:.3g} GiB"
    what = f"memory ran out in stage {stage!r}, with {memory.images} images at once on a device of {gib}"
    return RunError(what, where=where, hint=_what_fits(memory, capacity, divided, config))


def _what_fits(memory: Memory, capacity: float, divided: bool, config: Any) -> str:
    usable = USABLE * capacity
    if not memory.fits(usable):
        return f"by `robustok plan`, {what_fits(memory, usable, divided=divided, config=config)}"
    half = memory.images // 2
    said = f"by `robustok plan` they fit, so something else may use the memory; half of them are {half}"
    return f"{said}: {_smaller_step(memory, half, config)}"


def what_fits(memory: Memory, usable: float, *, divided: bool, config: Any) -> str:
    """How many images at once fit into so many bytes, and which options of the stage make them so few.

    Args:
        divided: whether weights are divided among processes already. config: the stage's options.
    """
    most = memory.most_images(usable)
    if most > 0:
        return f"{most} fit: {_smaller_step(memory, most, config)}"
    fixed = f"{sum(memory.fixed.values()) / 2**30:.3g} GiB"
    several = "more GPUs" if divided else "several GPUs (recipes/cluster/fsdp_8.yaml)"
    return f"not one image fits beside weights and optimiser ({fixed}): divide the weights among {several}; {_LESS}"


def _smaller_step(memory: Memory, most: int, config: Any) -> str:
    accumulation = _accumulation(memory.images, most, config)
    less = "use smaller batches" if accumulation is None else f"set accumulation = {accumulation} (the same step)"
    return f"{less}; {_LESS}"


def _accumulation(images: int, most: int, config: Any) -> int | None:
    """The smallest number of micro-batches for a step with at most `most` images in each; None if there is none."""
    now = getattr(config, "accumulation", None)
    if now is None:
        return None
    of_process = images * now
    return next((number for number in range(now + 1, of_process + 1) if _divides(of_process, number, most)), None)


def _divides(images: int, number: int, most: int) -> bool:
    """Whether so many images divide into a number of equal parts of at most `most` images."""
    return images % number == 0 and images // number <= most


def capacity_of(device: Any) -> float:
    """The bytes of a device's memory, or of this machine's that this process may use."""
    import torch

    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(usable_memory())
