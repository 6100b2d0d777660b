"""A training is asked to stop, politely and then at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
import torch

import robustok_core.runs.interrupt
from robustok_core.runs.interrupt import STOP_SIGNALS, stop_signals
from robustok_training.interrupt import asked_anywhere, stop_requests

CPU = torch.device("cpu")


def ask(number: signal.Signals) -> None:
    """Sends this process a signal, as a terminal or a scheduler does."""
    os.kill(os.getpid(), number)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in STOP_SIGNALS]


@pytest.fixture(autouse=True)
def not_ignored() -> Iterator[None]:
    """The signals act as in a terminal, also where the tests were started with nohup."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Two signals are two requests, however close they are."""
    monkeypatch.setattr(robustok_core.runs.interrupt, "_ONE_REQUEST", 0.0)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_asks_a_training_and_does_not_stop_it(number):
    with stop_signals() as request, request.deferred():
        assert not asked_anywhere(request, CPU)
        ask(number)
        assert asked_anywhere(request, CPU)
        request.asked = False  # the block has looked at it


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_stops_everything_else_at_once(number):
    with stop_signals() as request:
        with pytest.raises(KeyboardInterrupt):
            ask(number)
        assert request.asked


@pytest.mark.parametrize("second", STOP_SIGNALS)
def test_a_second_signal_stops_a_training_at_once(impatient, second):
    with stop_signals() as request, request.deferred():
        ask(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            ask(second)
        request.asked = False


def test_a_signal_that_a_launcher_passes_on_is_the_same_request():
    with stop_signals() as request, request.deferred():
        for _ in range(3):
            ask(signal.SIGTERM)
        assert request.asked
        request.asked = False


def test_a_request_outlives_a_block_that_did_not_look_at_it():
    with stop_signals() as outer:
        with pytest.raises(KeyboardInterrupt), stop_requests():
            ask(signal.SIGTERM)
        assert outer.asked


def test_nohup_stays_in_force():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as request:
            ask(signal.SIGHUP)
            assert not request.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handlers_of_before_come_back_even_after_an_error():
    before, within = handlers(), []

    def fail() -> None:
        with stop_requests():
            within.extend(handlers())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert handlers() == before
    assert not set(within) & set(before)


def test_a_second_block_starts_without_a_request():
    with pytest.raises(KeyboardInterrupt), stop_requests():
        ask(signal.SIGINT)
    with stop_requests() as request:
        assert not request.asked


def test_outside_of_the_main_thread_signals_are_left_alone():
    before, seen = handlers(), []

    def train() -> None:
        with stop_requests() as request:
            seen.append((handlers() == before, request.asked))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [(True, False)]
