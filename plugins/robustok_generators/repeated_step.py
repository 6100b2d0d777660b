"""The step of a sampler, which runs many times with inputs of the same shapes.

Small steps keep a GPU waiting for Python, which starts hundreds of kernels one by one. On CUDA a step can be captured
as a graph, which starts all of them at once. The first call runs as it is, so that libraries choose their
kernels; the second is captured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from attrs import field
from torch import Tensor, nn

from robustok_blocks.compiler_options import compiler_options
from robustok_core.values.wording import reason_of

_log = logging.getLogger(__name__)

Execution = Literal["eager", "graph", "compile"]

#: How many graphs a step keeps, for inputs of so many shapes: with and without guidance. Windows do not come back.
_KEPT = 2
#: What a captured step returns for inputs: a tensor that the next replay overwrites.
Replay = Callable[..., Tensor]


def execution_option() -> Any:
    """The option of a sampler that says how its steps run; no fingerprint depends on it."""
    return field(
        default="eager",
        metadata={
            "doc": "how steps run; only rounding depends on it. eager: each operation is started by Python; graph: on "
            "CUDA as a graph, captured once and replayed, elsewhere eagerly; compile: blocks are compiled by "
            "torch.compile, and captured on CUDA",
            "result": False,
        },
    )


def fixes_shapes(execution: Execution, device: torch.device) -> bool:
    """Whether all steps must have the same shapes to run on a device."""
    return execution == "compile" or (execution == "graph" and device.type == "cuda")


class RepeatedStep:
    """Calls a step. A step must be repeatable: a second call with the same inputs changes nothing.

    Args:
        step: a function of tensors; of what else changes between calls, it may read only tensors that are changed in
            place.
        captured: whether to capture it as a CUDA graph.
        compiled: whether it calls compiled modules, so that a failure may be the compiler's.
    """

    def __init__(self, step: Callable[..., Tensor], *, captured: bool, compiled: bool) -> None:
        self._step, self._captured, self._compiled = step, captured, compiled
        self._replays: dict[object, Replay | None] = {}

    def __call__(self, *inputs: Tensor, window: int = 0) -> Tensor:
        """The step's result for these inputs; `window` stands for sizes in the step that no input has."""
        shapes = (window, *((each.shape, each.dtype) for each in inputs))
        if shapes not in self._replays or not self._captured:
            self._begin(shapes)
            return self._first(*inputs)
        replay = self._replays[shapes]
        if replay is None:
            try:
                replay = self._replays[shapes] = capture(self._step, inputs)
            except RuntimeError as error:
                _log.warning("sampling goes on without a CUDA graph, which failed: %s", reason_of(error))
                self._captured = False
                return self._step(*inputs)
        return replay(*inputs).clone()

    def _begin(self, shapes: object) -> None:
        """Notes that a step of these shapes ran; a graph whose shapes did not come back makes way."""
        while len(self._replays) >= _KEPT:
            del self._replays[next(iter(self._replays))]
        self._replays[shapes] = None

    def _first(self, *inputs: Tensor) -> Tensor:
        if not self._compiled:
            return self._step(*inputs)
        try:
            return self._step(*inputs)
        except Exception as error:  # of the compiler, whose errors have no common class
            self._compiled = False
            with uncompiled():
                result = self._step(*inputs)  # raises what is not the compiler's
            cause = getattr(error, "inner_exception", error)
            _log.warning("sampling goes on without torch.compile, which failed: %s", reason_of(cause))
            self._step = _uncompiled(self._step)
            return result


@contextmanager
def repeated(
    step: Callable[..., Tensor], blocks: Iterable[nn.Module], execution: Execution, device: torch.device
) -> Iterator[RepeatedStep]:
    """Inside the block, calls a step of a model on a device.

    Args:
        step: see `RepeatedStep`.
        blocks: the modules to compile one by one: those of the same kind and size share what is compiled. Compiled for
            training or not, they run as `execution` says.
        execution: the sampler's option.
        device: the model's.
    """
    wanted = execution == "compile"
    before = [(block, block._compiled_call_impl) for block in blocks]
    for block, _ in before:
        block._compiled_call_impl = None
        if wanted:
            block.compile(dynamic=False, options=compiler_options(block))
    try:
        yield RepeatedStep(step, captured=execution != "eager" and device.type == "cuda", compiled=wanted)
    finally:
        for block, compiled in before:
            block._compiled_call_impl = compiled


def uncompiled() -> AbstractContextManager[Any]:
    """Inside the block, compiled modules run as they are."""
    return torch.compiler.set_stance("force_eager")


def _uncompiled(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*inputs: Tensor) -> Tensor:
        with uncompiled():
            return step(*inputs)

    return run


def capture(step: Callable[..., Tensor], inputs: Iterable[Tensor]) -> Replay:
    """Captures a step as a CUDA graph, without running it."""
    own = [each.clone() for each in inputs]
    graph = torch.cuda.CUDAGraph()
    dtype = torch.get_autocast_dtype("cuda")
    # Autocast keeps casts for as long as it is on; one in a graph's memory would be lost with the graph. Other threads,
    # which copy batches to the device, may go on meanwhile.
    casts = torch.autocast("cuda", dtype, enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False)
    with torch.cuda.graph(graph, capture_error_mode="thread_local"), casts:
        result = step(*own)

    def replay(*given: Tensor) -> Tensor:
        for mine, new in zip(own, given, strict=True):
            mine.copy_(new)
        graph.replay()
        return result

    return replay
