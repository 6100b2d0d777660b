"""Weights by name."""

from __future__ import annotations

import math

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
    assert misfit(tensors(**dict.fromkeys("edcba", ())), {}) == "missing a, b, c and 2 more"
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


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_width_fit(kind):
    module = nn.Linear(2, 1)
    load_module(module, {"weight": torch.ones(1, 2, dtype=kind), "bias": torch.ones(1)}, "here")
    assert module.weight.tolist() == [[1.0, 1.0]]
    assert module.weight.dtype == torch.float32


@pytest.mark.parametrize("kind", ["int64", "bool", "complex64", "float8_e4m3fn"])
def test_values_that_are_no_floats_do_not_fit_floats(kind):
    weights = {"a": torch.zeros(2, dtype=getattr(torch, kind))}
    assert misfit(tensors(a=(2,)), weights) == f"wrong type a: {kind} instead of float32"


def test_integers_of_another_width_fit_integers_and_floats_do_not():
    wanted = {"a": torch.zeros(2, dtype=torch.int64)}
    assert misfit(wanted, {"a": torch.zeros(2, dtype=torch.int32)}) == ""
    assert misfit(wanted, {"a": torch.zeros(2)}) == "wrong type a: float32 instead of int64"
    assert misfit(wanted, {"a": torch.zeros(2, dtype=torch.bool)}) == "wrong type a: bool instead of int64"


@pytest.mark.parametrize(
    "values",
    [
        [0.0, math.nan],
        [math.inf, 0.0],
        torch.tensor([0.0, 1e300], dtype=torch.float64),  # finite, but not as float32
        torch.tensor([0.0, -math.inf], dtype=torch.float16),
    ],
)
def test_values_that_are_not_finite_are_named_and_counted(values):
    module = nn.Linear(2, 1)
    before = module.weight.clone()
    with pytest.raises(RunError, match=r"weights are NaN or infinite: weight \(1 of 2 values\)"):
        load_module(module, {"weight": torch.as_tensor(values)[None], "bias": torch.ones(1)}, "here")
    assert torch.equal(module.weight, before)


def test_a_prefix_is_added_and_taken_away_again():
    weights = tensors(a=(2,), b=(3,))
    both = prefixed(weights, "one/") | prefixed(weights, "two/")
    assert set(both) == {"one/a", "one/b", "two/a", "two/b"}
    assert part(both, "two/").keys() == weights.keys()
