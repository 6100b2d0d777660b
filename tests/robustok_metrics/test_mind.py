from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from robustok_core import RobustokError, Spec
from robustok_metrics.mind import MIND, MINDConfig, along_directions, random_directions

Colours = Callable[..., Spec]


def cloud(seed: int, count: int, width: int = 6, shift: float = 0.0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def mind(network: Spec, **options: Any) -> MIND:
    return MIND(MINDConfig(features=network, **options))


def by_linear_programming(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The least mean squared difference over all pairings of two sets of numbers."""
    from scipy.optimize import linear_sum_assignment

    costs = (ours[:, None] - theirs[None]) ** 2
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].mean())


def test_each_direction_has_the_optimal_transport_between_the_projections() -> None:
    """Against an assignment problem, which does not sort, and scipy's distance of order 1, which bounds it below."""
    generated, real, directions = cloud(1, 40, shift=0.5), cloud(2, 40), random_directions(5, 6)
    found = along_directions(generated, real, directions) / (3 * 6)
    for distance, direction in zip(found.tolist(), directions.numpy(), strict=True):
        ours, theirs = generated.double().numpy() @ direction, real.double().numpy() @ direction
        assert distance == pytest.approx(by_linear_programming(ours, theirs))
        assert distance >= wasserstein_distance(ours, theirs) ** 2


def test_a_shift_of_all_features_gives_three_times_its_squared_length(given: Any, colours: Colours) -> None:
    """The mean of (u v)^2 over directions u is |v|^2 / F."""
    real, shift = cloud(1, 50), torch.tensor([0.5, -1.0, 0.0, 2.0, 0.1, 0.3])
    results = mind(colours(), num_images=50, directions=20_000).compute(given(real + shift), given(real))
    result = results["md_colours"]
    assert result.value == pytest.approx(3 * float(shift.square().sum()), rel=0.03)
    assert abs(result.value - 3 * float(shift.square().sum())) < 4 * result.details["standard_error"]
    assert (result.num_images, result.higher_is_better) == (50, False)


def test_equal_sets_have_no_distance_whatever_their_order(given: Any, colours: Colours) -> None:
    real = cloud(1, 50)
    result = mind(colours(), num_images=50).compute(given(real.flip(0)), given(real))["md_colours"]
    assert result.value == pytest.approx(0.0, abs=1e-12)


def test_what_moments_do_not_see_is_seen(given: Any, colours: Colours) -> None:
    """Two sets with the same mean and covariance, one normal and one on two points along each axis."""
    signs = cloud(3, 2000).sign()
    normal = cloud(4, 2000)
    for rows in (signs, normal):  # whitened: both have mean 0 and covariance 1
        rows -= rows.mean(0)
        root = torch.linalg.cholesky(torch.linalg.inv(rows.T.cov()))
        rows.copy_(rows @ root)
    metric = mind(colours(), num_images=2000, directions=200)
    apart = metric.compute(given(signs), given(normal))["md_colours"].value
    noise = metric.compute(given(cloud(5, 2000)), given(normal))["md_colours"].value
    assert apart > 4 * noise


def test_a_part_of_a_larger_set_is_drawn_from_all_of_it(given: Any, colours: Colours) -> None:
    """The first half of the reference lies far away, as if it were sorted by class."""
    generated = torch.cat([cloud(1, 50, shift=8.0), cloud(2, 50)])
    real = torch.cat([cloud(3, 500, shift=8.0), cloud(4, 500)])
    metric = mind(colours(), num_images=100, directions=100)
    assert metric.compute(given(generated), given(real))["md_colours"].value < 100  # the first half alone: 576
    assert metric.compute(given(generated), given(real)) == metric.compute(given(generated), given(real))


def test_only_distances_in_the_published_inception_are_called_mind(given: Any, colours: Colours) -> None:
    rows = given(cloud(1, 10))
    assert set(mind(colours("inception"), num_images=5).compute(rows, rows)) == {"mind"}


def test_fewer_images_than_wanted_are_refused_before_and_after(given: Any, colours: Colours) -> None:
    metric = mind(colours(), num_images=10)
    with pytest.raises(RobustokError, match="9 images are too few for num_images = 10 of each set") as caught:
        metric.compute(given(cloud(1, 9), "generated"), given(cloud(2, 20)))
    assert (caught.value.where, caught.value.hint) == ("generated", "lower num_images")
    with pytest.raises(RobustokError, match="too few for num_images = 10") as caught:
        metric.check(10, 0)
    assert caught.value.hint is not None
    assert "use a reference with images" in caught.value.hint
