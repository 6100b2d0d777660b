"""Metric `frechet`: the Fréchet distance between reconstructions and originals (rFID, paper section 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen
from torch import Tensor

from robustok_blocks.full_precision import full_precision, sums_device
from robustok_core.kinds.features import Features
from robustok_core.kinds.metric import Evaluation, EvaluationContext, Metric
from robustok_core.runs.weights import part, prefixed
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.frechet_distance import FeatureSums, frechet_distance
from robustok_metrics.reference_statistics import ReferenceStatistics


@frozen(kw_only=True)
class FrechetConfig:
    """Options of the Fréchet distance."""

    features: Spec = component(
        "features",
        doc="feature network; must not be one that a loss was trained with",
        default={"use": "efficientnet_lite0"},
    )


class Frechet(Metric):
    """The result is `rfid` with the features of the published Inception, else `rfd_FEATURES`.

    With the features `inception_spatial` it is `rsfid`.

    A distance depends on the number of images, so compare only equal numbers. With fewer images than
    features the covariances are singular: the distance is still exact for these images, but says
    little about the distributions.
    """

    Config = FrechetConfig
    also_called = ("fd", "fid", "rfd", "rfid", "rsfid")
    needs_full_rank = True

    def __init__(self, config: FrechetConfig) -> None:
        self.config = config

    def result_names(self, network: Callable[[Spec], Features]) -> Sequence[str]:
        return [frechet_name("r", network(self.config.features))]

    def start(self, context: EvaluationContext) -> None:
        self.features: Features = context.share_features(self.config.features)
        self.reference = ReferenceStatistics(context, self.features, context.num_images)
        self.sums = FeatureSums(self.features.width, sums_device(context.device))

    def update(self, step: Evaluation) -> None:
        self.reference.add(step)
        with full_precision(step.images.device):
            self.sums.add(self.features(step.images))

    def state(self) -> Mapping[str, Tensor]:
        return prefixed(self.reference.state(), "real/") | prefixed(self.sums.state(), "images/")

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.reference.load_state(part(state, "real/"))
        self.sums.load_state(part(state, "images/"))

    def compute(self) -> Mapping[str, Result]:
        distance = frechet_distance(self.reference.moments(), self.sums.moments())
        result = Result(distance, higher_is_better=False, num_images=self.reference.num_images)
        return {frechet_name("r", self.features): result}


def frechet_name(prefix: str, features: Features) -> str:
    """PREFIX + `fid` or `sfid` for the published Inception, else PREFIX + `fd_NAME`, because nothing else is an FID."""
    published = {"inception": "fid", "inception_spatial": "sfid"}
    return prefix + published.get(features.name, f"fd_{features.name}")
