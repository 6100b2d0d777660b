"""A training is asked to stop, politely and then at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch

from robustok_training.interrupt import stop_requests

CPU = torch.device("cpu")


def ask(number: signal.Signals) -> None:
    """Sends this process a signal, as a terminal or a scheduler does."""
    os.kill(os.getpid(), number)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_and_does_not_stop(number):
    with stop_requests() as request:
        assert not request.anywhere(CPU)
        ask(number)
        assert request.asked
        assert request.anywhere(CPU)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_that_stops_at_once(first):
    with stop_requests() as request:
        ask(first)
        with pytest.raises(KeyboardInterrupt):
            ask(signal.SIGINT)
        assert request.asked


def test_a_second_sigterm_still_waits_for_the_step():
    with stop_requests() as request:
        ask(signal.SIGTERM)
        ask(signal.SIGTERM)
        assert request.asked


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
    with stop_requests():
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
