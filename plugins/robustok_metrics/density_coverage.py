"""Sample metric `density_coverage`: how densely samples lie among real images, and how many of these they reach.

Both count which samples lie in the balls around real images, whose radius is the distance to the k-th nearest other
real image (Naeem et al. 2020, equations 3 and 4). Balls around samples, which recall uses, are not needed, so outliers
among the samples do not count as variety.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
class DensityCoverageConfig:
    """Options of density and coverage."""

    features: Spec = component("features", doc="feature network", default={"use": "efficientnet_lite0"})
    neighbours: int = field(
        default=5,
        validator=rounds_range,
        metadata={"doc": "k: a ball reaches to the k-th nearest other real image"},
    )


class DensityCoverage(SampleMetric):
    """The results are `density_FEATURES`, about 1 for further real images, and `coverage_FEATURES`, at most 1.

    For further real images the expected coverage is 1 - 1/2^k where both sets are equally large: 0.97 for k = 5. It
    falls with fewer samples than real images. Both sets need more than k images; the paper has 10,000 each.
    """

    Config = DensityCoverageConfig
    also_called = ("coverage", "density", "prdc")

    def __init__(self, config: DensityCoverageConfig) -> None:
        self.config = config

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        require_both(num_samples, num_reference, *self._needs)

    @property
    def _needs(self) -> tuple[int, str]:
        return self.config.neighbours + 1, f"{self.config.neighbours} neighbours each"

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        name = network(self.config.features).name
        return [f"density_{name}", f"coverage_{name}"]

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """Density and coverage.

        Raises:
            RobustokError: there are too few images, or the reference has none.
        """
        network = self.config.features
        generated, real = samples.features(network), reference.features(network)
        for images, features in ((samples, generated), (reference, real)):
            require_images(len(features), *self._needs, where=images.name, hint="use more images")
        net = network_of(network, samples)
        values = density_and_coverage(generated, real, self.config.neighbours, device=device_of(net))
        return {
            f"{name}_{net.name}": Result(
                value, higher_is_better=True, num_images=len(generated), num_reference=len(real)
            )
            for name, value in zip(("density", "coverage"), values, strict=True)
        }


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
