from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import robustok_metrics.neighbour_balls
from robustok_core import Result, RobustokError, Spec
from robustok_metrics.density_coverage import DensityCoverage, DensityCoverageConfig, density_and_coverage

Colours = Callable[..., Spec]


def on_a_line(*positions: float) -> Tensor:
    return torch.tensor(positions)[:, None]


def cloud(seed: int, count: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) + shift


def by_loops(generated: Tensor, real: Tensor, k: int) -> tuple[float, float]:
    """The paper's equations, one pair of images after the other."""
    ours, theirs = generated.double().numpy(), real.double().numpy()
    hits, reached = 0, 0
    for i, centre in enumerate(theirs):
        others = sorted(np.linalg.norm(centre - other) for j, other in enumerate(theirs) if j != i)
        within = [np.linalg.norm(centre - sample) <= others[k - 1] for sample in ours]
        hits += sum(within)
        reached += any(within)
    return hits / (k * len(ours)), reached / len(theirs)


# Real images at 0, 1, 2, 3, 10 with k = 2: the 2nd nearest other is 2, 1, 1, 2, 8 away.
REAL = on_a_line(0, 1, 2, 3, 10)


@pytest.mark.parametrize(
    ("generated", "density", "coverage"),
    [
        # in the balls of: 0, 2, 1 and 3, counting borders; 10 holds 2 and 3
        (on_a_line(2), 5 / 2, 1.0),
        (on_a_line(10), 1 / 2, 0.2),
        (on_a_line(-5), 0.0, 0.0),
        # ten copies of one image cover what one covers
        (on_a_line(*[10] * 10), 1 / 2, 0.2),
    ],
    ids=["in the middle", "at an outlier", "elsewhere", "collapse"],
)
def test_hand_made_sets_have_the_known_density_and_coverage(generated: Tensor, density: float, coverage: float) -> None:
    assert density_and_coverage(generated, REAL, 2) == pytest.approx((density, coverage))


@pytest.mark.parametrize(("num_generated", "num_real"), [(60, 60), (90, 40), (25, 80)])
@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_density_and_coverage_are_the_papers_equations(num_generated: int, num_real: int, shift: float) -> None:
    generated, real = cloud(1, num_generated, shift), cloud(2, num_real)
    assert density_and_coverage(generated, real, 5) == pytest.approx(by_loops(generated, real, 5))


def test_further_real_images_have_density_1_and_the_expected_coverage() -> None:
    """Naeem et al., section 3.3: coverage is 1 - (n-1)...(n-k) / (2n-1)...(2n-k), near 1 - 1/2^k."""
    values = [density_and_coverage(cloud(seed, 200), cloud(100 + seed, 200), 3) for seed in range(20)]
    density, coverage = torch.tensor(values).mean(0).tolist()
    assert density == pytest.approx(1.0, abs=0.05)
    expected = 1 - (199 * 198 * 197) / (399 * 398 * 397)
    assert coverage == pytest.approx(expected, abs=0.02)


def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generated, real = cloud(1, 90, 0.4), cloud(2, 70)
    whole = density_and_coverage(generated, real)
    monkeypatch.setattr(robustok_metrics.neighbour_balls, "_DISTANCES_AT_ONCE", 7 * 70)
    assert density_and_coverage(generated, real) == whole


def test_results_state_the_network_and_both_numbers_of_images(given: Any, colours: Colours) -> None:
    metric = DensityCoverage(DensityCoverageConfig(features=colours(), neighbours=2))
    assert metric.compute(given(on_a_line(10, 10, 10)), given(REAL)) == {
        "density_colours": Result(0.5, higher_is_better=True, num_images=3, num_reference=5),
        "coverage_colours": Result(0.2, higher_is_better=True, num_images=3, num_reference=5),
    }


def test_fewer_images_than_neighbours_are_refused_before_and_after(given: Any, colours: Colours) -> None:
    metric = DensityCoverage(DensityCoverageConfig(features=colours()))
    with pytest.raises(RobustokError, match="5 images are too few for 5 neighbours each"):
        metric.compute(given(cloud(1, 9)), given(cloud(2, 5)))
    for counts in ((5, 9), (9, 5), (9, 0), (5, None)):
        with pytest.raises(RobustokError, match="too few for 5 neighbours each"):
            metric.check(*counts)
    metric.check(6, 6)
    metric.check(None, None)
