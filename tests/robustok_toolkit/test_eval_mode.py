"""Eval mode lasts as long as the block; afterwards all modes are restored."""

from __future__ import annotations

import pytest
from torch import nn

from robustok_toolkit.eval_mode import evaluating


def mixed() -> nn.Module:
    """A network in training mode with one submodule in eval mode."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.Linear(2, 2)))
    network[1][0].eval()
    return network


def modes(network: nn.Module) -> list[bool]:
    return [module.training for module in network.modules()]


def test_every_submodule_is_in_eval_mode_inside_and_restored_afterwards() -> None:
    network = mixed()
    before = modes(network)
    with evaluating(network):
        assert not any(modes(network))
    assert modes(network) == before == [True, True, True, False, True]


def test_modes_are_restored_after_an_error() -> None:
    network = mixed()
    before = modes(network)
    with pytest.raises(ValueError, match="broken"), evaluating(network):
        raise ValueError("broken")
    assert modes(network) == before
