"""Sample metric `mind`: the Monge Inception Distance between generated and real images (arXiv 2605.06797).

Both sets of features are projected on random directions. On each, the Wasserstein distance of two sets of n numbers is
that of the sorted numbers, pair by pair. The distance is 3 F times the mean of their squared differences over pairs and
directions, with F the number of features: a shift of all features by v gives 3 |v|^2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.recipe.validators import rounds_range
from robustok_core.values.draws import derive_seed
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.enough_images import drawn_rows, require_both, require_images
from robustok_metrics.neighbour_balls import device_of
from robustok_toolkit.image_features import network_of

_DIRECTIONS_AT_ONCE = 100


@frozen(kw_only=True)
class MINDConfig:
    """Options of the Monge distance."""

    features: Spec = component("features", doc="feature network", default={"use": "efficientnet_lite0"})
    num_images: int = field(
        default=5000, validator=validators.ge(2), metadata={"doc": "images from each set, drawn at random"}
    )
    directions: int = field(default=1000, validator=rounds_range, metadata={"doc": "random directions"})


class MIND(SampleMetric):
    """The result is `mind` with the features of the published Inception, else `md_FEATURES`.

    It needs no covariance, so fewer images do than for a Fréchet distance. It is biased upwards, as that is, and the
    bias depends on `num_images`. Its detail `standard_error` is that of the mean over the directions.
    """

    Config = MINDConfig
    also_called = ("md", "monge", "sliced_wasserstein", "swd")

    def __init__(self, config: MINDConfig) -> None:
        self.config = config

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        size = self.config.num_images
        require_both(num_samples, num_reference, size, f"num_images = {size} of each set", hint="lower num_images")

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        return [_name_with(network(self.config.features))]

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The distance.

        Raises:
            RobustokError: a set has fewer than `num_images` images, or the reference has none.
        """
        network, size = self.config.features, self.config.num_images
        generated, real = samples.features(network), reference.features(network)
        for images, features in ((samples, generated), (reference, real)):
            purpose = f"num_images = {size} of each set"
            require_images(len(features), size, purpose, where=images.name, hint="lower num_images")
        net = network_of(network, samples)
        device = device_of(net)
        distances = along_directions(
            drawn_rows(generated, size, "mind", "samples").to(device),
            drawn_rows(real, size, "mind", "reference").to(device),
            random_directions(self.config.directions, real.shape[1]).to(device),
        )
        error = float(distances.std(correction=0)) / len(distances) ** 0.5
        result = Result(
            float(distances.mean()),
            higher_is_better=False,
            num_images=size,
            details={"standard_error": error, "directions": self.config.directions},
        )
        return {_name_with(net): result}


def along_directions(generated: Tensor, real: Tensor, directions: Tensor) -> Tensor:
    """(M,) 3 F times the squared Wasserstein distance along each direction.

    Args:
        generated, real: (n, F). directions: (M, F) of length 1.
    """
    parts = []
    for part in directions.double().split(_DIRECTIONS_AT_ONCE):
        ours, theirs = ((part @ rows.double().T).sort(dim=1).values for rows in (generated, real))
        parts.append((ours - theirs).square().mean(dim=1))
    return 3 * directions.shape[1] * torch.cat(parts)


def random_directions(count: int, width: int) -> Tensor:
    """(count, width) float64: uniform on the unit sphere, the same on every call."""
    generator = torch.Generator().manual_seed(derive_seed("mind", "directions"))
    drawn = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


def _name_with(features: Features) -> str:
    return "mind" if features.name == "inception" else f"md_{features.name}"
