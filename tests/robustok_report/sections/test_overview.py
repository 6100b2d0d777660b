"""What ran: the command can be run again as it stands."""

from __future__ import annotations

import shlex

from robustok_report.sections.overview import command


def test_a_long_command_has_a_line_for_each_option_and_the_same_words():
    words = ["run", "main_train", "--set", "run.name=x --y z", "--set", f"data.path={'a' * 80}", "--fresh"]
    text = command([{"command": words}])
    assert shlex.split(text.replace("\\\n", "")) == ["robustok", *words]
    assert text.count("\\\n  --") == 3


def test_a_short_command_is_one_line():
    assert command([{"command": ["run", "a", "--set", "b=c d"]}]) == "robustok run a --set 'b=c d'"
