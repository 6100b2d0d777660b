"""Two processes train as one does, and search for parameters without a gradient only where there are some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from processes import one_and_two

SCRIPT = Path(__file__).with_name("parallel_two_processes.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict[str, Any]]:
    """Of one process, and of both of two."""
    folder = tmp_path_factory.mktemp("processes")
    one_and_two(SCRIPT, folder)
    return [torch.load(folder / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2")]


@pytest.mark.parametrize("training", ["always", "accumulated", "never", "later"])
def test_two_processes_end_with_the_weights_of_one(results, training):
    one, first, second = (part[training]["weights"] for part in results)
    for name, value in one.items():
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(first[name], second[name])


def test_the_graph_is_searched_only_where_a_parameter_gets_no_gradient_at_first(results):
    for part in results[1:]:
        assert [part[training]["searches"] for training in ("always", "accumulated", "never", "later")] == [
            *(False, False),
            *(True, True),
        ]


def test_a_parameter_without_a_gradient_is_named_once(results):
    for part in results[1:]:
        for training in ("never", "later"):
            (line,) = part[training]["said"]
            assert line.startswith("no gradient reaches late of 'toy' in its first step")
        assert part["always"]["said"] == []


def test_a_parameter_that_has_no_gradient_any_more_is_named_and_nothing_hangs(results):
    for part in results[1:]:
        assert "no gradient reaches late of 'toy' in this step, though one did at first" in part["no longer"]["error"]


def test_nothing_holds_what_is_no_longer_trained(results):
    assert [part["still held"] for part in results] == [0] * 3
