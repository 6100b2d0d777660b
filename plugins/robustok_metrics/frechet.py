"""Metric `frechet`: the Fréchet distance between reconstructions and originals (rFID, paper section 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen
from torch import Tensor

from robustok_core.kinds.features import Features
from robustok_core.kinds.metric import Evaluation, EvaluationContext, Metric
from robustok_core.values.result import Result
from robustok_core.values.spec import Spec, component
from robustok_metrics.reconstruction_distances import ReconstructionDistances


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
        self.distances = ReconstructionDistances(context, self.config.features, ["images"])

    def update(self, step: Evaluation) -> None:
        self.distances.add_real(step)
        self.distances.add("images", step.images)

    def state(self) -> Mapping[str, Tensor]:
        return self.distances.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.distances.load_state(state)

    def compute(self) -> Mapping[str, Result]:
        distance = self.distances.compute()["images"]
        result = Result(distance, higher_is_better=False, num_images=self.distances.num_images)
        return {frechet_name("r", self.distances.features): result}


def frechet_name(prefix: str, features: Features) -> str:
    """PREFIX + `fid` or `sfid` for the published Inception, else PREFIX + `fd_NAME`, because nothing else is an FID."""
    published = {"inception": "fid", "inception_spatial": "sfid"}
    return prefix + published.get(features.name, f"fd_{features.name}")
