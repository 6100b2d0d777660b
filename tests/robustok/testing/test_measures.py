"""Metrics that break a promise are caught."""

from __future__ import annotations

import pytest
import torch

from breaches import caught
from robustok.testing import check_component
from robustok_core import Result
from robustok_metrics.psnr import PSNR
from robustok_metrics.sample_frechet import SampleFrechet


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


class Uncounted(PSNR):
    """Does not say of how many images its result is."""

    def compute(self):
        return {"psnr": Result((self.total / self.count).item(), higher_is_better=True)}


class UncountedDistance(SampleFrechet):
    """Does not say of how many samples its distance is."""

    def compute(self, samples, reference):
        return {"gfd": Result(1.0, higher_is_better=False)}


class Undirected(SampleFrechet):
    """Gives a number that is neither better high nor low."""

    def compute(self, samples, reference):
        return {"gfd": Result(1.0)}


def test_a_sample_metric_whose_distance_says_of_no_number_of_images_is_caught():
    words = "the result 'gfd' has a direction but no `num_images`, without which `robustok compare` marks the best"
    caught("sample_metric", UncountedDistance, words)
    check_component("sample_metric", Undirected)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (Bare, "the result 'psnr' must be a Result, found float"),
        (NeverCleared, "`start` must clear the state"),
        (MeanOfMeans, "the added states of two processes give different results from one process"),
        (Uncounted, 'a mean over images, which does not depend on how many there are, has details={"num_images": n}'),
        (NotFinite, "the result 'psnr' is not a number"),
    ],
)
def test_a_metric_that_breaks_a_promise_is_caught(metric, words):
    caught("metric", metric, words)
