"""How a training runs the repeated blocks of its networks: compiled, and computed again in the backward pass.

A block is compiled once for all its repeats, below everything that is no tensor (`Latents`, `Draws`), so that
compilation is short. It stays what it is: names of weights, checkpoints and copies know nothing of it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from robustok_blocks.compiler_options import compiler_options
from robustok_core.kinds.quantizer import Quantizer
from robustok_core.values.wording import reason_of

#: So many kinds of input are compiled for a block: training, also of a teacher without gradients, needs one or two. A
#: batch of another size comes to no more than that; what is beyond runs as it is written.
MOST_INPUTS = 4
_PLAIN = (int, float, str, bool, type(None))


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """The innermost members of lists of modules that hold matrices and are not torch's own layers.

    Networks that a module uses but does not own, such as a loss's teacher, are searched too.
    """
    found = {
        id(member): member
        for part in _every_module(module)
        if isinstance(part, (nn.ModuleList, nn.Sequential))
        for member in part.children()
        if _is_block(member)
    }
    return [member for member in found.values() if not any(id(p) in found for p in member.modules() if p is not member)]


def _is_block(module: nn.Module) -> bool:
    own = type(module).forward is not nn.Module.forward and not type(module).__module__.startswith("torch.nn.")
    parts = list(module.modules())
    weights = any(parameter.ndim >= 2 for parameter in module.parameters())
    return own and weights and not any(map(parametrize.is_parametrized, parts))


def _counts(block: nn.Module) -> bool:
    """Whether a call changes what a block holds, so that a second one would count its inputs twice."""
    return any(isinstance(part, (BatchNorm, Quantizer)) for part in block.modules())


def _every_module(root: nn.Module) -> Iterator[nn.Module]:
    ahead, seen = [root], set[int]()
    while ahead:
        module = ahead.pop()
        if id(module) not in seen:
            seen.add(id(module))
            yield module
            ahead.extend(part for part in vars(module).values() if isinstance(part, nn.Module))
            ahead.extend(module.children())


class RepeatedBlocks:
    """The repeated blocks of a training's networks, which run as they are written except inside `running`.

    Args:
        networks: what else computes in a step, besides the trained networks; its blocks are not computed again.
        trained: the networks that are trained.
        compiles: whether blocks are compiled. recomputes: whether the trained ones keep only their inputs for the
            backward pass and are computed again there, with the same dropout; not those that count what they see.
        say: prints a line.
        again_in: a context, entered for each block that is computed again, where that is not in the one of `running`:
            torch leaves modes that change what functions do.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        trained: Sequence[nn.Module],
        *,
        compiles: bool,
        recomputes: bool,
        say: Callable[[str], None] = lambda line: None,
        again_in: AbstractContextManager[Any] | None = None,
    ) -> None:
        blocks = [block for network in trained for block in repeated_blocks(network)] if recomputes else []
        again = {id(block) for block in blocks if not _counts(block)}
        every = {id(block): block for network in [*networks, *trained] for block in repeated_blocks(network)}
        compiler = _Compiler(say) if compiles else None
        if compiles and every:
            say("blocks are compiled in the first steps, which take longer")
        self._calls: list[tuple[Any, Callable[..., Any]]] = []
        for key, block in every.items():
            call = block._call_impl if compiler is None else compiler.call_of(block)
            if key in again:
                call = _computed_again(block, call, again_in or contextlib.nullcontext())
            if compiles or key in again:
                self._calls.append((block, call))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside the block, calls of the repeated blocks run as the options say."""
        for block, call in self._calls:
            # torch's own place for what compiles a module; it is left out of copies and pickles.
            block._compiled_call_impl = call
        try:
            yield
        finally:
            for block, _ in self._calls:
                block._compiled_call_impl = None


def _computed_again(
    block: nn.Module, call: Callable[..., Any], again_in: AbstractContextManager[Any]
) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return call(*args, **kwargs)
        on_meta = any(isinstance(value, Tensor) and value.is_meta for value in args)
        return checkpoint(
            call,
            *args,
            use_reentrant=False,
            preserve_rng_state=not on_meta,
            context_fn=lambda: (contextlib.nullcontext(), again_in),
            **kwargs,
        )

    return run


class _Compiler:
    """Compiles blocks; blocks of equal structure share what is compiled."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._kinds: dict[Any, _Kind] = {}
        self.works = True

    def call_of(self, block: nn.Module) -> Callable[..., Any]:
        structure = _structure(block)
        if structure not in self._kinds:
            self._kinds[structure] = _Kind(self, block)
        kind = self._kinds[structure]
        return lambda *args, **kwargs: kind(block, args, kwargs)

    def fail(self, block: nn.Module, error: Exception) -> None:
        """Compiles nothing any more, and says why."""
        self.works = False
        name = type(block).__name__
        self._say(f"{name} cannot be compiled here, so the training goes on without compilation: {reason_of(error)}")


class _Kind:
    """Blocks of one structure, and the inputs for which they are compiled."""

    def __init__(self, compiler: _Compiler, block: nn.Module) -> None:
        self._compiler = compiler
        # With a code of its own: torch limits how often one function is compiled, and counts by its code.
        code = _called.__code__.replace(co_name="block")
        # Dropout draws the numbers that it would draw without compilation.
        self._compiled = torch.compile(
            FunctionType(code, _called.__globals__),
            dynamic=False,
            options={"fallback_random": True, **compiler_options(block)},
        )
        self._inputs: set[Any] = set()

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        inputs = (block.training, torch.is_grad_enabled(), *map(_form, args), *map(_form, kwargs.values()))
        if self._compiler.works and inputs in self._inputs:
            return self._compiled(block, *args, **kwargs)
        if not self._compiler.works or len(self._inputs) >= MOST_INPUTS:
            return block._call_impl(*args, **kwargs)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what torch meets on its way through the block's code
                result = self._compiled(block, *args, **kwargs)
        except Exception as error:
            result = block._call_impl(*args, **kwargs)  # raises again if it was not the compilation
            self._compiler.fail(block, error)
        self._inputs.add(inputs)
        return result


def _called(block: Any, *args: Any, **kwargs: Any) -> Any:
    return block._call_impl(*args, **kwargs)


def _form(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device, value.requires_grad
    return value if isinstance(value, _PLAIN) else type(value)


def _structure(block: nn.Module) -> Any:
    """What two blocks must have in common to be the same computation: classes, shapes, and numbers such as rates."""
    return tuple(
        (
            name,
            type(part),
            tuple((key, p.shape, p.dtype, p.requires_grad) for key, p in part.named_parameters(recurse=False)),
            tuple((key, value) for key, value in sorted(vars(part).items()) if _is_plain(value) and key != "training"),
        )
        for name, part in block.named_modules()
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(isinstance(part, _PLAIN) for part in value))
