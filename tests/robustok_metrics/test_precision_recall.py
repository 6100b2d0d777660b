from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

import robustok_metrics.neighbour_balls
from robustok_core import Result, RobustokError, Spec
from robustok_metrics.precision_recall import PrecisionRecall, PrecisionRecallConfig, precision_and_recall

Colours = Callable[..., Spec]


def on_a_line(*positions: float) -> Tensor:
    return torch.tensor(positions)[:, None]


def clouds(seed: int, count: int, shift: float = 0.0, width: int = 16) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


# Real images at 0, 1, 2, 3, 10: the 3rd nearest other image is 3, 2, 2, 3, 9 away, so the balls cover [-3, 19].
REAL = on_a_line(0, 1, 2, 3, 10)


@pytest.mark.parametrize(
    ("generated", "precision", "recall"),
    [
        (REAL, 1.0, 1.0),
        # the 3rd nearest others are 3.5, 3, 2, 3.5 away: the balls cover [-3, 7.5], but not 10
        (on_a_line(0.5, 1.0, 2.0, 4.0), 1.0, 0.8),
        # outside [-3, 19]: -4 and 20; on the border: -3 and 19
        (on_a_line(-4, -3, 19, 20), 0.5, 1.0),
        # all samples at one position: the ball is a point
        (on_a_line(2, 2, 2, 2, 2), 1.0, 0.2),
        (on_a_line(2.5, 2.5, 2.5, 2.5), 1.0, 0.0),
        (on_a_line(100, 101, 102, 103), 0.0, 0.0),
    ],
    ids=["the same", "one mode is missing", "borders count", "collapse", "collapse between", "elsewhere"],
)
def test_hand_made_manifolds_have_the_known_precision_and_recall(
    generated: Tensor, precision: float, recall: float
) -> None:
    assert precision_and_recall(generated, REAL) == pytest.approx((precision, recall))


def test_one_neighbour_makes_smaller_balls() -> None:
    generated = on_a_line(4.5, 8.0)  # with k = 1 the real balls cover [-1, 4] and [3, 17]
    assert precision_and_recall(generated, REAL, 1)[0] == 1.0
    assert precision_and_recall(on_a_line(-2, 8), REAL, 1)[0] == 0.5
    assert precision_and_recall(on_a_line(-2, -2, -2, 8), REAL, 3)[0] == 1.0


@pytest.mark.parametrize(("num_generated", "num_real"), [(120, 120), (200, 70), (50, 160)])
@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_precision_and_recall_match_torch_fidelity(num_generated: int, num_real: int, shift: float) -> None:
    generated, real = clouds(1, num_generated, shift).double(), clouds(2, num_real).double()
    theirs = prc_features_to_metric(generated, real, prc_neighborhood=3, prc_batch_size=64, verbose=False)
    expected = (theirs[KEY_METRIC_PRECISION], theirs[KEY_METRIC_RECALL])
    assert 0.1 < min(expected) <= max(expected) < 1.0
    assert precision_and_recall(generated, real) == pytest.approx(expected, abs=1e-6)


def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generated, real = clouds(1, 90, 0.4), clouds(2, 70)
    whole = precision_and_recall(generated, real)
    monkeypatch.setattr(robustok_metrics.neighbour_balls, "_DISTANCES_AT_ONCE", 7 * 70)
    assert precision_and_recall(generated, real) == whole


def grid(seed: int, count: int, width: int, offset: int = 0) -> Tensor:
    """Points with small integer coordinates, many of which lie on the borders of each other's balls."""
    points = torch.randint(0, 4, (count, width), generator=torch.Generator().manual_seed(seed))
    return points + offset


def exact_share_inside(points: Tensor, centres: Tensor, neighbours: int) -> float:
    """The share of points in any ball, in exact integer arithmetic."""
    within = (centres[:, None] - centres).square().sum(-1)
    radii = within.sort(dim=1).values[:, neighbours]
    return float(((points[:, None] - centres).square().sum(-1) <= radii).any(dim=1).double().mean())


@pytest.mark.parametrize("offset", [0, 1000, 2**20])
@pytest.mark.parametrize("width", [1, 3, 40, 1280])
@pytest.mark.parametrize("seed", range(5))
def test_points_on_a_border_count_as_in_exact_integer_arithmetic(seed: int, width: int, offset: int) -> None:
    generated, real = grid(2 * seed, 60, width, offset), grid(2 * seed + 1, 50, width, offset)
    far = generated + (torch.arange(60) % 3 == 0)[:, None]  # a third of them further out
    expected = (exact_share_inside(far, real, 3), exact_share_inside(real, far, 3))
    assert precision_and_recall(far.float(), real.float()) == pytest.approx(expected, abs=1e-12)


def test_features_far_from_the_origin_are_distinguished() -> None:
    def far(positions: Tensor) -> Tensor:
        return positions / 1024 + 4096  # still exact in float32

    assert precision_and_recall(far(REAL), far(REAL)) == (1.0, 1.0)
    assert precision_and_recall(far(on_a_line(2.5, 2.5, 2.5, 2.5)), far(REAL)) == (1.0, 0.0)


def test_the_distance_of_a_point_to_itself_is_exactly_zero() -> None:
    points = clouds(3, 40, shift=9.0, width=1280).double()
    ((distances, _),) = robustok_metrics.neighbour_balls.squared_distances(points, points)
    assert not distances.diagonal().any()
    torch.testing.assert_close(distances, torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") ** 2)


def test_results_state_the_network_and_both_numbers_of_images(given: Any, colours: Colours) -> None:
    metric = PrecisionRecall(PrecisionRecallConfig(features=colours()))
    assert metric.compute(given(on_a_line(-4, -3, 19, 20)), given(REAL)) == {
        "precision_colours": Result(0.5, higher_is_better=True, num_images=4, num_reference=5),
        "recall_colours": Result(1.0, higher_is_better=True, num_images=4, num_reference=5),
    }


def test_fewer_images_than_neighbours_are_refused(given: Any, colours: Colours) -> None:
    metric = PrecisionRecall(PrecisionRecallConfig(features=colours()))
    with pytest.raises(RobustokError, match="3 images are too few for 3 neighbours each") as caught:
        metric.compute(given(REAL), given(REAL[:3], "few images"))
    assert caught.value.where == "few images"
