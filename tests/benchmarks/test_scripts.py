"""Each benchmark runs, at sizes that measure nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "harness")
#: They measure a run, which is their argument.
OF_A_RUN = {"explorer", "report"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_runs_and_says_where_and_with_what(name, script, tmp_path, request, capsys):
    run = [str(request.getfixturevalue("trained").folder)] if name in OF_A_RUN else []
    content = script(name).main([*run, "--quick", "--json", str(tmp_path / "found.json")])
    assert content["machine"]["threads"] == 1
    assert content["options"]["quick"]
    written = json.loads((tmp_path / "found.json").read_text())
    assert written.keys() == content.keys() > {"options", "machine"}, "something was measured"


@pytest.mark.parametrize("name", ["sampling", "pairs"])
def test_ways_of_sampling_draw_the_same_codes(name, script):
    assert script(name).main(["--quick"])["share_of_equal_codes"] == 1.0


def test_ways_of_sampling_a_flow_give_the_same_latents(script):
    assert script("flow_sampling").main(["--quick"])["largest_difference"] < 1e-5


def test_pfid_is_the_same_together_and_apart(script):
    assert script("pfid").main(["--quick"])["largest_relative_difference"] < 1e-6
