"""Packed linear layers compute what linear layers do and are restored afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustok_generators.packed_linear import packed_linear


@pytest.mark.parametrize("rows", [1, 16, 40])
@torch.no_grad()
def test_packed_layers_compute_the_same(rows):
    module = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 32, bias=False))
    x = torch.randn(rows, 3, 64)
    expected = module(x)
    with packed_linear(module, rows=16):
        assert "forward" in vars(module[0])
        torch.testing.assert_close(module(x), expected)


def test_layers_are_restored_even_if_the_block_fails():
    layer = nn.Linear(4, 4)
    with pytest.raises(RuntimeError), packed_linear(layer, rows=2):
        layer(torch.randn(2, 5))
    assert "forward" not in vars(layer)
    layer(torch.randn(2, 4)).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("layer", [nn.Linear(4, 4).double(), nn.Linear(4, 4, device="meta"), nn.Conv2d(4, 4, 1)])
def test_other_layers_are_unchanged(layer):
    with packed_linear(layer, rows=2):
        assert "forward" not in vars(layer)


def test_layers_are_not_packed_under_autocast():
    layer = nn.Linear(4, 4)
    with torch.autocast("cpu", torch.bfloat16), packed_linear(layer, rows=2):
        assert layer(torch.randn(2, 4)).dtype == torch.bfloat16
