from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from robustok_core import RunError
from robustok_metrics.frechet_distance import FeatureSums, Moments, distance_between, frechet_distance


def features(seed: int, count: int, width: int, scale: float = 1.0) -> Tensor:
    """Correlated features whose variances span four orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=torch.Generator().manual_seed(99)) * torch.logspace(0, -2, width)
    return scale * torch.randn(count, width, generator=generator) @ mix + 0.1 * seed


def moments(*parts: Tensor) -> Moments:
    sums = FeatureSums(parts[0].shape[1])
    for part in parts:
        sums.add(part)
    return sums.moments()


def test_moments_match_numpys_mean_and_unbiased_covariance() -> None:
    rows = features(1, 50, 8)
    fitted = moments(rows[:13], rows[13:])
    np.testing.assert_allclose(fitted.mean.numpy(), rows.double().mean(0).numpy(), rtol=1e-12)
    np.testing.assert_allclose(fitted.covariance.numpy(), np.cov(rows.double().numpy(), rowvar=False), rtol=1e-9)


@pytest.mark.parametrize("count", [300, 20], ids=["more images than features", "fewer images than features"])
def test_distance_matches_scipys_matrix_square_root(count: int) -> None:
    one, two = moments(features(1, count, 40)), moments(features(2, count, 40, scale=1.2))
    root = scipy.linalg.sqrtm((one.covariance @ two.covariance).numpy()).real
    expected = (one.mean - two.mean).square().sum() + (one.covariance + two.covariance).trace() - 2 * np.trace(root)
    assert frechet_distance(one, two) == pytest.approx(float(expected), rel=1e-5)


def test_distance_matches_torch_fidelitys_fid() -> None:
    one, two = features(1, 200, 64).double(), features(3, 200, 64, scale=0.7).double()
    theirs = fid_statistics_to_metric(fid_features_to_statistics(one), fid_features_to_statistics(two), False)
    assert frechet_distance(moments(one), moments(two)) == pytest.approx(theirs[KEY_METRIC_FID], rel=1e-9)


def test_distance_of_shifted_features_is_the_squared_shift() -> None:
    rows, shift = features(1, 100, 10).double(), torch.arange(10.0, dtype=torch.float64)
    assert frechet_distance(moments(rows), moments(rows + shift)) == pytest.approx(285.0, rel=1e-9)


def test_distance_of_scaled_features_is_the_sum_of_squared_differences_of_deviations() -> None:
    rows = features(0, 100, 10).double()
    rows = rows - rows.mean(0)
    expected = rows.var(dim=0).sum().item()  # deviations s and 2 s along every axis: sum of (2 s - s)^2
    assert frechet_distance(moments(rows), moments(2 * rows)) == pytest.approx(expected, rel=1e-9)


def test_distance_to_itself_is_negligible_compared_to_the_variance() -> None:
    one = moments(features(1, 30, 40))
    assert frechet_distance(one, one) < 1e-6 * one.covariance.trace()


def test_distance_is_symmetric() -> None:
    one, two = moments(features(1, 90, 12)), moments(features(2, 90, 12, scale=2.0))
    assert frechet_distance(one, two) == pytest.approx(frechet_distance(two, one), rel=1e-9)


def test_distances_between_unequal_numbers_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="moments of 30 and of 31 images cannot be compared"):
        frechet_distance(moments(features(1, 30, 4)), moments(features(1, 31, 4)))


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(RunError, match="at least two images, found 1"):
        moments(features(1, 1, 4))


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(RunError, match="NaN or infinity"):
        moments(torch.full((3, 2), torch.nan))


def test_distance_between_depends_on_moments_only_and_not_on_counts() -> None:
    one, two = moments(features(1, 30, 4)), moments(features(2, 90, 4))
    as_equal = Moments(count=30, mean=two.mean, covariance=two.covariance)
    assert distance_between(one, two) == frechet_distance(one, as_equal)
