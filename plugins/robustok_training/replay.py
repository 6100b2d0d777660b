"""Looks into a step that became not finite: which loss term, which images, which module was the first."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from robustok_core.values.batches import Batch
from robustok_core.values.draws import Draws
from robustok_core.values.finite import all_finite
from robustok_training.task import Task, TrainedModule


@frozen(kw_only=True, eq=False)
class Turn:
    """A module's turn on a micro-batch, to be taken again: the arguments of its forward pass, and its parameters."""

    module: TrainedModule
    parameters: Mapping[str, nn.Parameter]
    batch: Batch
    draws: Draws
    progress: float
    earlier: Mapping[str, Any]

    def loss(self, rows: slice = slice(None)) -> tuple[Tensor, Mapping[str, Any]]:
        """The loss of some rows of the micro-batch, and what is logged."""
        loss, logs, _ = self.module.module(self.batch[rows], self.draws[rows], self.progress, dict(self.earlier))
        return loss, logs

    def gradients_are_finite(self, loss: Tensor) -> bool:
        """Whether the loss has a finite gradient for each parameter."""
        found = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True)
        return all_finite(*(gradient for gradient in found if gradient is not None))


def finding(turn: Turn, task: Task) -> str | None:
    """What is not finite in a turn, in words; None if the loss and the gradients are finite."""
    with _first_module(task) as modules:
        loss, logs = turn.loss()
    terms = [name for name, value in logs.items() if not _is_finite(value)]
    if not _is_finite(loss):
        what = f"{', '.join(terms or [turn.module.name + '/loss'])} not finite"
        where = f"; first in the output of {modules[0]}" if modules else ""
    elif (function := _function_without_gradient(turn)) is not None:
        what, where = "the loss finite and its gradient not", f"; first in the gradient of {function}"
    else:
        return None
    images = _guilty(turn)
    of = f"image {', '.join(map(str, images))}" if images else f"images {turn.batch.indices.tolist()} together"
    return f"{what}, for {of}{where}"


def _function_without_gradient(turn: Turn) -> str | None:
    """The function whose gradient is not finite first, found by autograd's anomaly detection; None if there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that anomaly detection is slow
        with torch.autograd.detect_anomaly():
            loss, _ = turn.loss()
            try:
                finite = turn.gradients_are_finite(loss)
            except RuntimeError as error:
                said = re.match(r"Function '(\w+)' returned nan", str(error))
                if said is None:
                    raise
                return said[1]
    return None if finite else "a parameter (infinite)"


def _guilty(turn: Turn) -> list[int]:
    """The indices of the images that are not finite on their own; empty if none is, or if they cannot be separated."""
    if turn.earlier:  # what other modules left for the whole micro-batch
        return []
    guilty = []
    for row, index in enumerate(turn.batch.indices.tolist()):
        try:
            loss, _ = turn.loss(slice(row, row + 1))
            finite = _is_finite(loss) and turn.gradients_are_finite(loss)
        except Exception:  # a module may need more than one image
            return []
        if not finite:
            guilty.append(index)
    return guilty


@contextmanager
def _first_module(task: Task) -> Iterator[list[str]]:
    """Gives a list that holds, after a forward pass, the modules whose output was not finite, the first one first."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if not all(map(_is_finite, _tensors(output))):
                found.append(f"{name} ({type(module).__name__})")

        return hook

    hooks = [
        part.register_forward_hook(watch(f"{name}.{path}" if path else name))
        for name, module in task.modules.items()
        for path, part in module.named_modules()
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif attrs.has(type(value)):
        yield from _tensors([getattr(value, field.name) for field in attrs.fields(type(value))])


def _is_finite(value: Any) -> bool:
    return all_finite(torch.as_tensor(value))
