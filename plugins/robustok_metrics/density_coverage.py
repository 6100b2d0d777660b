"""Sample metric `density_coverage`: how densely samples lie among real images, and how many of these they reach.

Both count which samples lie in the balls around real images, whose radius is the distance to the k-th nearest other
real image (Naeem et al. 2020, equations 3 and 4). Balls around samples, which recall uses, are not needed, so outliers
among the samples do not count as variety.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from robustok_metrics.ball_metric import BallMetric, BallMetricConfig, neighbours_field
from robustok_metrics.neighbour_balls import centred, inside, radii


@frozen(kw_only=True)
class DensityCoverageConfig(BallMetricConfig):
    """Options of density and coverage."""

    neighbours: int = neighbours_field(5, "k: a ball reaches to the k-th nearest other real image")


class DensityCoverage(BallMetric):
    """The results are `density_FEATURES`, about 1 for further real images, and `coverage_FEATURES`, at most 1.

    For further real images the expected coverage is 1 - 1/2^k where both sets are equally large: 0.97 for k = 5. It
    falls with fewer samples than real images. Both sets need more than k images; the paper has 10,000 each.
    """

    Config = DensityCoverageConfig
    also_called = ("coverage", "density", "prdc")
    names = ("density", "coverage")

    def shares(self, generated: Tensor, real: Tensor, device: torch.device) -> tuple[float, float]:
        return density_and_coverage(generated, real, self.config.neighbours, device=device)


def density_and_coverage(
    generated: Tensor, real: Tensor, neighbours: int = 5, *, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Density and coverage of features `generated` (n, F) and `real` (m, F); m must be above `neighbours`."""
    ours, theirs = centred(generated, real, device)
    count = 0
    reached = torch.zeros(len(theirs), dtype=torch.bool, device=theirs.device)
    for part in inside(ours, theirs, radii(theirs, neighbours)):
        count += int(part.sum())
        reached |= part.any(dim=0)
    return count / (neighbours * len(ours)), float(reached.double().mean())
