"""Sample metric `precision_recall`: the share of samples in the manifold of real images, and vice versa.

The manifold of a set is the union of balls around its points; the radius of each is the distance to the k-th nearest
other point (Kynkäänniemi et al. 2019, equations 1 and 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from attrs import field, frozen
from torch import Tensor

from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.recipe.validators import rounds_range
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.enough_images import require_both, require_images
from robustok_metrics.neighbour_balls import centred, device_of, inside, radii
from robustok_toolkit.image_features import network_of


@frozen(kw_only=True)
class PrecisionRecallConfig:
    """Options of precision and recall."""

    features: Spec = component("features", doc="feature network", default={"use": "efficientnet_lite0"})
    neighbours: int = field(
        default=3,
        validator=rounds_range,
        metadata={"doc": "k: a ball reaches to the k-th nearest other image"},
    )


class PrecisionRecall(SampleMetric):
    """The results are `precision_FEATURES` and `recall_FEATURES`.

    Both depend on both numbers of images: more reference images make smaller balls. ADM uses 50,000 samples and 10,000
    reference images.
    """

    Config = PrecisionRecallConfig
    also_called = ("prdc", "precision", "recall")

    def __init__(self, config: PrecisionRecallConfig) -> None:
        self.config = config

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        require_both(num_samples, num_reference, *self._needs)

    @property
    def _needs(self) -> tuple[int, str]:
        return self.config.neighbours + 1, f"{self.config.neighbours} neighbours each"

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        name = network(self.config.features).name
        return [f"precision_{name}", f"recall_{name}"]

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The two shares.

        Raises:
            RobustokError: there are too few images, or the reference has none.
        """
        network = self.config.features
        generated, real = samples.features(network), reference.features(network)
        for images, features in ((samples, generated), (reference, real)):
            require_images(len(features), *self._needs, where=images.name, hint="use more images")
        net = network_of(network, samples)
        precision, recall = precision_and_recall(generated, real, self.config.neighbours, device=device_of(net))
        result = partial(Result, higher_is_better=True, num_images=len(generated), num_reference=len(real))
        return {f"precision_{net.name}": result(precision), f"recall_{net.name}": result(recall)}


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
