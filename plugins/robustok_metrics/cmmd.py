"""Sample metric `cmmd`: the maximum mean discrepancy of CLIP embeddings (Jayasumana et al. 2024).

The squared discrepancy of embeddings of length 1 with the Gaussian kernel exp(-|x - y|^2 / 200), times 1,000. As in the
authors' code, the estimate is the biased one, whose kernels include an image with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from attrs import field, frozen, validators
from torch import Tensor

from robustok_core.kinds.features import Features
from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.enough_images import require_both, require_images
from robustok_metrics.neighbour_balls import device_of
from robustok_toolkit.image_features import network_of

SIGMA = 10.0
SCALE = 1000.0
#: Number of kernels in memory: 128 MiB in float64.
_KERNELS_AT_ONCE = 2**24


@frozen(kw_only=True)
class CMMDConfig:
    """Options of the discrepancy."""

    features: Spec = component("features", doc="feature network; CMMD is defined with clip", default={"use": "clip"})
    least_images: int = field(
        default=1000,
        validator=validators.ge(2),
        metadata={"doc": "images that each set must have: below, the bias may be as large as differences"},
    )


class CMMD(SampleMetric):
    """The result is `cmmd` with the features `clip`, else `mmd_FEATURES`.

    Its bias is at most 1,000 (1/n + 1/m) (1 - k), with k the mean kernel between different images of a set: never above
    0.04 for 1,000 images in each set.
    """

    Config = CMMDConfig
    also_called = ("mmd",)

    def __init__(self, config: CMMDConfig) -> None:
        self.config = config

    def check(self, num_samples: int | None, num_reference: int | None) -> None:
        require_both(num_samples, num_reference, *self._needs, hint="lower least_images")

    @property
    def _needs(self) -> tuple[int, str]:
        return self.config.least_images, f"least_images = {self.config.least_images} in each set"

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        return [_name_with(network(self.config.features))]

    def compute(self, samples: ImageFeatures, reference: ImageFeatures) -> Mapping[str, Result]:
        """The discrepancy.

        Raises:
            RobustokError: a set has too few images, or the reference has none.
        """
        network = self.config.features
        generated, real = samples.features(network), reference.features(network)
        for images, features in ((samples, generated), (reference, real)):
            require_images(len(features), *self._needs, where=images.name, hint="lower least_images")
        net = network_of(network, samples)
        value = discrepancy(generated, real, device=device_of(net))
        return {
            _name_with(net): Result(value, higher_is_better=False, num_images=len(samples), num_reference=len(real))
        }


def discrepancy(generated: Tensor, real: Tensor, *, device: torch.device | str = "cpu") -> float:
    """1,000 times the squared discrepancy of features (n, F) and (m, F), each divided by its length."""
    ours, theirs = (F.normalize(rows.to(device, torch.float64), dim=1) for rows in (generated, real))
    within = _mean_kernel(ours, ours) + _mean_kernel(theirs, theirs)
    return SCALE * float(within - 2 * _mean_kernel(ours, theirs))


def _mean_kernel(some: Tensor, others: Tensor) -> Tensor:
    """The mean kernel of all pairs of rows of length 1, (n, F) and (m, F): |x - y|^2 is 2 - 2 x y."""
    parts = some.split(max(1, _KERNELS_AT_ONCE // len(others)))
    sums = [torch.exp((part @ others.T - 1) / SIGMA**2).sum() for part in parts]
    return torch.stack(sums).sum() / (len(some) * len(others))


def _name_with(features: Features) -> str:
    return "cmmd" if features.name == "clip" else f"mmd_{features.name}"
