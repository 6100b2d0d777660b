from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

from robustok_core import Result, RobustokError, Spec
from robustok_metrics.inception_score import InceptionScore, InceptionScoreConfig

Colours = Callable[..., Spec]


def score(samples: Any, network: Spec, **options: Any) -> dict[str, Result]:
    return dict(InceptionScore(InceptionScoreConfig(features=network, **options)).compute(samples, samples))


def confident_logits(labels: Tensor, num_classes: int) -> Tensor:
    """Class scores of a fully confident classifier."""
    return 100.0 * torch.nn.functional.one_hot(labels, num_classes)


def test_confident_and_uniform_predictions_score_the_number_of_classes(given: Any, colours: Colours) -> None:
    labels = torch.arange(200) % 20
    assert score(given(confident_logits(labels, 20)), colours())["classifier_score_colours"].value == pytest.approx(
        20.0, rel=1e-9
    )


def test_identical_predictions_score_one(given: Any, colours: Colours) -> None:
    logits = torch.randn(7, generator=torch.Generator().manual_seed(0)).expand(50, 7)
    assert score(given(logits), colours())["classifier_score_colours"].value == pytest.approx(1.0, rel=1e-9)


def test_score_of_a_known_softmax_is_the_exponential_of_its_mutual_information(given: Any, colours: Colours) -> None:
    """Half of the predictions are (p, 1 - p), half (1 - p, p): the information is log 2 minus the entropy of p."""
    p = 0.8
    logits = torch.tensor([[p, 1 - p], [1 - p, p]]).log().repeat(10, 1)
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    assert score(given(logits), colours())["classifier_score_colours"].value == pytest.approx(
        math.exp(math.log(2) - entropy), rel=1e-6
    )


def test_samples_sorted_by_class_score_low_in_file_order_and_high_when_shuffled(given: Any, colours: Colours) -> None:
    interleaved = torch.arange(2000) % 20
    in_order = {
        name: score(given(confident_logits(labels, 20)), colours())["classifier_score_colours"].value
        for name, labels in (("interleaved", interleaved), ("sorted", interleaved.sort().values))
    }
    assert in_order == pytest.approx({"interleaved": 20.0, "sorted": 2.0}, rel=1e-6)  # 10 splits of 2 classes
    shuffled = score(given(confident_logits(interleaved.sort().values, 20)), colours(), shuffle=True)
    assert 19.0 < shuffled["classifier_score_colours"].value < 20.0


@pytest.mark.parametrize("shuffle", [False, True])
def test_score_matches_torch_fidelity(given: Any, colours: Colours, shuffle: bool) -> None:
    logits = 3.0 * torch.randn(103, 9, generator=torch.Generator().manual_seed(1))
    theirs = isc_features_to_metric(logits, splits=5, shuffle=shuffle)
    results = score(given(logits), colours(), splits=5, shuffle=shuffle)
    assert results == {
        "classifier_score_colours": Result(
            theirs[KEY_METRIC_ISC_MEAN],
            higher_is_better=True,
            num_images=103,
            details={"std": theirs[KEY_METRIC_ISC_STD]},
        )
    }


def test_only_scores_of_the_published_inception_are_called_inception_score(given: Any, colours: Colours) -> None:
    logits = confident_logits(torch.arange(20), 20)
    assert "inception_score" in score(given(logits), colours("inception"))
    assert "classifier_score_inception_other" in score(given(logits), colours("inception_other"))


def test_fewer_samples_than_splits_are_refused(given: Any, colours: Colours) -> None:
    with pytest.raises(RobustokError, match="9 samples are too few for 10 splits"):
        score(given(torch.zeros(9, 3)), colours())
