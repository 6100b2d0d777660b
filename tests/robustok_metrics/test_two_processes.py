"""Two processes with half of the images each measure the same as one with all images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from processes import one_and_two

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def passes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("processes")
    one_and_two(SCRIPT, folder)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("0-of-1", "0-of-2", "1-of-2")}


@pytest.mark.parametrize("process", ["0-of-2", "1-of-2"])
def test_every_pass_of_two_processes_gives_the_same_as_one(passes: Any, process: str) -> None:
    for results in passes[process]:
        expected = passes["0-of-1"][0]
        assert {**results, "seen": 0} == pytest.approx({**expected, "seen": 0}, rel=1e-5)


def test_cached_reference_is_used_only_if_every_process_can_read_it(passes: Any) -> None:
    # originals, reconstructions, one cell
    assert [results["seen"] for results in passes["0-of-1"]] == [180, 120, 180, 120]
    assert [results["seen"] for results in passes["0-of-2"]] == [90, 90, 90, 60]
    assert [results["seen"] for results in passes["1-of-2"]] == [90, 90, 90, 60]
