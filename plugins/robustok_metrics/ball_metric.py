"""The base of sample metrics that ask which features lie in balls around others (see `neighbour_balls`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from attrs import field, frozen
from torch import Tensor

from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.recipe.validators import rounds_range
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.enough_images import require_both, require_images
from robustok_metrics.neighbour_balls import device_of
from robustok_toolkit.image_features import network_of


@frozen(kw_only=True)
class BallMetricConfig:
    """The feature network; subclasses add `neighbours`, whose usual number differs."""

    features: Spec = component("features", doc="feature network", default={"use": "efficientnet_lite0"})
    neighbours: int


def neighbours_field(default: int, doc: str) -> int:
    """The option `neighbours`."""
    return field(default=default, validator=rounds_range, metadata={"doc": doc})


class BallMetric(SampleMetric):
    """Two shares, NAME_FEATURES for each of `names`; both sets need more images than `neighbours`."""

    config: BallMetricConfig
    #: What the two results are called, in the order of `shares`.
    names: ClassVar[tuple[str, str]]

    def __init__(self, config: BallMetricConfig) -> None:
        self.config = config

    @abstractmethod
    def shares(self, generated: Tensor, real: Tensor, device: torch.device) -> tuple[float, float]:
        """The two results of features `generated` (n, F) and `real` (m, F), computed on a device."""

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        require_both(num_samples, num_reference, *self._needs)

    @property
    def _needs(self) -> tuple[int, str]:
        return self.config.neighbours + 1, f"{self.config.neighbours} neighbours each"

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        name = network(self.config.features).name
        return [f"{share}_{name}" for share in self.names]

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The two results.

        Raises:
            RobustokError: there are too few images, or the reference has none.
        """
        network = self.config.features
        generated, real = samples.features(network), reference.features(network)
        for images, features in ((samples, generated), (reference, real)):
            require_images(len(features), *self._needs, where=images.name, hint="use more images")
        net = network_of(network, samples)
        values = self.shares(generated, real, device_of(net))
        return {
            f"{name}_{net.name}": Result(
                value, higher_is_better=True, num_images=len(generated), num_reference=len(real)
            )
            for name, value in zip(self.names, values, strict=True)
        }
