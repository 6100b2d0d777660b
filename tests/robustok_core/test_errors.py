"""The error that users see."""

from __future__ import annotations

import pickle

import pytest

from robustok_core import ProblemsError, RobustokError, RunError


@pytest.mark.parametrize("kind", [RobustokError, RunError])
def test_a_message_stays_short_however_long_the_names_and_texts_in_it(kind):
    error = kind("there is no " + "9" * 5000 + " here", where="r.toml:3", hint="use one of " + "x" * 5000)
    assert str(error).startswith("r.toml:3: there is no 999")
    assert "characters] 999" in str(error)
    assert error.what.endswith("9 here")
    assert len(str(error)) < 2000
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_place_of_any_length_is_short_too():
    error = RobustokError("there is no such file", where="a/" * 3000 + "run.json")
    assert str(error).endswith("a/run.json: there is no such file")
    assert len(str(error)) < 1000


def test_none_of_many_problems_is_left_out():
    problems = [RobustokError(f"key {number} is unknown", where="r.toml") for number in range(500)]
    assert str(ProblemsError(problems)).splitlines() == list(map(str, problems))


@pytest.mark.parametrize(
    ("problems", "code"),
    [
        ([RunError("a"), RunError("b")], 1),
        ([RobustokError("a"), RobustokError("b")], 2),
        ([RunError("a"), RobustokError("b")], 2),
    ],
)
def test_several_failures_end_as_one_failure_does_and_mistakes_as_one_mistake(problems, code):
    assert ProblemsError(problems).exit_code == code
