"""Sample metric `frechet`: the Fréchet distance of generated images from real ones (gFID; Heusel et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.frechet import frechet_name
from robustok_metrics.frechet_distance import Moments, distance_between
from robustok_toolkit.image_features import network_of


@frozen(kw_only=True)
class SampleFrechetConfig:
    """Whose features."""

    features: Spec = component(
        "features",
        doc="the network that sees; must not be the one that a loss trained against",
        default={"use": "efficientnet_lite0"},
    )


class SampleFrechet(SampleMetric):
    """The result is `gfid` where the features are the published Inception's, else `gfd_FEATURES`.

    The distance is biased by an amount that depends on the number of samples, and on the reference: only distances of
    equal numbers from one reference are comparable. With fewer images than features the covariance is singular, and
    the bias is most of the distance.
    """

    Config = SampleFrechetConfig
    needs_full_rank = True

    def __init__(self, config: SampleFrechetConfig) -> None:
        self.config = config

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The distance.

        Raises:
            RobustokError: the samples are statistics, or the reference's are not of this network.
        """
        if len(samples) == 0:
            what = "samples must be images: how many there are is part of the result"
            raise RobustokError(what, where=samples.name)
        network = self.config.features
        name = frechet_name("g", network_of(network, samples))
        distance = distance_between(_moments(reference, network), _moments(samples, network))
        result = Result(distance, higher_is_better=False, num_images=len(samples), num_reference=len(reference))
        return {name: result}


def _moments(population: ImageFeatures, network: Spec) -> Moments:
    mean, covariance = population.moments(network)
    return Moments(count=len(population), mean=mean, covariance=covariance)
