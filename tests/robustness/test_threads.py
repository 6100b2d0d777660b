"""Several threads of a CPU compute the same each time."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Iterator

import pytest
import torch

from project import Project, assert_same_weights
from robustok_core.errors import Interrupted
from robustok_core.values.devices import repeatable
from robustok_training.progress import StepProgress

STAGES = ("train_tokenizer", "tokenize", "train_generator")
#: Its tables of positions are large enough for torch to divide the sum of their gradients among threads.
RAR = {"use": "rar", "width": 256, "depth": 1, "num_heads": 4}
on_a_cpu = functools.partial(repeatable, torch.device("cpu"))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def trained(out, precision: str = "no") -> Project:
    return Project(out, STAGES, generator=RAR, run={"precision": precision}).run()


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_on_two_threads_a_training_has_the_same_weights_each_time(tmp_path, precision):
    one, other = trained(tmp_path / "one", precision), trained(tmp_path / "other", precision)
    assert_same_weights(one.weights(), other.weights())
    assert_same_weights(one.weights("generator"), other.weights("generator"))


@pytest.mark.usefixtures("two_threads")
def test_on_two_threads_a_stopped_training_ends_with_the_weights_of_one_that_was_not(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole")
    update = StepProgress.update

    def stopping(self, done, values=None):
        update(self, done, values)
        if self._title == "train_generator" and done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(StepProgress, "update", stopping)
    with pytest.raises(Interrupted):
        trained(tmp_path / "stopped")
    monkeypatch.undo()
    assert_same_weights(trained(tmp_path / "stopped").weights("generator"), whole.weights("generator"))


@pytest.mark.usefixtures("two_threads")
def test_the_gradient_of_an_indexed_table_has_the_same_bits_each_time():
    rows, weights = torch.arange(20_000).remainder(7), torch.linspace(-1.0, 1.0, 20_000 * 8).view(20_000, 8)

    def gradient() -> torch.Tensor:
        table = torch.ones(7, 8, requires_grad=True)
        (table[rows] * weights).sum().backward()
        return table.grad

    with on_a_cpu():
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(20))


def test_torch_warns_of_what_it_cannot_repeat():
    values, places = torch.nn.functional.max_pool2d(torch.arange(16.0).view(1, 4, 4), 2, return_indices=True)
    with on_a_cpu(), pytest.warns(UserWarning, match="does not have a deterministic implementation"):
        torch.nn.functional.max_unpool2d(values, places, 2)


def test_outside_the_block_torch_is_as_it_was():
    options = torch.utils.deterministic

    def fail():
        assert torch.get_deterministic_debug_mode() == 1
        assert not options.fill_uninitialized_memory
        raise ArithmeticError

    with pytest.raises(ArithmeticError), on_a_cpu():
        fail()
    assert torch.get_deterministic_debug_mode() == 0
    assert options.fill_uninitialized_memory


@pytest.mark.parametrize(("device", "mode"), [("cpu", "warn"), ("cpu", "error"), ("meta", "default")])
def test_a_programs_own_setting_and_other_devices_are_left_as_they_are(device, mode):
    torch.set_deterministic_debug_mode(mode)
    before = torch.get_deterministic_debug_mode()
    try:
        with repeatable(torch.device(device)):
            assert torch.get_deterministic_debug_mode() == before
            assert torch.utils.deterministic.fill_uninitialized_memory
        assert torch.get_deterministic_debug_mode() == before
    finally:
        torch.set_deterministic_debug_mode("default")
