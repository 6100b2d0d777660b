"""Weights by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustok_core import RunError
from robustok_core.runs.weights import load_module, misfit, part, prefixed


def tensors(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_weights_that_fit_have_no_misfit():
    assert misfit(tensors(a=(2,), b=(3,)), tensors(b=(3,), a=(2,))) == ""


def test_each_misfit_is_named():
    found = misfit(tensors(a=(2,), b=(3,), c=()), tensors(a=(2, 1), c=(), d=(4,)))
    assert found == "missing b; unexpected d; wrong shape a: (2, 1) instead of (2,)"


def test_of_many_names_the_first_three_are_shown():
    assert misfit(tensors(**dict.fromkeys("edcba", ())), {}) == "missing a, b, c ..."
    assert misfit(tensors(a=(), b=(), c=()), {}) == "missing a, b, c"


def test_names_are_spelt_as_the_file_spells_them():
    assert misfit(tensors(a=()), {}, str.upper) == "missing A"


def test_a_module_is_loaded_whole_or_not_at_all():
    module, weights = nn.Linear(2, 1), {"weight": torch.ones(1, 2), "bias": torch.ones(1)}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(RunError, match="here: the weights do not fit the model: missing bias"):
        load_module(module, {"weight": weights["weight"]}, "here")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    load_module(module, weights, "here")
    assert all(torch.equal(weights[name], value) for name, value in module.state_dict().items())


def test_a_prefix_is_added_and_taken_away_again():
    weights = tensors(a=(2,), b=(3,))
    both = prefixed(weights, "one/") | prefixed(weights, "two/")
    assert set(both) == {"one/a", "one/b", "two/a", "two/b"}
    assert part(both, "two/").keys() == weights.keys()
