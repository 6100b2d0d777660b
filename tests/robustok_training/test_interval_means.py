"""Means between two lines of the log."""

from __future__ import annotations

import pytest
import torch

from robustok_training.interval_means import IntervalMeans


def test_values_are_weighted_and_count_only_in_steps_that_added_them():
    means = IntervalMeans(torch.device("cpu"))
    means.add({"both": 1.0, "first": torch.tensor(7)}, 0.25)
    means.add({"both": torch.tensor(3.0)}, 0.75)
    assert means.take() == pytest.approx({"both": 2.5, "first": 7.0})


def test_taking_the_means_begins_a_new_interval():
    means = IntervalMeans(torch.device("cpu"))
    assert not means
    means.add({"loss": 5.0}, 1.0)
    assert means
    means.take()
    assert not means
    assert means.take() == {}
    means.add({"loss": 1.0}, 1.0)
    assert means.take() == {"loss": 1.0}


def test_a_value_with_a_gradient_is_detached():
    means = IntervalMeans(torch.device("cpu"))
    means.add({"loss": torch.ones((), requires_grad=True) * 2}, 1.0)
    assert means.take() == {"loss": 2.0}
