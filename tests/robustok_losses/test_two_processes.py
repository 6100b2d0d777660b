"""Two processes with half a batch each compute what one computes with the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from processes import one_and_two

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    one_and_two(SCRIPT, folder)
    return {name: torch.load(folder / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2")}


@pytest.mark.parametrize("process", ["0-of-2", "1-of-2"])
@pytest.mark.parametrize("what", ["adaptive weight", "adversarial gradient", "opponent", "afterwards", "semantic"])
def test_each_of_two_processes_computes_what_one_computes(results, process, what):
    expected = {name: value for name, value in results["0-of-1"].items() if name.startswith(what)}

    for name, value in expected.items():
        torch.testing.assert_close(results[process][name], value, msg=lambda text, name=name: f"{name}: {text}")
    assert expected
    if what == "opponent":
        assert expected["opponent lecam.real_mean"] != 0
    if what == "semantic":
        assert len(expected) == 3
