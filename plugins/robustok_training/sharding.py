"""Weights, gradients and optimiser states divided among the processes, block by block (FSDP2).

Divided are the blocks of the module that is kept: the members of its `nn.ModuleList`s. Each is gathered when it is
called and freed again. The rest (embeddings, heads, codebooks) is whole on every process, with gradients averaged
here: codebooks and last layers are also read and changed outside of a forward pass. Modules trained against the kept
one are whole too, because they are called in its turn.

`fully_shard` is called directly, on GPUs as on CPUs: accelerate shards on GPUs only, and would compute in parameters
of 16 bits where robustok uses autocast.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from robustok_core.runs.environment import frees_gathered_weights, shards_weights
from robustok_training.distributed import all_sum, rank, world_size

try:
    from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, Shard
except ImportError:  # a torch without torch.distributed, where nothing is sharded
    DTensor = type(None)  # type: ignore[assignment,misc]


def is_sharded_run() -> bool:
    """Whether the launcher asked for FSDP and there are several processes."""
    return shards_weights() and world_size() > 1


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a sharded tensor; any other tensor as it is. Shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All rows of a sharded tensor, on every process, which must all call it; any other tensor as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor, sharded or whole as another one is; all processes must call it."""
    if not isinstance(like, DTensor):
        return whole(tensor)
    if isinstance(tensor, DTensor):
        return tensor
    own = own_rows(len(tensor))
    return of_own_rows(tensor[own.start : own.stop].clone(), like.shape)


def own_rows(count: int) -> range:
    """Which of so many rows of a sharded tensor this process holds; as `torch.chunk` divides them."""
    each = most_rows(count, world_size())
    return range(min(rank() * each, count), min((rank() + 1) * each, count))


def most_rows(count: int, processes: int) -> int:
    """How many of so many rows a process holds at most."""
    return -(-count // processes)


def of_own_rows(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """The sharded tensor of a shape of which this process holds these rows, see `own_rows`."""
    stride = torch.empty(shape, device="meta").stride()
    rows = rows.to(_mesh().device_type)
    return DTensor.from_local(rows, _mesh(), [Shard(0)], run_check=False, shape=torch.Size(shape), stride=stride)


def shard(module: nn.Module) -> None:
    """Divides the blocks of a module among the processes, in place; what is not trained stays whole."""
    mesh, divided = _mesh(), divided_parameters(module)
    left_whole = set(module.parameters()) - {parameter for own in divided.values() for parameter in own}
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()  # as rows are divided, and gradients are averaged
    for block in divided:
        fully_shard(block, mesh=mesh, reshard_after_forward=frees_gathered_weights(), ignored_params=left_whole)
    left_whole |= {p for p in module.parameters() if not isinstance(p, DTensor)}
    fully_shard(module, mesh=mesh, ignored_params=left_whole)


def divided_parameters(module: nn.Module) -> dict[nn.Module, list[nn.Parameter]]:
    """What `shard` divides, by block: trained parameters that are used nowhere else and have rows."""
    blocks = blocks_of(module)
    inside = {id(part) for block in blocks for part in block.modules()}
    outside = {p for part in module.modules() if id(part) not in inside for p in part.parameters(recurse=False)}
    return {
        block: [p for p in block.parameters() if p.requires_grad and p.ndim > 0 and p not in outside]
        for block in blocks
    }


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The outermost members of lists of modules that have something to train and are called themselves."""
    if isinstance(module, nn.ModuleList):
        return [block for member in module for block in ([member] if _is_called(member) else blocks_of(member))]
    return [block for child in module.children() for block in blocks_of(child)]


def _is_called(module: nn.Module) -> bool:
    trained = any(parameter.requires_grad for parameter in module.parameters())
    return trained and type(module).forward is not nn.Module.forward


@functools.cache
def _mesh() -> DeviceMesh:
    return init_device_mesh("cuda" if dist.get_backend() == "nccl" else "cpu", (world_size(),))


class ShardedGradients:
    """The gradients of a sharded module: those of whole parameters are averaged here, the others by FSDP.

    Args:
        parameters: those that are trained.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._sharded = [p for p in parameters if isinstance(p, DTensor)]
        self._whole = [p for p in parameters if not isinstance(p, DTensor)]

    @contextlib.contextmanager
    def averaging(self, *, last: bool) -> Iterator[None]:
        """Averages those of whole parameters after the last micro-batch of a step only.

        Those of divided ones are averaged after each: until then FSDP keeps them whole, which is the memory that
        dividing saves.
        """
        yield
        if last and self._whole:
            self._average_whole()

    def _average_whole(self) -> None:
        missing = [p.grad is None for p in self._whole]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._whole]
        used = torch.tensor([float(not none) for none in missing], device=gradients[0].device)
        buffer = all_sum(torch.cat([used, *(gradient.flatten() for gradient in gradients)]))
        flags, *averaged = (buffer / world_size()).split([len(used), *(p.numel() for p in self._whole)])
        anywhere = (flags > 0).tolist() if any(missing) else [True] * len(missing)
        for parameter, gradient, is_used in zip(self._whole, averaged, anywhere, strict=True):
            parameter.grad = gradient.view_as(parameter) if is_used else None

    def clip(self, largest: float) -> Tensor:
        """Clips the gradient and returns its norm before clipping, over all processes."""
        sharded = [local(p.grad) for p in self._sharded if p.grad is not None]
        held = [p.grad for p in self._whole if p.grad is not None]
        squares = all_sum(_square(sharded, held[0].device if held else None)) + _square(held, None)
        norm = squares.sqrt()
        torch._foreach_mul_([*sharded, *held], (largest / (norm + 1e-6)).clamp(max=1.0))
        return norm


def _square(tensors: Sequence[Tensor], device: torch.device | None) -> Tensor:
    return nn.utils.get_total_norm(tensors).square() if tensors else torch.zeros((), device=device)


class WholeCopy:
    """Makes whole copies of a module that is about to be sharded."""

    def __init__(self, module: nn.Module) -> None:
        empty: dict[int, Any] = {
            id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
            for p in module.parameters()
        }
        self._structure = copy.deepcopy(module, empty)

    def of(self, module: nn.Module) -> nn.Module:
        """A copy with the values of `module`, which is built as the module was; all processes must call it."""
        made = copy.deepcopy(self._structure)
        state = {name: whole(value).clone() for name, value in module.state_dict().items()}
        made.load_state_dict(state, assign=True)
        saved = made.state_dict()
        for (name, buffer), (_, value) in zip(made.named_buffers(), module.named_buffers(), strict=True):
            if name not in saved:
                buffer.copy_(value)
        return made.train(module.training)


def separated(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Those that every process holds whole, and this process's rows of the others."""
    kept = {name: tensor for name, tensor in tensors.items() if not isinstance(tensor, DTensor)}
    return kept, {name: local(tensor) for name, tensor in tensors.items() if name not in kept}
