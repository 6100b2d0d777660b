"""Prepared linear layers compute what linear layers do and are restored afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustok_generators.prepared_linear import prepared_linear


@pytest.mark.parametrize("rows", [1, 16, 40])
@torch.no_grad()
def test_packed_layers_compute_the_same(rows):
    module = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 32, bias=False))
    x = torch.randn(rows, 3, 64)
    expected = module(x)
    with prepared_linear(module, packed_for=16):
        assert "forward" in vars(module[0])
        torch.testing.assert_close(module(x), expected)


def test_layers_are_restored_even_if_the_block_fails():
    layer = nn.Linear(4, 4)
    with pytest.raises(RuntimeError), prepared_linear(layer, packed_for=2):
        layer(torch.randn(2, 5))
    assert "forward" not in vars(layer)
    layer(torch.randn(2, 4)).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("layer", [nn.Linear(4, 4).double(), nn.Linear(4, 4, device="meta"), nn.Conv2d(4, 4, 1)])
def test_other_layers_are_unchanged(layer):
    with prepared_linear(layer, packed_for=2):
        assert "forward" not in vars(layer)


@torch.no_grad()
def test_under_autocast_a_weight_is_cast_once_with_the_same_results():
    module = nn.Sequential(nn.Linear(64, 96), nn.LayerNorm(96), nn.Linear(96, 32, bias=False)).requires_grad_(False)
    x, weights = torch.randn(8, 64), [module[0].weight, module[2].weight]
    with torch.autocast("cpu", torch.bfloat16):
        expected = module(x)
        with prepared_linear(module, packed_for=8):
            casts = [module[0].weight, module[2].weight]
            assert torch.equal(module(x), expected)
    assert {weight.dtype for weight in casts} == {torch.bfloat16}
    assert module[1].weight.dtype == torch.float32
    assert [module[0].weight, module[2].weight] == weights
