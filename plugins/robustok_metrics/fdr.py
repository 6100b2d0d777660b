"""Sample metric `fdr`: Fréchet distances in several networks, each relative to that of real images (arXiv 2604.28190).

FDr is the mean over networks of FD / FD_val: the distance of the samples to the training images, divided by that of
held-out images to the same training images. Held-out images themselves have 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import field, frozen, validators

from robustok_core.errors import RobustokError
from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, components
from robustok_metrics.enough_images import drawn_rows, require_both, require_images
from robustok_metrics.frechet_distance import FeatureSums, Moments, distance_between
from robustok_metrics.sample_frechet import check_moments, moments_of, require_samples
from robustok_toolkit.image_features import network_of

#: The paper's six networks, and the names of their features here.
PAPER_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "inception": {"use": "inception"},
    "convnext": {"use": "timm", "network": "convnextv2_base.fcmae_ft_in22k_in1k"},
    "dinov2": {"use": "timm", "network": "vit_large_patch14_dinov2.lvd142m", "image_size": 256},
    "mae": {"use": "mae"},
    "siglip2": {"use": "timm", "network": "vit_so400m_patch16_siglip_256.v2_webli", "image_size": 224},
    "clip": {"use": "timm", "network": "vit_large_patch14_clip_224.openai", "image_size": 256},
}
_PAPER_NAMES = frozenset(
    {
        "inception",
        "convnextv2_base_fcmae_ft_in22k_in1k",
        "vit_large_patch14_dinov2_lvd142m_at_256",
        "mae",
        "vit_so400m_patch16_siglip_256_v2_webli_at_224",
        "vit_large_patch14_clip_224_openai_at_256",
    }
)

#: A distance that is a smaller share of the variance is 0, but for rounding.
_ROUNDING = 1e-7


@frozen(kw_only=True)
class FDrConfig:
    """The networks and the held-out images."""

    networks: dict[str, Any] = components(
        "features", doc="feature networks, by name; default: the paper's six", default=PAPER_NETWORKS
    )
    held_out: str = field(
        default="validation",
        validator=validators.min_len(1),
        metadata={
            "doc": 'real images that are not the reference: "validation" or "train" of [data], or a path; in the paper '
            "the training images are the reference, and these the images for validation"
        },
    )

    def __attrs_post_init__(self) -> None:
        if not self.networks:
            raise ValueError("networks: needs at least one feature network")
        tables = [spec.table() for spec in self.networks.values()]
        if twice := [name for name, table in zip(self.networks, tables, strict=True) if tables.count(table) > 1]:
            raise ValueError(f"networks: {' and '.join(twice)} are the same network")


class FDr(SampleMetric):
    """The result is `fdr6` with the paper's six networks, else `fdr_NETWORKS`; and `fd_val_NETWORK` for each.

    1 is as good as held-out images. Both distances are of equally many images (`num_images`), because each falls with
    their number: of the larger set, as many are taken as the other has; held-out images of all classes alike, samples
    at random. The details hold both distances and the ratio for each network.
    """

    Config = FDrConfig
    also_called = ("fdr6", "fdrk", "frechet_distance_ratio")
    needs_full_rank = True

    def __init__(self, config: FDrConfig) -> None:
        self.config = config

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        require_both(num_samples, None, 2, "a covariance")
        if num_reference is not None:
            require_images(num_reference, 2, "a covariance in each network", where="the reference", hint="use more")

    def check_features(self, network: Callable[[Spec], Features | None], statistics: Mapping[str, int] | None) -> None:
        found = {key: network(spec) for key, spec in self.config.networks.items()}
        _require_own_names({key: net.name for key, net in found.items() if net is not None})
        for net in found.values():
            check_moments(net, statistics)

    def other_sets(self) -> Sequence[str]:
        return (self.config.held_out,)

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        names = self._names(network)
        return [_name_with(names), *(f"fd_val_{name}" for name in names)]

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The mean ratio, and the distances of the held-out images.

        Raises:
            RobustokError: the reference has no held-out images beside it, or they are the same images or statistics,
                or two networks have one name.
        """
        require_samples(samples)
        names = self._names(lambda network: network_of(network, samples))
        held_out = reference.other(self.config.held_out)
        count = min(len(samples), len(held_out))
        require_images(count, 2, "a covariance", where=held_out.name, hint="use more images")
        if held_out.num_in_moments == 0:
            what = "its mu and sigma are of an unknown number of images, and both distances must be of equally many"
            raise RobustokError(what, where=held_out.name, hint="name images without statistics in held_out")
        if count < len(held_out):
            held_out = reference.other(self.config.held_out, limit=count)
        distances, of_held_out, counts = [], [], []
        for network in self.config.networks.values():
            real = moments_of(reference, network)
            counts.append(real.count)
            distances.append(distance_between(real, _moments_of_some(samples, network, count)))
            of_held_out.append(_distance_of(held_out, network, real))
        ratios = [ours / theirs for ours, theirs in zip(distances, of_held_out, strict=True)]
        result = partial(Result, num_images=count, num_reference=min(counts))
        columns = {"fd": distances, "fd_val": of_held_out, "ratio": ratios}
        details = {key: dict(zip(names, values, strict=True)) for key, values in columns.items()}
        return {
            _name_with(names): result(sum(ratios) / len(ratios), higher_is_better=False, details=details),
            **{f"fd_val_{name}": result(value) for name, value in details["fd_val"].items()},
        }

    def _names(self, network: Callable[[Spec], Features]) -> list[str]:
        """The names of the networks; raises RobustokError if two have one."""
        names = {key: network(spec).name for key, spec in self.config.networks.items()}
        _require_own_names(names)
        return list(names.values())


def _require_own_names(names: Mapping[str, str]) -> None:
    """Raises RobustokError if two networks, by their keys, have one name, because results are named after them."""
    for name in names.values():
        called = [key for key, found in names.items() if found == name]
        if len(called) > 1:
            what = f"networks {' and '.join(called)} have the same name, {name!r}, and results are named after it"
            raise RobustokError(what, where="fdr", hint="measure each in a metric fdr of its own")


def _moments_of_some(samples: ImageFeatures, network: Spec, count: int) -> Moments:
    """The moments of `count` samples, drawn at random in case they are sorted by class."""
    if count == len(samples):
        return moments_of(samples, network)
    features = samples.features(network)
    sums = FeatureSums(features.shape[1])
    sums.add(drawn_rows(features, count, "fdr"))
    return sums.moments()


def _distance_of(held_out: ImageFeatures, network: Spec, real: Moments) -> float:
    distance = distance_between(real, moments_of(held_out, network))
    if distance <= _ROUNDING * float(real.covariance.trace()):
        what = "these images are the reference's, so distances cannot be relative to theirs"
        raise RobustokError(what, where=held_out.name, hint="name other real images in held_out")
    return distance


def _name_with(names: Sequence[str]) -> str:
    return "fdr6" if set(names) == _PAPER_NAMES else f"fdr_{'_'.join(names)}"
