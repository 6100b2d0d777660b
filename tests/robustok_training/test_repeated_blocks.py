"""Blocks that are compiled or computed again give the losses, gradients and files of those that are not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

from robustok_blocks.conv import ResidualBlock
from robustok_blocks.transformer import Block
from robustok_training.repeated_blocks import MOST_INPUTS, RepeatedBlocks, repeated_blocks


class Net(nn.Module):
    """Two transformer blocks with dropped paths, behind a list of levels of residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.ModuleList(ResidualBlock(4, 4, 2) for _ in range(2)) for _ in range(2))
        self.blocks = nn.ModuleList(Block(4, 2, drop_path=0.5) for _ in range(2))
        self.head = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 1))

    def forward(self, images: Tensor) -> Tensor:
        for level in self.levels:
            for block in level:
                images = block(images)
        tokens = images.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens).square().mean()


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 4, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def in_this_process() -> Iterator[None]:
    """Compilation starts no processes."""
    with inductor.patch(compile_threads=1):
        yield


def loss_and_gradients(net: Net, images: Tensor, blocks: RepeatedBlocks | None) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(2)
    net.zero_grad()
    if blocks is None:
        loss = net(images)
    else:
        with blocks.running():
            loss = net(images)
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in net.parameters()]


def blocks_of(net: nn.Module, said: list[str] | None = None, **options: bool) -> RepeatedBlocks:
    say = [].append if said is None else said.append
    return RepeatedBlocks([net], [net], **{"compiles": False, "recomputes": False, **options}, say=say)


def test_blocks_are_the_innermost_members_of_lists_that_are_not_torchs_own_layers(net):
    assert set(repeated_blocks(net)) == {*net.levels[0], *net.levels[1], *net.blocks}


def test_blocks_of_a_network_that_is_used_but_not_owned_are_found(net):
    class User(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            object.__setattr__(self, "network", net)

    assert set(repeated_blocks(User())) == set(repeated_blocks(net))


def test_blocks_computed_again_give_the_same_gradients_bit_for_bit(net, images):
    loss, gradients = loss_and_gradients(net, images, None)
    again, same = loss_and_gradients(net, images, blocks_of(net, recomputes=True))
    assert torch.equal(loss, again)
    assert all(map(torch.equal, gradients, same))


def kept_bytes(net: Net, images: Tensor, blocks: RepeatedBlocks) -> int:
    """The bytes that the forward pass keeps for the backward pass, besides the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), blocks.running():
        loss = net(images)
    assert loss.requires_grad  # holds what was kept
    return sum(kept.values())


def test_blocks_computed_again_keep_their_inputs_only(net, images):
    everything, inputs = (kept_bytes(net, images, blocks_of(net, recomputes=on)) for on in (False, True))
    number, of_head = len(repeated_blocks(net)), 3
    assert inputs <= (number + of_head + 1) * images.nbytes
    assert everything > 4 * inputs


def test_compiled_blocks_give_the_same_losses_with_the_same_dropped_paths(net, images):
    net.levels = nn.ModuleList()
    loss, gradients = loss_and_gradients(net, images, None)
    said: list[str] = []
    compiled, same = loss_and_gradients(net, images, blocks_of(net, said, compiles=True))
    torch.testing.assert_close(compiled, loss, rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients, same, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert said == ["blocks are compiled in the first steps, which take longer"], "and nothing failed"


def test_blocks_may_be_both(net, images):
    loss, gradients = loss_and_gradients(net, images, None)
    both, same = loss_and_gradients(net, images, blocks_of(net, compiles=True, recomputes=True))
    torch.testing.assert_close(both, loss, rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients, same, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.fixture
def compilations(monkeypatch) -> list[Any]:
    """What is compiled, by a compiler that changes nothing."""
    graphs: list[Any] = []
    real = torch.compile

    def compile_(function, *, dynamic, options):
        return real(function, dynamic=dynamic, backend=lambda graph, inputs: graphs.append(graph) or graph.forward)

    monkeypatch.setattr(torch, "compile", compile_)
    return graphs


def test_a_block_is_compiled_once_for_all_its_repeats(net, images, compilations):
    blocks = blocks_of(net, compiles=True)
    for _ in range(3):
        loss_and_gradients(net, images, blocks)
    assert len(compilations) == 3  # residual blocks with and without a gradient for their input, transformer blocks


def test_batches_of_ever_other_sizes_are_not_compiled_for_ever(net, images, compilations):
    blocks = blocks_of(net, compiles=True)
    for rows in (6, 5, 4, 3, 2, 1):
        loss_and_gradients(net, images[:rows], blocks)
    assert len(compilations) == 2 * MOST_INPUTS


def test_keys_copies_and_calls_outside_are_those_of_the_module_as_it_was(net, images, compilations):
    keys, blocks = list(net.state_dict()), blocks_of(net, compiles=True, recomputes=True)
    with blocks.running():
        assert list(net.state_dict()) == keys
        other = copy.deepcopy(net)
        other(images)
        assert not compilations
    net(images)
    assert not compilations


@pytest.mark.parametrize("recomputes", [False, True])
def test_a_compiler_that_fails_is_named_once_and_the_blocks_run_as_they_are_written(net, images, recomputes):
    expected, gradients = loss_and_gradients(net, images, None)
    said: list[str] = []
    blocks = blocks_of(net, said, compiles=True, recomputes=recomputes)
    with inductor.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}):
        for _ in range(2):
            loss, same = loss_and_gradients(net, images, blocks)
    assert torch.equal(loss, expected)
    assert all(map(torch.equal, gradients, same))
    assert said.pop(0) == "blocks are compiled in the first steps, which take longer"
    assert len(said) == 1
    assert said[0].startswith("ResidualBlock cannot be compiled here, so the training goes on without compilation: ")
    assert "\n" not in said[0]


def test_an_error_of_the_block_itself_is_not_the_compilers(net, images):
    blocks = blocks_of(net, compiles=True)
    with blocks.running(), pytest.raises(RuntimeError, match="channels"):
        net(images[:, :3])


class Counting(nn.Module):
    """A block with running averages."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


def test_a_block_that_counts_what_it_sees_sees_it_once(images):
    net = nn.ModuleList([Counting()])
    with RepeatedBlocks([], [net], compiles=False, recomputes=True).running():
        net[0](images).sum().backward()
    assert net[0].norm.num_batches_tracked == 1
