"""Sums, means and rows over two processes are those of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from processes import one_and_two

SCRIPT = Path(__file__).with_name("two_processes.py")
Results = dict[str, Any]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> tuple[Results, list[Results]]:
    """Of one process, and of both of two."""
    folder = tmp_path_factory.mktemp("processes")
    one_and_two(SCRIPT, folder)
    one, *two = (torch.load(folder / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2"))
    return one, two


def test_each_process_knows_its_number(results):
    one, two = results
    assert (one["rank"], one["world"]) == (0, 1)
    assert [(part["rank"], part["world"]) for part in two] == [(0, 2), (1, 2)]


def test_the_sum_is_the_same_on_every_process_and_leaves_its_argument_alone(results):
    one, two = results
    for part in two:
        assert torch.equal(part["sum"], one["sum"])
        assert not torch.equal(part["unchanged"], part["sum"])


def test_the_mean_is_the_sum_over_the_number_of_processes(results):
    one, two = results
    assert torch.equal(one["mean"], one["sum"])
    for part in two:
        assert torch.equal(part["mean"], one["sum"] / 2)


def test_rows_are_gathered_in_the_order_of_processes(results):
    one, two = results
    for part in two:
        assert torch.equal(part["gathered"], one["gathered"])


def test_the_mean_of_the_gradients_of_all_processes_is_the_gradient_of_one(results):
    """Data parallelism averages over processes, so each row's gradient, which one process has, counts twice."""
    one, two = results
    torch.testing.assert_close(torch.cat([part["gradient"] for part in two]) / 2, one["gradient"])


def test_all_processes_stop_if_one_is_asked(results):
    _, two = results
    assert [part["stops"] for part in two] == [(False, True), (False, True)]


def test_behind_a_queued_device_all_processes_stop_one_step_later(results):
    one, two = results
    after = [[part[f"stops after step {step}"] for step in range(3)] for part in (one, *two)]
    assert after == [[False, True, False], [False, False, True], [False, False, True]]


def test_what_the_main_process_finds_counts_on_all(results):
    one, two = results
    assert [part["of the main process"] for part in (one, *two)] == [{"found by": 0}] * 3


def test_all_processes_stop_if_a_buffer_of_one_is_not_finite(results):
    one, two = results
    assert "running_var of 'norm' is not finite after step 3" in one["not finite"]
    assert [part["not finite"] for part in two] == [one["not finite"]] * 2
