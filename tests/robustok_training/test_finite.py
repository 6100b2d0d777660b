"""Values that are not finite stop a training, except gradients that a scaler skips."""

from __future__ import annotations

import pytest
from torch import nn

from robustok_core.errors import RunError
from robustok_training.finite import check_modules, check_values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_named_with_step_and_stage(value):
    with pytest.raises(RunError, match="line/loss is not finite at step 40") as caught:
        check_values({"other": 1.0, "line/loss": value}, step=40, stage="fit", scaled=False)
    assert caught.value.where == "stage fit"


def test_several_values_are_named_together():
    with pytest.raises(RunError, match="a, b are not finite at step 2"):
        check_values({"a": float("nan"), "b": float("nan")}, step=2, stage="fit", scaled=False)


def test_a_gradient_that_is_not_finite_is_accepted_only_with_a_scaler():
    values = {"line/gradient_norm": float("inf")}
    check_values(values, step=1, stage="fit", scaled=True)
    with pytest.raises(RunError, match="line/gradient_norm is not finite"):
        check_values(values, step=1, stage="fit", scaled=False)


def test_a_buffer_that_is_not_finite_is_named_with_its_module():
    module = nn.BatchNorm1d(2)
    check_modules({"norm": module}, step=3, stage="fit")
    module.running_var[1] = float("inf")
    with pytest.raises(RunError, match="running_var of 'norm' is not finite after step 3"):
        check_modules({"norm": module}, step=3, stage="fit")
