"""Sample metrics `frechet` and `sfid`: the Fréchet distance between generated and real images (Heusel et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.enough_images import require_both
from robustok_metrics.frechet import frechet_name
from robustok_metrics.frechet_distance import Moments, distance_between
from robustok_toolkit.feature_files import require_statistics
from robustok_toolkit.image_features import network_of


class _Distance(SampleMetric):
    """The Fréchet distance with any network.

    Args:
        network: the feature network.
    """

    needs_full_rank = True

    def __init__(self, network: Spec) -> None:
        self.network = network

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        require_both(num_samples, num_reference or None, 2, "a covariance")

    def check_features(self, network: Callable[[Spec], Features | None], statistics: Mapping[str, int] | None) -> None:
        check_moments(network(self.network), statistics)

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        return [frechet_name("g", network(self.network))]

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The distance.

        Raises:
            RobustokError: the samples' moments are statistics of a file, or the reference's are of another network.
        """
        require_samples(samples)
        name = frechet_name("g", network_of(self.network, samples))
        real = moments_of(reference, self.network)
        distance = distance_between(real, moments_of(samples, self.network))
        result = Result(distance, higher_is_better=False, num_images=len(samples), num_reference=real.count)
        return {name: result}


@frozen(kw_only=True)
class SampleFrechetConfig:
    """Options of the Fréchet distance."""

    features: Spec = component(
        "features",
        doc="feature network; must not be one that a loss was trained with",
        default={"use": "efficientnet_lite0"},
    )


class SampleFrechet(_Distance):
    """The result is `gfid` with the features of the published Inception, else `gfd_FEATURES`.

    The distance has a bias that depends on the number of samples and on the reference, so compare only distances with
    the same number of samples and the same reference. With fewer images than features the covariance is singular, and
    the bias is most of the distance.
    """

    Config = SampleFrechetConfig
    also_called = ("fd", "fid", "gfd", "gfid")

    def __init__(self, config: SampleFrechetConfig) -> None:
        super().__init__(config.features)


@frozen(kw_only=True)
class SFIDConfig:
    """Options of sFID."""

    network: Spec = component(
        "features", doc="Inception's spatial features, with their weights", default={"use": "inception_spatial"}
    )

    def __attrs_post_init__(self) -> None:
        if self.network.name != "inception_spatial":
            raise ValueError(
                f"network is {self.network.name!r}, but sFID is defined with inception_spatial; for other features use "
                "the metric frechet"
            )


class SFID(_Distance):
    """The result is `gsfid`: FID in features that keep their place, so it sees wrong arrangements (Nash et al. 2021).

    They are ADM's: 2,023 numbers of Inception's layer "mixed_6/conv". With other weights than the published ones it is
    `gfd_inception_spatial_other`. Of a reference without images it needs ADM's statistics mu_s and sigma_s.
    """

    Config = SFIDConfig
    also_called = ("gsfid", "spatial_fid")

    def __init__(self, config: SFIDConfig) -> None:
        super().__init__(config.network)


def require_samples(samples: ImageFeatures) -> None:
    """Raises RobustokError if the moments of the samples are statistics of a file, with or without images."""
    if samples.num_in_moments == 0:
        message = "samples must be images, because the result includes their number; mu and sigma have none"
        raise RobustokError(message, where=samples.name, hint="use a folder of images, or a file without mu and sigma")


def check_moments(network: Features | None, statistics: Mapping[str, int] | None) -> None:
    """Raises RobustokError if a reference will not have the moments of a network; for both see `check_features`."""
    if network is not None and statistics is not None:
        require_statistics(network, statistics, "the reference")


def moments_of(population: ImageFeatures, network: Spec) -> Moments:
    """The moments of a set of images in the features of a network."""
    mean, covariance = population.moments(network)
    return Moments(count=population.num_in_moments, mean=mean, covariance=covariance)
