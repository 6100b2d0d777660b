from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from robustok_core import RobustokError, Spec
from robustok_metrics.kid import KID, KIDConfig

Colours = Callable[..., Spec]


def cloud(seed: int, count: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)) + shift


def kid(network: Spec, **options: Any) -> KID:
    return KID(KIDConfig(features=network, **options))


def test_distance_matches_torch_fidelity(given: Any, colours: Colours) -> None:
    generated, real = cloud(1, 90, 0.5), cloud(2, 70)
    theirs = kid_features_to_metric(generated, real, kid_subsets=5, kid_subset_size=30, verbose=False)
    results = kid(colours(), subsets=5, subset_size=30).compute(given(generated), given(real))
    assert results["kd_colours"].value == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-5)
    assert results["kd_colours"].details["std"] == pytest.approx(theirs[KEY_METRIC_KID_STD], rel=1e-5)
    assert (results["kd_colours"].num_images, results["kd_colours"].higher_is_better) == (90, False)


def test_distance_is_the_unbiased_discrepancy_of_the_cubic_kernel(given: Any, colours: Colours) -> None:
    """With both sets as the only subset, against the definition."""
    generated, real = cloud(1, 40, 0.5).double(), cloud(2, 40).double()

    def kernel(one: Tensor, two: Tensor) -> Tensor:
        return (one @ two.T / one.shape[1] + 1) ** 3

    def within(rows: Tensor) -> Tensor:
        return (kernel(rows, rows).sum() - kernel(rows, rows).trace()) / (40 * 39)

    expected = within(generated) + within(real) - 2 * kernel(generated, real).mean()
    results = kid(colours(), subsets=1, subset_size=40).compute(given(generated), given(real))
    assert results["kd_colours"].value == pytest.approx(float(expected), rel=1e-5)


def test_only_distances_in_the_published_inception_are_called_kid(given: Any, colours: Colours) -> None:
    rows = given(cloud(1, 10))
    assert set(kid(colours("inception"), subset_size=5).compute(rows, rows)) == {"kid"}


@pytest.mark.parametrize(("num_generated", "num_real", "where"), [(9, 20, "generated"), (20, 9, "real")])
def test_sets_smaller_than_a_subset_are_refused(
    given: Any, colours: Colours, num_generated: int, num_real: int, where: str
) -> None:
    metric = kid(colours(), subset_size=10)
    with pytest.raises(RobustokError, match="9 images are too few for subsets of 10") as caught:
        metric.compute(given(cloud(1, num_generated), "generated"), given(cloud(2, num_real), "real"))
    assert caught.value.where == where
    assert caught.value.hint == "lower subset_size"
