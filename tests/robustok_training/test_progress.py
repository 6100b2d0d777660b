"""What a user sees while a stage trains."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

import robustok_training.progress
from robustok_training.progress import StepProgress


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(robustok_training.progress, "time", clock)
    return clock


@pytest.fixture
def printed() -> io.StringIO:
    return io.StringIO()


def test_lines_come_every_ten_seconds_and_at_the_end(clock, printed):
    with StepProgress(Console(file=printed, width=80), "train", total=40) as progress:
        for step in range(1, 41):
            clock.now += 1
            progress.update(step, {"loss": 0.5})
    steps = [int(number) for number in re.findall(r"^train (\d+)/40", printed.getvalue(), re.MULTILINE)]
    assert steps == [11, 22, 33, 40]


def test_a_line_has_the_time_left_and_the_values(clock, printed):
    progress = StepProgress(Console(file=printed, width=80), "train", total=100)
    clock.now += 20
    progress.update(10, {"loss": 0.123456, "images_per_second": 12345.6})
    assert printed.getvalue() == "train 10/100  180 s left  loss 0.1235  images_per_second 12,346\n"


def test_the_time_left_of_a_resumed_training_follows_from_the_steps_since_then(clock, printed):
    progress = StepProgress(Console(file=printed, width=80), "train", total=100, start=80)
    clock.now += 20
    progress.update(90, {"loss": 0.5})
    assert "train 90/100  20 s left" in printed.getvalue()


def test_a_long_line_is_not_broken(clock, printed):
    progress = StepProgress(Console(file=printed, width=40), "train", total=1)
    progress.update(1, {f"a_long_name_{number}": 0.5 for number in range(9)})
    assert len(printed.getvalue().splitlines()) == 1


def test_steps_without_values_print_no_line(clock, printed):
    progress = StepProgress(Console(file=printed, width=80), "train", total=2)
    clock.now += 60
    progress.update(1)
    progress.update(2)
    assert printed.getvalue() == ""


def test_a_terminal_has_a_bar_that_keeps_the_last_values(printed):
    console = Console(file=printed, width=120, force_terminal=True)
    with StepProgress(console, "train", total=4, start=1) as progress:
        progress.update(3, {"loss": 0.5})
        progress.update(4)
    last = [line for line in printed.getvalue().splitlines() if "train" in line][-1]
    assert "4/4" in last
    assert "loss 0.5" in last


def test_a_silent_process_prints_nothing(capsys):
    with StepProgress(None, "train", total=2) as progress:
        progress.update(2, {"loss": 0.5})
    assert capsys.readouterr().out == ""
