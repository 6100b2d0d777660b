"""Sample metric `precision_recall`: the share of samples in the manifold of real images, and vice versa.

The manifold of a set is the union of balls around its points; the radius of each is the distance to the k-th nearest
other point (Kynkäänniemi et al. 2019, equations 1 and 2).
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from robustok_metrics.ball_metric import BallMetric, BallMetricConfig, neighbours_field
from robustok_metrics.neighbour_balls import centred, inside, radii


@frozen(kw_only=True)
class PrecisionRecallConfig(BallMetricConfig):
    """Options of precision and recall."""

    neighbours: int = neighbours_field(3, "k: a ball reaches to the k-th nearest other image")


class PrecisionRecall(BallMetric):
    """The results are `precision_FEATURES` and `recall_FEATURES`.

    Both depend on both numbers of images: more reference images make smaller balls. ADM uses 50,000 samples and 10,000
    reference images.
    """

    Config = PrecisionRecallConfig
    also_called = ("prdc", "precision", "recall")
    names = ("precision", "recall")

    def shares(self, generated: Tensor, real: Tensor, device: torch.device) -> tuple[float, float]:
        return precision_and_recall(generated, real, self.config.neighbours, device=device)


def precision_and_recall(
    generated: Tensor, real: Tensor, neighbours: int = 3, *, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Precision and recall of features `generated` (n, F) and `real` (m, F), both with more rows than `neighbours`."""
    ours, theirs = centred(generated, real, device)
    precision = _share_inside(ours, theirs, radii(theirs, neighbours))
    recall = _share_inside(theirs, ours, radii(ours, neighbours))
    return precision, recall


def _share_inside(points: Tensor, centres: Tensor, squared_radii: Tensor) -> float:
    """The share of points (n, F) that lie in at least one ball."""
    return float(torch.cat([part.any(dim=1) for part in inside(points, centres, squared_radii)]).double().mean())
