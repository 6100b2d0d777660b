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
    assert printed.getvalue() == "train 10/100  3 min left  loss 0.1235  images_per_second 12,346\n"


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


def test_the_last_line_has_the_time_that_all_took(clock, printed):
    progress = StepProgress(Console(file=printed, width=80), "train", total=20000, start=10000)
    clock.now += 2 * 86400 + 4 * 3600
    progress.update(20000, {"loss": 0.5})
    assert printed.getvalue() == "train 20,000/20,000  in 2 d 4 h  loss 0.5\n"


def test_what_has_no_values_prints_a_line_only_if_it_takes_long(clock, printed):
    for seconds in (0.1, 6.0):
        with StepProgress(Console(file=printed, width=80), "network", total=3) as progress:
            for done in (1, 2, 3):
                clock.now += seconds
                progress.update(done, {})
    assert printed.getvalue() == "network 2/3  6 s left\nnetwork 3/3  in 18 s\n"


@pytest.mark.parametrize("width", [80, 120])
def test_a_bar_is_one_line_however_narrow_the_terminal(printed, width):
    console = Console(file=printed, width=width, force_terminal=True)
    with StepProgress(console, "train_tokenizer", total=4) as progress:
        progress.update(3, {f"a_long_name_{number}": 0.5 for number in range(9)})
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.getvalue())
    assert all("train_tokenizer" in line for line in shown.split("\r") if line.strip())


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
