"""Sample metric `kid`: the kernel distance between generated and real images (Bińkowski et al. 2018).

The unbiased squared maximum mean discrepancy with the kernel (x y / F + 1)^3 over random subsets of both sets,
computed by torch-fidelity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import field, frozen, validators

from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.recipe.validators import rounds_range
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.enough_images import require_both, require_images
from robustok_toolkit.image_features import network_of


@frozen(kw_only=True)
class KIDConfig:
    """Options of the kernel distance."""

    features: Spec = component("features", doc="feature network", default={"use": "efficientnet_lite0"})
    subsets: int = field(
        default=100, validator=rounds_range, metadata={"doc": "random subsets whose distances are averaged"}
    )
    subset_size: int = field(
        default=1000, validator=validators.ge(2), metadata={"doc": "images from each set in a subset"}
    )


class KID(SampleMetric):
    """The result is `kid` with the features of the published Inception, else `kd_FEATURES`.

    Its detail `std` is the standard deviation over the subsets. It is unbiased, so it may be slightly below 0, and
    small sets are compared fairly, if not precisely.
    """

    Config = KIDConfig
    also_called = ("kernel_inception_distance", "mmd")

    def __init__(self, config: KIDConfig) -> None:
        self.config = config

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        size = self.config.subset_size
        require_both(num_samples, num_reference, size, f"subsets of {size}", hint="lower subset_size")

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        return [_name_with(network(self.config.features))]

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The distance.

        Raises:
            RobustokError: a set is smaller than a subset, or the reference has no images.
        """
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

        network = self.config.features
        generated, real = samples.features(network), reference.features(network)
        for population, features in ((samples, generated), (reference, real)):
            size = self.config.subset_size
            require_images(len(features), size, f"subsets of {size}", where=population.name, hint="lower subset_size")
        options = {"kid_subsets": self.config.subsets, "kid_subset_size": self.config.subset_size, "verbose": False}
        # in float64: the distance is a small difference of sums of cubes
        distances = kid_features_to_metric(generated.double(), real.double(), **options)
        name = _name_with(network_of(network, samples))
        result = Result(
            distances[KEY_METRIC_KID_MEAN],
            higher_is_better=False,
            num_images=len(samples),
            details={"std": float(distances[KEY_METRIC_KID_STD])},
        )
        return {name: result}


def _name_with(features: Features) -> str:
    return "kid" if features.name == "inception" else f"kd_{features.name}"
