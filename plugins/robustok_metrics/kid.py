"""Sample metric `kid`: the kernel distance of generated images from real ones (Bińkowski et al. 2018).

The unbiased squared maximum mean discrepancy with the kernel (x y / F + 1)^3, over random subsets of both sets,
through torch-fidelity.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen, validators

from robustok_core.errors import RobustokError
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_toolkit.image_features import network_of


@frozen(kw_only=True)
class KIDConfig:
    """Whose features, and how many of them at once."""

    features: Spec = component("features", doc="the network that sees", default={"use": "efficientnet_lite0"})
    subsets: int = field(
        default=100, validator=validators.ge(1), metadata={"doc": "random subsets whose distances are averaged"}
    )
    subset_size: int = field(
        default=1000, validator=validators.ge(2), metadata={"doc": "images of each set in a subset"}
    )


class KID(SampleMetric):
    """The result is `kid` where the features are the published Inception's, else `kd_FEATURES`.

    Its detail `std` is over the subsets. It has no bias, so it may be a little below 0, and sets of few images are
    compared fairly, if not precisely.
    """

    Config = KIDConfig

    def __init__(self, config: KIDConfig) -> None:
        self.config = config

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        for where, count in (("the samples", num_samples), ("the reference", num_reference)):
            if count is not None:
                self._holds_subset(count, where)

    def _holds_subset(self, count: int, where: str) -> None:
        if count < self.config.subset_size:
            hint = "set subset_size of kid lower" if count else "statistics do not do: take a reference with images"
            raise RobustokError(f"{count} images hold no subset of {self.config.subset_size}", where=where, hint=hint)

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The distance.

        Raises:
            RobustokError: a set is smaller than a subset, or the reference has no images.
        """
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

        network = self.config.features
        drawn, real = samples.features(network), reference.features(network)
        for population, found in ((samples, drawn), (reference, real)):
            self._holds_subset(len(found), population.name)
        options = {"kid_subsets": self.config.subsets, "kid_subset_size": self.config.subset_size, "verbose": False}
        # in float64: the distance is a small difference of sums of cubes
        distances = kid_features_to_metric(drawn.double(), real.double(), **options)
        seen_by = network_of(network, samples).name
        name = "kid" if seen_by == "inception" else f"kd_{seen_by}"
        result = Result(
            distances[KEY_METRIC_KID_MEAN],
            higher_is_better=False,
            num_images=len(samples),
            details={"std": float(distances[KEY_METRIC_KID_STD])},
        )
        return {name: result}
