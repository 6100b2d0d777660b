"""metrics.jsonl: lines of killed runs are dropped, all others stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robustok_core import RunError
from robustok_core.runs.step_log import append_line, drop_lines


@pytest.fixture
def log(tmp_path) -> Path:
    """Three steps of one stage, and one step of the stage with other options."""
    file = tmp_path / "metrics.jsonl"
    for fingerprint, step in (("a", 1), ("a", 2), ("b", 3), ("a", 3)):
        append_line(file, {"fingerprint": fingerprint, "step": step, "loss": 0.5})
    return file


def steps(file: Path) -> list[tuple[str, int]]:
    lines: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    return [(line["fingerprint"], line["step"]) for line in lines]


def test_lines_are_appended_in_order(log):
    assert steps(log) == [("a", 1), ("a", 2), ("b", 3), ("a", 3)]
    assert log.read_text().endswith("}\n")


def test_lines_of_a_stage_after_a_step_are_dropped_and_those_of_other_fingerprints_stay(log):
    drop_lines(log, "a", after_step=1)
    assert steps(log) == [("a", 1), ("b", 3)]


def test_a_stage_that_starts_again_drops_all_of_its_lines(log):
    drop_lines(log, "a", after_step=0)
    assert steps(log) == [("b", 3)]


def test_nothing_is_dropped_after_the_last_step(log):
    before = log.read_bytes()
    drop_lines(log, "a", after_step=3)
    assert log.read_bytes() == before


def test_a_last_line_that_a_kill_cut_off_is_dropped_and_the_next_one_is_whole(log):
    log.write_text(log.read_text()[:-12])
    drop_lines(log, "a", after_step=3)
    append_line(log, {"fingerprint": "a", "step": 3})
    assert steps(log) == [("a", 1), ("a", 2), ("b", 3), ("a", 3)]


@pytest.mark.parametrize(
    "line", [b"no JSON", b'{"fingerprint": "a", "step"', b"[1]", b"3", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b""]
)
def test_a_damaged_line_between_others_stays_as_it_is(log, line):
    before = log.read_bytes().splitlines()
    log.write_bytes(b"".join(held + b"\n" for held in (before[0], line, *before[1:])))
    drop_lines(log, "a", after_step=1)
    assert log.read_bytes().split(b"\n") == [before[0], line, before[2], b""]


@pytest.mark.parametrize("step", ["'3'", "null", "[]", "NaN"])
def test_a_line_whose_step_is_no_number_stays(log, step):
    line = f'{{"fingerprint": "a", "step": {step}}}\n'.replace("'", '"')
    log.write_text(line)
    drop_lines(log, "a", after_step=0)
    assert log.read_text() == line


def test_a_missing_log_stays_missing(tmp_path):
    drop_lines(tmp_path / "metrics.jsonl", "a", after_step=0)
    assert not list(tmp_path.iterdir())


def test_a_log_that_cannot_be_written_is_one_message(tmp_path):
    with pytest.raises(RunError, match="nowhere/metrics.jsonl: cannot write: No such file"):
        append_line(tmp_path / "nowhere" / "metrics.jsonl", {})
