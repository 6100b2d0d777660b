from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from robustok_core import ImageFeatures, ProblemsError, Registry, RobustokError, Spec
from robustok_metrics.sample_frechet import SampleFrechet, SampleFrechetConfig
from robustok_toolkit.feature_files import open_features
from robustok_toolkit.image_features import Extraction

Colours = Callable[..., Spec]


def frechet(network: Spec) -> SampleFrechet:
    return SampleFrechet(SampleFrechetConfig(features=network))


def normal(seed: int, count: int, width: int = 12) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("num_samples", "num_real"), [(300, 200), (8, 200), (9, 7)], ids=str)
def test_distance_matches_torch_fidelitys_fid_for_unequal_numbers_too(
    given: Any, colours: Colours, num_samples: int, num_real: int
) -> None:
    generated, real = 1.3 * normal(1, num_samples) + 0.5, normal(2, num_real)
    statistics = [fid_features_to_statistics(rows.double()) for rows in (generated, real)]
    theirs = fid_statistics_to_metric(*statistics, False)[KEY_METRIC_FID]
    results = frechet(colours()).compute(given(generated), given(real))
    assert results["gfd_colours"].value == pytest.approx(theirs, rel=1e-6)
    assert (results["gfd_colours"].num_images, results["gfd_colours"].num_reference) == (num_samples, num_real)
    assert results["gfd_colours"].higher_is_better is False


def test_distance_between_gaussians_is_the_closed_form(colours: Colours) -> None:
    """|m1 - m2|^2 + sum (s1 - s2)^2 if both covariances are diagonal."""

    class Normal(ImageFeatures):
        name = "normal"

        def __init__(self, mean: list[float], deviations: list[float]) -> None:
            self.mean, self.deviations = (torch.tensor(v, dtype=torch.float64) for v in (mean, deviations))

        def __len__(self) -> int:
            return 1000

        def moments(self, network: Spec) -> tuple[torch.Tensor, torch.Tensor]:
            return self.mean, self.deviations.square().diag()

        features = logits = None  # type: ignore[assignment]  # only the moments are used

    samples, reference = Normal([1.0, 2.0, 3.0], [1.0, 0.0, 5.0]), Normal([1.0, 0.0, 4.0], [2.0, 3.0, 5.0])
    results = frechet(colours()).compute(samples, reference)
    assert results["gfd_colours"].value == pytest.approx((4 + 1) + (1 + 9 + 0), rel=1e-12)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("inception", "gfid"),
        ("inception_other", "gfd_inception_other"),
        ("inception_spatial", "gsfid"),
        ("inception_spatial_other", "gfd_inception_spatial_other"),
        ("efficientnet_lite0", "gfd_efficientnet_lite0"),
    ],
)
def test_only_distances_in_the_published_inception_are_called_fid(
    given: Any, colours: Colours, network: str, name: str
) -> None:
    results = frechet(colours(network)).compute(given(normal(1, 20)), given(normal(2, 20)))
    assert set(results) == {name}


def test_samples_must_be_images(given: Any, colours: Colours) -> None:
    with pytest.raises(
        RobustokError, match="samples must be images, because the result includes their number"
    ) as caught:
        frechet(colours()).compute(given(torch.zeros(0, 3), "statistics.npz"), given(normal(1, 20, 3)))
    assert caught.value.where == "statistics.npz"


def test_statistics_do_not_stand_for_the_samples_beside_them(given: Any, colours: Colours, tmp_path: Path) -> None:
    network, pixels = colours("inception"), np.zeros((4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "both.npz", mu=np.zeros(6), sigma=np.eye(6), arr_0=pixels)
    extraction = Extraction(networks=lambda spec: spec.build(), device=torch.device("cpu"))
    both = open_features(tmp_path / "both.npz", extraction)
    assert len(both) == 4
    with pytest.raises(RobustokError, match="samples must be images.* mu and sigma have none"):
        frechet(network).compute(both, given(normal(2, 20, 6)))
    assert frechet(network).compute(given(normal(2, 20, 6)), both)["gfid"].num_reference == 0


def test_sfid_is_the_distance_in_spatial_features(given: Any, colours: Colours, registry: Registry) -> None:
    metric = registry.build("sample_metric", {"use": "sfid"})
    metric.network = colours("inception_spatial")
    rows = given(normal(1, 20)), given(normal(2, 20))
    assert metric.compute(*rows)["gsfid"] == frechet(colours("colours")).compute(*rows)["gfd_colours"]


def test_sfid_is_refused_with_other_features(registry: Registry) -> None:
    with pytest.raises(ProblemsError, match="network is 'inception', but sFID is defined with inception_spatial"):
        registry.spec("sample_metric", {"use": "sfid", "network": {"use": "inception"}})


def test_a_covariance_of_one_image_is_refused_before_anything_runs_and_statistics_are_not(colours: Colours) -> None:
    metric = SampleFrechet(SampleFrechetConfig(features=colours()))
    metric.check(2, 2), metric.check(None, None), metric.check(2, 0)
    with pytest.raises(RobustokError, match="1 images are too few for a covariance"):
        metric.check(2, 1)
