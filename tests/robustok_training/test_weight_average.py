"""The running average: torch's to the bit, and its keys, so that checkpoints of earlier versions go on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from robustok_training.weight_average import WeightAverage


class Model(nn.Module):
    """Weights in two types, one that is not trained, and two buffers, of which it puts a new one in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3).double())
        self.places = nn.Parameter(torch.arange(3), requires_grad=False)
        self.register_buffer("calls", torch.zeros(()))

    def change(self, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in self.layers.parameters():
                parameter += torch.randn(parameter.shape, generator=generator)
            self.places += 1
        self.layers[1].running_mean.fill_(step)
        self.calls = self.calls + 1


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def test_the_average_is_that_of_torch_bit_for_bit(model):
    ours, theirs = WeightAverage(model, 0.9), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in range(4):
        model.change(step)
        ours.update()
        theirs.update_parameters(model)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        expected = {**theirs.state_dict(), "module.places": model.places}  # torch rounds the mean of integers
        assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())


def test_an_average_that_was_loaded_goes_on(model):
    whole, first = WeightAverage(model, 0.9), WeightAverage(model, 0.9)
    for step in range(4):
        model.change(step)
        whole.update()
        if step < 2:
            first.update()
        if step == 1:
            saved = copy.deepcopy(first.state_dict())
            first = WeightAverage(model, 0.9)
            first.update()  # whatever it held before
            first.load_state_dict(saved)
        if step >= 2:
            first.update()
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in whole.state_dict().items())


def test_the_number_of_operations_does_not_depend_on_the_number_of_weights(counted_operations):
    few, many = (nn.Sequential(*(nn.Linear(2, 2) for _ in range(depth))) for depth in (1, 20))
    counts = []
    for model in (few, many):
        average = WeightAverage(model, 0.5)
        average.update()
        with counted_operations() as operations:
            average.update()
        counts.append(len(operations))
    assert counts[0] == counts[1]
