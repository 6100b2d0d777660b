"""Schedules at their corners, and which parameters decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustok_training.optimizer import OptimizerConfig, set_rate


def rates(config: OptimizerConfig, *shares: float) -> list[float]:
    return [config.rate_at(share) for share in shares]


def test_a_cosine_begins_at_the_peak_and_passes_the_middle_of_both_rates_half_way():
    config = OptimizerConfig(learning_rate=1.0, final_learning_rate=0.2)
    assert rates(config, 0.0, 0.5, 1.0) == pytest.approx([1.0, 0.6, 0.2])


def test_a_cosine_begins_where_the_warm_up_ends():
    config = OptimizerConfig(learning_rate=1.0, warmup=0.2, warmup_learning_rate=0.5)
    assert rates(config, 0.0, 0.1, 0.2, 0.6, 1.0) == pytest.approx([0.5, 0.75, 1.0, 0.5, 0.0])


def test_a_constant_rate_stays_after_the_warm_up():
    config = OptimizerConfig(learning_rate=1.0, schedule="constant", warmup=0.5)
    assert rates(config, 0.0, 0.25, 0.5, 0.9, 1.0) == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0])


def test_a_warm_up_over_the_whole_training_ends_at_the_peak():
    assert rates(OptimizerConfig(learning_rate=1.0, warmup=1.0), 0.5, 1.0) == [0.5, 1.0]


def test_one_step_of_a_warm_up_from_0_learns_nothing_and_two_do():
    config = OptimizerConfig(warmup=1.0)
    assert not config.learns(1)
    assert config.learns(2)


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "constant", "final_learning_rate": 0.1},
        {"warmup": 1.0, "final_learning_rate": 0.1},
        {"warmup_learning_rate": 0.1},
    ],
)
def test_a_rate_that_no_step_would_use_is_refused(options):
    with pytest.raises(ValueError, match="rate = 0.1 has an effect only with"):
        OptimizerConfig(**options)


@pytest.mark.parametrize("betas", [(1.0, 0.9), (0.9, -0.1)])
def test_betas_outside_of_0_to_1_are_refused(betas):
    with pytest.raises(ValueError, match="betas must lie in"):
        OptimizerConfig(betas=betas)


def test_matrices_decay_and_vectors_and_exceptions_do_not():
    module = nn.ModuleDict({"first": nn.Linear(2, 3), "second": nn.Linear(3, 2, bias=False)})
    optimizer = OptimizerConfig(weight_decay=0.1).build(dict(module.named_parameters()), ["second.weight"])
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: decay[id(p)] for name, p in module.named_parameters()}
    assert found == {"first.weight": 0.1, "first.bias": 0.0, "second.weight": 0.0}


def test_decay_alone_shrinks_by_the_rate_times_the_decay():
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = OptimizerConfig(learning_rate=1.0, weight_decay=0.5).build({"weight": weight})
    set_rate(optimizer, 0.1)
    weight.grad = torch.zeros(2, 2)
    optimizer.step()
    assert weight.detach().flatten().tolist() == pytest.approx([0.95] * 4)


def test_a_rate_is_set_for_all_groups():
    parameters = {"weight": nn.Parameter(torch.ones(2, 2)), "bias": nn.Parameter(torch.ones(2))}
    optimizer = OptimizerConfig().build(parameters)
    set_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
