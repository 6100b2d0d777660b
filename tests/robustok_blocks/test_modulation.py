"""Modulation is an affine map of each token."""

from __future__ import annotations

import pytest
import torch

from robustok_blocks.modulation import modulate


def test_zeros_change_nothing() -> None:
    x = torch.linspace(-2.0, 2.0, 12).view(1, 3, 4)
    zeros = torch.zeros(1, 3, 4)
    assert torch.equal(modulate(x, shift=zeros, scale=zeros), x)


@pytest.mark.parametrize("num_conditions", [1, 3])
def test_tokens_are_scaled_by_1_plus_scale_and_then_shifted(num_conditions: int) -> None:
    x = torch.arange(12.0).view(1, 3, 4)
    shift = torch.arange(1.0, num_conditions + 1.0).view(1, -1, 1).expand(1, num_conditions, 4)
    modulated = modulate(x, shift=shift, scale=torch.full((1, num_conditions, 4), 2.0))
    assert torch.equal(modulated, 3.0 * x + shift)


def test_shift_and_scale_must_be_given_by_name() -> None:
    with pytest.raises(TypeError):
        modulate(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))  # type: ignore[misc]
