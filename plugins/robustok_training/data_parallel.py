"""Gradients averaged over the processes while the backward pass computes others (DistributedDataParallel).

DDP waits for the gradient of every parameter, or searches the graph of each step for those that get none. The graph of
a module's first turn says which it needs: most modules train all their parameters, and are never searched again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from attrs import frozen
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robustok_core.errors import RunError
from robustok_core.values.wording import some_names
from robustok_training.distributed import all_sum

if TYPE_CHECKING:
    from accelerate import Accelerator


@frozen
class _Given:
    """What a module has returned already."""

    outputs: Any


class _Turn(nn.Module):
    """Calls a module, or returns what it has returned already."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any) -> Any:
        return args[0].outputs if isinstance(args[0], _Given) else self.module(*args)


class DataParallel:
    """A trained module whose gradients are averaged over the processes, which hold the same weights.

    Args:
        name: of the module, for messages. module: returns a loss and other values.
        parameters: those that are trained, by name. accelerator: the processes. say: prints a line.

    Attributes:
        turn: the module as accelerate has prepared it.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        accelerator: Accelerator,
        say: Callable[[str], None],
    ) -> None:
        self._name, self._parameters, self._say = name, parameters, say
        self._device = accelerator.device
        for parameter in module.parameters():
            dist.broadcast(parameter.data, 0)
        self.turn = accelerator.prepare_model(_Turn(module), evaluation_mode=True)
        self._ddp: DistributedDataParallel | None = None

    def __call__(self, *args: Any, averages: bool) -> Any:
        """The module's result.

        Args:
            averages: whether the gradients, with those of the calls before, are averaged in its backward pass.
        """
        given: Any = args
        if self._ddp is None:
            given = (_Given(self.turn(*args)),)
            self._ddp = self._wrapped(given[0].outputs[0])
        self._ddp.require_backward_grad_sync = averages
        return self._ddp(*given)

    def _wrapped(self, loss: Tensor) -> DistributedDataParallel:
        reached = leaves_of(loss)
        missing = torch.tensor([float(id(p) not in reached) for p in self._parameters.values()], device=self._device)
        where = all_sum(missing).tolist()
        unused = [name for name, count in zip(self._parameters, where, strict=True) if count]
        if unused:
            what = f"no gradient reaches {some_names(unused)} of {self._name!r} in its first step"
            self._say(f"{what}: the graph of every step is searched for such parameters, which takes a little time")
        ddp = self._ddp_of(searches=bool(unused))
        if not unused:
            self._settle(ddp)
        return ddp

    def _ddp_of(self, *, searches: bool) -> DistributedDataParallel:
        with warnings.catch_warnings():
            # Its successor, forward_sync_buffers, is unknown to torch before 2.14.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(
                self.turn,
                device_ids=None if self._device.index is None or self._device.type == "cpu" else [self._device.index],
                # Codebook statistics are reduced over all processes explicitly; a broadcast would overwrite what a
                # process accumulated within a step.
                broadcast_buffers=False,
                init_sync=False,  # the weights are the same already, and in use
                find_unused_parameters=searches,
                gradient_as_bucket_view=True,
            )

    def _settle(self, ddp: DistributedDataParallel) -> None:
        """Gives the buckets their order, which DDP takes from the first backward pass.

        So it is the same whether a training starts or resumes, and with it the order in which numbers are added.
        """
        total = torch.stack([p.sum() * 0.0 for p in self._parameters.values()]).sum()
        ddp(_Given(total)).backward()
        for parameter in self._parameters.values():
            parameter.grad = None

    def check(self) -> None:
        """Checks after a backward pass that averaged that each parameter had a gradient, if each had one at first.

        Raises:
            RunError: it names those that had none. Other processes wait for these gradients until this one ends.
        """
        if self._ddp is None or self._ddp.find_unused_parameters:
            return
        missing = [name for name, parameter in self._parameters.items() if parameter.grad is None]
        if missing:
            what = f"no gradient reaches {some_names(missing)} of {self._name!r} in this step, though one did at first"
            hint = "train with one process; or let its loss depend on them in every step, if only by adding 0 * x.sum()"
            raise RunError(what, hint=hint)


def leaves_of(loss: Tensor) -> set[int]:
    """The ids of the parameters that the backward pass of a loss reaches; a walk through its graph."""
    ahead, seen, leaves = [loss.grad_fn], set[Any](), set[int]()
    while ahead:
        node: Any = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        ahead.extend(function for function, _ in node.next_functions)
    return leaves
