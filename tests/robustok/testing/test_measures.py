"""Metrics that break a promise are caught."""

from __future__ import annotations

import pytest
import torch

from breaches import caught
from robustok_core import Result
from robustok_metrics.psnr import PSNR


class NeverCleared(PSNR):
    """Adds one pass to the other."""

    started = False

    def start(self, context):
        if not self.started:
            super().start(context)
        self.started = True

    def compute(self):
        return {"psnr": Result(self.total.item())}


class MeanOfMeans(PSNR):
    """Keeps what two processes cannot add."""

    def state(self):
        return {"total": self.total / self.count, "count": torch.ones((), dtype=torch.float64)}

    def compute(self):
        return {"psnr": Result((self.total / self.count).item())}


class NotFinite(PSNR):
    """Gives no number."""

    def compute(self):
        return {"psnr": Result(float("nan"))}


class Bare(PSNR):
    """Gives a number without anything about it."""

    def compute(self):
        return {"psnr": self.total.item()}


def called(name):
    class Called(PSNR):
        """Gives its result another name."""

        def compute(self):
            return dict.fromkeys([name], Result(1.0))

    return Called


@pytest.mark.parametrize("name", ["", " ", "psnr/all", "psnr\n", 3, None])
def test_a_result_whose_name_is_none_is_caught(name):
    words = f"a result of `compute` has the name {name!r}; a name is text that is not empty and has no slash"
    caught("metric", called(name), words)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (Bare, "the result 'psnr' must be a Result, found float"),
        (NeverCleared, "`start` must clear the state"),
        (MeanOfMeans, "the added states of two processes give different results from one process"),
        (NotFinite, "the result 'psnr' is not a number"),
    ],
)
def test_a_metric_that_breaks_a_promise_is_caught(metric, words):
    caught("metric", metric, words)
